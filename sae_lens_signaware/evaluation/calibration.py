"""Polarity calibration: is the magnitude of a latent right on each side? (docs/measures.md)"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.inputs import require_autoencoder
from sae_lens_signaware.evaluation.results import Provenance, Result, Values
from sae_lens_signaware.evaluation.sums import SideSums, squared_norms, sum_sides

QUANTILES = (0.05, 0.5, 0.95)
"""Those that tables and logs give of the gains."""

PER_TOKEN = ("layer_norm", "constant_norm_rescale")
"""Normalisations that are made anew for each token."""


@dataclasses.dataclass(frozen=True, repr=False)
class PolarityCalibration(Result):
    """Calibration of every latent; (d_sae,) float64 each, NaN where a side never fires.

    Attributes:
        gain_pos, gain_neg: factor on the side's magnitude that minimises the squared error, all
            else fixed. At 1 the side is calibrated; above 1 it is shrunk.
    """

    gain_pos: Values
    gain_neg: Values

    def _summary(self) -> Mapping[str, object]:
        names = ("gain_pos", "gain_neg")
        return {f"median {name}": getattr(self, name).nanmedian().item() for name in names}


def polarity_calibration(
    sae: SAE[Any], activations: Iterable[Tensor] | Tensor
) -> PolarityCalibration:
    """Measure the gain of each side of each latent that would lower the squared error most.

    Over the tokens where side s of latent i fires, the gain is
        a_i,s = 1 + E[z_i <d_i, x - x^>] / (E[z_i^2] ||d_i||^2)

    Args:
        sae: any SAELens SAE.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`.

    Raises:
        InvalidInputError: as in the census; or the SAE normalises each token at run time, so that
            latents and residuals differ in their units.
    """
    require_common_units(sae)
    return calibration_of(sae, sum_sides(sae, activations, with_alignment=True))


def calibration_of(sae: SAE[Any], sums: SideSums) -> PolarityCalibration:
    """Compute the calibration from the sums of a pass with alignment."""
    gain = 1 + sums.sum_alignment / (sums.sum_sq * squared_norms(sae))
    gain[sums.n_fired == 0] = float("nan")
    return PolarityCalibration(Provenance.of(sae, sums.n_tokens), gain[0], gain[1])


def has_common_units(sae: SAE[Any]) -> bool:
    """Whether residuals have the units of the latents: nothing is normalised per token."""
    return sae.cfg.normalize_activations not in PER_TOKEN


def require_common_units(sae: SAE[Any]) -> None:
    """Raise InvalidInputError where residuals do not have the units of the latents."""
    require_autoencoder(sae)
    found, allowed = sae.cfg.normalize_activations, "none that is made per token, for calibration"
    require(has_common_units(sae), "normalize_activations", found, allowed)


def gain_quantiles(gain: Tensor) -> dict[float, float]:
    """Compute :data:`QUANTILES` of the gains (d_sae,) of a side; empty where it never fires."""
    known = gain[~gain.isnan()]
    return {q: known.quantile(q).item() for q in QUANTILES} if len(known) else {}
