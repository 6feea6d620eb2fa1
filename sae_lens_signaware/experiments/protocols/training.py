"""Training of a protocol's SAEs: the same batches in the same order, one rule of sparsity."""

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.checks import FailedTraining, InvalidInputError, one_line
from sae_lens_signaware.evaluation.quality import SAEQuality, measure_quality
from sae_lens_signaware.experiments.pipeline import TrainedSAE, train_save_and_measure
from sae_lens_signaware.experiments.protocols.config import TrainingConfig
from sae_lens_signaware.experiments.protocols.saes import Candidate

Advance = Callable[[str], None]
"""Called with a name after each training."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """An SAE of a protocol.

    Attributes:
        name, sparsity: which, and what set the sparsity that counted.
        sae: the inference SAE, as SAELens saves and loads it: what it gives for one sample does
            not depend on the others, as BatchTopK's training SAE would.
        failures: a line for each candidate of this name that failed.
    """

    name: str
    sparsity: str
    sae: SAE[Any]
    failures: tuple[str, ...] = ()

    def quality(self, heldout: Tensor) -> SAEQuality:
        """Measure L0, R² and dead share on ``heldout``."""
        return measure_quality(self.sae, heldout, "held-out synthetic samples")[0]


def trainer_config(training: TrainingConfig) -> SAETrainerConfig:
    """SAELens's trainer at one learning rate; the inputs' scale is estimated on one whole epoch."""
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
    """Train all candidates, and yield for each name the one nearest to the target L0.

    A candidate that fails, as where its coefficient is so large that the training diverges, does
    not count.

    Args:
        activations: (n_train, d_in).

    Raises:
        FailedTraining: all candidates of a name fail.
    """
    sample = activations[: training.n_heldout]
    for name, choices in candidates.items():
        runs: list[Trained] = []
        l0s: list[float] = []
        failures: list[str] = []
        for choice in choices:
            try:
                one = train(choice, training, activations, sample, seed)
            except (RuntimeError, InvalidInputError) as error:
                failures.append(f"{name}, {choice.sparsity}, seed {seed}: {one_line(error)}")
            else:
                runs.append(Trained(name, choice.sparsity, one.sae))
                l0s.append(one.quality.l0)
            advance(name)
        if not runs:
            raise FailedTraining("; ".join(failures))
        chosen = nearest_in_l0(runs, l0s, target_l0)
        yield dataclasses.replace(chosen, failures=tuple(failures))


def train(
    candidate: Candidate,
    training: TrainingConfig,
    activations: Tensor,
    sample: Tensor,
    seed: int,
) -> TrainedSAE:
    """Train one candidate, and measure its inference SAE on ``sample``."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        return train_save_and_measure(
            candidate.cfg,
            trainer_config(training),
            activations,
            sample,
            seed=seed,
            folder=Path(folder) / "sae",
            checkpoint=Path(folder) / "checkpoint",
            tokens_from="synthetic samples of the training",
        )


def nearest_in_l0(runs: Sequence[Trained], l0s: Sequence[float], target_l0: float) -> Trained:
    """Choose the run of the least |log(L0 / target)|; the first of equals."""

    def distance(i: int) -> float:
        return abs(math.log(max(l0s[i], 1e-6) / target_l0))

    return runs[min(range(len(runs)), key=distance)]
