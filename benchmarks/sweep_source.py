"""What a sweep's config says beside its fields: its command, names of SAEs, and what is done."""

import re
import sys
from collections.abc import Collection
from pathlib import Path

from sae_lens_signaware.experiments.sweep.config import Run, load_sweep_config
from sae_lens_signaware.experiments.sweep.store import SweepStore

MORE_SEEDS = "-more-seeds"
"""An SAE of such a name is the one before this ending, at fewer L0s of other seeds."""


def command_of(source: Path) -> tuple[str, Path]:
    """Return the command in the first line of a sweep's config, and the folder it writes to.

    Raises:
        SystemExit: the first line is no such command.
    """
    command = source.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    folder = re.search(
        r"^(?:PYTHONPATH=\S+ )?sae-lens-signaware (?:--import \S+ )?sweep .* --out (\S+)$", command
    )
    if folder is None:
        sys.exit(
            f"{source}: the first line must be '# sae-lens-signaware sweep CONFIG --out FOLDER', "
            f"got {command!r}"
        )
    return command, Path(folder[1])


def without_ending(sae: str) -> str:
    """Return the name of the SAE that an SAE of more seeds is of."""
    return sae.removesuffix(MORE_SEEDS)


def runs_with_saes(
    source: Path, root: Path, values: Collection[float]
) -> tuple[SweepStore, list[Run]]:
    """Return the store of a sweep, and its runs that are done and whose SAE is still on disk.

    Args:
        root: folder that the sweep was run in.
        values: of what is swept; runs of others are left out.
    """
    config, runs = load_sweep_config(source)
    store = SweepStore(config, root / command_of(source)[1])
    asked = [run for run in runs if run.value in values and store.has_sae(run)]
    return store, [run for run in asked if store.finished(run) is not None]
