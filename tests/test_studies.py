"""The studies: committed tables come from committed results, and every script runs on tiny data."""

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from sae_lens import TrainingSAE
from transformer_lens import HookedTransformer, HookedTransformerConfig

import sae_lens_signaware  # noqa: F401  # registers the signed architectures
from studies import common
from studies.common import STUDIES, Run, fill_tables, made, pages, r2_at, read_result
from studies.sides import opposites, opposition

HOOK = "blocks.0.hook_mlp_out"


@pytest.mark.parametrize("name", pages())
def test_committed_tables_come_from_the_committed_result(name: str, tmp_path: Path) -> None:
    study = pages()[name]
    common.write_result(read_result(study), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == (study / "result.json").read_bytes()
    readme = (study / "README.md").read_text(encoding="utf-8")
    tables, svg = made(study)
    assert fill_tables(readme, tables) == readme
    assert any(table in readme for table in tables.values())
    assert svg.count("<path") > 10
    assert len(readme.splitlines()) <= 60
    assert (study / "result.json").stat().st_size < 60_000


def test_r2_is_read_on_a_line_in_log_l0_near_runs_alone() -> None:
    line = [Run("c", "s", 0, l0, l0, r2, 0, 0) for l0, r2 in ((8, 0.5), (32, 0.7), (64, 0.8))]
    assert r2_at(line, 45.254834) == pytest.approx(0.75)
    assert r2_at(line, 16) is None  # in the middle of a factor of 4
    assert r2_at(line, 9) == pytest.approx(0.5 + 0.2 * math.log(9 / 8) / math.log(4))
    assert r2_at(line, 80) is None


def tiny_config(data: dict[str, Any], saes: dict[str, Any]) -> SimpleNamespace:
    training = {"n_steps": 12, "batch_size": 32, "lr": 3e-3, "n_train": 256, "n_heldout": 256}
    return SimpleNamespace(
        seeds=[0],
        target_l0=2,
        data=SimpleNamespace(**data),
        training=SimpleNamespace(**training),
        saes=saes,
    )


def test_where_a_sign_pays_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from studies.where_a_sign_pays import run

    x = torch.randn(2048, 8)
    monkeypatch.setattr(run, "DOMAINS", {"tiny": lambda: (x[:1536], x[1536:])})
    monkeypatch.setattr(run, "KS", (2, 4))
    for arm, (config, _, _, seeds) in run.ARMS.items():
        monkeypatch.setitem(run.ARMS, arm, (config, 8, 20, seeds[:1]))
        run.run_arm("tiny", arm, tmp_path)
        rows = json.loads((tmp_path / f"tiny, {arm}.json").read_text())
        assert [row[:3] for row in rows] == [["tiny", arm, 2], ["tiny", arm, 4]]
        assert {len(row) for row in rows} == {len(run.COLUMNS)}


def test_worlds_run() -> None:
    from studies.worlds.run import COLUMNS, run

    config = yaml.safe_load((STUDIES / "worlds" / "config.yaml").read_text())
    data = config["data"] | {"d_in": 8, "n_features": 12, "n_children": 2}
    saes = {"bi_jumprelu W": {"architecture": "bi_jumprelu", "d_sae": 8}}
    result = run(tiny_config(data | {"shares": [0.0, 1.0], "l0_factors": [1]}, saes))
    assert [row[:3] for row in result["rows"]] == [["bi_jumprelu W", p, 1] for p in (0.0, 1.0)]
    assert {len(row) for row in result["rows"]} == {len(COLUMNS)}


def test_ends_are_matched_with_sides() -> None:
    from studies.worlds.run import activity, joined_share, match_ends, mean_f1

    features = torch.eye(2)
    ends = match_ends(
        features, torch.ones(2, 2, dtype=torch.bool), features, torch.tensor([True, False])
    )
    assert ends.latents.tolist() == [0, 1, 0]
    assert ends.side_signs.tolist() == [1, 1, -1]
    assert joined_share(ends) == 1.0
    amplitudes = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    assert mean_f1(*activity(ends, amplitudes, amplitudes)) == 1.0


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_protocols_run(name: str) -> None:
    from studies.protocols_a_to_c.run import PROTOCOLS

    folder = STUDIES / "protocols_a_to_c"
    data = yaml.safe_load((folder / f"{name}.yaml").read_text())["data"] | {"d_in": 8}
    small = {"n_background": 5, "n_features": 8, "n_points": 3, "n_base": 20, "n_labelled": 200}
    small |= {"n_planted": 2, "budgets": [1, 2], "pair_shares": [0.0, 1.0]}
    data |= {key: value for key, value in small.items() if key in data}
    gated = {"architecture": "gated", "d_sae": 8, "l1_coefficient": [0.5, 1]}
    saes = {"sa_gsae H": {"architecture": "sa_gsae", "d_sae": 8}, "gated H": gated}
    columns, run = PROTOCOLS[name]
    rows = run(tiny_config(data, saes))
    assert {row[0] for row in rows} == set(saes)
    assert {len(row) for row in rows} == {len(columns)}


def test_a_dial_along_a_latent_that_answers_is_calibrated() -> None:
    from studies.protocols_a_to_c.dial import measure_dial

    sae = signed_sae(threshold=0.0)
    sae.W_enc.data, sae.W_dec.data = torch.eye(16), torch.eye(16)
    y = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    found = measure_dial(sae, torch.zeros(3, 16), torch.eye(16)[0], y)
    assert found["gain_pos"] == pytest.approx(1)
    assert found["gain_neg"] == pytest.approx(1)
    assert (found["latents"], found["crosstalk"]) == (1, pytest.approx(0))


def signed_sae(threshold: float) -> Any:
    fields = {"architecture": "bi_jumprelu", "d_in": 16, "d_sae": 16, "target_l0": 4}
    sae: Any = TrainingSAE.from_dict(fields)
    sae.threshold.data.fill_(threshold)
    sae.cfg.metadata.hook_name = HOOK
    return sae


def test_opposition_by_hand_and_on_a_model() -> None:
    plus = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert opposition.opposition_of(plus, -plus) == pytest.approx((1, 1, 1))
    assert opposition.opposition_of(plus, plus.flip(1)).value == pytest.approx(0)
    shape = {"n_layers": 1, "d_model": 16, "n_ctx": 12, "d_head": 8, "n_heads": 2, "d_vocab": 32}
    model = HookedTransformer(HookedTransformerConfig(**shape, act_fn="relu", seed=0))
    prompts = torch.randint(0, 32, (24, 12), generator=torch.Generator().manual_seed(0))
    found = opposition.measure(model, signed_sae(0.01), prompts, n_latents=3, k=3)
    assert (found["d_sae"], found["measured"]) == (16, 3)
    assert -1 <= found["opposition_median"] <= 1


def test_texts_of_opposites(tmp_path: Path) -> None:
    rows = opposites.template_texts(opposites.OPPOSITES["tense"])
    rated = opposites.rated_rows("x", "1_1\t2.5\tgood &amp; new\n1_2\t-1\tbad\n1_2\t3\tbad\n")
    assert [row[:2] for row in rated] == [("good & new", "2.5"), ("bad", "-1.0")]
    with opposites.write_texts({"tense": rows}, tmp_path)[0].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 600


def test_speed_measures_every_sae() -> None:
    from studies.speed.run import SAES, measure, report

    result = measure("16:32:64:4", 1, list(SAES), torch.device("cpu"))
    assert all(2 <= l0 <= 8 for l0 in result["l0"].values())
    assert "dense floor" in report(result)
