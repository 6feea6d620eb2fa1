"""L0, R², dead share and firing by side of any SAELens SAE, in one streaming pass."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sae_lens
import torch
from rich.table import Table
from sae_lens import SAE, ActivationsStore, run_evals
from sae_lens.evals import EvalConfig
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

from sae_lens_signaware.evaluation import calibration as calibrations
from sae_lens_signaware.evaluation.calibration import PolarityCalibration
from sae_lens_signaware.evaluation.census import BipolarCensus, census_of
from sae_lens_signaware.evaluation.models import HookedRootModule
from sae_lens_signaware.evaluation.results import read_json, to_json
from sae_lens_signaware.evaluation.sums import sum_sides
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes import BIPOLAR_MIN_SHARE

QUALITY_FILENAME = "quality.json"
TARGET_L0_TOLERANCE = 0.1
"""Share of ``target_l0`` by which a measured L0 may differ from it and still count as reached.

Steering holds the L0 of training batches. On held-out text the L0 of Gemma 3 270M runs was 9 to
16 percent above it, so a gap of a few percent is usual, and one above ten is worth a warning.
"""


def target_l0_of(sae: Mapping[str, Any]) -> float | None:
    """The L0 that an SAE's config asks for; None where a coefficient sets its sparsity.

    Args:
        sae: the config as a mapping, as ``to_dict`` gives it.
    """
    if sae.get("k") is not None:
        return float(sae["k"])
    # SAELens's jumprelu has a target_l0 that only its quadratic loss reads
    is_read = sae.get("jumprelu_sparsity_loss_mode", "quadratic") == "quadratic"
    target = sae.get("target_l0") if is_read else None
    return None if target is None else float(target)


def missed_target_l0(target: float | None, l0: float) -> str | None:
    """Return ``"asked for L0 16, measured 58.2"``, or None where ``l0`` is near ``target``."""
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
    sae_lens_version: str = sae_lens.__version__
    torch_version: str = torch.__version__

    def to_dict(self) -> dict[str, object]:
        """The fields as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: str | Path) -> "SAEQuality":
        """Read what ``to_dict`` gave, from JSON; InvalidInputError for something else."""
        return read_json(cls, path)


def measure_quality(
    sae: SAE[Any], activations: Iterable[Tensor] | Tensor, tokens_from: str = ""
) -> tuple[SAEQuality, BipolarCensus]:
    """Measure an SAE in one pass that encodes and decodes every batch once.

    Args:
        sae: any SAELens SAE, inference or training.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`.
        tokens_from: goes into the result, word for word.

    Raises:
        InvalidInputError: as in the census; or R² is not defined, as the activations do not differ.
    """
    sums = sum_sides(sae, activations, with_variance=True)
    census = census_of(sae, sums)
    quality = SAEQuality(
        l0=census.l0,
        explained_variance=sums.variance.explained(),
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
    loss_recovered = metrics["model_performance_preservation"]["ce_loss_score"]
    if not math.isfinite(loss_recovered):
        return quality
    n_tokens = n_batches * store.store_batch_size_prompts * store.context_size
    return dataclasses.replace(
        quality, loss_recovered=loss_recovered, loss_recovered_tokens=n_tokens
    )


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Census, calibration and R² of the same tokens."""

    census: BipolarCensus
    calibration: PolarityCalibration
    explained_variance: float

    def write(self, folder: str | Path) -> None:
        """Write ``census.json``, ``calibration.json`` and, with R², ``analysis.json``."""
        census = self.census
        census.write(Path(folder) / "census.json")
        self.calibration.write(Path(folder) / "calibration.json")
        summary = {
            "l0": census.l0,
            "explained_variance": self.explained_variance,
            "dead_share": census.dead_share,
            "n_tokens": census.n_tokens,
            "provenance": to_json(census.provenance),
        }
        write_json(summary, Path(folder) / "analysis.json")

    def table(self) -> Table:
        """A table for the terminal: the numbers that sum the analysis up."""
        census = self.census
        table = Table("measure", "value", title=census.subject, title_justify="left")
        table.add_row("L0", f"{census.l0:.2f}")
        table.add_row("R²", f"{self.explained_variance:.4f}")
        table.add_row("dead share", f"{census.dead_share:.2%}")
        if census.one_sided:
            table.add_row("- side", "none: no latent is ever negative")
        else:
            share = f"bipolar share (rarer side >= {BIPOLAR_MIN_SHARE:g} of firings)"
            table.add_row(share, f"{census.bipolar_share():.2%} of alive latents")
            active = f"{census.bipolar_activity_share():.2%}"
            table.add_row("  of the active latents of a token", active)
            curve = census.bipolar_share_by_energy_rank()
            for k in (k for k in (10, 100) if k <= len(curve)):
                table.add_row(f"  of the {k} latents of most energy", f"{curve[k - 1]:.2%}")
        for sign, gain in (("+", self.calibration.gain_pos), ("-", self.calibration.gain_neg)):
            if quantiles := calibrations.gain_quantiles(gain):
                low, middle, high = quantiles.values()
                table.add_row(
                    f"calibration of {sign} (1 is right, above is shrunk)",
                    f"median {middle:.3f}, 5% {low:.3f}, 95% {high:.3f}",
                )
        return table


def analyze_sae(sae: SAE[Any], activations: Iterable[Tensor] | Tensor) -> Analysis:
    """Measure census, calibration and R² in one pass.

    Args:
        sae: any SAELens SAE without a per-token normalisation.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`.

    Raises:
        InvalidInputError: as :func:`~sae_lens_signaware.polarity_calibration`; or R² is not
            defined, as the activations do not differ.
    """
    calibrations.require_common_units(sae)
    sums = sum_sides(sae, activations, with_variance=True, with_alignment=True)
    calibration = calibrations.calibration_of(sae, sums)
    return Analysis(census_of(sae, sums), calibration, sums.variance.explained())
