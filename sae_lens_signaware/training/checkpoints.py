"""Checkpoints of SAELens's runner: which are whole, and which can be read."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from sae_lens.constants import (
    ACTIVATION_SCALER_CFG_FILENAME,
    ACTIVATIONS_STORE_STATE_FILENAME,
    RUNNER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    TRAINER_STATE_FILENAME,
)
from safetensors.torch import load_file

from sae_lens_signaware.checks import ConfigError

# In the order in which SAELens writes them, so that the last one marks a whole checkpoint.
CHECKPOINT_FILES = (
    SAE_WEIGHTS_FILENAME,
    SAE_CFG_FILENAME,
    TRAINER_STATE_FILENAME,
    ACTIVATIONS_STORE_STATE_FILENAME,
    RUNNER_CFG_FILENAME,
)


def find_checkpoint(path: str | Path) -> Path:
    """Return ``path`` where it is a whole checkpoint, else the newest whole one below it.

    A run that was killed while it wrote a checkpoint leaves one without its last file; that one
    is passed over.

    Raises:
        ConfigError: there is no whole checkpoint, or a file of the newest cannot be read.
    """
    root = Path(path)
    whole = [
        folder.parent
        for folder in root.rglob(RUNNER_CFG_FILENAME)
        if all((folder.parent / name).exists() for name in CHECKPOINT_FILES)
    ]
    if not whole:
        raise ConfigError(
            f"resume_from_checkpoint: no whole checkpoint at or below {str(root)!r}; "
            f"one has {', '.join(CHECKPOINT_FILES)}"
        )
    newest = max(whole, key=lambda folder: (folder / RUNNER_CFG_FILENAME).stat().st_mtime)
    _require_readable(newest)
    return newest


def _require_readable(checkpoint: Path) -> None:
    """Raise ConfigError where SAELens would stop within a resume; no pickle is executed."""
    readers: dict[str, Callable[[Path], object]] = {
        TRAINER_STATE_FILENAME: _n_training_steps,
        ACTIVATION_SCALER_CFG_FILENAME: lambda path: json.loads(path.read_text())["scaling_factor"],
        SAE_WEIGHTS_FILENAME: load_file,
        ACTIVATIONS_STORE_STATE_FILENAME: load_file,
    }
    for name, read in readers.items():
        try:
            read(checkpoint / name)
        except Exception as error:  # whatever a broken file makes torch, json or safetensors raise
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise ConfigError(
                f"resume_from_checkpoint: {checkpoint / name} cannot be read: "
                f"{type(error).__name__}: {reason}"
            ) from None


def _n_training_steps(path: Path) -> int:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)["n_training_steps"]
