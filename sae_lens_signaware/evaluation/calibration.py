"""Polarity calibration: is the magnitude of a latent right on each side? (docs/evaluate.md)"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.census import SideSums, squared_norms, sum_sides
from sae_lens_signaware.evaluation.results import Provenance, Result, Values

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
        return self.quantiles()

    def quantiles(self) -> dict[str, float]:
        """Quantiles of the gains that are known: "gain_pos_q05", "_q50", "_q95", and of "gain_neg".

        A side that no latent uses has none.
        """
        return {
            f"{name}_q{percent:02}": gain.nanquantile(percent / 100).item()
            for name, gain in (("gain_pos", self.gain_pos), ("gain_neg", self.gain_neg))
            for percent in (5, 50, 95)
            if not gain.isnan().all()
        }


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
    found, allowed = sae.cfg.normalize_activations, "none that is made per token, for calibration"
    require(has_common_units(sae), "normalize_activations", found, allowed)
    return calibration_of(sae, sum_sides(sae, activations, with_alignment=True))


def calibration_of(sae: SAE[Any], sums: SideSums) -> PolarityCalibration:
    """Compute the calibration from the sums of a pass with alignment."""
    gain = 1 + sums.sum_alignment / (sums.sum_sq * squared_norms(sae))  # 0 / 0: never fired
    return PolarityCalibration(Provenance.of(sae, sums.n_tokens), gain[0], gain[1])


def has_common_units(sae: SAE[Any]) -> bool:
    """Whether residuals have the units of the latents: nothing is normalised per token."""
    return sae.cfg.normalize_activations not in PER_TOKEN
