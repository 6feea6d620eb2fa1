"""L0, R², dead share and firing by side of any SAELens SAE, in one streaming pass."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sae_lens
import torch
from sae_lens import SAE, ActivationsStore, run_evals
from sae_lens.evals import EvalConfig, ExplainedVarianceCalculator
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, check_fields, require
from sae_lens_signaware.evaluation.census import BipolarCensus, census_of, require_min_share
from sae_lens_signaware.evaluation.models import HookedRootModule
from sae_lens_signaware.evaluation.streaming import explained_variance_of, sum_sides
from sae_lens_signaware.saes.metrics import BIPOLAR_MIN_SHARE

QUALITY_FILENAME = "quality.json"
TARGET_L0_TOLERANCE = 0.1
"""Share of ``target_l0`` by which a measured L0 may differ from it and still count as reached.

Steering holds the L0 of training batches. On held-out text the L0 of Gemma 3 270M runs was 9 to
16 percent above it, so a gap of a few percent is usual, and one above ten is worth a warning.
"""

L0_FIELDS = ("k", "target_l0", "target_l0_rate", "jumprelu_sparsity_loss_mode")
"""Fields of an SAE's config that :func:`target_l0_of` reads."""


def target_l0_of(sae: Mapping[str, Any]) -> float | None:
    """Return the L0 that an SAE's config asks for; None where a coefficient sets its sparsity.

    Args:
        sae: the config as a mapping, as ``to_dict`` gives it.
    """
    if sae.get("k") is not None:
        return float(sae["k"])
    # SAELens's jumprelu has a target_l0 that only its quadratic loss reads
    is_read = "target_l0_rate" in sae or sae.get("jumprelu_sparsity_loss_mode") == "quadratic"
    target = sae.get("target_l0") if is_read else None
    return None if target is None else float(target)


def missed_target_l0(target: float | None, l0: float) -> str | None:
    """Return ``"asked for L0 16, measured 58.2"``, or None where ``l0`` is near ``target``.

    Args:
        target: see :func:`target_l0_of`.
        l0: as measured.
    """
    if target is None or abs(l0 - target) <= TARGET_L0_TOLERANCE * target:
        return None
    return f"asked for L0 {target:g}, measured {l0:.1f}"


@dataclasses.dataclass(frozen=True)
class SAEQuality:
    """Measures of one pass over ``n_tokens`` activations; ``quality.json`` holds the same fields.

    Attributes:
        l0: mean number of active latents per token, either side.
        explained_variance: R² by SAELens's ExplainedVarianceCalculator; 1 is perfect.
        dead_share: share of latents that never fired on either side over ``n_tokens``; it shrinks
            as ``n_tokens`` grows, so cite both.
        bipolar_share: share of the alive latents whose rarer side makes up >= 0.1 of their firings,
            or what :func:`measure_quality` was asked for.
        n_tokens: tokens measured on.
        loss_recovered: (CE_zero - CE_sae) / (CE_zero - CE_orig), None where it was not measured.
        loss_recovered_tokens: of the contexts that was measured on, with what these have of special
            tokens; None likewise.
        architecture, d_sae: of the SAE.
        tokens_from: what the tokens are, e.g. "held-out speeches".
        weights_sha256: of ``sae_weights.safetensors`` beside the file; None where it was not saved.
        sae_lens_version, torch_version: provenance.
    """

    l0: float
    explained_variance: float
    dead_share: float
    bipolar_share: float
    n_tokens: int
    architecture: str
    d_sae: int
    tokens_from: str
    loss_recovered: float | None = None
    loss_recovered_tokens: int | None = None
    weights_sha256: str | None = None
    sae_lens_version: str = sae_lens.__version__
    torch_version: str = torch.__version__

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "SAEQuality":
        """Make it of what ``to_dict`` gave.

        Raises:
            TypeError: other fields than these.
            ValueError: a field of another type, an L0 below 0 or no latent.
        """
        check_fields(cls, values)
        quality = cls(**values)
        require(quality.l0 >= 0, "l0", quality.l0, "at least 0")
        require(quality.d_sae > 0, "d_sae", quality.d_sae, "at least 1")
        return quality

    @classmethod
    def read(cls, path: str | Path) -> "SAEQuality":
        """Read what ``to_dict`` gave, from JSON.

        Raises:
            ValueError: not such a file.
        """
        try:
            return cls.of(json.loads(Path(path).read_text()))
        except (TypeError, ValueError) as error:  # no mapping of these names, no JSON, no text
            raise InvalidInputError(f"{path}: not a {QUALITY_FILENAME}: {error}") from None


def measure_quality(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor,
    tokens_from: str,
    bipolar_min_share: float = BIPOLAR_MIN_SHARE,
) -> tuple[SAEQuality, BipolarCensus]:
    """Measure an SAE in one pass that encodes and decodes every batch once.

    Args:
        sae: any SAELens SAE, inference or training.
        activations: (n, d_in) or (batch, position, d_in) tensors, or one such tensor, scaled as
            the SAE expects them. Of an ``ActivationsStore``, which never ends, take
            ``itertools.islice(store, n_batches)``.
        tokens_from: goes into the result, word for word.
        bipolar_min_share: share of its firings that a bipolar latent has on its rarer side at
            least, from 0 to 1/2. The result does not keep it.

    Raises:
        ValueError: activations are empty, of the wrong shape or type, or not finite; R² is not
            defined, as they do not differ; or ``bipolar_min_share`` is out of range.
    """
    require_min_share("bipolar_min_share", bipolar_min_share)
    variance = ExplainedVarianceCalculator()
    census = census_of(sae, sum_sides(sae, activations, variance=variance))
    quality = SAEQuality(
        l0=census.l0,
        explained_variance=explained_variance_of(variance),
        dead_share=census.dead_share,
        bipolar_share=census.bipolar_share(bipolar_min_share),
        n_tokens=census.n_tokens,
        architecture=sae.cfg.architecture(),
        d_sae=sae.cfg.d_sae,
        tokens_from=tokens_from,
    )
    return quality, census


def add_loss_recovered(
    quality: SAEQuality,
    sae: SAE[Any],
    model: HookedRootModule,
    store: ActivationsStore,
    n_batches: int = 1,
) -> SAEQuality:
    """Add the loss recovered, by SAELens's ``run_evals`` on the next tokens of ``store``.

    Args:
        quality: result to extend.
        sae: as saved: activation normalisation is folded in.
        model: SAELens's hooked model.
        n_batches: batches of ``store.store_batch_size_prompts`` contexts.

    Returns:
        ``quality`` as it is where the loss is no number, such as after a hook whose zeros the model
        divides by.
    """
    excluded = store.exclude_special_tokens
    metrics, _ = run_evals(
        sae=sae,
        activation_store=store,
        model=model,
        activation_scaler=ActivationScaler(),
        eval_config=EvalConfig(n_eval_reconstruction_batches=n_batches, compute_ce_loss=True),
        model_kwargs=store.model_kwargs,
        exclude_special_tokens=False if excluded is None else excluded.tolist(),
    )
    loss_recovered = metrics["model_performance_preservation"]["ce_loss_score"]
    if not math.isfinite(loss_recovered):
        return quality
    return dataclasses.replace(
        quality,
        loss_recovered=loss_recovered,
        loss_recovered_tokens=n_batches * store.store_batch_size_prompts * store.context_size,
    )
