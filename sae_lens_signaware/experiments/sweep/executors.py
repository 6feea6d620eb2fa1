"""Executors of a sweep's groups: this process, or Ray."""

import importlib.util
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.experiments.sweep.cache import make_caches
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig, in_sweep_file
from sae_lens_signaware.experiments.sweep.identity import Content, Match
from sae_lens_signaware.experiments.sweep.runs import groups_of, run_group
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.printing import say
from sae_lens_signaware.training.notes import notes_on_target_l0
from sae_lens_signaware.training.values import check_devices

STOP_SECONDS = 60.0
"""For which an interrupted sweep waits until Ray's workers have written their checkpoints."""

MAX_RETRIES = 3
"""How often Ray starts a group again whose worker died, before the run is noted as failed."""


def run_local(
    config: SweepConfig, runs: Sequence[Run], out: str | Path, console: Console
) -> SweepStore:
    """Run one group after another, in this process, and return the store.

    Args:
        config, runs: of :func:`~sae_lens_signaware.load_sweep_config`. Runs whose result is in
            ``out`` are not repeated.
        out: folder of the sweep.
        console: shows the progress, and each failure with its reason.

    Raises:
        InvalidInputError: a device is not here; or of the model, hook or text, see
            :func:`~sae_lens_signaware.experiments.sweep.cache.make_caches`.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a second call goes on from there.
    """
    store = SweepStore(config, out)
    with Progress(console=console) as progress:
        view = ProgressView(progress, store, runs)
        groups = _unfinished(store, runs)
        _check_devices(groups)
        make_caches(store, [group[0] for group in groups], progress)
        for group in groups:
            run_group(store, group, view.update)
    return store


def _unfinished(store: SweepStore, runs: Sequence[Run]) -> list[list[Run]]:
    return [group for group in groups_of(runs) if store.unfinished(group)]


def _check_devices(groups: Sequence[Sequence[Run]]) -> None:
    """Check that the devices are here, before anything is computed; an SAE may have its own."""
    for run in itertools.chain.from_iterable(groups):
        try:
            check_devices(run.cfg)
        except InvalidInputError as error:
            raise ConfigError(in_sweep_file(str(error), run.sae)) from None


class ProgressView:
    """Progress of a sweep: runs done, running and failed, each failure with its reason."""

    def __init__(self, progress: Progress, store: SweepStore, runs: Sequence[Run]) -> None:
        self.progress, self.store = progress, store
        for line in notes_on_content(store, runs):
            say(progress.console, line)
        self.task = progress.add_task("Runs", total=len(runs))
        self.waiting = store.unfinished(runs)
        self.n_done, self.failed = len(runs) - len(self.waiting), set[str]()
        if self.n_done:
            line = f"{self.n_done} of {len(runs)} runs are on disk; {len(self.waiting)} to do"
            progress.console.print(line, highlight=False)
        # of each SAE once, whatever the cells and seeds
        notes = (
            f"{run.sae}: {note}" for run in self.waiting for note in notes_on_target_l0(run.cfg)
        )
        for line in dict.fromkeys(notes):
            say(progress.console, f"Note: {line}")
        for run in self.waiting:
            store.forget_failure(run)  # of an earlier call; it is tried again
        self.update()

    def update(self) -> None:
        """Count again from the files on disk, whoever wrote them."""
        for run in list(self.waiting):
            reason = self.store.failure_of(run)
            if run.name not in self.failed and reason is not None:
                self.failed.add(run.name)
                say(self.progress.console, f"failed: {run.name}: {reason}")
            elif self.store.finished(run):
                self.waiting.remove(run)
                self.failed.discard(run.name)  # Ray has tried it again
                self.n_done += 1
        running = [run.name for run in self.waiting if self.store.is_in_progress(run)]
        counts = f"{self.n_done} runs done, {len(self.failed)} failed, {len(running)} running"
        names = ", ".join(running[:2]) + (", …" if running[2:] else "")
        self.progress.update(
            self.task,
            description=f"{counts}: {escape(names)}" if names else counts,
            completed=self.n_done + len(self.failed),
        )


def notes_on_content(store: SweepStore, runs: Sequence[Run]) -> list[str]:
    """Say which results are taken without a check of model and text, and which are not taken."""
    notes = []
    if n := store.count_of(Match.UNCHECKED, runs):
        notes.append(
            f"{n} results of an earlier version have no digest of model and text; "
            "their paths and settings match"
        )
    if n := store.count_of(Match.OTHER_CONTENT, runs):
        notes.append(f"{n} results are of another model or text in the same place; trained again")
    if n := store.count_of(Match.OTHER, runs):
        notes.append(
            f"{n} results are of another config or another version of SAELens; trained again"
        )
    unchecked = {run.cell for run in store.unfinished(runs) if store.has_unchecked_cache(run)}
    if unchecked:
        notes.append(
            f"The activations of {', '.join(sorted(unchecked))} are of an earlier version and have "
            "no digest of model and text; their paths and settings match"
        )
    return notes


