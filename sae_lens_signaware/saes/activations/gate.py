"""Formulas of ``sa_gsae``: the signed gate, and the gate path of its training."""

from typing import Any

import torch
from torch import Tensor

from sae_lens_signaware.saes.activations.sides import active_mask, as_matrix, select_side, sum_sides
from sae_lens_signaware.saes.transforms import is_transformed


def _magnitude(pi: Tensor, two_sided: bool) -> Tensor:
    # u of the side that the sign selects. One-sided: the - side is never active, so u is pi itself.
    return pi.abs() if two_sided else pi.clone()


def _rows(pi: Tensor, param: Tensor, two_sided: bool) -> Tensor:
    return select_side(pi, param) if two_sided else param[0]


def _sign(pi: Tensor) -> Tensor:
    # +-1, +-0 included. On a CPU torch.where takes five times as long as this and a product
    return torch.ones_like(pi).copysign_(pi)


class _SignedGate(torch.autograd.Function):
    """Keeps pi and the rows; everything else is computed again in the backward pass."""

    @staticmethod
    def forward(
        pi: Tensor, threshold: Tensor, r_mag: Tensor, b_mag: Tensor, two_sided: bool
    ) -> Tensor:
        u = _magnitude(pi, two_sided)
        is_closed = u <= _rows(pi, threshold, two_sided)
        scale, b = _rows(pi, r_mag, two_sided).exp(), _rows(pi, b_mag, two_sided)
        m = u.mul_(scale).add_(b).relu_()
        # filled, not multiplied: an inactive latent is 0.0, not -0.0
        return (m.copysign_(pi) if two_sided else m).masked_fill_(is_closed, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        *tensors, ctx.two_sided = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        pi, threshold, r_mag, b_mag = ctx.saved_tensors
        two_sided = ctx.two_sided
        u = _magnitude(pi, two_sided)
        is_active = u > _rows(pi, threshold, two_sided)
        scale, b = _rows(pi, r_mag, two_sided).exp(), _rows(pi, b_mag, two_sided)
        is_active.logical_and_(u.mul_(scale).add_(b) > 0)
        # z = s (e^r |pi| + b) with s the sign of pi: dz/dpi = e^r, dz/dr = e^r pi, dz/db = s
        grad = grad * is_active
        signed = grad * _sign(pi) if two_sided else grad
        grad_b = sum_sides(signed, pi, b_mag.shape[0])
        grad_pi = grad * scale
        grad_r = sum_sides(grad_pi * pi, pi, r_mag.shape[0])
        return grad_pi, None, grad_r, grad_b, None


def signed_gate(
    pi: Tensor, threshold: Tensor, r_mag: Tensor, b_mag: Tensor, two_sided: bool = True
) -> Tensor:
    """The signed gated activation of ``sa_gsae``, Bi-Jump-ReLU of arXiv 2605.28149.

    For each side s with u_+ = pi, u_- = -pi:
        g_s = 1[u_s > threshold_s],  m_s = relu(exp(r_mag_s) * u_s + b_mag_s)
        z = g_+ * m_+  -  g_- * m_-

    The gate is hard: z passes a gradient to pi, r_mag and b_mag where the gate is open, and none to
    threshold: the soft threshold of :func:`soft_threshold` trains that (docs/architectures.md).

    Args:
        pi: (..., d_sae).
        threshold, r_mag, b_mag: (P, d_sae) each; P may differ between them.
        two_sided: False keeps the gate of the - side closed.

    Returns:
        z, the shape of ``pi``, signed.
    """
    if is_transformed(pi, threshold, r_mag, b_mag):
        u = _magnitude(pi, two_sided)
        m = torch.relu(_rows(pi, r_mag, two_sided).exp() * u + _rows(pi, b_mag, two_sided))
        signed = m * _sign(pi) if two_sided else m
        return torch.where(active_mask(pi, threshold, two_sided), signed, 0.0)
    out = _SignedGate.apply(pi, threshold, r_mag, b_mag, two_sided)
    assert isinstance(out, Tensor)
    return out


class _SoftThreshold(torch.autograd.Function):
    """Keeps pi and the rows."""

    @staticmethod
    def forward(
        pi: Tensor, threshold: Tensor, norm: Tensor, two_sided: bool
    ) -> tuple[Tensor, Tensor]:
        u = _magnitude(pi, two_sided)
        magnitude = u.sub_(_rows(pi, threshold, two_sided)).relu_()
        l1 = magnitude @ norm
        return magnitude.copysign_(pi) if two_sided else magnitude, l1

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        del output
        *tensors, ctx.two_sided = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_v, grad_l1 = grad_outputs
        pi, threshold, norm = ctx.saved_tensors
        gap = _magnitude(pi, ctx.two_sided).sub_(_rows(pi, threshold, ctx.two_sided))
        is_active = gap > 0
        # |v| and v have the slope +-1 in pi, with the sign of pi, and -1 and -+1 in the threshold
        l1_part = grad_l1[..., None] * norm
        if ctx.two_sided:
            l1_part = l1_part * _sign(pi)
        grad_pi = (grad_v + l1_part) * is_active
        by_magnitude = grad_pi * _sign(pi) if ctx.two_sided else grad_pi
        grad_threshold = -sum_sides(by_magnitude, pi, threshold.shape[0])
        grad_norm = None
        if ctx.needs_input_grad[2]:
            grad_norm = grad_l1.reshape(-1) @ as_matrix(gap.relu_())
        return grad_pi, grad_threshold, grad_norm, None


def soft_threshold(
    pi: Tensor, threshold: Tensor, norm: Tensor, two_sided: bool = True
) -> tuple[Tensor, Tensor]:
    """Two-sided soft threshold, the gate path of ``sa_gsae``'s training, and its L1.

    v = relu(pi - threshold_+) - relu(-pi - threshold_-),    l1 = sum_i |v_i| n_i

    v is nonzero exactly where the gate of :func:`signed_gate` is open (docs/architectures.md).

    Args:
        pi: (..., d_sae).
        threshold: (P, d_sae), >= 0.
        norm: (d_sae,) n, the norms of the decoder rows.
        two_sided: False drops the second term of v.

    Returns:
        v, the shape of ``pi``, signed; l1, (...,).
    """
    out = _SoftThreshold.apply(pi, threshold, norm, two_sided)
    assert isinstance(out, tuple)
    return out


def log_sum(v: Tensor, norm: Tensor) -> Tensor:
    """Log-sum penalty of the gate path, summed over all of ``v`` (docs/architectures.md).

    sum_i c log(1 + s_i / c),  s_i = |v_i| n_i,  c = mean of s over the active latents, a constant

    Its slope is 1 at s = 0, as L1 has it everywhere, 1/2 at the mean, and goes to 0: large latents
    are hardly shrunk. Ours, after the reweighted L1 of Candes, Wakin and Boyd 2008.

    Args:
        v: (..., d_sae), or (n_active,) of the active latents alone.
        norm: (d_sae,) n, or (n_active,).

    Returns:
        ().
    """
    size = v.abs() * norm
    size = size.to(torch.promote_types(size.dtype, torch.float32))  # half of a batch's sum is inf
    mean = size.detach().sum() / size.count_nonzero().clamp(min=1)
    c = mean.clamp(min=torch.finfo(size.dtype).tiny)  # 0 where no latent is active
    return (c * torch.log1p(size / c)).sum()
