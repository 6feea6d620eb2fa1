"""One pass over activations: firings, energies and residual alignment of both sides of a latent.

What a batch adds is read from its active latents, so that the cost beyond encode and decode grows
with L0, not with d_sae. Sums are in float64; memory does not grow with the number of tokens.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.evals import ExplainedVarianceCalculator
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.inputs import (
    batches_of,
    flat_activations,
    require_autoencoder,
    require_finite_latents,
)
from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.latents import ActiveLatents

MIN_VARIANCE = 1e-10
"""Variance below which SAELens's calculator returns 0 or 1, whatever the error."""

MIN_VARIANCE_SHARE = 1e-5
"""Variance over mean square at which sums in float32 still give R² to about 0.001."""


@dataclasses.dataclass
class SideSums:
    """Running sums over tokens; row 0 is the + side, row 1 the - side.

    Attributes:
        n_tokens: tokens seen.
        n_fired: (2, d_sae) int64, firings.
        sum_sq: (2, d_sae) float64, sum of z_i^2 where the side fires.
        sum_alignment: (2, d_sae) float64, sum of z_i <d_i, x - x^> where the side fires; zeros
            where it was not asked for.
    """

    n_tokens: int
    n_fired: Tensor
    sum_sq: Tensor
    sum_alignment: Tensor


@torch.no_grad()
def sum_sides(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor,
    with_alignment: bool = False,
    variance: ExplainedVarianceCalculator | None = None,
) -> SideSums:
    """Encode every batch once, decode it once where that is needed, and sum over tokens.

    Args:
        sae: any SAELens SAE; latents of either sign.
        activations: see :func:`batches_of`.
        with_alignment: whether to fill ``sum_alignment``.
        variance: SAELens's R² calculator, fed in the same pass; see :func:`explained_variance_of`.

    Raises:
        InvalidInputError: what :func:`batches_of` and :func:`require_autoencoder` refuse.
    """
    require_autoencoder(sae)
    shape = (2, sae.cfg.d_sae)
    sums = SideSums(
        0,
        torch.zeros(shape, dtype=torch.int64, device="cpu"),
        torch.zeros(shape, dtype=torch.float64, device="cpu"),
        torch.zeros(shape, dtype=torch.float64, device="cpu"),
    )
    directions = decoder_directions(sae) if with_alignment else None
    with flat_activations(sae):
        for x in batches_of(activations, sae.cfg.d_in):
            x = x.to(sae.device)
            z = sae.encode_sparse(x) if isinstance(sae, SignedSAEMixin) else sae.encode(x)
            residual = None
            if directions is not None or variance is not None:
                x_hat = sae.decode(z)
                residual = (x - x_hat).float() if directions is not None else None
                if variance is not None:
                    variance.add_batch(x_hat, x)
            _add_batch(sums, z, residual, directions)
    return sums


def decoder_directions(sae: SAE[Any]) -> Tensor:
    """Return the directions d_i that one unit of latent i writes, (d_sae, d_in).

    They are the rows of W_dec, but for SAELens's TopK, which can divide by their norms.
    """
    W_dec = sae.W_dec.float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8)
    return W_dec


def squared_norms(sae: SAE[Any]) -> Tensor:
    """Return ||d_i||^2 of every latent, (d_sae,) float64 on the CPU."""
    return decoder_directions(sae).detach().cpu().double().square().sum(1)


def explained_variance_of(variance: ExplainedVarianceCalculator) -> float:
    """Return the R² of all batches that were added to SAELens's calculator.

    Raises:
        InvalidInputError: the tokens hardly differ, so that there is no variance to explain; or the
            SAE's output is so large that its squared error overflows.
    """
    n_tokens, sum_x = variance.num_samples, variance.sum_x
    if sum_x is not None:
        mean_square = variance.sum_squared_norm / n_tokens
        total = mean_square - (sum_x / n_tokens).square().sum().item()
        if total < max(MIN_VARIANCE, MIN_VARIANCE_SHARE * mean_square):
            raise InvalidInputError(
                "activations must differ more from token to token, got a variance of "
                f"{total:.3g} over {n_tokens:,} token(s) of mean square {mean_square:.3g}: "
                "explained variance is not defined"
            )
    explained_variance = variance.compute()
    if not math.isfinite(explained_variance):
        raise InvalidInputError(
            "SAE must give outputs whose squared error float32 holds, "
            f"got an explained variance of {explained_variance}"
        )
    return explained_variance


def _add_batch(
    sums: SideSums, z: Tensor, residual: Tensor | None, directions: Tensor | None
) -> None:
    active, value = ActiveLatents.of(z)
    require_finite_latents(value)
    value, d_sae = value.float(), active.d_sae
    # + side of latent i is bin i, - side is bin i + d_sae
    side = active.latent + d_sae * (value < 0)
    sums.n_tokens += active.n_tokens
    counts = side.bincount(minlength=2 * d_sae)
    sums.n_fired += counts.view(2, -1).cpu()
    # float64 is for the CPU: MPS has none
    weights = value.cpu().double().square()
    energy = side.cpu().bincount(weights=weights, minlength=2 * d_sae)
    sums.sum_sq += energy.view(2, -1)
    if residual is None or directions is None:
        return
    # sum over tokens of z_i (x - x^): a bag a side, then <d_i, .>
    weighted = ActiveLatents(active.token, side, active.n_tokens, 2 * d_sae).sum_by_latent(
        value, residual
    )
    # float32 within a batch, as the bags are; float64 from batch to batch
    alignment = torch.linalg.vecdot(weighted.view(2, d_sae, -1), directions)
    sums.sum_alignment += alignment.cpu().double()
