"""Pages of latents that cannot be made, or not all of them."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.experiments.sweep import latents
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.latents import LatentsStage
from sae_lens_signaware.experiments.sweep.store import SweepStore
from tests.support.cli import invoke
from tests.support.configs import write
from tests.sweep.examples import last_line, pages, sweep_values, without_latents


@pytest.mark.slow
def test_a_cell_without_a_run_of_the_value_is_named(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out = without_latents(whole, tmp_path / "out")
    values = sweep_values(data)
    values["cells"]["mlp"]["saes"] = {"half": {"l1_coefficient": [0.2]}}
    del values["saes"]["half"]["l1_coefficient"]
    values["cells"]["resid"]["saes"] = {"half": {"l1_coefficient": [0.1]}}
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert set(pages(out)) == {"resid-half-0.1.json"}
    assert "no page of latents: half has no run of 0.1 with the first seed at mlp" in result.stdout


def test_an_sae_that_is_gone_is_left_out_and_named(
    whole: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    out = without_latents(whole, tmp_path / "out")
    shutil.rmtree(out / "saes" / "mlp")
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert set(pages(out)) == {"resid-half-0.1.json"}
    said = "".join(result.stdout.split())
    assert "latents:theSAEofmlp/seed-0/half/l1_coefficient-0.1isnotin" in said


def test_a_batch_of_more_prompts_than_there_are_is_named(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out = without_latents(whole, tmp_path / "out")
    values = sweep_values(data)
    values["runner"]["store_batch_size_prompts"] = 500
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 2
    said = "Error: runner.store_batch_size_prompts: 500 is more prompts than"
    assert last_line(result).startswith(said)


def test_without_the_device_of_the_workers_the_rest_is_written(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = without_latents(whole, tmp_path / "out")

    def is_not_here(cfg: Any) -> None:
        raise InvalidInputError("device must be one that computes here, got 'cuda'")

    monkeypatch.setattr(latents, "check_devices", is_not_here)
    before = (out / "sweep.json").stat().st_mtime_ns
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert "16 of 16 runs" in result.stdout
    assert (out / "sweep.json").stat().st_mtime_ns > before
    assert not list(out.glob("latents/*"))
    said = "no pages of latents are made here: device must be one that computes here, got 'cuda'"
    assert said in " ".join(result.stdout.split())


def test_a_plain_sae_without_a_run_is_said(
    whole: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    out = without_latents(whole, tmp_path / "out")
    shutil.rmtree(out / "runs" / "mlp" / "seed-0" / "full")
    values, runs = load_sweep_config(config)
    assert values.latents is not None
    stage, printed = LatentsStage(SweepStore(values, out), values.latents, runs), io.StringIO()
    stage.run(Console(file=printed, width=80))
    said = printed.getvalue()
    line = "full has no finished run of the first seed with active latents at mlp, so the page of"
    assert line in said
    assert said.count("has no pair") == 1
    assert pages(out)["mlp-half-0.1.json"]["plain_run"] is None
