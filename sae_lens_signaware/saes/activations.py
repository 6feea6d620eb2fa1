"""Formulas of the signed activations: elementwise functions of pre-activations and rows.

Shapes: pre-activations ``pi`` or ``h`` are (batch, n). A row set is (P, n), one number a latent and
side: P = 1 where both sides share it, else row 0 is of the + side and row -1 of the - side. The
fast step (:mod:`.fast`) calls the same functions with gathered latents, as a batch of one.
"""

import torch
from sae_lens.saes.jumprelu_sae import JumpReLU, Step
from torch import Tensor

SIDES = ((1.0, 0), (-1.0, -1))
"""Sign of a side, and its row."""


def of_side(pi: Tensor, rows: Tensor) -> Tensor:
    """The row of the side that the sign of ``pi`` selects: (P, n) -> (n,) or (batch, n)."""
    return rows[0] if len(rows) == 1 else torch.where(pi > 0, rows[0], rows[-1])


def signed_gate(
    pi: Tensor, threshold: Tensor, r_mag: Tensor, b_mag: Tensor, two_sided: bool = True
) -> Tensor:
    """Bi-Jump-ReLU of ``sa_gsae`` (arXiv 2605.28149; details that its abstract leaves open: ours).

    With u_+ = pi, u_- = -pi, for each side s:
        g_s = 1[u_s > threshold_s],    m_s = relu(exp(r_mag_s) u_s + b_mag_s)
        z = g_+ m_+ - g_- m_-

    As threshold >= 0, at most one gate is open: that of the sign of pi, at u = |pi|. The gate is
    hard: z gives no gradient to threshold, which :func:`soft_threshold` trains.
    """
    u = pi.abs() if two_sided else pi
    m = torch.relu(of_side(pi, r_mag).exp() * u + of_side(pi, b_mag))
    return m * pi.sign() * (u > of_side(pi, threshold))  # a product: NaN stays NaN


def either_side(h: Tensor, threshold: Tensor, two_sided: bool = True) -> Tensor:
    """Bool: h > threshold_+, or h < -threshold_- where ``two_sided``."""
    above = h > threshold[0]
    return above | (h < -threshold[-1]) if two_sided else above


def soft_threshold(pi: Tensor, threshold: Tensor, two_sided: bool = True) -> Tensor:
    """Gate path of ``sa_gsae``: v = relu(pi - threshold_+) - relu(-pi - threshold_-). Ours.

    v is nonzero exactly where the gate of :func:`signed_gate` is open.
    """
    u = pi.abs() if two_sided else pi
    return torch.relu(u - of_side(pi, threshold)) * pi.sign()


def with_size_bias(h: Tensor, b_mag: Tensor, two_sided: bool = True) -> Tensor:
    """u = sign(h) relu(|h| + b_mag), b_mag (1, n): with b_enc, a bias for each side. Ours.

    One-sided it is relu(h + b_mag).
    """
    return torch.relu(h.abs() + b_mag[0]) * h.sign() if two_sided else torch.relu(h + b_mag[0])


def bi_jump_relu(
    h: Tensor, threshold: Tensor, b_mag: Tensor, bandwidth: Tensor, two_sided: bool = True
) -> Tensor:
    """Two-sided JumpReLU: SAELens's ``JumpReLU`` (arXiv 2407.14435) on each side. Ours.

        z = u (1[h > threshold_+] + 1[h < -threshold_-]),    u of :func:`with_size_bias`

    The straight-through gradient of a threshold, of the rectangle kernel K of width 1, is that of a
    plain latent that becomes active at j_s = relu(threshold_s + b_mag):
        dz/dthreshold_+ = -(j_+ / e) K((h - threshold_+) / e),    e = bandwidth, in units of h
        dz/dthreshold_- = +(j_- / e) K((-h - threshold_-) / e)
    """
    z = torch.zeros_like(h)
    for sign, row in SIDES if two_sided else SIDES[:1]:
        size = sign * h + b_mag[0]
        jump = torch.relu(threshold[row] + b_mag[0].detach())
        # False, here and below: as DeepMind's, the estimator reaches the threshold alone
        z = z + sign * JumpReLU.apply(size, jump, bandwidth, False)
    return z


def bi_step(h: Tensor, threshold: Tensor, bandwidth: Tensor, two_sided: bool = True) -> Tensor:
    """1[h > threshold_+] + 1[h < -threshold_-], whose sum is L0: SAELens's ``Step`` on each side.

    ds/dthreshold_s = -(1 / e) K((u_s - threshold_s) / e),    u_+ = h, u_- = -h
    """
    n_active = torch.zeros_like(h)
    for sign, row in SIDES if two_sided else SIDES[:1]:
        n_active = n_active + Step.apply(sign * h, threshold[row], bandwidth, False)
    return n_active


def batch_topk(u: Tensor, k: int) -> Tensor:
    """``u`` where it is one of the ``k`` largest by size of the whole batch, else 0."""
    size = u.detach().abs().flatten()
    kept = size.topk(min(k, len(size)), sorted=False).indices
    return torch.zeros_like(u).flatten().scatter(0, kept, u.flatten()[kept]).view_as(u)


def topk(u: Tensor, k: int) -> Tensor:
    """``u`` where it is one of the ``k`` largest by size of its token, else 0."""
    kept = u.detach().abs().topk(k, sorted=False).indices
    return torch.zeros_like(u).scatter(-1, kept, u.gather(-1, kept))
