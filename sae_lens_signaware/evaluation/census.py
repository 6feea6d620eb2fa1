"""Bipolar census: how often and how strongly each side of a latent fires (docs/evaluate.md)."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.evals import ExplainedVarianceCalculator
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs
from sae_lens_signaware.evaluation.results import Provenance, Result, Values
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
    """

    firing_rate_pos: Values
    firing_rate_neg: Values
    energy_pos: Values
    energy_neg: Values
    min_share: Values

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
        return (self.firing_rate_pos / self.firing_rate).nan_to_num(0.5)

    @property
    def log_sparsity(self) -> Tensor:
        """log10 of the firing rate, (d_sae,) float32, as in SAELens's ``sparsity.safetensors``."""
        return self.firing_rate.clamp(min=1e-10).log10().float()  # SAELens's own floor

    @property
    def one_sided(self) -> bool:
        """Whether no latent ever fired on its - side, as in every plain SAE."""
        return not self.firing_rate_neg.any()

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
        return self.min_share >= min_share

    def bipolar_share(self, min_share: float = BIPOLAR_MIN_SHARE) -> float:
        """Share of the alive latents that are bipolar; 0 where none is alive."""
        return self.bipolar(min_share).sum().item() / max(1, self.alive.sum().item())


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


def census_of(sae: SAE[Any], sums: "SideSums") -> BipolarCensus:
    """Compute the census from the sums of a pass."""
    n_fired = sums.n_fired.double()
    rate, energy = n_fired / sums.n_tokens, sums.sum_sq / sums.n_tokens * squared_norms(sae)
    return BipolarCensus(
        provenance=Provenance.of(sae, sums.n_tokens),
        firing_rate_pos=rate[0],
        firing_rate_neg=rate[1],
        energy_pos=energy[0],
        energy_neg=energy[1],
        # of counts, for a tenth is to be 0.1 and not a little less; 0 / 0 is NaN: never fired
        min_share=n_fired.amin(0) / n_fired.sum(0),
    )


@dataclasses.dataclass
class SideSums:
    """Sums over tokens; row 0 is the + side, row 1 the - side.

    Attributes:
        n_tokens: tokens seen.
        n_fired: (2, d_sae) int64, firings.
        sum_sq: (2, d_sae) float64, sum of z_i^2 where the side fires.
        sum_alignment: (2, d_sae) float64, sum of z_i <d_i, x - x^> where the side fires.
        variance: ``compute()`` is R², as SAELens has it.
    """

    n_tokens: int
    n_fired: Tensor
    sum_sq: Tensor
    sum_alignment: Tensor
    variance: ExplainedVarianceCalculator


@torch.no_grad()
def sum_sides(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor,
    *,
    with_variance: bool = False,
    with_alignment: bool = False,
) -> SideSums:
    """Encode every batch once, decode it once where that is needed, and sum over tokens in float64.

    Args:
        sae: any SAELens SAE; latents of either sign.
        activations: see :func:`~.inputs.batches_of`.
        with_variance: whether to fill ``variance``, for which outputs are needed.
        with_alignment: whether to fill ``sum_alignment`` too, which costs a product more.
    """
    inputs.require_autoencoder(sae)
    d_sae = sae.cfg.d_sae
    zeros = torch.zeros(2, d_sae, dtype=torch.float64, device="cpu")
    variance = ExplainedVarianceCalculator()
    sums = SideSums(0, zeros.long(), zeros.clone(), zeros.clone(), variance)
    directions = inputs.decoder_directions(sae)
    with inputs.flat_activations(sae):
        for x in inputs.batches_of(activations, sae.cfg.d_in):
            x = x.to(sae.device)
            z = inputs.latents_of(sae, x)
            sums.n_tokens += len(x)
            token, latent = z.nonzero(as_tuple=True)
            value = z[token, latent].cpu().double()  # MPS has no float64
            side = (latent.cpu() + d_sae * (value < 0)).long()
            sums.n_fired += _per_side(side, d_sae)
            sums.sum_sq += _per_side(side, d_sae, value.square())
            if not (with_variance or with_alignment):
                continue
            x_hat = sae.decode(z)
            inputs.require_finite("outputs of the SAE", x_hat)
            # SAELens squares in the type it gets: in float32 a large mean would take the digits
            variance.add_batch(x_hat.cpu().double(), x.cpu().double())
            if with_alignment:
                aligned = ((x - x_hat).float() @ directions.T)[token, latent].cpu().double()
                sums.sum_alignment += _per_side(side, d_sae, value * aligned)
    return sums


def _per_side(side: Tensor, d_sae: int, weights: Tensor | None = None) -> Tensor:
    return side.bincount(weights, minlength=2 * d_sae).view(2, -1)


def squared_norms(sae: SAE[Any]) -> Tensor:
    """||d_i||^2 of every latent, (d_sae,) float64 on the CPU."""
    return inputs.decoder_directions(sae).cpu().double().square().sum(1)
