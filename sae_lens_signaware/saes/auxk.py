"""AuxK for signed latents: dead ones learn to reconstruct the error that the others leave.

arXiv 2406.04093, appendix A.2, as SAELens's ``topk`` has it. Signs, and the treatment of run-time
normalisations, are ours (docs/architectures.md).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sae_lens_signaware.saes.training import SignedTrainingMixin


def top_dead(ungated: Tensor, dead: Tensor, k: int) -> Tensor:
    """The ``k`` values of each token that are largest in size among the dead latents; 0 elsewhere.

    Args:
        ungated: (..., n_latents), signed.
        dead: (n_latents,) bool.
        k: where no more latents are dead, all of them are kept.
    """
    if k >= len(dead):
        return torch.where(dead, ungated, 0.0)
    size = ungated.detach().abs().masked_fill(~dead, -1.0)
    keep = torch.zeros_like(size, dtype=torch.bool).scatter_(-1, size.topk(k).indices, True)
    return torch.where(keep & dead, ungated, 0.0)


def dead_columns(dead: Tensor) -> Tensor | slice:
    """Which latents to compute with: the dead ones, where counting them is free.

    On a GPU their number would have to be waited for, and in a compiled graph it may not shape a
    tensor: there all latents are taken, and :func:`top_dead` drops those that are alive.
    """
    if dead.device.type != "cpu" or torch.compiler.is_compiling():
        return slice(None)
    return dead.nonzero().squeeze(1)


def auxk_loss(
    sae: "SignedTrainingMixin",
    sae_in: Tensor,
    sae_out: Tensor,
    pre: Tensor,
    columns: Tensor | slice,
    dead: Tensor,
) -> Tensor:
    """min(n_dead / k, 1) * mean over tokens of ||e - z~ W_dec||^2,  e = sg(x - x^),  k = d_in // 2.

    z~ are the ``k`` largest ungated latents among the dead: magnitudes as if every gate were open.

    Args:
        sae_in, sae_out: (n_tokens, d_in), x and x^.
        pre: (n_tokens, n_columns) pre-activations of the latents ``columns``.
        dead: (d_sae,) bool.

    Returns:
        ().
    """
    k = max(1, sae.cfg.d_in // 2)
    z = top_dead(sae._ungated(pre, columns), dead[columns], k)
    recons = _in_input_space(sae, sae_in, z @ sae.W_dec[columns])
    error = (sae_in - sae_out).detach()
    scale = (dead.sum() / k).clamp(max=1.0)
    return scale * (recons - error).pow(2).sum(-1).mean()


def _in_input_space(sae: "SignedTrainingMixin", sae_in: Tensor, product: Tensor) -> Tensor:
    # the error is no activation but a difference of two: a run-time normalisation scales it back
    # and does not shift it. SAELens's output half does both.
    shift = sae._normalised_out(sae_in, torch.zeros_like(product))
    return sae._normalised_out(sae_in, product) - shift
