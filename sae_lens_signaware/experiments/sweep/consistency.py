"""What the parts of a sweep file must have in common."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_lens_signaware.checks import ConfigError, one_line, require
from sae_lens_signaware.evaluation.calibration import PER_TOKEN
from sae_lens_signaware.saes.config import SignedTrainingFields

if TYPE_CHECKING:
    from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig


_OF_NO_FILE = set('<>:"|?*')
"""Characters that Windows has in no name of a file."""
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{x}{n}" for x in ("com", "lpt") for n in range(1, 10)}
"""Names that Windows keeps for devices, whatever follows a dot."""
MAX_NAME = 100
"""Bytes of a name: a file of latents has two of them, and file systems allow 255."""


def require_plain_names(field: str, names: Iterable[str]) -> None:
    """Raise ConfigError for a name that is no name of a folder, or that would make a long one."""
    seen: dict[str, str] = {}
    for name in names:  # each becomes a folder, and two of them a file
        if not name or name.startswith(".") or set(name) & set("/\\") or not name.isprintable():
            raise ConfigError(
                f"{field}: a name must not be empty, start with '.' or hold a slash or what cannot "
                f"be printed, got {name!r}"
            )
        is_device = name.partition(".")[0].rstrip().casefold() in _DEVICES
        if set(name) & _OF_NO_FILE or name[-1] in ". " or is_device:
            raise ConfigError(
                f"{field}: a name must be one that all systems can give a folder: without "
                f"{' '.join(sorted(_OF_NO_FILE))}, no '.' or space at its end, not CON or such, "
                f"got {name!r}"
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ConfigError(
                f"{field}: {other!r} and {name!r} would share a folder where the case of letters "
                "does not count; rename one of them"
            )
        n_bytes = len(name.encode())
        require(n_bytes <= MAX_NAME, f"{field}: bytes of a name", n_bytes, f"at most {MAX_NAME}")


def check_latents(config: "SweepConfig", runs: Sequence["Run"]) -> None:
    """Raise ConfigError for latents that cannot be written, or that would share a file."""
    if config.latents is None:
        return
    for sae in config.latents.saes:
        values = {run.value for run in runs if run.sae == sae}
        if config.latents.value not in values:
            raise ConfigError(
                f"latents.value must be one of the values of {sae}, {sorted(values)}, "
                f"got {config.latents.value:g}"
            )
    for run in runs:
        if run.sae == config.latents.plain and isinstance(run.cfg.sae, SignedTrainingFields):
            raise ConfigError(
                f"latents.plain must be an SAE without signed latents, got {run.sae!r} of "
                f"architecture {run.cfg.sae.architecture()}"
            )
        normalisation = run.cfg.sae.normalize_activations
        if run.sae in config.latents.saes and normalisation in PER_TOKEN:
            raise ConfigError(
                f"latents.saes: normalize_activations of {run.sae} must not be a per-token "
                f"normalisation, got {normalisation!r}: its calibration is not defined"
            )
    files: dict[str, tuple[str, str]] = {}
    for cell, sae in itertools.product(config.cells, config.latents.saes):
        name = latents_name(cell, sae)
        other = files.setdefault(name, (cell, sae))
        if other != (cell, sae):
            raise ConfigError(
                f"latents.saes: {sae} at {cell} and {other[1]} at {other[0]} would share the file "
                f"{name}-*.json; rename one of them"
            )


def latents_name(cell: str, sae: str) -> str:
    """Start of the name of the file of the latents of an SAE."""
    return f"{cell}-{sae}"


def check_compare(config: "SweepConfig", runs: Sequence["Run"]) -> None:
    """Raise ConfigError for an SAE beside itself, and for two that have no seed in common."""
    seeds = {sae: {run.seed for run in runs if run.sae == sae} for sae in config.saes}
    for a, b in config.compare:
        require(a != b, "compare", [a, b], "two different names of saes")
        if not seeds[a] & seeds[b]:
            raise ConfigError(f"compare: {a} and {b} share no seed")


def require_other_text(config: "SweepConfig") -> None:
    """Raise ConfigError where the SAEs would be measured on the text that they are trained on."""
    trained, heldout = config.runner.get("dataset_path"), config.heldout_dataset_path
    if heldout == "":
        raise ConfigError("heldout_dataset_path must be a text, or null, got ''")
    if heldout is None:
        return
    try:
        is_same = Path(str(trained)).resolve() == Path(heldout).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        raise ConfigError(
            f"heldout_dataset_path, runner.dataset_path: must be paths or names, got {heldout!r} "
            f"and {trained!r}: {one_line(error)}"
        ) from None
    if is_same:
        raise ConfigError(
            f"heldout_dataset_path must be another text than runner.dataset_path, got {heldout!r}; "
            "leave it out to take what follows in the training text"
        )
