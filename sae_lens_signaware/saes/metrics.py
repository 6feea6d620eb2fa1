"""What a training logs of signed latents."""

from typing import Any

import torch
from torch import Tensor, nn

BIPOLAR_MIN_SHARE = 0.1
"""Share of a latent's firings that a bipolar one has on its rarer side at least."""


def side_metrics(feature_acts: Tensor) -> dict[str, Tensor]:
    """L0 of each side, and the share of bipolar latents among those that fire in this batch.

    Over one batch that share is noisy for rare latents; the census over many tokens is the measure
    to cite.

    Args:
        feature_acts: (..., d_sae), signed.
    """
    feature_acts = feature_acts.flatten(0, -2)
    n_pos = (feature_acts > 0).sum(0)
    n_neg = (feature_acts < 0).sum(0)
    n_fired = n_pos + n_neg
    alive = n_fired > 0
    bipolar = alive & (torch.minimum(n_pos, n_neg) >= BIPOLAR_MIN_SHARE * n_fired)
    batch = feature_acts.shape[0]
    return {
        "l0_pos": n_pos.sum() / batch,
        "l0_neg": n_neg.sum() / batch,
        "bipolar_share_of_batch": bipolar.sum() / alive.sum().clamp(min=1),
    }


def n_active(feature_acts: Tensor) -> Tensor:
    """() active latents of (batch, d_sae) latents, dense or sparse COO."""
    if feature_acts.is_sparse:
        # filled there: a copy from the host to a GPU would be waited for
        return torch.full((), float(feature_acts.values().numel()), device=feature_acts.device)
    return (feature_acts != 0).sum()


def fires(feature_acts: Tensor) -> Tensor:
    """(d_sae,) bool, whether a latent is active on a token of (..., d_sae) latents.

    Args:
        feature_acts: dense, or sparse COO of two dimensions without explicit zeros.
    """
    if feature_acts.is_sparse:
        mask: Any = _fires_of_coo
        return mask(feature_acts)  # torch types what its decorator gives as the decorator itself
    flat = feature_acts.flatten(0, -2)
    if not len(flat):
        return torch.zeros(flat.shape[1], dtype=torch.bool, device=flat.device)
    # a third of the time of any() (measured)
    return (flat.amax(0) > 0) | (flat.amin(0) < 0)


@torch.compiler.disable  # a graph cannot hold a tensor of so many values as are active
def _fires_of_coo(coo: Tensor) -> Tensor:
    mask = torch.zeros(coo.shape[1], dtype=torch.bool, device=coo.device)
    return mask.index_fill_(0, coo.indices()[1], True)


def parameter_histograms(sae: nn.Module) -> dict[str, Any]:
    """numpy arrays for SAELens's ``log_histograms``: each parameter that not every SAE has."""
    # in 64 bits, since nearly equal values leave no room for W&B's 64 bins in 32
    return {
        f"weights/{name}": parameter.detach().double().cpu().numpy()
        for name, parameter in sae.named_parameters()
        if name not in ("W_enc", "W_dec", "b_dec")
    }
