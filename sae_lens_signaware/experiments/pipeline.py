"""One run of an experiment: train on a cache, save, load as a user does, measure, write."""

import contextlib
import dataclasses
import io
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from sae_lens import TrainingSAEConfig, logger
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.evaluation.saved import MeasuredSAE, save_and_measure
from sae_lens_signaware.training.cached import train_timed

CHUNK = 2048
"""Tokens that are measured at once."""


@dataclasses.dataclass(frozen=True)
class TrainedSAE(MeasuredSAE):
    """A trained SAE as a user loads it, and what was measured of it.

    Attributes:
        seconds_per_step: of training, from the first step on; None where it was resumed.
    """

    seconds_per_step: float | None


def train_save_and_measure(
    sae_cfg: TrainingSAEConfig,
    trainer_cfg: SAETrainerConfig,
    activations: Tensor,
    heldout: Tensor,
    *,
    seed: int,
    folder: Path,
    checkpoint: Path,
    tokens_from: str,
    metadata: Mapping[str, object] | None = None,
) -> TrainedSAE:
    """Train one SAE on cached activations, and write it and what was measured of it to ``folder``.

    What is measured is the inference SAE that was loaded from ``folder``. It may be of another
    architecture: SAELens saves its batchtopk as a jumprelu.

    Args:
        sae_cfg, trainer_cfg, activations, seed, checkpoint: as in
            :func:`~sae_lens_signaware.train_on_cache`. A checkpoint is left where it is.
        heldout: (n, d_in) activations that are measured on.
        tokens_from: what these are, in words.
        metadata: fields of SAELens's metadata of the SAE, such as the model and the hook.

    Raises:
        InterruptedTraining: Ctrl-C or SIGTERM, after the checkpoint is on disk.
    """
    with without_bars():
        trained = train_timed(sae_cfg, trainer_cfg, activations, seed, checkpoint)
        for name, value in (metadata or {}).items():
            setattr(trained.sae.cfg.metadata, name, value)
        saved = save_and_measure(trained.sae, folder, heldout.split(CHUNK), tokens_from)
    n_steps, batch_size = trained.n_steps, trainer_cfg.train_batch_size_samples
    is_whole = n_steps * batch_size >= trainer_cfg.total_training_samples
    seconds_per_step = trained.seconds / n_steps if is_whole and n_steps else None
    return TrainedSAE(saved.sae, saved.quality, saved.census, seconds_per_step)


@contextlib.contextmanager
def torch_threads(n: int | None) -> Iterator[None]:
    """Let torch use ``n`` threads, and then as many as before; None leaves it as it is."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if n is not None:
            torch.set_num_threads(before)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Drop standard error, where SAELens draws a progress bar for each SAE.

    An experiment of many SAEs draws one bar for all of them. SAELens's warnings are still printed.
    """
    handler = logging.StreamHandler(sys.stderr)  # logging's own last resort writes to that of then
    handler.setLevel(logging.WARNING)  # as it
    if not logger.hasHandlers():
        logger.addHandler(handler)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.removeHandler(handler)
