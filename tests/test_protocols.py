"""Protocols A to C: measures against hand-computed values, worlds, and whole runs through the command line."""

import dataclasses
import functools
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig
from torch import Tensor

from sae_lens_signaware import BiJumpReLUSAE, BiJumpReLUSAEConfig, SAGatedSAE, SAGatedSAEConfig
from sae_lens_signaware.experiments import protocols
from sae_lens_signaware.experiments.protocols import (
    ProtocolResult,
    anomaly,
    consolidation,
    dial,
    training,
)
from sae_lens_signaware.experiments.protocols.config import (
    AnomalyData,
    ConsolidationData,
    DialData,
    WorldConfig,
)
from sae_lens_signaware.experiments.protocols.result import mean_of, sd_of
from sae_lens_signaware.experiments.protocols.world import make_world, seeded
from tests.test_cli import assert_one_line_error, invoke

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("protocol-*.yaml"))

WORLD: dict[str, Any] = {
    "d_in": 8,
    "n_background": 6,
    "signed_share": 0.5,
    "firing_probability": 0.25,
    "magnitude_sd": 0.25,
    "noise": 0.0,
}
DIAL: dict[str, Any] = {
    **WORLD,
    "gain_pos": 1.0,
    "gain_neg": 0.4,
    "axis_probability": 0.3,
    "dial_max": 1.5,
    "n_points": 4,
    "n_base": 20,
}
ANOMALY: dict[str, Any] = {
    **WORLD,
    "n_planted": 2,
    "planted_rate": 0.1,
    "delta": 2.0,
    "n_labelled": 200,
    "budgets": [1, 4],
    "false_alarms": 0.05,
}
CONSOLIDATION: dict[str, Any] = {
    "d_in": 8,
    "n_features": 8,
    "pair_shares": [0.0, 0.5],
    "firing_probability": 0.2,
    "magnitude_sd": 0.25,
    "noise": 0.0,
}
SAES: dict[str, dict[str, Any]] = {
    "sa_gsae H": {"architecture": "sa_gsae", "d_sae": 8},
    "bi_jumprelu H": {"architecture": "bi_jumprelu", "d_sae": 8},
    "gated H": {"architecture": "gated", "d_sae": 8, "l1_coefficient": [0.5, 2]},
    "gated 2H": {"architecture": "gated", "d_sae": 16, "l1_coefficient": [2]},
    "jumprelu 2H": {"architecture": "jumprelu", "d_sae": 16, "l0_coefficient": [2]},
    "abstopk H": {"architecture": "abstopk", "d_sae": 8},
    "batchtopk 2H": {"architecture": "batchtopk", "d_sae": 16},
}
DATA = {"a": DIAL, "b": ANOMALY, "c": CONSOLIDATION}


def values_of(which: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "protocol": which,
        "seeds": [0, 1] if which == "a" else [0],
        "target_l0": 2,
        "threads": 1,
        "data": json.loads(json.dumps(DATA[which])),
        "training": {
            "n_steps": 12,
            "batch_size": 32,
            "lr": 3e-3,
            "n_train": 128,
            "n_heldout": 100,
        },
        "saes": json.loads(json.dumps(SAES)),
    }
    return values | ({"reference": "gated 2H"} if which == "c" else {})


def write(values: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def signed_sae(W_enc: Tensor, W_dec: Tensor, sides: tuple[float, float] = (1.0, 1.0)) -> SAE[Any]:
    """sa_gsae without thresholds whose two sides scale by ``sides``; a side of 0 stays shut."""
    cfg = SAGatedSAEConfig(d_in=W_enc.shape[0], d_sae=W_enc.shape[1], polarity_tying="none")
    sae = SAGatedSAE(cfg)
    sae.W_enc.data, sae.W_dec.data = W_enc, W_dec
    for row, scale in enumerate(sides):
        sae.r_mag.data[row] = math.log(scale or 1.0)
        sae.threshold.data[row] = 0.0 if scale else 1e9
    return sae


def plain_sae(W_enc: Tensor, W_dec: Tensor, threshold: float = 0.0) -> SAE[Any]:
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=W_enc.shape[0], d_sae=W_enc.shape[1]))
    sae.W_enc.data, sae.W_dec.data = W_enc, W_dec
    sae.threshold.data.fill_(threshold)
    return sae


