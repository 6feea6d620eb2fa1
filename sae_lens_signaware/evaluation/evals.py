"""Census and calibration in SAELens's ``run_evals``, and in the logs of its trainers."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from sae_lens import SAE, ActivationsStore, TrainingSAE, run_evals
from sae_lens.evals import EvalConfig
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.sae_trainer import Evaluator
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import calibration as calibrations
from sae_lens_signaware.evaluation import models
from sae_lens_signaware.evaluation.calibration import PolarityCalibration
from sae_lens_signaware.evaluation.census import BipolarCensus, census_of
from sae_lens_signaware.evaluation.inputs import flat_activations, require_folded
from sae_lens_signaware.evaluation.sums import sum_sides
from sae_lens_signaware.saes import BIPOLAR_MIN_SHARE

CENSUS = ("firing_rate_pos", "firing_rate_neg", "energy_pos", "energy_neg", "min_share")


def bipolar_evals(
    sae: SAE[Any],
    activation_store: ActivationsStore,
    model: models.HookedRootModule,
    activation_scaler: ActivationScaler | None = None,
    eval_config: EvalConfig | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    exclude_special_tokens: Iterable[int] | bool = True,
    verbose: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run ``run_evals``, then one more pass over as many batches for both sides of every latent.

    Args:
        activation_scaler: None where the SAE's activation normalisation is folded in, as saved.
        eval_config: None asks ``run_evals`` for nothing of its own. Its
            ``n_eval_sparsity_variance_batches`` and ``batch_size_prompts`` size the extra pass.
        sae, activation_store, model, model_kwargs: as in ``run_evals``.
        exclude_special_tokens, verbose: as in ``run_evals``.

    Returns:
        SAELens's two dictionaries. The first gains "signed": the metrics of ``SignedEvaluator``
        without the prefix of their keys. The second gains "firing_rate_pos", "firing_rate_neg",
        "energy_pos", "energy_neg", "min_share" and, without a per-token normalisation, "gain_pos"
        and "gain_neg": lists of d_sae floats, NaN where a side never fires.

    Raises:
        InvalidInputError: the scale of the activations is not folded in, and ``activation_scaler``
            is None.
    """
    if activation_scaler is None:
        require_folded(sae)
    scaler, config = activation_scaler or ActivationScaler(), eval_config or EvalConfig()
    excluded = models.excluded_tokens(model, exclude_special_tokens)
    metrics, featurewise = run_evals(
        sae=sae,
        activation_store=activation_store,
        model=model,
        activation_scaler=scaler,
        eval_config=config,
        model_kwargs=model_kwargs or {},
        exclude_special_tokens=excluded or False,
        verbose=verbose,
    )
    n, batch_size = config.n_eval_sparsity_variance_batches, config.batch_size_prompts
    with flat_activations(sae):
        prompts = models.prompts_of_store(activation_store, sae, n, batch_size, excluded)
        batches = (scaler.scale(p.activations[p.keep]) for p in prompts)
        metrics["signed"], census, calibration = signed_metrics(sae, batches)
    featurewise |= {name: getattr(census, name).tolist() for name in CENSUS}
    if calibration is not None:
        gains = {"gain_pos": calibration.gain_pos, "gain_neg": calibration.gain_neg}
        featurewise |= {name: gain.tolist() for name, gain in gains.items()}
    return metrics, featurewise


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
        require(self.n_batches >= 1, "n_batches", self.n_batches, "at least 1")
        share = self.bipolar_min_share
        require(0 <= share <= 0.5, "bipolar_min_share", share, "from 0 to 0.5")

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
        signed, _, _ = signed_metrics(sae, batches, self.bipolar_min_share)
        return metrics | {f"signed/{name}": value for name, value in signed.items()}


def signed_metrics(
    sae: SAE[Any], batches: Iterable[Tensor], bipolar_min_share: float = BIPOLAR_MIN_SHARE
) -> tuple[dict[str, float], BipolarCensus, PolarityCalibration | None]:
    """Measure census, calibration and R² in one pass, and sum them up as scalars.

    What does not apply is left out: the calibration where units differ by token, R² where tokens do
    not differ.
    """
    calibrates = calibrations.has_common_units(sae)
    sums = sum_sides(sae, batches, with_variance=True, with_alignment=calibrates)
    census = census_of(sae, sums)
    calibration = calibrations.calibration_of(sae, sums) if calibrates else None
    metrics = {
        "n_tokens": float(census.n_tokens),
        "l0": census.l0,
        "l0_pos": census.firing_rate_pos.sum().item(),
        "l0_neg": census.firing_rate_neg.sum().item(),
        "dead_share": census.dead_share,
        "bipolar_share": census.bipolar_share(bipolar_min_share),
    }
    if sums.variance.is_defined:
        metrics["explained_variance"] = sums.variance.explained()
    for side in ("pos", "neg") if calibration is not None else ():
        for q, value in calibrations.gain_quantiles(getattr(calibration, f"gain_{side}")).items():
            metrics[f"gain_{side}_q{round(100 * q):02d}"] = value
    return metrics, census, calibration
