"""What the text of a sweep's config says beside its fields: its command, and names of SAEs."""

import re
import sys
from pathlib import Path

MORE_SEEDS = "-more-seeds"
"""An SAE of such a name is the one before this ending, at fewer L0s of other seeds."""


def command_of(source: Path) -> tuple[str, Path]:
    """Return the command in the first line of a sweep's config, and the folder it writes to.

    Raises:
        SystemExit: the first line is no such command.
    """
    command = source.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    folder = re.search(r"^sae-lens-signaware sweep .* --out (\S+)$", command)
    if folder is None:
        sys.exit(
            f"{source}: the first line must be '# sae-lens-signaware sweep CONFIG --out FOLDER', "
            f"got {command!r}"
        )
    return command, Path(folder[1])


def without_ending(sae: str) -> str:
    """Return the name of the SAE that an SAE of more seeds is of."""
    return sae.removesuffix(MORE_SEEDS)
