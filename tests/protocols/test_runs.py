"""Protocols A to C and E: results, and whole runs through the command line."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from sae_lens_signaware.experiments import pipeline, protocols
from sae_lens_signaware.experiments.protocols import ProtocolResult, training
from sae_lens_signaware.experiments.protocols.result import mean_of, sd_of
from sae_lens_signaware.experiments.protocols.saes import candidates_of
from tests.protocols.examples import CONFIGS, SAES, values_of
from tests.support.cli import assert_one_line_error, invoke
from tests.support.configs import write


def test_the_run_nearest_in_log_l0_counts() -> None:
    runs = [training.Trained("x", str(i), None) for i in range(3)]  # type: ignore[arg-type]
    assert training.nearest_in_l0(runs, [2.0, 7.0, 5.5], 4.0).sparsity == "2"
    assert training.nearest_in_l0(runs, [2.0, 8.0, 0.0], 4.0).sparsity == "0"


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
    assert repr(read) == "ProtocolResult of Protocol, 2 rows"
    assert read.rows == [["a", 8, 0.5, 0.25, None], ["b", 16, 1.0, None, None]]
    assert dataclasses.replace(read, rows=RESULT.rows) == RESULT
    assert [f.name for f in tmp_path.iterdir()] == ["r.json"]


def test_the_table_puts_deviations_behind_their_means() -> None:
    table = RESULT.table()
    assert [c.header for c in table.columns] == ["SAE", "d_sae", "R2", "pairs"]
    assert [str(cell) for cell in table.columns[2].cells] == ["0.500 ±0.250", "1.000"]
    assert [str(cell) for cell in table.columns[3].cells] == ["-", "-"]


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


@pytest.mark.parametrize("which", ["a", "b", "c", "e"])
def test_a_protocol_through_the_command_line(which: str, tmp_path: Path) -> None:
    config, out = write(values_of(which), tmp_path / "p.yaml"), tmp_path / "out"
    result = invoke("protocol", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert f"protocol-{which}.json" in "".join(result.stdout.split())
    assert [f.name for f in out.iterdir()] == [f"protocol-{which}.json"]
    table = ProtocolResult.read(out / f"protocol-{which}.json")
    repeats = {"a": 1, "b": 2, "c": 2, "e": 4}[which]  # budgets, pair shares, shares and L0s
    assert len(table.rows) == repeats * len(SAES)
    assert {row[0] for row in table.rows} == set(SAES)
    assert table.command == f"sae-lens-signaware protocol {config} --out {out}"
    assert set(table.versions) == {"sae-lens-signaware", "sae-lens", "torch"}
    assert any("gated H: l1_coefficient" in note for note in table.notes)
    column = table.columns.index
    for row in table.rows:
        l0 = row[column("L0")]
        if row[0] == "abstopk H":
            factor = row[column("L0 factor")] if which == "e" else 1
            assert l0 == pytest.approx(2.0 * factor)
        assert isinstance(l0, float)
    if which == "c":
        reference = [row for row in table.rows if row[0] == "gated 2H"]
        assert [row[column("R2 less reference")] for row in reference] == [0.0, 0.0]
        assert [row[column("by one latent")] for row in reference] == [None, 0.0]


def test_brackets_in_the_name_of_an_sae_mean_themselves(tmp_path: Path) -> None:
    values = values_of("b") | {"saes": {"wide [/2H]": SAES["abstopk H"]}}
    config, out = write(values, tmp_path / "p.yaml"), tmp_path / "out"
    result = invoke("protocol", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert "wide [/2H]" in result.stdout
    result = ProtocolResult.read(out / "protocol-b.json")
    assert result.rows[0][0] == "wide [/2H]"
    console = Console(file=io.StringIO(), record=True, width=200)  # reads markup, as rich.print
    console.print(result.table())
    assert "wide [/2H]" in console.export_text()


def test_the_config_in_a_result_makes_the_same_table_again(tmp_path: Path) -> None:
    config = protocols.load_protocol_config(write(values_of("b"), tmp_path / "p.yaml"))
    first = protocols.run_protocol(config, "")
    again = protocols.load_protocol_config(write(first.config, tmp_path / "again.yaml"))
    torch.rand(7)  # whatever else has drawn from torch's generator
    assert protocols.run_protocol(again, "").rows == first.rows


def test_a_protocol_leaves_the_threads_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = protocols.load_protocol_config(write(values_of("a"), tmp_path / "p.yaml"))
    asked: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)

    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(protocols.dial, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        protocols.run_protocol(config, "x")
    assert asked == [1, 2]


def test_batchtopk_is_measured_as_the_sae_that_users_load() -> None:
    from sae_lens_signaware.experiments.protocols.saes import candidates_of

    config = write_config("a")
    (candidate,) = candidates_of({"x": SAES["batchtopk 2H"]}, 2, 8)["x"]
    x = torch.randn(128, 8)
    sae = training.train(candidate, config.training, x, x, seed=0).sae
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

    monkeypatch.setattr(pipeline, "train_timed", stops)
    config, out = write(values_of("a"), tmp_path / "p.yaml"), tmp_path / "out"
    result = invoke("protocol", str(config), "--out", str(out))
    assert_one_line_error(result, 130, "Interrupted. Nothing was written.")
    assert not out.exists()


def test_a_candidate_that_fails_does_not_count_and_is_named(tmp_path: Path) -> None:
    saes = {"g": SAES["gated H"] | {"l1_coefficient": [1e308, 2]}}
    config, out = write(values_of("b") | {"saes": saes}, tmp_path / "p.yaml"), tmp_path / "out"
    result = invoke("protocol", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    notes = ProtocolResult.read(out / "protocol-b.json").notes
    (failed,) = (note for note in notes if note.startswith("Failed: "))
    assert failed.startswith("Failed: g, l1_coefficient 1e+308, seed 0: the training diverged: ")
    assert any("g: l1_coefficient 2 (1)" in note for note in notes)


def test_an_sae_whose_candidates_all_fail_is_one_line(tmp_path: Path) -> None:
    saes = {"g": SAES["gated H"] | {"l1_coefficient": [1e308]}}
    config, out = write(values_of("b") | {"saes": saes}, tmp_path / "p.yaml"), tmp_path / "out"
    result = invoke("protocol", str(config), "--out", str(out))
    assert_one_line_error(result, 1, "g, l1_coefficient 1e+308, seed 0: the training diverged: ")
    assert not out.exists()


def test_a_result_that_cannot_be_written_is_known_before_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "train_timed", None)
    config, out = write(values_of("b"), tmp_path / "p.yaml"), tmp_path / "out"
    (out / "protocol-b.json").mkdir(parents=True)
    result = invoke("protocol", str(config), "--out", str(out))
    assert_one_line_error(result, 2, f"out: {out}/protocol-b.json is a folder; name a file")


def test_a_share_below_a_percent_is_said_as_it_is(tmp_path: Path) -> None:
    values = values_of("b") | {"saes": {"x": SAES["abstopk H"]}}
    values["data"]["false_alarms"] = 0.004
    config = protocols.load_protocol_config(write(values, tmp_path / "p.yaml"))
    notes = protocols.run_protocol(config, "").notes
    assert any("above what 0.4% of the normal training samples" in note for note in notes)


def test_a_file_is_no_folder_for_results(tmp_path: Path) -> None:
    config = write(values_of("a"), tmp_path / "p.yaml")
    result = invoke("protocol", str(config), "--out", str(config))
    assert_one_line_error(result, 2, f"out must be a folder, got '{config}': {config} is a file")


def test_the_protocols_of_the_repository_are_sound() -> None:
    assert [path.name[9] for path in CONFIGS] == ["a", "b", "c", "e"]
    for path in CONFIGS:
        config = protocols.load_protocol_config(path)
        assert protocols.result_filename(config) == f"{path.name[:10]}.json"
        assert path.read_text().startswith(
            f"# sae-lens-signaware protocol configs/{path.name} --out protocols_out\n"
        )
        assert len(set(config.seeds)) == len(config.seeds) > 1  # a deviation needs two
        assert protocols.n_trainings(config) >= len(config.seeds) * len(config.saes)
        if config.protocol == "e":
            continue  # its widths are W and W/2
        assert set(SAES) <= set(config.saes)
        for of_width, times in ((" H", 1), (" 2H", 2)):
            widths = {fields["d_sae"] for name, fields in config.saes.items() if of_width in name}
            assert widths == {times * config.saes["sa_gsae H"]["d_sae"]}


def test_help_has_an_example() -> None:
    result = invoke("protocol", "--help")
    assert result.exit_code == 0
    assert "sae-lens-signaware protocol" in " ".join(result.stdout.split())


@pytest.mark.parametrize("architecture", ["bi_matryoshka_batchtopk", "matryoshka_batchtopk"])
def test_a_value_that_is_a_list_is_not_swept(architecture: str) -> None:
    fields = {"architecture": architecture, "d_sae": 8, "matryoshka_widths": [4, 8]}
    ((candidate,),) = candidates_of({"nested": fields}, 2.0, d_in=8).values()
    assert candidate.cfg.matryoshka_widths == [4, 8]  # type: ignore[attr-defined]
    assert candidate.sparsity == "k 2"
