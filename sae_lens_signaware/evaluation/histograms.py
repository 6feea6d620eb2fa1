"""Histograms of a latent's activations, of each side by itself."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.evaluation.inputs import (
    batches_of,
    dense_latents,
    flat_activations,
    numbers_of_latents,
    require_autoencoder,
)


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Numbers of tokens by the size of a latent's activation.

    Both sides have the same bins. Bin j holds the sizes above ``j * width`` and up to
    ``(j + 1) * width``. Tokens on which the latent is inactive are in no bin.

    Attributes:
        width: of a bin; 0 where the latent never fires.
        pos, neg: counts, one for each bin.
    """

    width: float
    pos: tuple[int, ...]
    neg: tuple[int, ...]


@torch.no_grad()
def activation_histograms(
    sae: SAE[Any],
    activations: Iterable[Tensor] | Tensor,
    latents: Sequence[int],
    n_bins: int = 24,
) -> list[Histogram]:
    """Count the activations of some latents, in one pass.

    The last bin of a latent ends at its largest activation of either side. Memory is 4 bytes for
    each token and latent.

    Args:
        sae: any SAELens SAE that reconstructs its input token by token.
        activations: (n, d_in) or (batch, position, d_in) tensors, or one such tensor.
        latents: which.
        n_bins: bins of each side.
    """
    require_autoencoder(sae)
    numbers = numbers_of_latents(sae, latents)
    columns = torch.tensor(numbers, dtype=torch.int64, device=sae.device)
    parts: list[Tensor] = []
    with flat_activations(sae):
        for x in batches_of(activations, sae.cfg.d_in):
            parts.append(dense_latents(sae, x)[:, columns].float().cpu())
    return [_histogram(values, n_bins) for values in torch.cat(parts).T]


def _histogram(values: Tensor, n_bins: int) -> Histogram:
    largest = values.abs().max().item()
    if largest == 0:
        return Histogram(0.0, (0,) * n_bins, (0,) * n_bins)
    width = largest / n_bins
    counts = []
    for side in (values, -values):
        # a size on the edge of two bins is in the lower one, so that the largest is in the last
        bins = (side[side > 0].double() / width).ceil().long() - 1
        counts.append(tuple(bins.clamp(0, n_bins - 1).bincount(minlength=n_bins).tolist()))
    return Histogram(width, *counts)