# ---- A, Polarity Dial


Y = torch.tensor([-0.6, -0.3, 0.0, 1.0, 2.0])
BASE = torch.tensor([[0.0, 0.7], [0.0, -0.2]])
AXIS = torch.tensor([1.0, 0.0])


def test_the_gain_of_each_side_is_that_of_a_hand_built_sae() -> None:
    sae = signed_sae(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]]), sides=(1.0, 0.4))
    found = dial.measure_dial(sae, BASE, AXIS, Y)
    assert found.gain_pos == pytest.approx(1.0)
    assert found.gain_neg == pytest.approx(0.4)
    assert found.asymmetry == pytest.approx(0.6)
    assert found.worst == pytest.approx(0.6 * 0.6)
    assert found.n_latents == 1
    assert found.crosstalk == pytest.approx(0.0, abs=1e-6)
    assert found.monotone


def test_a_pair_of_plain_latents_needs_two_and_what_they_write_off_the_axis_is_crosstalk() -> None:
    W_enc = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    sae = plain_sae(W_enc, torch.tensor([[1.0, 0.5], [-1.0, 0.5]]))
    found = dial.measure_dial(sae, BASE, AXIS, Y)
    assert (found.gain_pos, found.gain_neg) == pytest.approx((1.0, 1.0))
    assert found.n_latents == 2
    # |off the axis| is half the movement at every point
    assert found.crosstalk == pytest.approx(0.5)


def test_a_dead_zone_counts_against_the_gain() -> None:
    sae = plain_sae(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]]), threshold=1.5)
    found = dial.measure_dial(sae, BASE, AXIS, Y)
    # r = (0, 2) at y = (1, 2): 4 / 5
    assert found.gain_pos == pytest.approx(0.8)
    assert found.gain_neg == 0.0
    assert found.n_latents is None  # one side is not answered at all
    assert found.worst == pytest.approx(1.0)


def test_a_falling_response_is_not_monotone() -> None:
    sae = signed_sae(torch.tensor([[1.0], [0.0]]), torch.tensor([[-1.0, 0.0]]))
    found = dial.measure_dial(sae, BASE, AXIS, Y)
    assert found.gain_pos == pytest.approx(-1.0)
    assert not found.monotone


def test_latents_that_carry_a_side() -> None:
    y = torch.tensor([1.0, 2.0])
    contributions = y[:, None] * torch.tensor([0.1, 0.5, 0.45, -0.05])
    assert dial.carrying_latents(contributions, y) == {1, 2}
    assert dial.carrying_latents(-contributions, y) == set()


def test_the_dial_is_symmetric_and_the_world_answers_by_its_gains() -> None:
    y = dial.movements(DialData(**DIAL))
    assert y.tolist() == pytest.approx(
        [-0.6, -0.45, -0.3, -0.15, 0, 0.375, 0.75, 1.125, 1.5], abs=1e-6
    )


def test_the_dialled_axis_occurs_on_both_sides_with_its_gains() -> None:
    data = DialData(**DIAL)
    world = make_world(data, 1, data.axis_probability, seed=3)
    with seeded(3, 1):
        x = dial.sample(world, data, 20_000, with_axis=True)
        base = dial.sample(world, data, 500, with_axis=False)
    a = x @ torch.linalg.pinv(world.directions)
    on = a[:, -1]
    assert (on > 1e-3).float().mean() == pytest.approx(0.15, abs=0.01)
    assert (on < -1e-3).float().mean() == pytest.approx(0.15, abs=0.01)
    assert on[on > 1e-3].mean() == pytest.approx(1.0, abs=0.02)
    assert on[on < -1e-3].mean() == pytest.approx(-0.4, abs=0.01)
    assert (base @ torch.linalg.pinv(world.directions))[:, -1].abs().max() < 1e-4


# ---- worlds of signed axes


