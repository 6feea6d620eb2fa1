"""How well the sides of latents match the ends of known features: an MCC that sees the sign.

SAELens's ``mean_correlation_coefficient`` matches directions by |cosine|. A latent that writes -f
counts for the feature f there, and one side counts for both ends of a two-sided feature.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment  # SAELens's MCC needs it as well
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_signaware.checks import require


class SignedMCC(NamedTuple):
    """How the ends of the features are matched.

    Attributes:
        mcc: mean cosine over all ends, each matched with one side; 0 for an end without a side.
        joined: share of the two-sided features whose ends are matched with the two sides of one
            latent; NaN where no feature is two-sided.
    """

    mcc: float
    joined: float


@torch.no_grad()
def signed_mcc(
    directions: Tensor, has_side: Tensor, features: Tensor, two_sided: Tensor
) -> SignedMCC:
    """Match ends of features one-to-one with sides of latents, for the largest sum of cosines.

    A feature f has the end f, and -f as well where it is two-sided. A latent writes d on its + side
    and -d on its - side. A cosine below 0 counts as 0, as if the end had no side.

    Args:
        directions: (n_latents, d_in) decoder rows.
        has_side: (n_latents, 2) bool, whether the + and the - side are ever active; of a plain SAE
            the second column is False.
        features: (n_features, d_in).
        two_sided: (n_features,) bool.

    Raises:
        InvalidInputError: the shapes do not fit, or there is no feature.
    """
    n_latents, n_features = len(directions), len(features)
    require(n_features > 0, "features", n_features, "at least one")
    for name, tensor, shape in (
        ("has_side", has_side, (n_latents, 2)),
        ("features", features, (n_features, directions.shape[1])),
        ("two_sided", two_sided, (n_features,)),
    ):
        require(tuple(tensor.shape) == shape, name, tuple(tensor.shape), str(shape))
    cosine = normalize(directions.double(), dim=1) @ normalize(features.double(), dim=1).T
    side_of = has_side.nonzero().tolist()  # [latent, 0 or 1]
    end_of = [[k, 0] for k in range(n_features)]
    end_of += [[k, 1] for k in two_sided.nonzero().flatten().tolist()]
    latents, side_signs = _columns(side_of)
    numbers, end_signs = _columns(end_of)
    match = cosine.cpu().numpy()[np.ix_(latents, numbers)] * np.outer(side_signs, end_signs)
    match = match.clip(min=0)
    sides, ends = linear_sum_assignment(match, maximize=True)
    latent_of = {
        (numbers[e], end_signs[e]): latents[s] if match[s, e] > 0 else None
        for s, e in zip(sides.tolist(), ends.tolist(), strict=True)
    }
    both = [(latent_of.get((k, 1)), latent_of.get((k, -1))) for k, end in end_of if end == 1]
    joined = [a is not None and a == b for a, b in both]
    return SignedMCC(
        mcc=float(match[sides, ends].sum() / len(end_of)),
        joined=float(np.mean(joined)) if joined else float("nan"),
    )


def _columns(pairs: list[list[int]]) -> tuple[list[int], list[int]]:
    """Numbers, and signs: 1 for side 0 and -1 for side 1."""
    return [number for number, _ in pairs], [1 - 2 * side for _, side in pairs]
