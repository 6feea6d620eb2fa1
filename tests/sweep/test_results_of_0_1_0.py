"""Results of version 0.1.0 stay valid, and the pipeline of today gives them again."""

import json
import shutil
from pathlib import Path

import pytest
import sae_lens
import torch
import yaml

from tests.support.cli import invoke
from tests.sweep.examples import (
    TAKEN_OVER,
    assert_same_up_to_rounding,
    measured,
    written_at,
)

OLD = Path(__file__).parents[1] / "fixtures" / "swept_by_0_1_0"

of_the_fixture = pytest.mark.skipif(
    sae_lens.__version__ != "6.54.12",
    reason="SAELens's version is part of a result's identity; the fixture's is 6.54.12",
)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that version 0.1.0 has finished; its paths are relative to its folder."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    return folder


def all_files(folder: Path) -> dict[str, bytes]:
    files = [f for name in ("runs", "latents", "saes", "cache") for f in (folder / name).rglob("*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


@of_the_fixture
def test_a_sweep_of_version_0_1_0_is_taken_over_as_it_is(old: Path) -> None:
    before, at = all_files(old / "out"), written_at(old / "out")
    earlier = json.loads((old / "out/sweep.json").read_text())
    result = invoke("sweep", "sweep.yaml", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert "4 of 4 runs" in result.stdout
    notes = [line for line in result.stdout.splitlines() if TAKEN_OVER in line]
    assert notes == [f"4 {TAKEN_OVER}; their paths and settings match"]
    assert written_at(old / "out") == at
    assert {k: v for k, v in all_files(old / "out").items() if k in before} == before
    assert json.loads((old / "out/sweep.json").read_text())["results"] == earlier["results"]


LATER_DEFAULTS = (
    "auxk_coefficient",
    "aux_coefficient",
    "dead_threshold_reset",
    "dead_after_tokens",
    "dead_threshold_decay",
)


@of_the_fixture
def test_a_config_that_leaves_the_defaults_of_0_1_0_to_be_asks_for_those_of_now(old: Path) -> None:
    config = yaml.safe_load((old / "sweep.yaml").read_text())
    for name in LATER_DEFAULTS:
        del config["saes"]["half"][name]
    (old / "sweep.yaml").write_text(yaml.safe_dump(config))
    before = written_at(old / "out")
    result = invoke("sweep", "sweep.yaml", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert f"2 {TAKEN_OVER}" in result.stdout  # those of full, which has no such fields
    after = written_at(old / "out")
    again = {file for file in before if "runs" in str(file) and after[file] != before[file]}
    assert {Path(file).parent.name for file in again} == {"half"}
    assert len(again) == 2


@of_the_fixture
def test_the_pipeline_gives_the_results_of_version_0_1_0(old: Path) -> None:
    before = measured(old / "out")
    for name in ("runs", "cache", "saes"):
        shutil.rmtree(old / "out" / name)
    assert invoke("sweep", "sweep.yaml", "--out", "out").exit_code == 0
    after = measured(old / "out")
    for values in after.values():
        if "identity" in values:
            assert set(values["identity"]["cache"].pop("content")) == {
                "model",
                "text",
                "heldout_text",
            }
    if (
        torch.__version__
        == before["runs/mlp/seed-0/half/l1_coefficient-1.json"]["quality"]["torch_version"]
    ):
        assert set(after) == set(before)
        for file, values in before.items():
            assert_same_up_to_rounding(after[file], values, file)


@of_the_fixture
def test_what_is_trained_on_an_old_cache_claims_no_digest(old: Path) -> None:
    removed = old / "out/runs/mlp/seed-0/half/l1_coefficient-1.json"
    removed.unlink()
    result = invoke("sweep", "sweep.yaml", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert f"3 {TAKEN_OVER}" in result.stdout
    assert "The activations of mlp are of an earlier version" in result.stdout
    assert "content" not in json.loads(removed.read_text())["identity"]["cache"]
