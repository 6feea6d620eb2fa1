"""AuxK for signed latents: dead ones learn to reconstruct the error that the others leave.

arXiv 2406.04093, appendix A.2, as SAELens's ``topk`` has it. Signs, and the treatment of run-time
normalisations, are ours (docs/architectures.md).
"""

from collections.abc import Callable

import torch
from torch import Tensor


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
    largest = size.topk(k, sorted=False).indices  # in order they take twice as long on a CPU
    keep = torch.zeros_like(size, dtype=torch.bool).scatter_(-1, largest, True)
    return torch.where(keep & dead, ungated, 0.0)


def dead_columns(dead: Tensor, within: slice = slice(None)) -> Tensor | slice:
    """Which of the latents ``within`` to compute with: the dead ones, where counting them is free.

    On a GPU their number would have to be waited for, and in a compiled graph it may not shape a
    tensor: there all of them are taken, and :func:`top_dead` drops those that are alive.
    """
    if dead.device.type != "cpu" or torch.compiler.is_compiling():
        return within
    return dead[within].nonzero().squeeze(1) + (within.start or 0)


def auxk_loss(
    ungated: Tensor,
    W_dec: Tensor,
    error: Tensor,
    dead: Tensor,
    to_input_space: Callable[[Tensor], Tensor],
    k: int | None = None,
) -> Tensor:
    """min(n_dead / k, 1) * mean over tokens of ||e - z~ W_dec||^2.

    n_dead of the latents are dead.

    z~ are the ``k`` largest ungated latents among the dead: magnitudes as if every gate were open.

    Args:
        ungated: (n_tokens, n) signed magnitudes of n latents.
        W_dec, dead: (n, d_in) and (n,) bool, of the same latents.
        error: (n_tokens, d_in), e = x - x^, a constant.
        to_input_space: what a product with the decoder is in the units of ``error``.
        k: how many latents of a token learn; None takes d_in // 2.

    Returns:
        ().
    """
    k = k or max(1, error.shape[-1] // 2)
    recons = to_input_space(top_dead(ungated, dead, k) @ W_dec)
    # not in torch's default dtype, which a program may set
    dtype = torch.promote_types(error.dtype, torch.float32)
    scale = (dead.sum().to(dtype) / k).clamp(max=1.0)
    return scale * (recons - error).pow(2).sum(-1).mean()
