"""Rows of ``benchmarks/reproduction.py``: of the config's settings, of others, of unknown ones."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sae_lens_signaware.experiments.sweep.comparison import compare_on
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.frontier import Point

STANDARD = {"architecture": "standard", "l1_coefficient": [0.1, 1.0]}
SWEPT = Path(__file__).parent / "fixtures/swept_by_0_1_0"
ROW = ["mlp", "half", 0, "l1_coefficient", 0.1, 24.0, 0.26248, 0.0, 1.0]


@pytest.fixture
def reproduction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark_script: Callable[[str], Any]
) -> Any:
    """The script, with one sweep called "small" whose config is in ``tmp_path``."""
    module = benchmark_script("reproduction")
    monkeypatch.setattr(module, "CONFIGS", tmp_path)
    monkeypatch.setattr(module, "SWEEPS", {"small": "small"})
    write_config(tmp_path)
    return module


def write_config(folder: Path, **runner: Any) -> None:
    values = yaml.safe_load((SWEPT / "sweep.yaml").read_text())
    values["runner"] |= runner
    path = folder / "small-smollm2-135m.yaml"
    path.write_text(
        "# sae-lens-signaware sweep small.yaml --out sweeps\n"
        + yaml.safe_dump(values, sort_keys=False)
    )


def read(module: Any, sweeps: Path, whole: dict[str, Any] | None = None) -> Any:
    whole = whole or {}
    block, fields = whole.get("small", {}), whole.get("identity_fields", {})
    return module.read_sweep("small", sweeps, block, fields)


def written(module: Any, sweep: Any) -> dict[str, Any]:
    """The small JSON of one sweep."""
    _, fields = module.identities_of(sweep.config, sweep.runs, sweep.rows)
    return {"small": sweep.small(), "identity_fields": fields}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output that the small sweep has on disk."""
    shutil.copytree(SWEPT / "out", tmp_path / "sweeps/small")
    return tmp_path / "sweeps"


