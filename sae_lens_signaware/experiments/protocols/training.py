"""Training of a protocol's SAEs: the same batches in the same order, one rule of sparsity."""

import contextlib
import dataclasses
import io
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.evaluation.quality import SAEQuality, measure_quality
from sae_lens_signaware.experiments.protocols.config import TrainingConfig
from sae_lens_signaware.experiments.protocols.saes import Candidate
from sae_lens_signaware.training.cached import train_on_cache

Advance = Callable[[str], None]
"""Called with a name after each training."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """An SAE of a protocol.

    Attributes:
        name, sparsity: which, and what set the sparsity that counted.
        sae: the inference SAE, as SAELens saves and loads it: what it gives for one sample does
            not depend on the others, as BatchTopK's training SAE would.
    """

    name: str
    sparsity: str
    sae: SAE[Any]

    def quality(self, heldout: Tensor) -> SAEQuality:
        """L0, R2 and dead share."""
        return measure_quality(self.sae, heldout, "held-out synthetic samples")[0]


def trainer_config(training: TrainingConfig) -> SAETrainerConfig:
    """SAELens's own; the scale of the inputs is estimated on one whole epoch."""
    return SAETrainerConfig(
        total_training_samples=training.n_steps * training.batch_size,
        train_batch_size_samples=training.batch_size,
        lr=training.lr,
        lr_end=training.lr,
        dead_feature_window=training.dead_feature_window,
        n_batches_for_norm_estimate=training.n_train // training.batch_size,
    )


def train_all(
    candidates: Mapping[str, Sequence[Candidate]],
    training: TrainingConfig,
    target_l0: float,
    activations: Tensor,
    seed: int,
    advance: Advance,
) -> Iterator[Trained]:
    """One SAE a name, in their order.

    Args:
        activations: (n_train, d_in).
    """
    sample = activations[: training.n_heldout]
    for name, choices in candidates.items():
        runs: list[Trained] = []
        for choice in choices:
            runs.append(Trained(name, choice.sparsity, train(choice, training, activations, seed)))
            advance(name)
        yield nearest_in_l0(runs, [mean_l0(run.sae, sample) for run in runs], target_l0)


def train(
    candidate: Candidate, training: TrainingConfig, activations: Tensor, seed: int
) -> SAE[Any]:
    """One training, and the inference SAE of it."""
    # SAELens's trainer draws a bar for each SAE; a protocol has one for all
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.random.fork_rng(devices=[]),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        sae, _ = train_on_cache(
            candidate.cfg, trainer_config(training), activations, seed, Path(folder) / "checkpoint"
        )
        sae.save_inference_model(f"{folder}/sae")
        return SAE.load_from_disk(f"{folder}/sae")


def nearest_in_l0(runs: Sequence[Trained], l0s: Sequence[float], target_l0: float) -> Trained:
    """The run of the least |log(L0 / target)|; the first of equals."""

    def distance(i: int) -> float:
        return abs(math.log(max(l0s[i], 1e-6) / target_l0))

    return runs[min(range(len(runs)), key=distance)]


@torch.no_grad()
def mean_l0(sae: SAE[Any], activations: Tensor) -> float:
    """Mean number of active latents."""
    return (sae.encode(activations) != 0).sum().item() / len(activations)
