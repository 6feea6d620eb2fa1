"""The formulas of a training step over one tile of all latents, forward and backward.

Each is a formula of :mod:`~sae_lens_signaware.saes.activations` in few passes over a tile that
stays in a core's cache: on a CPU, elementwise passes over all of (n_tokens, d_sae) cost as much as
the products. Thresholds are >= 0 here. The soft threshold of both sides is then
``v = pi - clamp(pi, -threshold_-, threshold_+)``, and its sign says which side is active.

Shapes of a tile: ``pre``, ``z`` and gradients to them (n_tokens, n), sums over the latents of a
token (n_tokens,), parameters (P, n).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sae_lens_signaware.saes.activations.sides import select_side, sum_sides


class TileFormulas(Protocol):
    """An architecture's latents z, other latents that it decodes, and what its penalty sums.

    Attributes:
        n_paths: how many kinds of latents are decoded: 1 for z alone.
    """

    n_paths: int

    def forward(
        self, pre: Tensor, params: Sequence[Tensor], paths: Sequence[Tensor], summed: Tensor
    ) -> None:
        """Write z, and what else is decoded, to ``paths``; add the tile's sums to ``summed``."""
        ...

    def backward(
        self,
        pre: Tensor,
        z: Tensor,
        params: Sequence[Tensor],
        grad_paths: Sequence[Tensor],
        grad_summed: Tensor,
        grad_params: Sequence[Tensor],
    ) -> None:
        """Add to the gradients of the parameters; the gradient to ``pre`` goes to grad_paths[0].

        ``grad_paths`` are contiguous, and may be overwritten.
        """
        ...


def _soft(pi: Tensor, threshold: Tensor, two_sided: bool, out: Tensor | None = None) -> Tensor:
    # v of soft_threshold
    if two_sided:
        between = torch.clamp(pi, -threshold[-1], threshold[0], out=out)
    else:
        between = torch.minimum(pi, threshold[0], out=out)
    return torch.sub(pi, between, out=between)


@dataclass
class GatedTiles:
    """z, v and l1 of :func:`signed_gate` and :func:`soft_threshold`.

    ``params`` are threshold, r_mag, b_mag, and the decoder norms (1, n), which are constants.
    """

    two_sided: bool
    n_paths: int = 2

    def forward(
        self, pre: Tensor, params: Sequence[Tensor], paths: Sequence[Tensor], summed: Tensor
    ) -> None:
        threshold, r_mag, b_mag, norm = params
        z, v = paths
        _soft(pre, threshold, self.two_sided, out=v)
        summed.addmv_(v.abs(), norm[0])
        # z = sign(v) relu(e^r |pi| + b): the sign is 0 where the gate is closed
        scale, b = select_side(pre, r_mag.exp()), select_side(pre, b_mag)
        torch.addcmul(b, torch.abs(pre, out=z), scale, out=z)
        z.relu_().mul_(v.sign())

    def backward(
        self,
        pre: Tensor,
        z: Tensor,
        params: Sequence[Tensor],
        grad_paths: Sequence[Tensor],
        grad_summed: Tensor,
        grad_params: Sequence[Tensor],
    ) -> None:
        threshold, r_mag, _, norm = params
        grad_z, grad_v = grad_paths
        grad_threshold, grad_r, grad_b, _ = grad_params
        # dz/db = sign(z), dz/dpi = e^r |sign(z)|, dz/dr = pi dz/dpi
        scale, sign = r_mag.exp(), z.sign()
        grad_b += sum_sides(grad_z.mul_(sign), pre, len(grad_b))
        by_r = torch.mul(grad_z.mul_(sign), pre, out=sign)
        grad_r += sum_sides(by_r, pre, len(grad_r)) * scale
        # dv/dpi = |sign(v)|, dl1/dpi = n sign(v); to the threshold both have -sign(v) times that
        torch.sign(_soft(pre, threshold, self.two_sided, out=sign), out=sign)
        grad_v.mul_(sign).addcmul_(grad_summed[:, None], norm).mul_(sign)
        by_threshold = torch.mul(grad_v, sign, out=sign)
        grad_threshold -= sum_sides(by_threshold, pre, len(grad_threshold))
        torch.addcmul(grad_v, grad_z, select_side(pre, scale), out=grad_z)


@dataclass
class JumpTiles:
    """z of :func:`bi_jump_relu_ste`, and the sum of :func:`bi_step_ste`, which is L0.

    ``params`` are threshold and b_mag.
    """

    bandwidth: float
    ste_to_input: bool
    n_paths: int = 1

    def forward(
        self, pre: Tensor, params: Sequence[Tensor], paths: Sequence[Tensor], summed: Tensor
    ) -> None:
        threshold, b_mag = params
        # the side that is active, -1.0, 0.0 or 1.0: torch multiplies by a bool mask more slowly
        side = _soft(pre, threshold, two_sided=True).sign_()
        summed += side.abs().sum(1)
        size = torch.abs(pre, out=paths[0]).add_(select_side(pre, b_mag)).relu_()
        size.mul_(side)

    def backward(
        self,
        pre: Tensor,
        z: Tensor,
        params: Sequence[Tensor],
        grad_paths: Sequence[Tensor],
        grad_summed: Tensor,
        grad_params: Sequence[Tensor],
    ) -> None:
        (threshold, b_mag), (grad_z,), (grad_threshold, grad_b) = params, grad_paths, grad_params
        to_input = torch.zeros_like(pre) if self.ste_to_input else None
        for row, sign in ((0, 1.0), (-1, -1.0)):
            slope = (threshold[row] + b_mag[row]).relu() / self.bandwidth
            # K((u_s - threshold_s) / e) with |u_s - threshold_s| = |h - s threshold_s|
            kernel = torch.sub(pre, threshold[row], alpha=sign).abs_().lt_(self.bandwidth / 2)
            grad_threshold[row] -= kernel.T @ grad_summed / self.bandwidth
            jump = kernel * grad_z
            grad_threshold[row] -= sign * slope * jump.sum(0)
            if to_input is not None:
                to_input.addcmul_(jump, slope)
                to_input.addcmul_(kernel, grad_summed[:, None], value=sign / self.bandwidth)
        # dz/db = sign(z), dz/dh = |sign(z)|
        side = z.sign()
        grad_b += sum_sides(grad_z.mul_(side), pre, len(grad_b))
        grad_z.mul_(side)
        if to_input is not None:
            grad_z.add_(to_input)
