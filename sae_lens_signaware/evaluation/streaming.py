"""One pass over activations: firings, energies and residual alignment of each latent's two sides.

All that a batch contributes is read from its nonzero latents, so the cost beyond encode and decode
grows with L0, not with d_sae. Sums are float64; memory does not grow with the number of tokens.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sae_lens import SAE, ActivationsStore
from sae_lens.evals import ExplainedVarianceCalculator
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.latents import ActiveLatents


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


def batches_of(activations: Iterable[Tensor] | Tensor, d_in: int) -> Iterator[Tensor]:
    """Any iterable of (n, d_in) tensors, or one tensor, as batches of at most 4,096 tokens.

    Raises:
        InvalidInputError: an ``ActivationsStore``, which never ends; a batch is not (n, d_in), or not
            finite, or there is no token at all.
    """
    if isinstance(activations, ActivationsStore):
        raise InvalidInputError(
            "activations must come to an end, got an ActivationsStore; "
            "take itertools.islice(store, n_batches) of it"
        )
    n_tokens = 0
    for chunk in [activations] if isinstance(activations, Tensor) else activations:
        if chunk.ndim != 2 or chunk.shape[1] != d_in:
            raise InvalidInputError(
                f"activations must be (n, {d_in}) for this SAE, got {tuple(chunk.shape)}"
            )
        if chunk.dtype == torch.bool or chunk.element_size() < (
            2 if chunk.is_floating_point() else 1
        ):
            raise InvalidInputError(
                f"activations must be numbers of 16 bits or more, got {chunk.dtype}"
            )
        for batch in chunk.split(4096) if len(chunk) else ():
            require_finite(batch)
            n_tokens += len(batch)
            yield batch
    if n_tokens == 0:
        raise InvalidInputError("activations must hold at least one token, got none")


@contextmanager
def flat_activations(sae: SAE[Any]) -> Iterator[None]:
    """Within: the SAE takes (..., d_in), as a store gives it, also where it was trained on hook_z."""
    reshapes = sae.hook_z_reshaping_mode
    if reshapes:
        sae.turn_off_forward_pass_hook_z_reshaping()
    try:
        yield
    finally:
        if reshapes:
            sae.turn_on_forward_pass_hook_z_reshaping()


def require_autoencoder(sae: SAE[Any]) -> None:
    """Raise InvalidInputError for what reconstructs another activation, or reads a whole sequence at once."""
    architecture = sae.cfg.architecture()
    if hasattr(sae.cfg, "d_out") or architecture == "temporal":
        raise InvalidInputError(
            f"SAE must be one that reconstructs its own input token by token, got {architecture!r}"
        )


def require_finite(activations: Tensor) -> None:
    """Raise InvalidInputError where there is a NaN or an inf."""
    if activations.numel() and not torch.stack(activations.aminmax()).isfinite().all():
        raise InvalidInputError("activations must be finite, got NaN or inf")


@torch.no_grad()
def sum_sides(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor,
    with_alignment: bool = False,
    variance: ExplainedVarianceCalculator | None = None,
) -> SideSums:
    """Encode every batch once, decode it once where that is needed, and add up.

    Args:
        sae: any SAELens SAE; latents of either sign.
        activations: see :func:`batches_of`.
        with_alignment: whether to fill ``sum_alignment``.
        variance: SAELens's R2 calculator, fed in the same pass.

    Raises:
        ValueError: no tokens, or activations of the wrong width or not finite; a transcoder, or an SAE
            over whole sequences.
    """
    require_autoencoder(sae)
    shape = (2, sae.cfg.d_sae)
    sums = SideSums(
        0,
        torch.zeros(shape, dtype=torch.int64),
        torch.zeros(shape, dtype=torch.float64),
        torch.zeros(shape, dtype=torch.float64),
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
    """(d_sae, d_in) direction d_i that one unit of latent i writes; SAELens's TopK can divide by the norm."""
    W_dec = sae.W_dec.float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8)
    return W_dec


def _add_batch(
    sums: SideSums, z: Tensor, residual: Tensor | None, directions: Tensor | None
) -> None:
    active, value = ActiveLatents.of(z)
    value, d_sae = value.float(), active.d_sae
    # + side of latent i is bin i, - side is bin i + d_sae
    side = active.latent + d_sae * (value < 0)
    sums.n_tokens += active.n_tokens
    counts = side.bincount(minlength=2 * d_sae)
    sums.n_fired += counts.view(2, -1).cpu()
    energy = side.bincount(weights=value.double().square(), minlength=2 * d_sae)
    sums.sum_sq += energy.view(2, -1).cpu()
    if residual is None or directions is None:
        return
    # sum over tokens of z_i (x - x^): a bag a side, then <d_i, .>
    weighted = ActiveLatents(active.token, side, active.n_tokens, 2 * d_sae).sum_by_latent(
        value, residual
    )
    # float32 within a batch, as the bags are; float64 from batch to batch
    sums.sum_alignment += (
        torch.linalg.vecdot(weighted.view(2, d_sae, -1), directions).double().cpu()
    )
