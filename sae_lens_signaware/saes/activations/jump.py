"""Formulas of ``bi_jumprelu``: the two-sided jump, and its straight-through estimators."""

from typing import Any

import torch
from torch import Tensor

from sae_lens_signaware.saes.activations.sides import active_mask, as_matrix, shifted, sum_sides
from sae_lens_signaware.saes.transforms import is_transformed


def bi_jump_step(hidden_pre: Tensor, threshold: Tensor, b_mag: Tensor) -> Tensor:
    """Hard two-sided JumpReLU for inference: no gradient to the threshold (docs/architectures.md).

    u = sign(h) relu(|h| + b_mag),    z = u * (1[h > threshold_+] + 1[h < -threshold_-])

    Args:
        hidden_pre: (..., d_sae), h.
        threshold: (P, d_sae), >= 0, of h.
        b_mag: (P, d_sae), of :func:`shifted`, which gives u.
    """
    return shifted(hidden_pre, b_mag) * active_mask(hidden_pre, threshold)


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


def _jumps(threshold: Tensor, b_mag: Tensor) -> tuple[Tensor, Tensor]:
    # |z| where a side becomes active, by side
    return (threshold[0] + b_mag[0]).relu(), (threshold[-1] + b_mag[-1]).relu()


class _BiJumpReLUSTE(torch.autograd.Function):
    @staticmethod
    def forward(
        h: Tensor, threshold: Tensor, b_mag: Tensor, bandwidth: float, ste_to_input: bool
    ) -> Tensor:
        del bandwidth, ste_to_input
        return bi_jump_step(h, threshold, b_mag)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        h, threshold, b_mag, ctx.bandwidth, ctx.ste_to_input = inputs
        ctx.save_for_backward(h, threshold, b_mag, output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        h, threshold, b_mag, z = ctx.saved_tensors
        k_plus, k_minus = _side_kernels(h, threshold, ctx.bandwidth)
        jump_plus, jump_minus = _jumps(threshold, b_mag)
        ste_plus = jump_plus / ctx.bandwidth * k_plus * grad
        ste_minus = jump_minus / ctx.bandwidth * k_minus * grad
        sign = z.sign()
        signed = grad * sign  # dz/db = sign(z), dz/dh = |sign(z)|
        grad_b = sum_sides(signed, z, b_mag.shape[0])
        grad_h = signed * sign
        if ctx.ste_to_input:
            grad_h = grad_h + ste_plus + ste_minus
        grad_threshold = _sum_to_rows(-ste_plus, ste_minus, threshold.shape[0])
        return grad_h, grad_threshold, grad_b, None, None


class _BiStepSTE(torch.autograd.Function):
    @staticmethod
    def forward(h: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool) -> Tensor:
        del bandwidth, ste_to_input
        return active_mask(h, threshold).to(h)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        h, threshold, ctx.bandwidth, ctx.ste_to_input = inputs
        ctx.save_for_backward(h, threshold)

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
    h: Tensor, threshold: Tensor, b_mag: Tensor, bandwidth: float, ste_to_input: bool
) -> Tensor:
    # For transforms: the estimator's slopes, as constants, on terms whose value is 0.
    z = bi_jump_step(h, threshold, b_mag)
    kernels, jumps = _side_kernels(h, threshold, bandwidth), _jumps(threshold, b_mag)
    sides = zip((-1.0, 1.0), (threshold[0], threshold[-1]), jumps, kernels, strict=True)
    for sign, row, jump, kernel in sides:
        slope = (jump / bandwidth * kernel).detach()
        z = z + sign * slope * (row - row.detach())
        if ste_to_input:
            z = z + slope * (h - h.detach())
    return z


def bi_jump_relu_ste(
    hidden_pre: Tensor,
    threshold: Tensor,
    b_mag: Tensor,
    bandwidth: float,
    ste_to_input: bool = False,
) -> Tensor:
    """:func:`bi_jump_step` with straight-through gradients, after arXiv 2407.14435.

    Rectangle kernel K of width 1, bandwidth e:
        j_s             = relu(threshold_s + b_mag_s), the size of z where side s becomes active
        dz/dthreshold_+ = -(j_+ / e) K((h - threshold_+) / e)
        dz/dthreshold_- = +(j_- / e) K((-h - threshold_-) / e)
        dz/dh           = 1[z != 0]  (+ (j_s / e) K_s for both s where ``ste_to_input``)
        dz/db_mag_s     = sign(z) on side s
    A tied row gets the sum of both sides (docs/architectures.md).

    Args:
        hidden_pre: (..., d_sae), h.
        threshold, b_mag: (P, d_sae), threshold >= 0, in the dtype of ``hidden_pre``.
        bandwidth: e > 0, in units of h.
        ste_to_input: whether the estimator also reaches h, as Anthropic's JumpReLU does.
    """
    if is_transformed(hidden_pre, threshold, b_mag):
        return _bi_jump_relu_surrogate(hidden_pre, threshold, b_mag, bandwidth, ste_to_input)
    out = _BiJumpReLUSTE.apply(hidden_pre, threshold, b_mag, bandwidth, ste_to_input)
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
