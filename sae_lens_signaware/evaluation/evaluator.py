"""Evaluator for SAELens's trainers and runners: census and calibration in a run's own logs."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.sae_trainer import Evaluator
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, checked, require
from sae_lens_signaware.evaluation.calibration import (
    PolarityCalibration,
    calibration_of,
    gain_quantiles,
    has_common_units,
)
from sae_lens_signaware.evaluation.census import BipolarCensus, census_of, require_min_share
from sae_lens_signaware.evaluation.streaming import explained_variance_of, sum_sides
from sae_lens_signaware.saes.metrics import BIPOLAR_MIN_SHARE


@dataclasses.dataclass
class SignedEvaluator:
    """Evaluator that measures both sides of every latent on the next batches of training data.

    - ``SAETrainer(..., evaluator=SignedEvaluator())``
    - ``MultiSAETrainingRunnerConfig(..., evaluator=SignedEvaluator())``
    - ``runner.evaluator = SignedEvaluator(inner=runner.evaluator)`` on a
      ``LanguageModelSAETrainingRunner``: SAELens's own metrics stay in the logs beside these.

    The batches that it reads are not trained on: a run with it sees other tokens than one without.

    Attributes:
        n_batches: batches of the data provider that a measurement takes.
        inner: another evaluator whose metrics are logged as well.
        bipolar_min_share: least share of its firings that a bipolar latent has on its rarer side,
            from 0 to 1/2.
    """

    n_batches: int = 4
    inner: Evaluator[TrainingSAE[Any]] | None = None
    bipolar_min_share: float = BIPOLAR_MIN_SHARE

    def __post_init__(self) -> None:
        # now, and not at the first evaluation of a training
        n_batches = checked("n_batches", self.n_batches, int)
        require(n_batches >= 1, "n_batches", n_batches, "at least 1")
        require_min_share("bipolar_min_share", self.bipolar_min_share)

    @torch.no_grad()
    def __call__(
        self,
        sae: TrainingSAE[Any],
        data_provider: Iterator[Tensor],
        activation_scaler: ActivationScaler,
    ) -> dict[str, Any]:
        """Return a flat dict of floats, keys under ``signed/``, ready for Weights & Biases."""
        metrics = {} if self.inner is None else self.inner(sae, data_provider, activation_scaler)
        batches = (
            activation_scaler(batch.to(sae.device))
            for batch in islice(data_provider, self.n_batches)
        )
        return metrics | signed_metrics(sae, batches, self.bipolar_min_share)


def signed_metrics(
    sae: TrainingSAE[Any], batches: Iterator[Tensor], bipolar_min_share: float
) -> dict[str, float]:
    """Measure census, calibration and R² of ``batches`` as flat metrics, keys under ``signed/``."""
    variance = ExplainedVarianceCalculator()
    metrics = signed_metrics_of(*measure_sides(sae, batches, variance), bipolar_min_share)
    with contextlib.suppress(InvalidInputError):  # not defined where the tokens do not differ
        metrics["explained_variance"] = explained_variance_of(variance)
    return {f"signed/{name}": value for name, value in metrics.items()}


def measure_sides(
    sae: SAE[Any], batches: Iterable[Tensor], variance: ExplainedVarianceCalculator | None = None
) -> tuple[BipolarCensus, PolarityCalibration | None]:
    """Measure census and calibration in one pass; no calibration where units differ by token.

    Args:
        variance: as in :func:`~sae_lens_signaware.evaluation.streaming.sum_sides`.
    """
    calibrates = has_common_units(sae)
    sums = sum_sides(sae, batches, with_alignment=calibrates, variance=variance)
    return census_of(sae, sums), calibration_of(sae, sums) if calibrates else None


def signed_metrics_of(
    census: BipolarCensus,
    calibration: PolarityCalibration | None,
    bipolar_min_share: float = BIPOLAR_MIN_SHARE,
) -> dict[str, float]:
    """Sum both results up as scalars, without NaN: what does not apply is left out."""
    metrics = {
        "n_tokens": float(census.n_tokens),
        "l0": census.l0,
        "l0_pos": census.firing_rate_pos.sum().item(),
        "l0_neg": census.firing_rate_neg.sum().item(),
        "dead_share": census.dead_share,
        "bipolar_share": census.bipolar_share(bipolar_min_share),
    }
    for side in ("pos", "neg") if calibration is not None else ():
        for q, value in gain_quantiles(getattr(calibration, f"gain_{side}")).items():
            metrics[f"gain_{side}_q{round(100 * q):02d}"] = value
    return metrics
