"""Who runs the groups of a sweep: this process, or Ray."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.sweep.cache import make_caches
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.runs import (
    failure_path,
    finished,
    groups_of,
    run_group,
    running_path,
)


def run_local(config: SweepConfig, runs: Sequence[Run], out: Path, console: Console) -> None:
    """One group after another, in this process."""
    with Progress(console=console) as progress:
        view = ProgressView(progress, config, runs, out)
        groups = _unfinished(config, runs, out)
        make_caches(config, [group[0] for group in groups], out, progress)
        for group in groups:
            run_group(config, group, out, view.update)


def _unfinished(config: SweepConfig, runs: Sequence[Run], out: Path) -> list[list[Run]]:
    return [g for g in groups_of(runs) if not all(finished(config, run, out) for run in g)]


class ProgressView:
    """Runs done, running and failed, with the reason of a failure as soon as it is there."""

    def __init__(
        self, progress: Progress, config: SweepConfig, runs: Sequence[Run], out: Path
    ) -> None:
        self.progress, self.config, self.out = progress, config, out
        self.task = progress.add_task("Runs", total=len(runs))
        self.waiting = [run for run in runs if not finished(config, run, out)]
        self.n_done, self.failed = len(runs) - len(self.waiting), set[str]()
        for run in self.waiting:
            # of an earlier call; it is tried again
            failure_path(out, run).unlink(missing_ok=True)
            running_path(out, run).unlink(missing_ok=True)
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
        running = [run.name for run in self.waiting if running_path(self.out, run).exists()]
        names = ", ".join(running[:2]) + (", …" if running[2:] else "")
        self.progress.update(
            self.task,
            description=f"{self.n_done} runs done, {len(self.failed)} failed, {len(running)} running"
            + (f": {names}" if names else ""),
            completed=self.n_done + len(self.failed),
        )


def run_ray(config: SweepConfig, runs: Sequence[Run], out: Path, console: Console) -> None:
    """The same groups as Ray tasks; scheduling, retries and lost workers are Ray's.

    A worker that dies is started again by Ray, and goes on after the results that are on disk. On a
    cluster ``out`` and every path of the config must be absolute, on a file system that all nodes share.

    Raises:
        ConfigError: ray is not installed; or what a task raised.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "executor: ray is not installed; run: pip install 'sae-lens-signaware[ray]'"
        )
    import ray
    from ray.exceptions import RayTaskError

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources: dict[str, Any] = {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus}
    cache = ray.remote(**resources)(_cache_task)
    group_task = ray.remote(**resources, max_retries=3)(_group_task)
    folder = out.resolve()
    with Progress(console=console) as progress:
        view = ProgressView(progress, config, runs, out)
        groups = _unfinished(config, runs, out)
        caches = cache.remote(config, [group[0] for group in groups], folder)
        # the groups wait for the caches: Ray resolves the argument first
        waiting = [group_task.remote(caches, config, group, folder) for group in groups]
        while waiting:
            done, waiting = ray.wait(waiting, timeout=1.0)
            try:
                ray.get(done)
            except RayTaskError as error:
                raise _cause(error) from None
            view.update()


def _cause(error: Any) -> BaseException:
    """What a task raised, below Ray's wrappers: a task that waits for another one that failed adds one."""
    cause = error
    while getattr(cause, "cause", None) is not None:
        cause = cause.cause
    return cause


def _cache_task(config: SweepConfig, runs: Sequence[Run], out: Path) -> None:
    with Progress(disable=True) as progress:
        make_caches(config, runs, out, progress)


def _group_task(caches: None, config: SweepConfig, runs: Sequence[Run], out: Path) -> None:
    del caches
    run_group(config, runs, out)
