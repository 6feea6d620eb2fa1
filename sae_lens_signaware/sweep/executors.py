"""A whole sweep: activations, runs in this process or under Ray, summary, pages of latents."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.files import require_writable, write_json, write_text
from sae_lens_signaware.sweep.cache import make_caches
from sae_lens_signaware.sweep.config import Run, SweepConfig
from sae_lens_signaware.sweep.latents import write_latents
from sae_lens_signaware.sweep.results import SUMMARY_FILENAME, SweepSummary, summarise
from sae_lens_signaware.sweep.runs import groups_of, run_group, without_bars
from sae_lens_signaware.sweep.store import SweepStore

MAX_RETRIES = 3  # of a group whose worker died, before the run that it was in counts as failed
STOP_SECONDS = 60.0  # for Ray's workers to write their checkpoints


def run_sweep(
    config: SweepConfig,
    runs: Sequence[Run],
    out: str | Path,
    console: Console,
    command: str = "",
    executor: Callable[[SweepStore, Sequence[Run], Console], None] | None = None,
) -> SweepSummary:
    """Run what is not on disk yet in ``out``, and write ``sweep.json`` and the pages of latents.

    Args:
        config, runs: of :func:`~sae_lens_signaware.sweep.config.load_sweep_config`.
        console: shows the progress, and each failure with its reason.
        command: that ``sweep.json`` says it was made by.
        executor: :func:`run_local`, which is the default, or :func:`run_ray`.

    Raises:
        InvalidInputError: another sweep is running in ``out``, it cannot be written, or the model,
            a hook, a width or the text is wrong. What is on disk stays as it is then.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a second call goes on from there.
    """
    store = SweepStore(config, Path(out).resolve())
    require_writable("out", store.out)
    require_writable("cache_folder", config.cache_folder or store.out)
    store.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store.out / ".lock", timeout=0):
            (executor or run_local)(store, runs, console)
            summary = summarise(store, runs, command)
            write_json(summary.to_dict(), store.out / SUMMARY_FILENAME)
            write_latents(store, runs, console)
    except Timeout:
        raise InvalidInputError(f"out: another sweep is running in {store.out}") from None
    return summary


class _View:
    """Progress of a sweep, counted from the files on disk, whoever wrote them."""

    def __init__(self, progress: Progress, store: SweepStore, runs: Sequence[Run]) -> None:
        self.progress, self.store, self.failed = progress, store, set[str]()
        self.waiting = store.unfinished(runs)
        self.n_done = len(runs) - len(self.waiting)
        self.task = progress.add_task("Runs", total=len(runs), completed=self.n_done)
        if self.n_done:
            self._say(f"{self.n_done} of {len(runs)} runs are on disk; {len(self.waiting)} to do")
        if n := sum(store.held(run) is not None for run in self.waiting):
            self._say(f"{n} results are of another config, version or activations; trained again")
        for run in self.waiting:  # what failed before is tried again
            store.path("failed", run).unlink(missing_ok=True)

    def update(self, name: str = "") -> None:
        """Count again; ``name`` is that of the run that has just started."""
        self.n_done += len(self.waiting)
        self.waiting = self.store.unfinished(self.waiting)
        self.n_done -= len(self.waiting)
        found = {run.name: self.store.failure(run) for run in self.waiting}
        failed = {f"failed: {run}: {reason}" for run, reason in found.items() if reason}
        for line in sorted(failed - self.failed):
            self._say(line)
        self.failed = failed
        line = escape(f"{self.n_done} runs done, {len(failed)} failed {name}")
        self.progress.update(self.task, description=line, completed=self.n_done + len(failed))

    def _say(self, line: str) -> None:
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _make_caches(store: SweepStore, runs: Sequence[Run], progress: Progress | None = None) -> None:
    """Make those of cells with an unfinished run; all widths are checked before any run."""
    runs = [group[0] for group in groups_of(runs) if store.unfinished(group)]
    with without_bars():
        make_caches(store.config, runs, store.out, progress or Progress(disable=True))


def run_local(store: SweepStore, runs: Sequence[Run], console: Console) -> None:
    """Run one group after another in this process."""
    with Progress(console=console) as progress:
        _make_caches(store, runs, progress)
        view = _View(progress, store, runs)
        for group in groups_of(runs):
            run_group(store, group, view.update)


def run_ray(store: SweepStore, runs: Sequence[Run], console: Console) -> None:
    """Run the groups as Ray tasks; scheduling, retries and lost workers are Ray's.

    A worker that dies is started again by Ray, and goes on after the results that are on disk.
    Where it dies a fourth time, the run that it was in has failed, and the rest of its group is
    tried. On a cluster all paths must be absolute, on a file system that all nodes share.

    Raises:
        InvalidInputError: ray is not installed, no node is large enough, or what a task raised.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the workers write their checkpoints and stop.
    """
    if importlib.util.find_spec("ray") is None:
        raise InvalidInputError("executor: run pip install 'sae-lens-signaware[ray]' first")
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources: dict[str, Any] = store.config.model_dump(include={"num_cpus", "num_gpus"})
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": store.config.num_cpus, "GPU": store.config.num_gpus}
    if not any(all(node.get(kind, 0) >= n for kind, n in asked.items()) for node in nodes):
        raise InvalidInputError(f"num_cpus, num_gpus: no node of the Ray cluster has {asked}")
    cache_task = ray.remote(**resources)(_make_caches)
    group_task = ray.remote(**resources, max_retries=MAX_RETRIES)(_group_task)
    with Progress(console=console) as progress:
        caches = cache_task.remote(store, runs)
        waiting: dict[Any, list[Run]] = {}
        try:
            while not ray.wait([caches], timeout=1.0)[0]:
                pass
            ray.get(caches)
            view = _View(progress, store, runs)
            groups = [group for group in groups_of(runs) if store.unfinished(group)]
            waiting = {group_task.remote(store, group): group for group in groups}
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=1.0)
                for task in done:
                    group = waiting.pop(task)
                    try:
                        ray.get(task)
                    except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
                        if left := _note_crash(store, group, error):
                            waiting[group_task.remote(store, left)] = left
                view.update()
        except BaseException as error:
            tasks = [caches, *waiting]
            for task in tasks:  # else they train on while nobody holds the folder
                ray.cancel(task)
            ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)
            # what a task raised, without Ray's wrapper
            raise (getattr(error, "cause", None) or error) from None


def _note_crash(store: SweepStore, group: Sequence[Run], error: Exception) -> list[Run]:
    """Note the run in which a worker died too often; the others of its group are left."""
    # runs go in order, so it is the first one that is neither finished nor failed
    left = [run for run in store.unfinished(group) if store.failure(run) is None]
    reason = f"{type(error).__name__}: the worker died {MAX_RETRIES + 1} times\n"
    write_text(reason, store.path("failed", left[0]))
    return left[1:]


def _group_task(store: SweepStore, runs: Sequence[Run]) -> None:
    try:
        run_group(store, runs)
    except KeyboardInterrupt:
        # SIGTERM, and the checkpoint is on disk. Raised, it would tell Ray that the task has been
        # cancelled; where a worker dies, Ray starts the task again, unless it has been.
        os._exit(1)
