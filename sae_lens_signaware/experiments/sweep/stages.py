"""The stages of a sweep in their order: runs, summary, pages of latents."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.pipeline import torch_threads
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.executors import run_local
from sae_lens_signaware.experiments.sweep.latents import write_latents
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.experiments.sweep.summary import SweepSummary, summarise

Executor = Callable[[SweepConfig, Sequence[Run], Path, Console], SweepStore]
"""Returns its store, which remembers failures that a full disk did not take."""


def run_sweep(
    config: SweepConfig,
    runs: Sequence[Run],
    out: Path,
    console: Console,
    command: str,
    executor: Executor = run_local,
) -> SweepSummary:
    """Run what is not on disk yet, and write ``sweep.json`` and the pages of latents.

    Args:
        command: that ``sweep.json`` says it was made by.

    Raises:
        ConfigError: another sweep is running in ``out``; or what the executor raises.
    """
    with _alone(out):
        store = executor(config, runs, out, console)
        result = summarise(config, runs, out, store)
        result.write(out, command)
        with torch_threads(config.threads):
            write_latents(config, runs, out, console)
    return result


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder: a second sweep in it would take this one's runs for left by a kill."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"out: another sweep is running in {out}") from None
    try:
        yield
    finally:
        lock.release()
