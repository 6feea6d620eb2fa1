"""Formula of ``bi_batchtopk``: the values of a batch that are largest in size."""

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
