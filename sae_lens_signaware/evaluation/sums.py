"""One pass over activations: firings, energies and residuals of both sides of a latent, and R²."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs


@dataclasses.dataclass
class Variance:
    """Sums for R² = 1 - sum ||x - x^||^2 / sum ||x - mean||^2, float64.

    They are about ``shift``, the mean of the first batch: about 0, as SAELens's calculator has
    them, digits are lost where the mean of the activations is large against their spread.
    """

    shift: Tensor | None = None
    n_tokens: int = 0
    sum: Tensor | float = 0.0
    sum_sq: float = 0.0
    residual_sq: float = 0.0

    def add(self, x: Tensor, x_hat: Tensor) -> None:
        """Add a batch, (n, d_in) each."""
        x, x_hat = x.cpu().double(), x_hat.cpu().double()
        if self.shift is None:
            self.shift = x.mean(0)
        shifted = x - self.shift
        self.n_tokens += len(x)
        self.sum = self.sum + shifted.sum(0)
        self.sum_sq += shifted.square().sum().item()
        self.residual_sq += (x - x_hat).square().sum().item()

    @property
    def total(self) -> float:
        """Sum over tokens of ||x - mean||^2."""
        return self.sum_sq - torch.as_tensor(self.sum).square().sum().item() / self.n_tokens

    @property
    def is_defined(self) -> bool:
        """Whether the tokens differ by more than the rounding of float32."""
        scale = torch.as_tensor(self.shift).square().sum().item()
        return self.total > 1e-13 * self.n_tokens * scale

    def explained(self) -> float:
        """R² of all batches; InvalidInputError where the tokens do not differ."""
        allowed = "of tokens that differ, for explained variance"
        require(self.is_defined, "activations", f"a variance of {self.total:.3g}", allowed)
        return 1 - self.residual_sq / self.total


@dataclasses.dataclass
class SideSums:
    """Sums over tokens; row 0 is the + side, row 1 the - side.

    Attributes:
        n_tokens: tokens seen.
        n_fired: (2, d_sae) int64, firings.
        sum_sq: (2, d_sae) float64, sum of z_i^2 where the side fires.
        sum_alignment: (2, d_sae) float64, sum of z_i <d_i, x - x^> where the side fires.
        variance: sums for R².
    """

    n_tokens: int
    n_fired: Tensor
    sum_sq: Tensor
    sum_alignment: Tensor
    variance: Variance


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
        with_variance, with_alignment: whether to fill these.
    """
    inputs.require_autoencoder(sae)
    d_sae = sae.cfg.d_sae
    zeros = torch.zeros(2, d_sae, dtype=torch.float64, device="cpu")
    sums = SideSums(0, zeros.long(), zeros.clone(), zeros.clone(), Variance())
    directions = inputs.decoder_directions(sae) if with_alignment else None
    with inputs.flat_activations(sae):
        for x in inputs.batches_of(activations, sae.cfg.d_in):
            x = x.to(sae.device)
            z = inputs.latents_of(sae, x)
            sums.n_tokens += len(x)
            token, latent = z.nonzero(as_tuple=True)
            value = z[token, latent].cpu().double()  # MPS has no float64
            side = (latent.cpu() + d_sae * (value < 0)).long()
            sums.n_fired += side.bincount(minlength=2 * d_sae).view(2, -1)
            sums.sum_sq += _per_side(side, value.square(), d_sae)
            if not (with_variance or with_alignment):
                continue
            x_hat = sae.decode(z)
            inputs.require_finite("outputs of the SAE", x_hat)
            if with_variance:
                sums.variance.add(x, x_hat)
            if directions is not None:
                aligned = ((x - x_hat).float() @ directions.T)[token, latent].cpu().double()
                sums.sum_alignment += _per_side(side, value * aligned, d_sae)
    return sums


def _per_side(side: Tensor, weights: Tensor, d_sae: int) -> Tensor:
    return side.bincount(weights=weights, minlength=2 * d_sae).view(2, -1)


def squared_norms(sae: SAE[Any]) -> Tensor:
    """||d_i||^2 of every latent, (d_sae,) float64 on the CPU."""
    return inputs.decoder_directions(sae).cpu().double().square().sum(1)
