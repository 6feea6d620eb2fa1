"""Polarity calibration: is the magnitude of a latent right on each side? (docs/measures.md)"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.inputs import require_sae
from sae_lens_signaware.evaluation.results import Provenance, Result
from sae_lens_signaware.evaluation.streaming import SideSums, squared_norms, sum_sides


@dataclasses.dataclass(frozen=True, repr=False)
class PolarityCalibration(Result):
    """Calibration of every latent; (d_sae,) float64 each, NaN where a side never fires.

    Attributes:
        gain_pos, gain_neg: factor on the side's magnitude that minimises the squared error, all
            else fixed. At 1 the side is calibrated; above 1 it is shrunk.
    """

    gain_pos: Tensor
    gain_neg: Tensor

    def _summary(self) -> Mapping[str, object]:
        return {
            f"median {name}": getattr(self, name).nanmedian().item()
            for name in ("gain_pos", "gain_neg")
        }


def polarity_calibration(
    sae: SAE[Any], activations: Iterable[Tensor] | Tensor
) -> PolarityCalibration:
    """Measure the gain of each side of each latent that would lower the squared error most.

    Over the tokens where side s of latent i fires, the gain is
        a_i,s = 1 + E[z_i <d_i, x - x^>] / (E[z_i^2] ||d_i||^2)

    Args:
        sae: any SAELens SAE.
        activations: (n, d_in) or (batch, position, d_in) tensors, or one such tensor, scaled as
            the SAE expects them. Of an ``ActivationsStore``, which never ends, take
            ``itertools.islice(store, n_batches)``.

    Raises:
        ValueError: activations are empty, of the wrong shape or type, or not finite; or the SAE
            normalises each token at run time, so that latents and residuals differ in their units.
    """
    require_common_units(sae, "polarity_calibration")
    return calibration_of(sae, sum_sides(sae, activations, with_alignment=True))


QUANTILES = (0.05, 0.5, 0.95)
"""Those that tables and logs give of the gains."""


def gain_quantiles(gain: Tensor) -> dict[float, float]:
    """Compute :data:`QUANTILES` of the gains (d_sae,) of a side; empty where it never fires."""
    known = gain[~gain.isnan()]
    return {q: known.quantile(q).item() for q in QUANTILES} if len(known) else {}


PER_TOKEN = ("layer_norm", "constant_norm_rescale")
"""Normalisations that are made anew for each token."""


def has_common_units(sae: SAE[Any]) -> bool:
    """Tell whether residuals have the units of the latents: nothing is normalised per token."""
    return sae.cfg.normalize_activations not in PER_TOKEN


def require_common_units(sae: SAE[Any], measure: str) -> None:
    """Raise InvalidInputError where activations are not in the units of the latents."""
    require_sae(sae)
    allowed = f"no per-token normalisation, for {measure}"
    normalisation = sae.cfg.normalize_activations
    require(has_common_units(sae), "normalize_activations", normalisation, allowed)


def calibration_of(sae: SAE[Any], sums: SideSums) -> PolarityCalibration:
    """Compute the calibration from the sums of a pass with alignment."""
    gain = 1 + sums.sum_alignment / (sums.sum_sq * squared_norms(sae))
    gain[sums.n_fired == 0] = float("nan")
    return PolarityCalibration(
        provenance=Provenance.of(sae, sums.n_tokens), gain_pos=gain[0], gain_neg=gain[1]
    )