def test_a_world_has_its_rates_signs_and_directions() -> None:
    world = make_world(WorldConfig(**WORLD), n_extra=1, extra_probability=0.05, seed=0)
    with seeded(0, 1):
        a = world.amplitudes(40_000)
    rate = (a != 0).float().mean(0)
    assert rate[:6].tolist() == pytest.approx([0.25] * 6, abs=0.01)
    assert rate[6] == pytest.approx(0.05, abs=0.005)
    negative = (a < 0).float().sum(0) / (a != 0).float().sum(0)
    assert negative[:3].tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert negative[3:6].tolist() == [0, 0, 0]
    assert negative[6] == pytest.approx(0.5, abs=0.05)
    assert a[a != 0].abs().mean() == pytest.approx(1.0, abs=0.01)
    gram = world.directions @ world.directions.T
    assert (gram - torch.eye(7)).abs().max() < 0.02
    assert WorldConfig(**WORLD).size(1).startswith("7 axes with 11 ends.")


def test_a_seed_is_a_world_and_torch_s_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (make_world(WorldConfig(**WORLD), 0, 0.1, seed) for seed in (1, 1, 2))
    with seeded(1, 1):
        a = first.amplitudes(10)
    with seeded(1, 1):
        assert a.equal(again.amplitudes(10))
    assert torch.rand(3).equal(expected)
    assert first.directions.equal(again.directions)
    assert not first.directions.equal(other.directions)


# ---- B, anomalies


def brute_force_auroc(scores: Tensor, positive: Tensor) -> float:
    pairs = [(p, n) for p in scores[positive].tolist() for n in scores[~positive].tolist()]
    return sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs)


def test_auroc_counts_pairs_and_halves_ties() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (60,), generator=g).float()
    positive = torch.rand(60, generator=g) < 0.4
    assert anomaly.auroc(scores, positive) == pytest.approx(brute_force_auroc(scores, positive))
    ends = torch.tensor([False, False, True])
    assert anomaly.auroc(torch.tensor([0.0, 1.0, 2.0]), ends) == 1.0
    assert anomaly.auroc(torch.tensor([3.0, 3.0, 3.0]), ends) == 0.5
    assert anomaly.auroc(torch.tensor([1.0, 2.0, 0.0]), ends) == 0.0


def directions(n: int) -> Tensor:
    return torch.tensor([0, 0, 1, -1]).repeat(n)


def test_one_signed_latent_knows_both_sides_and_a_plain_one_does_not() -> None:
    d = directions(25)
    signed = d[:, None].float()
    (one,) = anomaly.measure_detection(signed, d, signed, d, (1,), 0.05)
    assert (one.n_latents, one.auroc, one.direction_accuracy) == (1, 1.0, 1.0)
    plain = torch.stack([d.float().relu(), (-d).float().relu()], dim=1)
    one, two = anomaly.measure_detection(plain, d, plain, d, (1, 2), 0.05)
    # half of the anomalies are seen; the others tie with the normal samples
    assert one.auroc == pytest.approx(0.75)
    assert one.direction_accuracy == pytest.approx(0.5)
    assert (two.auroc, two.direction_accuracy) == (1.0, 1.0)


def test_latents_that_say_nothing_do_no_harm_and_dead_ones_neither() -> None:
    d = directions(100)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 2, generator=g)
    z = torch.cat([noise, torch.zeros(400, 1), 0.01 * d[:, None].float()], dim=1)
    one, four = anomaly.measure_detection(z, d, z, d, (1, 4), 0.05)
    assert (one.auroc, one.direction_accuracy) == (1.0, 1.0)
    assert (four.auroc, four.direction_accuracy) == (1.0, 1.0)


def test_latents_are_chosen_on_the_labelled_split_alone() -> None:
    d = directions(10)
    informative, silent = d[:, None].float(), torch.zeros(40, 1)
    train, test = torch.cat([informative, silent], 1), torch.cat([silent, informative], 1)
    (found,) = anomaly.measure_detection(train, d, test, d, (1,), 0.05)
    assert found.auroc == 0.5
    assert found.direction_accuracy == 0.0


