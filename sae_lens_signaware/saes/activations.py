"""Every activation formula of the package, as pure functions. Nothing else defines one.

Shapes: ``pi`` and ``hidden_pre`` are (..., d_sae) pre-activations. ``threshold``, ``r_mag`` and
``b_mag`` are (P, d_sae): P = 1 where both sides of a latent share one row, P = 2 where row 0
belongs to the + side and row 1 to the - side. Two rules serve both cases: the + side reads
``row 0``, the - side ``row -1``; and since thresholds are >= 0, the gate of at most one side of a
latent is open, so one evaluation at ``|pi|`` with the row that the sign selects computes both sides.

Values may be of all latents, (..., d_sae) with parameters (P, d_sae), or of the active ones alone,
(n_active,) with parameters (P, n_active): see :mod:`sae_lens_signaware.saes.latents`.
"""

from typing import Any

import torch
from torch import Tensor

from sae_lens_signaware.saes.transforms import is_transformed


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


def _magnitude(pi: Tensor, two_sided: bool) -> Tensor:
    # u of the side that the sign selects. One-sided: the - side is never active, so u is pi itself.
    return pi.abs() if two_sided else pi.clone()


def _rows(pi: Tensor, param: Tensor, two_sided: bool) -> Tensor:
    return select_side(pi, param) if two_sided else param[0]


def active_mask(
    pi: Tensor, threshold: Tensor, two_sided: bool = True, margin: float = 0.0
) -> Tensor:
    """Whether g_+ or g_- is 1: u_s > threshold_s - margin on a side; a bool mask of the shape of ``pi``.

    Args:
        pi: (..., d_sae).
        threshold: (P, d_sae), >= 0.
        margin: half the bandwidth of an estimator whose window counts as well; 0 for the gate.
    """
    mask = pi > threshold[0] - margin
    return mask.logical_or_(pi < margin - threshold[-1]) if two_sided else mask


def _sign(pi: Tensor) -> Tensor:
    # +-1, +-0 included. On a CPU torch.where takes five times as long as this and a product
    return torch.ones_like(pi).copysign_(pi)


def _as_matrix(tensor: Tensor) -> Tensor:
    # -1 for the rows would be ambiguous where no latent is active
    return tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def _sum_sides(grad: Tensor, pi: Tensor, n_rows: int) -> Tensor:
    """Sum per-element gradients over the batch into (P, d_sae), each into the row that was read."""
    grad, pi = _as_matrix(grad), _as_matrix(pi)
    if n_rows == 1:
        return grad.sum(0, keepdim=True)
    plus = (grad * (pi > 0)).sum(0)
    return torch.stack([plus, grad.sum(0) - plus])


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
        grad_b = _sum_sides(signed, pi, b_mag.shape[0])
        grad_pi = grad * scale
        grad_r = _sum_sides(grad_pi * pi, pi, r_mag.shape[0])
        return grad_pi, None, grad_r, grad_b, None


def signed_gate(
    pi: Tensor, threshold: Tensor, r_mag: Tensor, b_mag: Tensor, two_sided: bool = True
) -> Tensor:
    """Bi-Jump-ReLU of arXiv 2605.28149, the signed gated activation of ``sa_gsae`` (docs/architectures.md).

    For each side s with u_+ = pi, u_- = -pi:
        g_s = 1[u_s > threshold_s],  m_s = relu(exp(r_mag_s) * u_s + b_mag_s)
        z = g_+ * m_+  -  g_- * m_-

    The gate is hard: z passes a gradient to pi, r_mag and b_mag where the gate is open, and none to
    threshold (the soft threshold of :func:`soft_threshold` trains that).

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
        grad_threshold = -_sum_sides(by_magnitude, pi, threshold.shape[0])
        grad_norm = None
        if ctx.needs_input_grad[2]:
            grad_norm = grad_l1.reshape(-1) @ _as_matrix(gap.relu_())
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

    Its slope is 1 at s = 0, as L1 has it everywhere, 1/2 at the mean, and goes to 0: large latents are
    hardly shrunk. Ours, after the reweighted L1 of Candes, Wakin and Boyd 2008.

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


def bi_jump_step(hidden_pre: Tensor, threshold: Tensor) -> Tensor:
    """Hard two-sided JumpReLU without a gradient to the threshold, for inference (docs/architectures.md).

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
    """Sum per-element gradients of both sides over the batch into (P, d_sae); a tied row gets both."""
    plus, minus = _as_matrix(plus).sum(0), _as_matrix(minus).sum(0)
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
