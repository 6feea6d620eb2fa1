"""Bipolar census: how often and how strongly each side of a latent fires (docs/measures.md)."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.results import Provenance, Result, Values
from sae_lens_signaware.evaluation.sums import SideSums, squared_norms, sum_sides
from sae_lens_signaware.saes import BIPOLAR_MIN_SHARE


@dataclasses.dataclass(frozen=True, repr=False)
class BipolarCensus(Result):
    """Firing rates and energies of both sides of every latent, (d_sae,) float64 each.

    Attributes:
        firing_rate_pos, firing_rate_neg: share of tokens on which the side fires.
        energy_pos, energy_neg: mean over tokens of (z_i ||d_i||)^2 on that side, in squared units
            of the activations; of an SAE that normalises each token, of the normalised ones. d_i is
            what one unit of the latent writes.
        min_share: min(p+, p-) / (p+ + p-), from 0 (one-sided) to 1/2; NaN where it never fires.
        min_energy_share: the same share of the energies.
    """

    firing_rate_pos: Values
    firing_rate_neg: Values
    energy_pos: Values
    energy_neg: Values
    min_share: Values
    min_energy_share: Values

    def _summary(self) -> Mapping[str, object]:
        return {"l0": self.l0, "dead_share": self.dead_share, "bipolar_share": self.bipolar_share()}

    @property
    def firing_rate(self) -> Tensor:
        """Share of tokens on which a latent fires, on either side: (d_sae,)."""
        return self.firing_rate_pos + self.firing_rate_neg

    @property
    def alive(self) -> Tensor:
        """Which latents fired at least once, on either side: (d_sae,) bool."""
        return self.firing_rate > 0

    @property
    def pos_share(self) -> Tensor:
        """Share of each latent's firings on the + side, (d_sae,); 1/2 where it never fires."""
        return torch.where(self.alive, self.firing_rate_pos / self.firing_rate, 0.5)

    @property
    def log_sparsity(self) -> Tensor:
        """log10 of the firing rate, (d_sae,) float32, as in SAELens's ``sparsity.safetensors``."""
        return self.firing_rate.clamp(min=1e-10).log10().float()  # SAELens's own floor

    @property
    def one_sided(self) -> bool:
        """Whether no latent ever fired on its - side, as in every plain SAE."""
        return not (self.firing_rate_neg > 0).any().item()

    @property
    def l0(self) -> float:
        """Mean number of active latents per token."""
        return self.firing_rate.sum().item()

    @property
    def dead_share(self) -> float:
        """Share of latents that never fired over ``n_tokens``; cite both."""
        return 1 - self.alive.double().mean().item()

    def bipolar(self, min_share: float = BIPOLAR_MIN_SHARE) -> Tensor:
        """Which latents are alive and have ``min_share`` of their firings on the rarer side."""
        require(0 <= min_share <= 0.5, "min_share", min_share, "from 0 to 0.5")
        return self.alive & (self.min_share.nan_to_num(0.0) >= min_share)

    def bipolar_share(self, min_share: float = BIPOLAR_MIN_SHARE) -> float:
        """Share of the alive latents that are bipolar; 0 where none is alive."""
        n_alive = self.alive.sum().item()
        return self.bipolar(min_share).sum().item() / n_alive if n_alive else 0.0

    def bipolar_activity_share(self, min_share: float = BIPOLAR_MIN_SHARE) -> float:
        """Share of bipolar latents among the active latents of a token; 0 where none is active."""
        active = self.firing_rate[self.bipolar(min_share)].sum().item()
        return active / self.l0 if self.l0 else 0.0

    def bipolar_share_by_energy_rank(self, min_share: float = BIPOLAR_MIN_SHARE) -> Tensor:
        """Share of bipolar latents among the k of the highest energy, for k = 1 .. number alive."""
        energy = (self.energy_pos + self.energy_neg)[self.alive]
        order = energy.argsort(descending=True)
        bipolar = self.bipolar(min_share)[self.alive][order].double()
        return bipolar.cumsum(0) / torch.arange(1, len(bipolar) + 1, device="cpu")


def bipolar_census(sae: SAE[Any], activations: Iterable[Tensor] | Tensor) -> BipolarCensus:
    """Count and weigh the two sides of every latent in one pass.

    Args:
        sae: any SAELens SAE. A plain one has no - side: its census says so (``one_sided``).
        activations: (n, d_in) or (batch, position, d_in) tensors, or one such tensor, scaled as
            the SAE expects them. Of an ``ActivationsStore``, which never ends, take
            ``itertools.islice(store, n_batches)``.

    Raises:
        InvalidInputError: activations are empty, of the wrong shape or type, or not finite.
    """
    return census_of(sae, sum_sides(sae, activations))


def census_of(sae: SAE[Any], sums: SideSums) -> BipolarCensus:
    """Compute the census from the sums of a pass."""
    n_fired = sums.n_fired.double()
    rate = n_fired / sums.n_tokens
    energy = sums.sum_sq / sums.n_tokens * squared_norms(sae)
    return BipolarCensus(
        provenance=Provenance.of(sae, sums.n_tokens),
        firing_rate_pos=rate[0],
        firing_rate_neg=rate[1],
        energy_pos=energy[0],
        energy_neg=energy[1],
        # of counts, for a tenth is to be 0.1 and not a little less; 0 / 0 is NaN: never fired
        min_share=n_fired.amin(0) / n_fired.sum(0),
        min_energy_share=energy.amin(0) / energy.sum(0),
    )
