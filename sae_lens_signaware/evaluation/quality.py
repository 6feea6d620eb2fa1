"""L0, R², dead share and firing by side of any SAELens SAE, in one streaming pass."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from sae_lens import SAE, ActivationsStore, run_evals
from sae_lens.evals import EvalConfig
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

from sae_lens_signaware.evaluation.calibration import (
    PolarityCalibration,
    calibration_of,
    has_common_units,
)
from sae_lens_signaware.evaluation.census import BipolarCensus, census_of, sum_sides
from sae_lens_signaware.evaluation.models import HookedRootModule
from sae_lens_signaware.files import write_json

TARGET_L0_TOLERANCE = 0.1
"""Share of ``target_l0`` by which a measured L0 may differ from it and still count as reached.

Steering holds the L0 of training batches. On held-out text the L0 of Gemma 3 270M runs was 9 to
16 percent above it, so a gap of a few percent is usual, and one above ten is worth a warning.
"""


def missed_target_l0(sae_cfg: Mapping[str, Any], l0: float) -> str | None:
    """Return ``"asked for L0 16, measured 58.2"``, or None where ``l0`` is near what was asked.

    Args:
        sae_cfg: the SAE's config as ``to_dict`` gives it; where it asks for no L0, none is missed.
        l0: as measured.
    """
    # SAELens's jumprelu has a target_l0 that only its quadratic loss reads
    is_read = sae_cfg.get("jumprelu_sparsity_loss_mode", "quadratic") == "quadratic"
    target = sae_cfg.get("k") or (sae_cfg.get("target_l0") if is_read else None)
    if target is None or abs(l0 - target) <= TARGET_L0_TOLERANCE * target:
        return None
    return f"asked for L0 {target:g}, measured {l0:.1f}"


@dataclasses.dataclass(frozen=True)
class SAEQuality:
    """Measures of one pass over ``n_tokens`` activations; ``quality.json`` holds the same fields.

    Attributes:
        l0: mean number of active latents per token, either side.
        explained_variance: R² = 1 - sum ||x - x^||^2 / sum ||x - mean||^2; 1 is perfect.
        dead_share: share of latents that never fired on either side over ``n_tokens``; it shrinks
            as ``n_tokens`` grows, so cite both.
        bipolar_share: share of the alive latents whose rarer side makes up >= 0.1 of their firings.
        n_tokens: tokens measured on.
        tokens_from: what the tokens are, e.g. "held-out speeches".
        loss_recovered: (CE_zero - CE_sae) / (CE_zero - CE_orig), None where it was not measured.
        loss_recovered_tokens: of the contexts that was measured on; None likewise.
        weights_sha256: of ``sae_weights.safetensors`` beside the file; None where it was not saved.
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

    def to_dict(self) -> dict[str, object]:
        """The fields as JSON holds them."""
        return dataclasses.asdict(self)


def measure_quality(
    sae: SAE[Any], activations: Iterable[Tensor] | Tensor, tokens_from: str = ""
) -> tuple[SAEQuality, BipolarCensus]:
    """Measure an SAE in one pass that encodes and decodes every batch once.

    Args:
        sae: any SAELens SAE, inference or training.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`.
        tokens_from: goes into the result, word for word.

    Raises:
        InvalidInputError: as in the census.
    """
    sums = sum_sides(sae, activations, with_variance=True)
    census = census_of(sae, sums)
    quality = SAEQuality(
        l0=census.l0,
        explained_variance=sums.variance.compute(),
        dead_share=census.dead_share,
        bipolar_share=census.bipolar_share(),
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
    recovered = metrics["model_performance_preservation"]["ce_loss_score"]
    if not math.isfinite(recovered):
        return quality
    n_tokens = metrics["token_stats"]["total_tokens_eval_reconstruction"]
    return dataclasses.replace(quality, loss_recovered=recovered, loss_recovered_tokens=n_tokens)


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Census, calibration and R² of the same tokens.

    The calibration is None where the SAE normalises each token: units differ by token then.
    """

    census: BipolarCensus
    calibration: PolarityCalibration | None
    explained_variance: float

    def metrics(self) -> dict[str, float]:
        """The numbers that sum it up; of the gains of a side the 5%, 50% and 95% quantile."""
        census = self.census
        metrics = {
            "n_tokens": float(census.n_tokens),
            "l0": census.l0,
            "l0_pos": census.firing_rate_pos.sum().item(),
            "l0_neg": census.firing_rate_neg.sum().item(),
            "explained_variance": self.explained_variance,
            "dead_share": census.dead_share,
            "bipolar_share": census.bipolar_share(),
        }
        return metrics | ({} if self.calibration is None else self.calibration.quantiles())

    def write(self, folder: str | Path) -> None:
        """Write ``census.json``, ``calibration.json``, and their numbers as ``analysis.json``."""
        self.census.write(Path(folder) / "census.json")
        if self.calibration is not None:
            self.calibration.write(Path(folder) / "calibration.json")
        write_json(self.metrics(), Path(folder) / "analysis.json")

    def table(self) -> Table:
        """A table for the terminal: the metrics."""
        names = {"explained_variance": "R²", "bipolar_share": "bipolar share of alive latents"}
        table = Table("measure", "value", title=self.census.subject, title_justify="left")
        for name, value in self.metrics().items():
            table.add_row(names.get(name, name), f"{value:.4f}".removesuffix(".0000"))
        return table


def analyze_sae(sae: SAE[Any], activations: Iterable[Tensor] | Tensor) -> Analysis:
    """Measure census, calibration and R² in one pass.

    Args:
        sae: any SAELens SAE.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`.

    Raises:
        InvalidInputError: as in the census.
    """
    calibrates = has_common_units(sae)
    sums = sum_sides(sae, activations, with_variance=True, with_alignment=calibrates)
    calibration = calibration_of(sae, sums) if calibrates else None
    return Analysis(census_of(sae, sums), calibration, sums.variance.compute())
