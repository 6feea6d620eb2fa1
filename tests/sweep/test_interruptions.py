"""Sweeps that a signal, a full disk or a failure interrupts."""

import errno
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress
from sae_lens.training.sae_trainer import SAETrainer

from sae_lens_signaware.experiments import pipeline
from sae_lens_signaware.experiments.sweep import runs as sweep
from sae_lens_signaware.experiments.sweep.cache import make_caches
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.training import cached as cached_training
from tests.support.cli import invoke
from tests.support.configs import write
from tests.sweep.examples import last_line, measured, sweep_values


@pytest.mark.slow
@pytest.mark.parametrize("n_done", [0, 1])
def test_a_summary_goes_with_the_first_result_that_it_shows(
    n_done: int,
    whole: tuple[Path, str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = shutil.copytree(whole[0], tmp_path / "out")
    values, real, calls = sweep_values(data), sweep.run_one, []
    values["saes"]["half"]["threshold_init"] = 0.01

    def stops(*args: Any) -> Any:
        if len(calls) == n_done:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(sweep, "run_one", stops)
    result = invoke("sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(out))
    assert result.exit_code == 130
    assert (out / "sweep.json").exists() == (n_done == 0)


def test_an_interrupted_sweep_ends_with_the_same_results(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, calls = tmp_path / "out", sweep.run_one, []

    def stops(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sweep, "run_one", stops)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 130
    assert last_line(result).endswith("Run the same command again to go on from there.")
    assert len(list((out / "runs").rglob("*.json"))) == 5
    monkeypatch.setattr(sweep, "run_one", real)
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert measured(out) == measured(whole[0])


@pytest.mark.slow
def test_a_failing_run_leaves_the_others_alone_and_is_tried_again(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", sweep.run_one

    def fails(store: Any, run: Any, *args: Any) -> Any:
        if run.name == "resid/seed-0/half/l1_coefficient-1":
            raise RuntimeError("out of\nluck")
        return real(store, run, *args)

    monkeypatch.setattr(sweep, "run_one", fails)
    result = invoke("sweep", str(config), "--out", str(out))
    assert result.exit_code == 1
    failure = "failed: resid/seed-0/half/l1_coefficient-1: RuntimeError: out of luck"
    assert failure in result.stderr
    assert failure in " ".join(result.stdout.split())  # at once, as well as at the end
    assert "15 of 16 runs" in result.stdout
    summary = json.loads((out / "sweep.json").read_text())
    # the other seed of that cell is still compared
    assert set(summary["comparisons"][1]["verdicts"]) == {"1"}
    monkeypatch.setattr(sweep, "run_one", real)
    assert invoke("sweep", str(config), "--out", str(out)).exit_code == 0
    assert not list((out / "failed").rglob("*.txt"))
    assert measured(out) == measured(whole[0])


@pytest.mark.parametrize("note_fits", [True, False])
def test_a_full_disk_fails_a_run_and_no_other(
    note_fits: bool, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, runs = load_sweep_config(config)
    store, real = SweepStore(values, tmp_path / "out"), pipeline.save_and_measure
    full = OSError(errno.ENOSPC, "No space left on device")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)

    def no_space(*args: Any) -> None:
        raise full

    def save(sae: Any, folder: Path, *args: Any) -> Any:
        if folder == store.sae_path(runs[0]):
            raise full
        return real(sae, folder, *args)

    monkeypatch.setattr(pipeline, "save_and_measure", save)
    if not note_fits:
        monkeypatch.setattr("sae_lens_signaware.experiments.sweep.store.write_text", no_space)
    sweep.run_group(store, runs[:2])
    assert store.finished(runs[0]) is None
    assert store.finished(runs[1]) is not None
    assert store.failure_of(runs[0]) == "OSError: [Errno 28] No space left on device"
    assert store.failure_path(runs[0]).exists() == note_fits
    store.forget_failure(runs[0])  # a call to come tries it again
    assert store.failure_of(runs[0]) is None
    assert not store.is_in_progress(runs[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_sae_is_measured_loses_no_result(
    number: signal.Signals, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    measure = pipeline.save_and_measure

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(number)
        return measure(*args)

    monkeypatch.setattr(pipeline, "save_and_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.run_group(store, runs[:2])
    assert [store.finished(run) is not None for run in runs[:2]] == [True, False]


@pytest.mark.parametrize("fails_at", ["checkpoint", "result"])
def test_a_signal_ends_the_sweep_where_the_disk_is_full_too(
    fails_at: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    trained: list[SAETrainer[Any, Any]] = []

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def signalled(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        full()

    class Stopped(SAETrainer[Any, Any]):
        def step(self, batch: torch.Tensor) -> Any:
            if self not in trained:
                trained.append(self)
                signal.raise_signal(signal.SIGINT)
            return super().step(batch)

    if fails_at == "checkpoint":
        monkeypatch.setattr(cached_training, "SAETrainer", Stopped)
        monkeypatch.setattr(SAETrainer, "save_checkpoint", full)
    else:
        monkeypatch.setattr(pipeline, "save_and_measure", signalled)
    reported: list[str | None] = []
    with pytest.raises(KeyboardInterrupt):
        sweep.run_group(store, runs[:2], lambda: reported.append(store.failure_of(runs[0])))
    assert reported == [None, "OSError: [Errno 28] No space left on device"]
    assert len(trained) == (fails_at == "checkpoint")
    assert [store.failure_of(run) is None for run in runs[:2]] == [False, True]
    assert not any(map(store.finished, runs[:2]))