def test_labelled_samples_are_half_anomalies_each_on_one_planted_axis() -> None:
    data = AnomalyData(**ANOMALY)
    world = make_world(data, data.n_planted, data.planted_rate, seed=0)
    with seeded(0, 1):
        labelled = anomaly.sample_labelled(world, data, 4_000)
        train = anomaly.sample_training(world, data, 20_000)
    inverse = torch.linalg.pinv(world.directions)
    planted = (labelled.x @ inverse)[:, 6:]
    moved = planted.abs() > 1e-3
    assert (labelled.direction == 0).sum() == 2_000
    assert (labelled.direction == 1).float().mean() == pytest.approx(0.25, abs=0.02)
    assert moved.sum(1)[:2_000].max() == 0
    assert (moved.sum(1)[2_000:] == 1).all()
    assert planted.sum(1).sign()[2_000:].equal(labelled.direction[2_000:].float())
    assert planted[moved].abs().mean() == pytest.approx(2.0, abs=0.05)
    assert moved[2_000:, 0].float().mean() == pytest.approx(0.5, abs=0.04)
    in_training = (train @ inverse)[:, 6:]
    assert (in_training.abs() > 1e-3).float().mean(0).tolist() == pytest.approx(
        [0.1, 0.1], abs=0.01
    )
    assert in_training[in_training.abs() > 1e-3].abs().mean() == pytest.approx(2.0, abs=0.05)


# ---- C, consolidation


@functools.cache
def toy() -> tuple[consolidation.ToyModel, Tensor, Tensor]:
    model = consolidation.make_toy_model(ConsolidationData(**CONSOLIDATION), 0.5, seed=0)
    with seeded(0, 1):
        return model, *model.sample(4_000)


def test_planted_pairs_are_antipodal_exclusive_and_as_frequent_as_other_features() -> None:
    model, features, x = toy()
    vectors = model.dictionary.feature_vectors.detach()
    assert model.n_pairs == 2
    assert vectors[0:4:2].equal(-vectors[1:4:2])
    axes = torch.cat([vectors[0:4:2], vectors[4:]])
    assert (axes @ axes.T - torch.eye(6)).abs().max() < 0.02
    on = features > 0
    assert not (on[:, 0:4:2] & on[:, 1:4:2]).any()
    assert on.float().mean(0).tolist() == pytest.approx([0.2] * 8, abs=0.025)
    assert torch.allclose(x, features @ vectors, atol=1e-6)


