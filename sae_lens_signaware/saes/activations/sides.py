"""The two sides of a latent: which parameters apply, and which side is active."""

import torch
from torch import Tensor


def select_side(pi: Tensor, param: Tensor) -> Tensor:
    """Row 0 of ``param`` where ``pi > 0``, row -1 elsewhere.

    Args:
        pi: (..., d_sae) pre-activations.
        param: (P, d_sae), P in {1, 2}.

    Returns:
        Broadcastable to ``pi``: (d_sae,) where P = 1, the shape of ``pi`` where P = 2.
    """
    if param.shape[0] == 1:
        return param[0]
    return torch.where(pi > 0, param[0], param[1])


def active_mask(
    pi: Tensor, threshold: Tensor, two_sided: bool = True, margin: float = 0.0
) -> Tensor:
    """Whether g_+ or g_- is 1: u_s > threshold_s - margin on a side.

    Args:
        pi: (..., d_sae).
        threshold: (P, d_sae), >= 0.
        margin: half the bandwidth of an estimator whose window counts as well; 0 for the gate.

    Returns:
        A bool mask of the shape of ``pi``.
    """
    mask = pi > threshold[0] - margin
    return mask.logical_or_(pi < margin - threshold[-1]) if two_sided else mask


def shifted(h: Tensor, b_mag: Tensor) -> Tensor:
    """Pre-activations with their size shifted by a bias of its own: sign(h) relu(|h| + b_mag_s).

    A plain latent learns a negative bias, which holds back what other latents write into its
    direction. One bias b_enc cannot do that for both sides of a signed latent: what it takes from
    one side it gives to the other. Ours; ``sa_gsae`` has it from arXiv 2605.28149.

    Args:
        h: (..., d_sae) pre-activations.
        b_mag: (P, d_sae), of the side s that the sign of h selects.
    """
    return h.sign() * torch.relu(h.abs() + select_side(h, b_mag))


def as_matrix(tensor: Tensor) -> Tensor:
    """(..., n) -> (n_rows, n)."""
    # -1 for the rows would be ambiguous where no latent is active
    return tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def sum_sides(grad: Tensor, pi: Tensor, n_rows: int) -> Tensor:
    """Sum per-element gradients over the batch into (P, d_sae), each into the row that was read."""
    grad, pi = as_matrix(grad), as_matrix(pi)
    if n_rows == 1:
        return grad.sum(0, keepdim=True)
    is_plus = pi > 0
    # not the sum of all less that of +: in 16 bits that cancels where a side is rare
    return torch.stack([(grad * is_plus).sum(0), (grad * ~is_plus).sum(0)])
