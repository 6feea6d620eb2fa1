"""The folder of a trained SAE: checked before training, filled after it, never lost in between."""

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sae_lens import TrainingSAE, TrainingSAEConfig

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.saved import load_sae


def staging_folder(folder: Path) -> Path:
    """Return the folder in which files of ``folder`` are written first, on the same file system.

    Where ``folder`` is there already, it is inside: ``folder`` may be a mounted volume, and what
    is beside it another file system or not writable.
    """
    return folder / ".partial" if folder.is_dir() else folder.with_name(f".{folder.name}.partial")


def move_into(staging: Path, folder: Path) -> None:
    """Move every file of ``staging`` into ``folder``; where one cannot be moved, move all back.

    A file that ``folder`` has of that name is replaced, and is there again where all move back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = staging / ".replaced"
    names = sorted(file.name for file in staging.iterdir())
    aside.mkdir()
    try:
        for name in names:
            if (folder / name).is_file():
                (folder / name).replace(aside / name)
            (staging / name).replace(folder / name)
    except BaseException:  # Ctrl-C as well: half of an SAE in each folder is none
        for name in names:
            # a link is moved as a link, which may lead nowhere from there
            if not os.path.lexists(staging / name):
                (folder / name).replace(staging / name)
            if os.path.lexists(aside / name):
                (aside / name).replace(folder / name)
        aside.rmdir()
        raise
    shutil.rmtree(aside)
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
        name = f"{folder.name}.kept-{os.getpid()}"
        for kept in (folder.with_name(name), folder / name):
            with contextlib.suppress(OSError):
                return staging.rename(kept)
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
