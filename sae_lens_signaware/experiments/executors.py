"""Who runs the groups of a sweep: this process, or Ray."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from sae_lens_signaware.config import ConfigError
from sae_lens_signaware.experiments.cache import make_caches
from sae_lens_signaware.experiments.sweep import (
    failure_path,
    finished,
    groups_of,
    run_group,
)
from sae_lens_signaware.experiments.sweep_config import Run, SweepConfig, load_sweep_config


def run_local(config: SweepConfig, runs: Sequence[Run], out: Path, console: Console) -> None:
    """One group after another, in this process."""
    with Progress(console=console) as progress:
        view = _View(progress, config, runs, out)
        groups = [g for g in groups_of(runs) if not all(finished(config, run, out) for run in g)]
        make_caches(config, [group[0] for group in groups], out, progress)
        for group in groups:
            run_group(config, group, out, view.report)


class _View:
    """Runs done, running and failed, with the reason of a failure as soon as it is there."""

    def __init__(
        self, progress: Progress, config: SweepConfig, runs: Sequence[Run], out: Path
    ) -> None:
        self.progress, self.config, self.out, self.running = progress, config, out, ""
        self.task = progress.add_task("Runs", total=len(runs))
        self.waiting = [run for run in runs if not finished(config, run, out)]
        self.n_done, self.failed = len(runs) - len(self.waiting), set[str]()
        for run in self.waiting:
            failure_path(out, run).unlink(missing_ok=True)  # of an earlier call; it is tried again
        self.update()

    def report(self, run: Run, state: str) -> None:
        """For :func:`run_group`."""
        if state == "running":
            self.running = f", running {run.name}"
        self.update()

    def update(self) -> None:
        """From the files on disk, whoever wrote them."""
        for run in list(self.waiting):
            failure = failure_path(self.out, run)
            if run.name not in self.failed and failure.exists():
                self.failed.add(run.name)
                reason = failure.read_text().strip()
                self.progress.console.print(f"failed: {run.name}: {reason}", markup=False)
            elif finished(self.config, run, self.out):
                self.waiting.remove(run)
                self.n_done += 1
        self.progress.update(
            self.task,
            description=f"{self.n_done} runs done, {len(self.failed)} failed{self.running}",
            completed=self.n_done + len(self.failed),
        )


def run_ray(
    config: SweepConfig, runs: Sequence[Run], out: Path, console: Console, config_path: Path
) -> None:
    """The same groups as Ray tasks; scheduling, retries and lost workers are Ray's.

    A worker that dies is started again by Ray, and goes on after the results that are on disk. On a
    cluster ``out`` and the config must lie on a file system that all nodes share.

    Raises:
        ConfigError: ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "executor: ray is not installed; run: pip install 'sae-lens-signaware[ray]'"
        )
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources: dict[str, Any] = {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus}
    cache = ray.remote(**resources)(_cache_task)
    group_task = ray.remote(**resources, max_retries=3)(_group_task)
    path, folder = str(config_path.resolve()), str(out.resolve())
    with Progress(console=console) as progress:
        view = _View(progress, config, runs, out)
        caches = cache.remote(path, folder)
        # the groups wait for the caches: Ray resolves the argument first
        waiting = [group_task.remote(caches, path, folder, i) for i in range(len(groups_of(runs)))]
        while waiting:
            done, waiting = ray.wait(waiting, timeout=1.0)
            ray.get(done)
            view.running = f", {len(waiting)} groups to go"
            view.update()


def _cache_task(config_path: str, out: str) -> None:
    import sae_lens_signaware  # noqa: F401  registers both architectures in the worker

    config, runs = load_sweep_config(Path(config_path))
    with Progress(disable=True) as progress:
        make_caches(config, runs, Path(out), progress)


def _group_task(caches: None, config_path: str, out: str, index: int) -> None:
    import sae_lens_signaware  # noqa: F401  registers both architectures in the worker

    del caches
    config, runs = load_sweep_config(Path(config_path))
    run_group(config, groups_of(runs)[index], Path(out))
