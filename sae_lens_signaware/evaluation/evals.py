"""SAELens's ``run_evals`` with census and calibration beside its own metrics."""

from collections.abc import Iterable, Mapping
from typing import Any

from sae_lens import SAE, ActivationsStore, run_evals
from sae_lens.evals import EvalConfig
from sae_lens.training.activation_scaler import ActivationScaler

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.evaluator import measure_sides, signed_metrics_of
from sae_lens_signaware.evaluation.inputs import flat_activations, require_folded
from sae_lens_signaware.evaluation.models import HookedRootModule, excluded_tokens
from sae_lens_signaware.evaluation.prompts import prompts_of_store


def bipolar_evals(
    sae: SAE[Any],
    activation_store: ActivationsStore,
    model: HookedRootModule,
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
        but for R², without the prefix of their keys. The second gains "firing_rate_pos",
        "firing_rate_neg", "energy_pos", "energy_neg", "min_share" and, without a per-token
        normalisation, "gain_pos" and "gain_neg": lists of d_sae floats, NaN where a side never
        fires.

    Raises:
        InvalidInputError: ``eval_config`` has no batch for the extra pass; or the scale of the
            activations is not folded in, and ``activation_scaler`` is None.
    """
    if not isinstance(exclude_special_tokens, bool):  # an iterator is read twice
        exclude_special_tokens = list(exclude_special_tokens)
    if activation_scaler is None:
        require_folded(sae)
    scaler = activation_scaler or ActivationScaler()
    config = eval_config or EvalConfig()
    n = config.n_eval_sparsity_variance_batches  # which run_evals may do without
    require(n >= 1, "eval_config.n_eval_sparsity_variance_batches", n, "at least 1")
    metrics, featurewise = run_evals(
        sae=sae,
        activation_store=activation_store,
        model=model,
        activation_scaler=scaler,
        eval_config=config,
        model_kwargs=model_kwargs or {},
        exclude_special_tokens=exclude_special_tokens,
        verbose=verbose,
    )
    with flat_activations(sae):
        prompts = prompts_of_store(
            activation_store,
            config.n_eval_sparsity_variance_batches,
            config.batch_size_prompts,
            excluded_tokens(model, exclude_special_tokens),
        )
        batches = (scaler.scale(p.activations[p.keep]) for p in prompts)
        census, calibration = measure_sides(sae, batches)
    names = ("firing_rate_pos", "firing_rate_neg", "energy_pos", "energy_neg", "min_share")
    featurewise = featurewise | {name: getattr(census, name).tolist() for name in names}
    if calibration is not None:
        featurewise |= {
            "gain_pos": calibration.gain_pos.tolist(),
            "gain_neg": calibration.gain_neg.tolist(),
        }
    return metrics | {"signed": signed_metrics_of(census, calibration)}, featurewise