def run_ray(
    config: SweepConfig, runs: Sequence[Run], out: str | Path, console: Console
) -> SweepStore:
    """Run the same groups as Ray tasks; scheduling, retries and lost workers are Ray's.

    A worker that dies is started again by Ray, and goes on after the results that are on disk.
    Where it dies a fourth time, the run that it was in has failed, and the rest of its group is
    tried. Where no node has the resources of a task, a line says so, and Ray waits for one that
    has. On a cluster ``out`` and every path of the config must be absolute, on a file system that
    all nodes share. Arguments are those of :func:`run_local`.

    Raises:
        ConfigError: ray is not installed; or what a task raised.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the workers write their checkpoints and stop.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "executor: ray is not installed; run: pip install 'sae-lens-signaware[ray]'"
        )
    import ray
    from ray.exceptions import RayError

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources: dict[str, Any] = {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus}
    cache_task = ray.remote(**resources)(_cache_task)
    group_task = ray.remote(**resources, max_retries=MAX_RETRIES)(_group_task)
    store = SweepStore(config, Path(out).resolve())
    if (line := _note_on_nodes(ray.nodes(), config)) is not None:
        say(console, line)
    with Progress(console=console) as progress:
        view = ProgressView(progress, store, runs)
        groups = _unfinished(store, runs)
        store.content_of(runs[0])  # goes to the workers with the store, so that it is made once
        caches = cache_task.remote(store, groups)
        # the groups wait for the caches: Ray resolves the argument first
        waiting = {group_task.remote(caches, store, group): group for group in groups}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=1.0)
                for task in done:
                    group = waiting.pop(task)
                    try:
                        store.content = ray.get(task)
                    except RayError as error:
                        left = _note_crash(store, group, _cause(error))
                        if left:
                            waiting[group_task.remote(caches, store, left)] = left
                view.update()
        except BaseException:
            _stop([caches, *waiting])  # else they train on while nobody holds the folder
            raise
    return store


def _stop(tasks: list[Any]) -> None:
    """Cancel tasks, and wait until those that run have ended."""
    import ray

    for task in tasks:
        ray.cancel(task)
    ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)


def _note_on_nodes(nodes: Sequence[Mapping[str, Any]], config: SweepConfig) -> str | None:
    """Say that no node of ``ray.nodes()`` can run a task; one that can may join a cluster later."""
    asked = {"CPU": config.num_cpus, "GPU": config.num_gpus}
    totals = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(total.get(name, 0) >= n for name, n in asked.items()) for total in totals):
        return None
    return (
        f"no node of the Ray cluster has num_cpus {config.num_cpus:g} and num_gpus "
        f"{config.num_gpus:g}; waiting for one that joins"
    )


def _cause(error: BaseException) -> BaseException:
    """What a task raised, below Ray's wrappers: a task that waits for a failed one adds one."""
    cause = error
    while getattr(cause, "cause", None) is not None:
        cause = cause.cause  # pyright: ignore[reportAttributeAccessIssue]  # of RayTaskError
    return cause


def _note_crash(store: SweepStore, group: Sequence[Run], cause: BaseException) -> list[Run]:
    """Note the run in which a worker died too often, and return those of its group that are left.

    Raises:
        ``cause``, where it is no such death.
    """
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    if not isinstance(cause, NodeDiedError | OutOfMemoryError | WorkerCrashedError):
        raise cause from None
    unfinished = store.unfinished(group)
    # without a mark of one in progress, it died before the first
    crashed = [run for run in unfinished if store.is_in_progress(run)] or unfinished[:1]
    for run in crashed:
        store.note_failure(run, cause)
    return [run for run in unfinished if store.failure_of(run) is None]


def _cache_task(store: SweepStore, groups: Sequence[Sequence[Run]]) -> Content | None:
    _check_devices(groups)  # here, since the driver may lack them
    with Progress(disable=True) as progress:
        make_caches(store, [group[0] for group in groups], progress)
    return store.content


def _group_task(content: Content | None, store: SweepStore, runs: Sequence[Run]) -> Content | None:
    store.content = content
    try:
        run_group(store, runs)
    except KeyboardInterrupt:
        # SIGTERM, and the checkpoint is on disk. Raised, it would tell Ray that the task has been
        # cancelled; where a worker dies, Ray starts the task again, unless it has been.
        os._exit(1)
    return content
