"""The stages of a sweep in their order: runs, summary, pages of latents."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.executors import run_local
from sae_lens_signaware.experiments.sweep.latents import write_latents
from sae_lens_signaware.experiments.sweep.summary import SweepSummary, summarise

Executor = Callable[[SweepConfig, Sequence[Run], Path, Console], None]


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
    """
    executor(config, runs, out, console)
    result = summarise(config, runs, out)
    result.write(out, command)
    write_latents(config, runs, out, console)
    return result
