"""Formulas of ``bi_batchtopk`` and ``bi_topk``: the values that are largest in size."""

import torch
from torch import Tensor


def bi_batch_topk(hidden_pre: Tensor, n_largest: int) -> Tensor:
    """The ``n_largest`` values of a batch that are largest in size, signs kept; 0 elsewhere.

    z = h * 1[|h| is among the n largest of all |h|]

    BatchTopK (arXiv 2412.06410) by |h|; ours. As in SAELens's ``batchtopk``, a kept value passes
    its gradient on, and the choice passes none.

    Args:
        hidden_pre: any shape, h: of all latents of a batch, or of some that hold its largest.
        n_largest: where there are no more values, all of them are kept.

    Returns:
        z, the shape of ``hidden_pre``.
    """
    if n_largest >= hidden_pre.numel():
        return hidden_pre
    flat = hidden_pre.reshape(-1)
    kept = flat.detach().abs().topk(n_largest, sorted=False).indices
    return torch.zeros_like(flat).scatter(0, kept, flat[kept]).view(hidden_pre.shape)


def bi_topk(hidden_pre: Tensor, k: int) -> Tensor:
    """The ``k`` values of each token that are largest in size, signs kept; 0 elsewhere.

    z = h * 1[|h| is among the k largest |h| of its token]

    TopK (arXiv 2406.04093) by |h|, as AbsTopK (arXiv 2510.00404) has it. A kept value passes its
    gradient on, and the choice passes none.

    Args:
        hidden_pre: (..., d_sae), h of all latents.
        k: where a token has no more values, all of them are kept.

    Returns:
        z, the shape of ``hidden_pre``.
    """
    if k >= hidden_pre.shape[-1]:
        return hidden_pre
    kept = largest_of_tokens(hidden_pre.detach().abs(), k)
    return torch.zeros_like(hidden_pre).scatter(-1, kept, hidden_pre.gather(-1, kept))


def largest_of_tokens(size: Tensor, k: int) -> Tensor:
    """Which ``k`` of (..., d_sae) sizes are the largest of each token: (..., k) indices, any order.

    Args:
        k: at most d_sae.
    """
    return size.topk(k, dim=-1, sorted=False).indices
