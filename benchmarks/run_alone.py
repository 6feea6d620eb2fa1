"""One run of a sweep, trained and measured by itself; no file of it is kept."""

import tempfile
from pathlib import Path

from sae_lens_signaware.experiments.pipeline import TrainedSAE, train_save_and_measure
from sae_lens_signaware.experiments.sweep.config import Run
from sae_lens_signaware.experiments.sweep.store import CachedActivations


def train_alone(run: Run, activations: CachedActivations) -> TrainedSAE:
    """Train a run on the activations of its cell, and measure it on the held-out ones."""
    with tempfile.TemporaryDirectory() as folder:
        return train_save_and_measure(
            run.cfg.sae,
            run.cfg.to_sae_trainer_config(),
            activations.train,
            activations.heldout,
            seed=run.seed,
            folder=Path(folder) / "sae",
            checkpoint=Path(folder) / "checkpoint",
            tokens_from="held-out tokens",
        )
