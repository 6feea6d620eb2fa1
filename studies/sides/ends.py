"""Do the two sides of a feature stand for the two ends of a label?"""

from typing import Any

import numpy as np
import torch
from sae_lens import SAE
from scipy.stats import hypergeom, spearmanr

MIN_TEXTS, MIN_SHARE, MAX_BY_CHANCE = 6, 2 / 3, 0.025


@torch.no_grad()
def feature_values(sae: SAE[Any], source: Any, feature: str) -> np.ndarray:
    """(n_texts,) a feature of a probe, "12" or "12+ 40-", summed over the tokens of each text."""
    total = torch.zeros(len(source.n_tokens_of))
    for x, text in source.batches(4096):
        z = sae.encode(x.to(sae.device)).float().cpu()
        values = z[:, int(feature)] if feature.isdigit() else torch.zeros(len(z))
        for name, sign in zip([] if feature.isdigit() else feature.split(), (1, -1), strict=False):
            latent, side = int(name[:-1]), 1 if name[-1] == "+" else -1
            norm = sae.W_dec[latent].norm().cpu()
            values = values + sign * norm * (side * z[:, latent]).relu()
        total.index_add_(0, text, values)
    return total.numpy()


def both_stand_for_ends(values: np.ndarray, labels: list[str], parts: list[str]) -> bool:
    """Whether each side has, among the reported texts, six, two thirds of them at its own end.

    And not by chance, by Fisher's exact test. Which end is whose is told by the fitted texts; both
    ends count alike. The ends are the two classes, or above and below the median label.
    """
    y = (
        np.array(labels, dtype=float)
        if _are_numbers(labels)
        else np.unique(labels, return_inverse=True)[1]
    )
    fit = np.array(parts) == "fit"
    rises = spearmanr(values[fit], y[fit]).statistic >= 0
    values, y = (values if rises else -values)[~fit], y[~fit]
    middle = 0.5 * (y.min() + y.max()) if len(np.unique(y)) == 2 else np.median(y)
    low, high = y < middle, y > middle
    low, high = (low if low.any() else y == middle), (high if high.any() else y == middle)
    return all(
        _stands_for(on_side, end, other)
        for on_side, end, other in ((values > 0, high, low), (values < 0, low, high))
    )


def _are_numbers(labels: list[str]) -> bool:
    try:
        return bool(np.isfinite(np.array(labels, dtype=float)).all())
    except ValueError:
        return False


def _stands_for(on_side: np.ndarray, end: np.ndarray, other: np.ndarray) -> bool:
    at_end, at_other = (on_side & end).sum(), (on_side & other).sum()
    if on_side.sum() < MIN_TEXTS or not at_end:
        return False
    shares = at_end / end.sum(), at_other / other.sum()
    by_chance = hypergeom.sf(at_end - 1, (end | other).sum(), end.sum(), at_end + at_other)
    return bool(shares[0] / sum(shares) >= MIN_SHARE and by_chance < MAX_BY_CHANCE)