def test_exclusion_silences_one_end_and_nothing_else() -> None:
    features = torch.tensor([[1.0, 2.0, 3.0, 0.0, 5.0, 6.0]]).repeat(1_000, 1)
    kept = consolidation.exclusive_pairs(2)(features)
    assert (kept[:, :2] > 0).sum(1).tolist() == [1] * 1_000
    assert kept[:, 2:].equal(features[:, 2:])  # one end alone, and unpaired features, stay
    assert (kept[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert consolidation.exclusive_pairs(0)(features).equal(features)
    # 0.4 - 0.4^2 / 2
    assert consolidation.probability_before_exclusion(0.32) == pytest.approx(0.4)


def measured(sae: SAE[Any]) -> consolidation.Consolidation:
    model, features, x = toy()
    data = ConsolidationData(**CONSOLIDATION)
    return consolidation.measure_consolidation(sae, model, features, x, data)


def axes_of_toy() -> tuple[Tensor, Tensor]:
    vectors = toy()[0].dictionary.feature_vectors.detach()
    axes = torch.cat([vectors[0:4:2], vectors[4:]])
    return axes, torch.linalg.pinv(axes)


def test_signed_latents_on_the_axes_carry_every_pair() -> None:
    axes, encoder = axes_of_toy()
    sae = BiJumpReLUSAE(BiJumpReLUSAEConfig(d_in=8, d_sae=6))
    sae.W_enc.data, sae.W_dec.data = encoder, axes
    sae.threshold.data.fill_(0.05)
    assert measured(sae) == consolidation.Consolidation(1.0, 0.0, 1.0)
    sae.W_enc.data, sae.W_dec.data = -encoder, -axes  # the other sign of a latent is as good
    assert measured(sae) == consolidation.Consolidation(1.0, 0.0, 1.0)


def test_plain_latents_carry_a_pair_by_two() -> None:
    axes, encoder = axes_of_toy()
    sae = plain_sae(torch.cat([encoder, -encoder], 1), torch.cat([axes, -axes]), threshold=0.05)
    assert measured(sae) == consolidation.Consolidation(0.0, 1.0, 1.0)


def test_what_does_not_carry() -> None:
    axes, encoder = axes_of_toy()
    # writes the other end
    assert measured(signed_sae(encoder, -axes)) == consolidation.Consolidation(0.0, 0.0, 0.0)
    # the - side stays shut: one end of each pair, and the unpaired features
    half = measured(signed_sae(encoder, axes, sides=(1.0, 0.0)))
    assert half == consolidation.Consolidation(0.0, 0.0, 6 / 8)
    # decoder rows between two axes have a cosine of 0.71
    mixed = measured(signed_sae(encoder, axes + axes.roll(1, 0)))
    assert mixed == consolidation.Consolidation(0.0, 0.0, 0.0)
    # open in none of an end's firings, however well it points
    shut = plain_sae(torch.cat([encoder, -encoder], 1), torch.cat([axes, -axes]), threshold=9.0)
    assert measured(shut) == consolidation.Consolidation(0.0, 0.0, 0.0)


def test_without_pairs_there_is_no_share_of_them() -> None:
    carries = torch.tensor([[True, False], [False, False]])
    assert consolidation.consolidation_of(carries, 0) == consolidation.Consolidation(
        None, None, 0.5
    )


# ---- training and results


def test_the_run_nearest_in_log_l0_counts() -> None:
    runs = [training.Trained("x", str(i), None) for i in range(3)]  # type: ignore[arg-type]
    assert training.nearest_in_l0(runs, [2.0, 7.0, 5.5], 4.0).knob == "2"
    assert training.nearest_in_l0(runs, [2.0, 8.0, 0.0], 4.0).knob == "0"


def test_means_and_deviations_leave_out_what_was_not_measured() -> None:
    assert mean_of([1.0, None, 3.0]) == 2.0
    assert sd_of([1.0, float("nan"), 3.0]) == pytest.approx(2**0.5)
    assert mean_of([None]) is None
    assert sd_of([1.0]) is None


RESULT = ProtocolResult(
    title="Protocol",
    question="what?",
    columns=["SAE", "d_sae", "R2", "R2 sd", "pairs"],
    rows=[["a", 8, 0.5, 0.25, None], ["b", 16, 1.0, None, float("nan")]],
    notes=["a note"],
    command="sae-lens-signaware protocol x.yaml",
    versions={"torch": "2"},
    config={"seeds": [0]},
)


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "r.json")
    read = ProtocolResult.read(tmp_path / "r.json")
    assert read.rows == [["a", 8, 0.5, 0.25, None], ["b", 16, 1.0, None, None]]
    assert dataclasses.replace(read, rows=RESULT.rows) == RESULT
    assert [f.name for f in tmp_path.iterdir()] == ["r.json"]


def test_the_table_puts_deviations_behind_their_means() -> None:
    table = RESULT.table()
    assert [c.header for c in table.columns] == ["SAE", "d_sae", "R2", "pairs"]
    assert list(table.columns[2].cells) == ["0.500 ±0.250", "1.000"]
    assert list(table.columns[3].cells) == ["-", "-"]


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_cut_in_a_narrow_terminal(width: int) -> None:
    columns = ["SAE", "d_sae", "L0", "R2", "gain +", "gain + sd", "gain -", "gain - sd"]
    columns += ["asymmetry", "worst", "latents", "crosstalk", "monotone"]
    numbers = [i + 0.123 for i in range(2, 12)]
    row: list[Any] = ["bi_jumprelu H", 64, *numbers, "of 3"]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(dataclasses.replace(RESULT, columns=columns, rows=[row]).table(width))
    words = console.export_text().split()
    for text in ["64", "of", "3", *(f"{n:.3f}" for n in numbers if n not in (5.123, 7.123))]:
        assert text in words
    assert {"±5.123", "±7.123"} <= set(words)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"title": 1, "x": 2}'])