def test_rows_carry_the_settings_they_were_made_with(
    reproduction: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = read(reproduction, out)
    small = sweep.small()
    assert small["runs"][0] == ROW
    assert len(small["runs"]) == 4
    assert set(small["identities"]) == {run.name for run in sweep.runs}
    assert len(set(small["identities"].values())) == 4
    assert "4 of 4 runs from" in capsys.readouterr().out


def test_a_kept_row_of_other_settings_is_dropped_with_a_line(
    reproduction: Any, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = written(reproduction, read(reproduction, out))
    again = read(reproduction, tmp_path / "nowhere", whole)
    assert written(reproduction, again) == whole
    assert "4 as they were; 0 rows carry no settings" in capsys.readouterr().out
    write_config(tmp_path, lr=1e-9)
    with pytest.raises(SystemExit, match="4 runs are nowhere, the first is mlp/seed-0/half"):
        read(reproduction, tmp_path / "nowhere", whole)
    words = (
        "4 rows of other settings, model or text, the first is mlp/seed-0/half/l1_coefficient-0.1"
    )
    assert f"dropped {words}" in capsys.readouterr().out


def test_a_kept_row_of_another_architecture_is_of_other_settings(
    reproduction: Any, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = written(reproduction, read(reproduction, out))
    path = tmp_path / "small-smollm2-135m.yaml"
    write_config(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["saes"] |= {name: {**STANDARD, "d_sae": 24} for name in values["saes"]}
    path.write_text(path.read_text().splitlines()[0] + "\n" + yaml.safe_dump(values))
    with pytest.raises(SystemExit, match="4 runs are nowhere, the first is mlp/seed-0/full"):
        read(reproduction, tmp_path / "nowhere", whole)
    assert "dropped 4 rows of other settings" in capsys.readouterr().out


def test_a_row_of_an_output_of_other_settings_is_dropped_too(
    reproduction: Any, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = written(reproduction, read(reproduction, out))
    # one run was trained again with another learning rate, in the same folder
    path = out / "small/runs/mlp/seed-0/half/l1_coefficient-0.1.json"
    path.write_text(path.read_text().replace('"lr": 0.003,', '"lr": 1e-09,'))
    sweep = read(reproduction, out, whole)
    assert sweep.small()["runs"][0] == ROW
    text = capsys.readouterr().out
    assert "3 of 4 runs from" in text
    assert "1 as they were" in text
    assert "dropped 1 rows of other settings" in text


def test_figures_and_settings_are_of_one_file(
    reproduction: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # trained again and interrupted: sweep.json still has the figures of before
    path = out / "small/runs/mlp/seed-0/half/l1_coefficient-0.1.json"
    values = json.loads(path.read_text())
    values["quality"]["explained_variance"] = 0.5
    path.write_text(json.dumps(values))
    assert read(reproduction, out).small()["runs"][0] == [*ROW[:6], 0.5, *ROW[7:]]
    # one that was removed leaves figures without settings
    path.unlink()
    assert read(reproduction, out).small()["runs"][0] == ROW
    assert "1 rows carry no settings" in capsys.readouterr().out


def set_content(out: Path, **content: Any) -> None:
    for path in (out / "small/runs").rglob("*.json"):
        values = json.loads(path.read_text())
        values["identity"]["cache"]["content"] = content
        path.write_text(json.dumps(values))


def test_rows_carry_the_content_they_were_made_with(
    reproduction: Any, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "contents" not in read(reproduction, out).small()
    set_content(out, model="m", text=None, heldout_text=None)  # made offline
    assert "contents" not in read(reproduction, out).small()
    set_content(out, model="m", text="t", heldout_text=None)
    whole = written(reproduction, read(reproduction, out))
    contents = whole["small"]["contents"]
    assert len(contents) == 4
    assert len(set(contents.values())) == 1
    # a part of the runs on a machine with the same model and text, then with another model
    shutil.rmtree(out / "small/runs/mlp/seed-0/half")
    (out / "small/sweep.json").unlink()
    assert written(reproduction, read(reproduction, out, whole)) == whole
    set_content(out, model="another", text="t", heldout_text=None)
    with pytest.raises(SystemExit, match="2 runs are nowhere, the first is mlp/seed-0/half"):
        read(reproduction, out, whole)
    assert "dropped 2 rows of other settings, model or text" in capsys.readouterr().out


def test_rows_made_before_carry_none_and_are_kept(
    reproduction: Any, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = written(reproduction, read(reproduction, out))
    del whole["small"]["identities"]
    write_config(tmp_path, lr=1e-9)
    kept = read(reproduction, tmp_path / "nowhere", whole)
    assert "4 rows carry no settings to check and are kept" in capsys.readouterr().out
    small = kept.small()
    assert "identities" not in small
    assert small == whole["small"]


@pytest.mark.parametrize(("field", "kept"), [("trainer.adam_beta1", True), ("trainer.lr", False)])
def test_a_field_of_a_later_version_stood_at_its_default(
    field: str, kept: bool, reproduction: Any
) -> None:
    rows = importlib.import_module("reproduction_rows")
    config, runs = load_sweep_config(reproduction.CONFIGS / "small-smollm2-135m.yaml")
    settings = rows.asked_settings(config, runs[0])
    assert field in settings
    earlier = settings.keys() - {field}
    assert rows.is_asked_for(rows.digest_of(settings, earlier), earlier, config, runs[0]) is kept


def test_the_tables_use_the_words_of_every_verdict(reproduction: Any) -> None:
    frontiers = {
        ("mlp", 0, "a"): [Point(8, 0.5, 0.0, 100), Point(30.2, 0.9, 0.0, 100)],
        ("mlp", 0, "b"): [Point(30.1, 0.5, 0.0, 200), Point(64, 0.8, 0.0, 200)],
        ("mlp", 0, "c"): [Point(8, 0.4, 0.0, 200), Point(30.2, 0.7, 0.0, 200)],
    }
    comparisons = [compare_on("mlp", "a", b, [0], frontiers, frontiers) for b in "bc"]
    narrow, ahead, _, note = reproduction.verdict_table(comparisons).splitlines()[2:]
    nothing = "30.1 to 30.2 | – |  |  | no verdict 1 of 1 | none / none |"
    assert narrow == f"| mlp | a | b | {nothing}"
    assert "| +0.1000 | 8 | +0.1500 | ahead 1 of 1 | none / none |" in ahead
    assert note == (
        "- mlp, a against b, seed 0: no verdict: the overlap, L0 30.1 to 30.2, is narrower than a "
        "factor of 1.5"
    )
