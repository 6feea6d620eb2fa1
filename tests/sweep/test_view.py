"""What a sweep shows while it runs."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from sae_lens_signaware.experiments.sweep import runs as sweep
from sae_lens_signaware.experiments.sweep.cache import make_caches
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.executors import ProgressView, notes_on_content
from sae_lens_signaware.experiments.sweep.store import SweepStore
from tests.support.cli import assert_one_line_error, invoke
from tests.support.configs import write
from tests.sweep.examples import sweep_values


def test_what_runs_can_be_seen_while_it_runs_and_no_longer(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", sweep.run_one
    values, runs = load_sweep_config(config)
    store = SweepStore(values, out)
    group, left_by_a_kill = runs[:2], store.in_progress_path(runs[2])
    left_by_a_kill.parent.mkdir(parents=True)
    left_by_a_kill.touch()

    def fails(store: Any, run: Any, *args: Any) -> Any:
        if run is group[1]:
            raise RuntimeError("out of luck")
        return real(store, run, *args)

    monkeypatch.setattr(sweep, "run_one", fails)
    described: list[str] = []
    with Progress(disable=True) as progress:
        view = ProgressView(progress, store, runs)
        make_caches(store, group[:1], progress)

        def report() -> None:
            view.update()
            described.append(progress.tasks[0].description)

        sweep.run_group(store, group, report)
    assert described == [
        f"0 runs done, 0 failed, 1 running: {group[0].name}",
        "1 runs done, 0 failed, 0 running",
        f"1 runs done, 0 failed, 1 running: {group[1].name}",
        "1 runs done, 1 failed, 0 running",
    ]
    assert not [path for path in (out / "running").rglob("*") if path.is_file()]


def test_what_an_earlier_call_has_done_is_said_first(whole: tuple[Path, str], config: Path) -> None:
    result = invoke("sweep", str(config), "--out", str(whole[0]))
    assert result.stdout.startswith("16 of 16 runs are on disk; 0 to do\n")
    assert " to do" not in whole[1]


def test_results_that_are_thrown_away_are_said_first(
    whole: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    values = sweep_values(data)
    values["saes"]["half"]["runner"] = {"lr": 1e-3}
    changed, runs = load_sweep_config(write(values, tmp_path / "changed.yaml"))
    notes = notes_on_content(SweepStore(changed, whole[0]), runs)
    assert notes == ["8 results are of another config or another version of SAELens; trained again"]


def test_an_l0_that_may_be_missed_is_said_once_for_all_cells(data: Path, tmp_path: Path) -> None:
    values = {k: v for k, v in sweep_values(data).items() if k not in ("compare", "latents")}
    signed = {"architecture": "bi_jumprelu", "d_sae": 24, "target_l0": [2, 4]}
    values["saes"] = {"slow": signed | {"runner": {"lr": 3e-4}}, "fast": signed}
    values["runner"] |= {"lr": 3e-3, "training_tokens": 64 * 4000, "train_batch_size_tokens": 64}
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    assert len({run.cell for run in runs}) == 2
    console = Console(file=io.StringIO(), width=200)
    with Progress(console=console) as progress:
        ProgressView(progress, SweepStore(config, tmp_path / "out"), runs)
    printed = console.file.getvalue()
    note = "Note: slow: target_l0 {} may be missed: target_l0_rate 0.02 is fast for lr 0.0003"
    assert [printed.count(note.format(target)) for target in (2, 4)] == [1, 1]
    assert "fast: target_l0" not in printed


def test_an_output_folder_that_is_a_file_is_found_first(config: Path) -> None:
    result = invoke("sweep", str(config), "--out", str(config))
    assert_one_line_error(result, 2, f"out must be a folder, got '{config}': {config} is a file")