def test_another_file_is_no_result(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="not the result of a protocol"):
        ProtocolResult.read(path)
    with pytest.raises(ValueError, match="not the result of a protocol"):
        ProtocolResult.read(tmp_path / "absent.json")


def test_a_row_of_another_length_is_no_result(tmp_path: Path) -> None:
    dataclasses.replace(RESULT, rows=[["a"]]).write(tmp_path / "r.json")
    with pytest.raises(ValueError, match="as many cells"):
        ProtocolResult.read(tmp_path / "r.json")


# ---- whole runs


@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_a_protocol_through_the_command_line(which: str, tmp_path: Path) -> None:
    config, out = write(values_of(which), tmp_path / "p.yaml"), tmp_path / "out"
    result = invoke("protocol", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert f"protocol-{which}.json" in "".join(result.stdout.split())
    assert [f.name for f in out.iterdir()] == [f"protocol-{which}.json"]
    found = ProtocolResult.read(out / f"protocol-{which}.json")
    repeats = {"a": 1, "b": 2, "c": 2}[which]  # budgets, pair shares
    assert len(found.rows) == repeats * len(SAES)
    assert {row[0] for row in found.rows} == set(SAES)
    assert found.command == f"sae-lens-signaware protocol {config} --out {out}"
    assert set(found.versions) == {"sae-lens-signaware", "sae-lens", "torch"}
    assert any("gated H: l1_coefficient" in note for note in found.notes)
    column = found.columns.index
    for row in found.rows:
        l0 = row[column("L0")]
        if row[0] == "abstopk H":
            assert l0 == pytest.approx(2.0)
        assert isinstance(l0, float)
    if which == "c":
        reference = [row for row in found.rows if row[0] == "gated 2H"]
        assert [row[column("R2 less reference")] for row in reference] == [0.0, 0.0]
        assert [row[column("by one latent")] for row in reference] == [None, 0.0]


def test_the_config_in_a_result_makes_the_same_table_again(tmp_path: Path) -> None:
    config = protocols.load_protocol_config(write(values_of("b"), tmp_path / "p.yaml"))
    first = protocols.run_protocol(config, "")
    again = protocols.load_protocol_config(write(first.config, tmp_path / "again.yaml"))
    torch.rand(7)  # whatever else has drawn from torch's generator
    assert protocols.run_protocol(again, "").rows == first.rows


def test_batchtopk_is_measured_as_the_sae_that_users_load() -> None:
    from sae_lens_signaware.experiments.protocols.saes import candidates_of

    config = write_config("a")
    (candidate,) = candidates_of({"x": SAES["batchtopk 2H"]}, 2, 8)["x"]
    x = torch.randn(128, 8)
    sae = training.train(candidate, config.training, x, seed=0)
    assert sae.cfg.architecture() == "jumprelu"
    # a sample's latents do not depend on the others, as in BatchTopK's training SAE
    with torch.no_grad():
        assert torch.allclose(sae.encode(x)[:1], sae.encode(x[:1]), atol=1e-6)


def write_config(which: str) -> protocols.ProtocolConfig:
    from sae_lens_signaware.experiments.protocols.config import PROTOCOLS

    return PROTOCOLS[which].model_validate(values_of(which))


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_on_cache", stops)
    config, out = write(values_of("a"), tmp_path / "p.yaml"), tmp_path / "out"
    result = invoke("protocol", str(config), "--out", str(out))
    assert_one_line_error(result, 130, "Interrupted. Nothing was written.")
    assert not out.exists()


def test_a_file_is_no_folder_for_results(tmp_path: Path) -> None:
    config = write(values_of("a"), tmp_path / "p.yaml")
    result = invoke("protocol", str(config), "--out", str(config))
    assert_one_line_error(result, 2, "is a file; name a folder")


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("a", lambda v: v.pop("protocol"), "protocol: must be one of a, b, c, got None"),
        ("a", lambda v: v.update(protocol="d"), "protocol: must be one of a, b, c, got 'd'"),
        ("a", lambda v: v.update(protocol=["a"]), "protocol: must be one of a, b, c, got ['a']"),
        ("a", lambda v: v.update(seed=1), "seed: unknown field; did you mean 'seeds'?"),
        ("a", lambda v: v.update(seeds=[1, 1]), "seeds: must be different ones, got [1, 1]"),
        ("a", lambda v: v["data"].update(gain=1), "data.gain: unknown field; did you mean 'gain_"),
        ("a", lambda v: v["data"].pop("dial_max"), "data.dial_max: missing"),
        ("a", lambda v: v["data"].update(gain_neg=0), "data.gain_neg: Input should be greater"),
        ("a", lambda v: v["data"].update(noise=math.nan), "data.noise: Input should be"),
        ("a", lambda v: v["training"].update(n_train=8), "training.n_train: must be at least"),
        ("a", lambda v: v["training"].update(n_step=8), "training.n_step: unknown field; did you"),
        ("a", lambda v: v.update(saes={}), "saes: "),
        ("a", lambda v: v["saes"]["gated H"].pop("architecture"), "saes.gated H.architecture: mis"),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(architecture="gted"),
            "saes.gated H.architecture: unknown value 'gted'; did you mean 'gated'?",
        ),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(architecture=["gated"]),
            "saes.gated H.architecture: unknown value ['gated']",
        ),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(l1_coefficient=1),
            "saes.gated H: exactly one field must hold a list",
        ),
        (
            "a",
            lambda v: v["saes"]["gated H"].update(l1_coefficent=1),
            "saes.gated H.l1_coefficent: unknown field; did you mean 'l1_coefficient'?",
        ),
        (
            "a",
            lambda v: v["saes"]["abstopk H"].update(k=3),
            "saes.abstopk H.k: is set by the protocol's target_l0",
        ),
        (
            "a",
            lambda v: v["saes"]["sa_gsae H"].update(l1_coefficient=[1, 2]),
            "saes.sa_gsae H.l1_coefficient: must be one value, got [1, 2]",
        ),
        (
            "a",
            lambda v: v["saes"]["sa_gsae H"].update(d_in=8),
            "saes.sa_gsae H.d_in: is set by the protocol",
        ),
        ("a", lambda v: v.update(target_l0=2.5), "saes.abstopk H.k: must be an integer, got 2.5"),
        ("a", lambda v: v.update(target_l0=9), "saes.sa_gsae H.target_l0 must be"),
        ("b", lambda v: v["data"].update(budgets=[9]), "data.budgets: must be from 1 to the narr"),
        ("b", lambda v: v["data"].update(budgets=[0]), "data.budgets: must be from 1 to the narr"),
        ("c", lambda v: v.update(reference="gated"), "reference: no SAE 'gated'; did you mean"),
        ("c", lambda v: v["data"].update(pair_shares=[2]), "data.pair_shares: must be from 0 to 1"),
        ("c", lambda v: v["data"].update(firing_probability=0.5), "data.firing_probability: Inp"),
    ],
)
def test_wrong_configs(which: str, change: Any, message: str, tmp_path: Path) -> None:
    values = values_of(which)
    change(values)
    config = write(values, tmp_path / "p.yaml")
    result = invoke("protocol", str(config), "--out", str(tmp_path / "out"))
    assert_one_line_error(result, 2, message)
    assert not (tmp_path / "out").exists()


def test_the_protocols_of_the_repository_are_sound() -> None:
    assert [path.name[:10] for path in CONFIGS] == ["protocol-a", "protocol-b", "protocol-c"]
    for path in CONFIGS:
        config = protocols.load_protocol_config(path)
        assert protocols.result_filename(config) == f"{path.name[:10]}.json"
        assert path.read_text().startswith(
            f"# sae-lens-signaware protocol configs/{path.name} --out protocols_out\n"
        )
        assert len(config.seeds) == 3
        assert set(SAES) <= set(config.saes)
        assert protocols.n_trainings(config) > 3 * len(SAES)


def test_help_has_an_example() -> None:
    result = invoke("protocol", "--help")
    assert result.exit_code == 0
    assert "sae-lens-signaware protocol" in " ".join(result.stdout.split())
