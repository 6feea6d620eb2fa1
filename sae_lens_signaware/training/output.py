"""The folder of a trained SAE: checked before training, filled after it, never lost in between."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sae_lens import TrainingSAE, TrainingSAEConfig

from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.evaluation.saved import load_sae


def require_writable(field: str, path: str | Path) -> None:
    """Raise ConfigError where no folder can be made at ``path``, or no file in it.

    What is beside the folder counts as well, for a folder is written under another name first.
    Nothing is left on the disk.
    """
    folder = Path(path).resolve()
    if not folder.name:
        raise ConfigError(f"{field} must be a folder of its own, got {str(path)!r}")
    for place in (folder, folder.parent):
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise ConfigError(f"{field} must be a folder, got {str(path)!r}: {place} is a file")
        try:
            tempfile.NamedTemporaryFile(dir=place).close()
        except OSError as error:
            raise ConfigError(
                f"{field} must be a folder that can be written, got {str(path)!r}: {error}"
            ) from None


def staging_folder(folder: Path) -> Path:
    """Return the folder beside ``folder`` in which its files are written first."""
    return folder.with_name(f".{folder.name}.partial")


def move_into(staging: Path, folder: Path) -> None:
    """Move every file of ``staging`` into ``folder``; where one cannot be moved, move all back."""
    folder.mkdir(parents=True, exist_ok=True)
    moved: list[str] = []
    try:
        for file in sorted(staging.iterdir()):
            file.replace(folder / file.name)
            moved.append(file.name)
    except OSError:
        for name in moved:
            (folder / name).replace(staging / name)
        raise
    staging.rmdir()


def keep_trained(
    sae: TrainingSAE[TrainingSAEConfig], staging: Path, folder: Path, places: Iterable[Path]
) -> Path | None:
    """Put a trained SAE that could not be written to ``folder`` somewhere else.

    Args:
        staging: what was written of it; it is kept under a name of its own where it is whole.
        places: folders to save to where it is not, the first that takes it.

    Returns:
        Where the SAE is; None where no place took it.
    """
    if _can_be_loaded(staging):
        kept = folder.with_name(f"{folder.name}.kept-{os.getpid()}")
        try:
            return staging.rename(kept)
        except OSError:
            return staging
    shutil.rmtree(staging, ignore_errors=True)
    for place in places:
        try:
            sae.save_inference_model(place)
        except Exception:  # Python's errors and safetensors' own: the next place may take it
            continue
        if _can_be_loaded(place):
            return place
    return None


def _can_be_loaded(folder: Path) -> bool:
    try:
        load_sae(folder)
    except InvalidInputError:
        return False
    return True
