"""The pre-activations that are largest in size, of a batch or of each token, without a gradient.

Which are the largest of a batch is known once all have been looked at. So tiles of pre-activations
are compared with a cutoff that lets some more pass, and the largest of those are kept. Ours.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sae_lens_signaware.saes.activations import active_mask, largest_of_tokens
from sae_lens_signaware.saes.kernels import CHUNK_ELEMENTS, encode_active
from sae_lens_signaware.saes.latents import ActiveLatents

SAMPLED_TOKENS = 32
"""Tokens from which a first cutoff is taken."""

SURPLUS = 1.25
"""How many times the pre-activations that are looked for a first cutoff is to let pass."""

LOWERED = (1.0, 0.8, 0.5, 0.2, 0.05, 0.01, 0.0)
"""Factors of a cutoff that are tried until enough pass. At 0 all do that are not 0."""


class Encoder(NamedTuple):
    """What a pre-activation p = x @ W_enc (+ b_enc) and its size relu(|p| + b_mag) * scale are of.

    Attributes:
        W_enc: (d_in, d_sae).
        b_enc, scale, b_mag: (d_sae,) each; b_enc may be None.
    """

    W_enc: Tensor
    b_enc: Tensor | None
    scale: Tensor
    b_mag: Tensor

    def pre(self, x: Tensor) -> Tensor:
        """(n_tokens, d_in) -> (n_tokens, d_sae) pre-activations."""
        return x @ self.W_enc if self.b_enc is None else torch.addmm(self.b_enc, x, self.W_enc)

    def size(self, pre: Tensor, of: Tensor | slice = slice(None)) -> Tensor:
        """Sizes of pre-activations of the latents ``of``, which end their last dimension."""
        return pre.abs().add_(self.b_mag[of]).relu_().mul_(self.scale[of])


@torch.no_grad()
def encode_largest(
    x: Tensor, encoder: Encoder, n_largest: int, cutoff: float | None = None
) -> tuple[ActiveLatents, Tensor, float] | None:
    """The ``n_largest`` pre-activations p of a batch by size, as :class:`Encoder` has both.

    What is found does not depend on ``cutoff``; the time it takes does.

    Args:
        x: (n_tokens, d_in).
        cutoff: a size that somewhat more than ``n_largest`` are above, of an earlier batch. None
            takes one from some of the tokens.

    Returns:
        The latents; their (n_active,) p, not scaled; the size of the smallest. Fewer than asked for
        where the others are 0. None where an input or a weight is not finite.
    """
    passed: tuple[ActiveLatents, Tensor] | None = None
    for at in _cutoffs(x, encoder, n_largest, cutoff):
        threshold = torch.relu(at / encoder.scale - encoder.b_mag)[None]
        passed = encode_active(
            x,
            encoder.W_enc,
            encoder.b_enc,
            lambda pre, of, t=threshold: active_mask(pre, t[:, of]),
            max_density=1.0,
        )
        if passed is None:
            return None
        if len(passed[1]) >= n_largest:
            break
    assert passed is not None  # at least one cutoff is tried
    latents, pre = passed
    size = encoder.size(pre, latents.latent)
    keep = largest_mask(size, n_largest)
    latents, pre = latents.where(keep), pre[keep]
    return latents, pre, size[keep].min().item() if len(pre) else 0.0


@torch.no_grad()
def encode_largest_of_tokens(
    x: Tensor, encoder: Encoder, k: int
) -> tuple[ActiveLatents, Tensor] | None:
    """The ``k`` pre-activations p of each token that are largest by size, as :class:`Encoder` has.

    Args:
        x: (n_tokens, d_in).
        k: at most d_sae.

    Returns:
        The latents, ``k`` of each token; their (n_tokens * k,) p, not scaled. None where an input
        or a weight is not finite.
    """
    d_sae = encoder.W_enc.shape[1]
    latent, values = [], []
    for tokens in x.split(max(1, CHUNK_ELEMENTS // d_sae)):  # no tokens are one chunk of none
        pre = encoder.pre(tokens)
        if not pre.sum().isfinite():
            return None  # the dense path says what is wrong
        latent.append(largest_of_tokens(encoder.size(pre), k).sort(dim=-1).values)
        values.append(pre.gather(1, latent[-1]))
    token = torch.arange(len(x), device=x.device).repeat_interleave(k)
    active = ActiveLatents(token, torch.cat(latent).view(-1), len(x), d_sae)
    return active, torch.cat(values).view(-1)


def largest_mask(size: Tensor, n_largest: int) -> Tensor:
    """Mask of the ``n_largest`` of (n,) sizes; of equal ones the first are taken."""
    if n_largest >= len(size):
        return torch.ones_like(size, dtype=torch.bool)
    if n_largest == 0:
        return torch.zeros_like(size, dtype=torch.bool)
    smallest = size.kthvalue(len(size) - n_largest + 1).values
    keep = size >= smallest
    surplus = int(keep.count_nonzero()) - n_largest
    if surplus:
        equal = (size == smallest).nonzero().squeeze(1)
        keep[equal[len(equal) - surplus :]] = False
    return keep


def _cutoffs(x: Tensor, encoder: Encoder, n_largest: int, cutoff: float | None) -> Iterator[float]:
    if cutoff is not None:
        yield cutoff
    first = first_cutoff(x, encoder, n_largest)
    for factor in LOWERED:
        yield first * factor


def first_cutoff(x: Tensor, encoder: Encoder, n_largest: int) -> float:
    """A size that about ``SURPLUS * n_largest`` pre-activations are above, by some tokens."""
    sample = x[:: max(1, len(x) // SAMPLED_TOKENS)]
    size = encoder.size(encoder.pre(sample)).view(-1)
    n = int(SURPLUS * n_largest * len(sample) / max(1, len(x))) + 1
    return size.kthvalue(len(size) - n + 1).values.item() if n <= len(size) else 0.0
