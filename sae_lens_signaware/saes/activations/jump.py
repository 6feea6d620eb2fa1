"""Formulas of ``bi_jumprelu``: the two-sided jump, and its straight-through estimators."""

from typing import Any

import torch
from torch import Tensor

from sae_lens_signaware.saes.activations.sides import active_mask, as_matrix
from sae_lens_signaware.saes.transforms import is_transformed


def bi_jump_step(hidden_pre: Tensor, threshold: Tensor) -> Tensor:
    """Hard two-sided JumpReLU for inference: no gradient to the threshold (docs/architectures.md).

    z = h * (1[h > threshold_+] + 1[h < -threshold_-])

    Args:
        hidden_pre: (..., d_sae), h.
        threshold: (P, d_sae), >= 0.
    """
    return hidden_pre * active_mask(hidden_pre, threshold)


def rectangle(x: Tensor) -> Tensor:
    """Rectangle kernel K of width 1: 1 on (-1/2, 1/2), else 0 (as in SAELens's ``jumprelu``)."""
    return (x.abs() < 0.5).to(x)


def _side_kernels(h: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    # K_s = K((u_s - threshold_s) / bandwidth). Both are evaluated at every h: where a threshold
    # lies within half a bandwidth of 0 a window reaches across 0, and either side counts there.
    return (
        rectangle((h - threshold[0]) / bandwidth),
        rectangle((-h - threshold[-1]) / bandwidth),
    )


def _sum_to_rows(plus: Tensor, minus: Tensor, n_rows: int) -> Tensor:
    """Sum gradients of both sides over the batch into (P, d_sae); a tied row gets both."""
    plus, minus = as_matrix(plus).sum(0), as_matrix(minus).sum(0)
    return (plus + minus)[None] if n_rows == 1 else torch.stack([plus, minus])


class _TwoSidedSTE(torch.autograd.Function):
    """What both estimators keep for their backward pass."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        h, threshold, ctx.bandwidth, ctx.ste_to_input = inputs
        ctx.save_for_backward(h, threshold)


class _BiJumpReLUSTE(_TwoSidedSTE):
    @staticmethod
    def forward(h: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool) -> Tensor:
        del bandwidth, ste_to_input
        return bi_jump_step(h, threshold)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,) = grad_outputs
        h, threshold = ctx.saved_tensors
        k_plus, k_minus = _side_kernels(h, threshold, ctx.bandwidth)
        ste_plus = threshold[0] / ctx.bandwidth * k_plus * grad
        ste_minus = threshold[-1] / ctx.bandwidth * k_minus * grad
        grad_h = grad * active_mask(h, threshold)
        if ctx.ste_to_input:
            grad_h = grad_h + ste_plus + ste_minus
        grad_threshold = _sum_to_rows(-ste_plus, ste_minus, threshold.shape[0])
        return grad_h, grad_threshold, None, None


class _BiStepSTE(_TwoSidedSTE):
    @staticmethod
    def forward(h: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool) -> Tensor:
        del bandwidth, ste_to_input
        return active_mask(h, threshold).to(h)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (grad,) = grad_outputs
        h, threshold = ctx.saved_tensors
        k_plus, k_minus = _side_kernels(h, threshold, ctx.bandwidth)
        ste_plus = k_plus * grad / ctx.bandwidth
        ste_minus = k_minus * grad / ctx.bandwidth
        grad_h = ste_plus - ste_minus if ctx.ste_to_input else None
        grad_threshold = _sum_to_rows(-ste_plus, -ste_minus, threshold.shape[0])
        return grad_h, grad_threshold, None, None


def _bi_jump_relu_surrogate(
    h: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool
) -> Tensor:
    # For transforms: the estimator's slopes, as constants, on terms whose value is 0.
    z = bi_jump_step(h, threshold)
    kernels = _side_kernels(h, threshold, bandwidth)
    for sign, row, kernel in zip((-1.0, 1.0), (threshold[0], threshold[-1]), kernels, strict=True):
        slope = (row / bandwidth * kernel).detach()
        z = z + sign * slope * (row - row.detach())
        if ste_to_input:
            z = z + slope * (h - h.detach())
    return z


def bi_jump_relu_ste(
    hidden_pre: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool = False
) -> Tensor:
    """:func:`bi_jump_step` with straight-through gradients, after arXiv 2407.14435.

    Rectangle kernel K of width 1, bandwidth e:
        dz/dthreshold_+ = -(threshold_+ / e) K((h - threshold_+) / e)
        dz/dthreshold_- = +(threshold_- / e) K((-h - threshold_-) / e)
        dz/dh           = 1[active]  (+ (threshold_s / e) K_s for both s where ``ste_to_input``)
    A tied row gets the sum of both sides (docs/architectures.md).

    Args:
        hidden_pre: (..., d_sae), h.
        threshold: (P, d_sae), >= 0, in the dtype of ``hidden_pre``.
        bandwidth: e > 0, in units of h.
        ste_to_input: whether the estimator also reaches h, as Anthropic's JumpReLU does.
    """
    if is_transformed(hidden_pre, threshold):
        return _bi_jump_relu_surrogate(hidden_pre, threshold, bandwidth, ste_to_input)
    out = _BiJumpReLUSTE.apply(hidden_pre, threshold, bandwidth, ste_to_input)
    assert isinstance(out, Tensor)
    return out


def bi_step_ste(
    hidden_pre: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool = False
) -> Tensor:
    """Two-sided step, whose sum over latents is L0, with straight-through gradients.

    s = 1[h > threshold_+] + 1[h < -threshold_-]
        ds/dthreshold_s = -(1 / e) K((u_s - threshold_s) / e),  u_+ = h, u_- = -h
        ds/dh           = 0  (or (1 / e) (K_+ - K_-) where ``ste_to_input``)
    A tied row gets the sum of both sides. Arguments as in :func:`bi_jump_relu_ste`.
    """
    out = _BiStepSTE.apply(hidden_pre, threshold, bandwidth, ste_to_input)
    assert isinstance(out, Tensor)
    return out


def nearest_threshold_gap(hidden_pre: Tensor, threshold: Tensor) -> Tensor:
    """How far an inactive latent is from its nearer threshold; 0 where it is active (ours).

    relu(min(threshold_+ - h, threshold_- + h)), the shape of ``hidden_pre``.
    """
    return torch.relu(torch.minimum(threshold[0] - hidden_pre, threshold[-1] + hidden_pre))
