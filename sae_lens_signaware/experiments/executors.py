"""Who runs the groups of a sweep: this process, or Ray."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from sae_lens_signaware.config import ConfigError
from sae_lens_signaware.experiments.cache import make_caches
from sae_lens_signaware.experiments.sweep import finished, groups_of, result_path, run_group
from sae_lens_signaware.experiments.sweep_config import Run, SweepConfig, load_sweep_config


def run_local(config: SweepConfig, runs: Sequence[Run], out: Path, console: Console) -> None:
    """One group after another, in this process."""
    with Progress(console=console) as progress:
        task = progress.add_task("Runs", total=len(runs))

        def report(run: Run, state: str) -> None:
            if state == "running":
                progress.update(task, description=run.name)
                return
            if state == "failed":
                progress.console.print(f"failed: {run.name}", style="red", markup=False)
            progress.advance(task)

        groups = []
        for group in groups_of(runs):
            if all(finished(config, run, out) for run in group):
                progress.advance(task, len(group))
            else:
                groups.append(group)
        make_caches(config, [group[0] for group in groups], out, progress)
        for group in groups:
            run_group(config, group, out, report)


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
    caches = cache.remote(path, folder)
    # the groups wait for the caches: Ray resolves the argument first
    waiting = [group_task.remote(caches, path, folder, i) for i in range(len(groups_of(runs)))]
    with Progress(console=console) as progress:
        task = progress.add_task("Runs", total=len(runs))
        while waiting:
            done, waiting = ray.wait(waiting, timeout=1.0)
            ray.get(done)
            there = sum(result_path(out, run).exists() for run in runs)
            progress.update(task, completed=there)


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
