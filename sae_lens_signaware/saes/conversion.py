"""Exact split of a signed SAE into a plain one of twice the width (docs/architectures.md)."""

from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.saes.base import SignedSAEMixin


@torch.no_grad()
def split_polarities(sae: SAE[Any]) -> SAE[Any]:
    """The plain SAE of width 2H that a signed one of width H is: same output, no negative latent.

    Latent i becomes i (its + side) and i + H (its - side). ``sa_gsae`` gives SAELens's ``gated``,
    ``bi_topk`` its ``topk``, the other three its ``jumprelu``; the result loads where this package
    is not installed. A ``sa_gsae`` with ``two_sided=False`` has no - side: its plain form keeps the
    width H. In 16 bits the sums of two biases are rounded, and a latent near its threshold may be
    active in one of the two alone: split in float32.

    Args:
        sae: a signed SAE, width H, for inference or training. It is left as it is.

    Returns:
        A plain inference SAE on the same device and in the same dtype.

    Raises:
        TypeError: ``sae`` is no signed SAE.
        NotImplementedError: it is of an architecture outside of this package that has no plain
            twin.
    """
    if not isinstance(sae, SignedSAEMixin):
        raise TypeError(f"split_polarities takes a signed SAE, got {type(sae).__name__}")
    return sae.to_plain()


def split_log_sparsity(log_sparsity: Tensor, pos_share: Tensor | None = None) -> Tensor:
    """Sparsity of the split SAE: log10 firing rates, as in SAELens's ``sparsity.safetensors``.

    Args:
        log_sparsity: (H,) log10 of the firing rate of each signed latent, either side.
        pos_share: (H,) share of a latent's firings that are on the + side. None where it was not
            measured: each side is then given the latent's whole rate, an upper bound.

    Returns:
        (2H,) float32: the + sides, then the - sides.
    """
    rate = 10.0 ** log_sparsity.double()
    if pos_share is None:
        sides = torch.cat([rate, rate])
    else:
        sides = torch.cat([rate * pos_share, rate * (1 - pos_share)])
    return log_sparsity_of(sides)


def log_sparsity_of(rate: Tensor) -> Tensor:
    """log10 of firing rates, float32, as in SAELens's ``sparsity.safetensors``."""
    # 1e-10 is SAELens's own floor for a latent that never fires
    return rate.clamp(min=1e-10).log10().float()
