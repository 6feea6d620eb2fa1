"""What a training logs of signed latents."""

from typing import Any

import torch
from torch import Tensor, nn


def side_metrics(feature_acts: Tensor, bipolar_min_share: float = 0.1) -> dict[str, Tensor]:
    """L0 of each side, and the share of bipolar latents among those that fire in this batch.

    *Bipolar*: the rarer side makes up at least ``bipolar_min_share`` of a latent's firings. Over
    one batch this is noisy for rare latents; the census over many tokens is the measure to cite.

    Args:
        feature_acts: (batch, d_sae), signed.
    """
    n_pos = (feature_acts > 0).sum(0)
    n_neg = (feature_acts < 0).sum(0)
    n_fired = n_pos + n_neg
    alive = n_fired > 0
    bipolar = alive & (torch.minimum(n_pos, n_neg) >= bipolar_min_share * n_fired)
    batch = feature_acts.shape[0]
    return {
        "l0_pos": n_pos.sum() / batch,
        "l0_neg": n_neg.sum() / batch,
        "bipolar_share_of_batch": bipolar.sum() / alive.sum().clamp(min=1),
    }


def n_active(feature_acts: Tensor) -> Tensor:
    """() active latents of (batch, d_sae) latents, dense or sparse COO."""
    if feature_acts.is_sparse:
        return torch.tensor(float(feature_acts.values().numel()))
    return (feature_acts != 0).sum()


def parameter_histograms(sae: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    """numpy arrays for SAELens's ``log_histograms``, one a parameter."""
    return {f"weights/{name}": getattr(sae, name).detach().float().cpu().numpy() for name in names}
