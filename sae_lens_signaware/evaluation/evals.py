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

from sae_lens_signaware.evaluation import models
from sae_lens_signaware.evaluation.inputs import require_folded
from sae_lens_signaware.evaluation.measures import analyze_sae

FEATUREWISE = ("firing_rate_pos", "firing_rate_neg", "energy_pos", "energy_neg", "min_share")


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

    def batches() -> Iterator[Tensor]:
        for _ in range(n):
            tokens = activation_store.get_batch_tokens(batch_size)
            x = activation_store.get_activations(tokens)
            tokens = tokens[:, slice(*activation_store.seqpos_slice)]
            yield scaler.scale(x[models.is_kept(tokens, excluded).to(x.device)])

    analysis = analyze_sae(sae, batches())
    metrics["signed"] = analysis.metrics()
    featurewise |= {name: getattr(analysis.census, name).tolist() for name in FEATUREWISE}
    if (calibration := analysis.calibration) is not None:
        featurewise["gain_pos"] = calibration.gain_pos.tolist()
        featurewise["gain_neg"] = calibration.gain_neg.tolist()
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
    """

    n_batches: int = 4
    inner: Evaluator[TrainingSAE[Any]] | None = None

    @torch.no_grad()
    def __call__(
        self,
        sae: TrainingSAE[Any],
        data_provider: Iterator[Tensor],
        activation_scaler: ActivationScaler,
    ) -> dict[str, Any]:
        """Return a flat dict of floats, keys under ``signed/``, ready for Weights & Biases."""
        metrics = {} if self.inner is None else self.inner(sae, data_provider, activation_scaler)
        batches = (activation_scaler(x) for x in islice(data_provider, self.n_batches))
        signed = analyze_sae(sae, batches).metrics()
        return metrics | {f"signed/{name}": value for name, value in signed.items()}
