"""How well the sides of latents match the ends of known features: an MCC and an F1 with sign. Ours.

SAELens's ``mean_correlation_coefficient`` matches directions by |cosine|. A latent that writes -f
counts for the feature f there, and one side counts for both ends of a two-sided feature. Its F1 is
a mean over latents; this one is over ends, so that an end without a side counts as 0.
"""

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment  # SAELens's MCC needs it as well
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_signaware.checks import require


class EndMatching(NamedTuple):
    """The side of a latent for each end of a feature.

    Attributes:
        features: (n_ends,) the feature of each end.
        end_signs: (n_ends,) 1 for the end f and -1 for the end -f.
        latents: (n_ends,) the latent whose side is matched; -1 where none is.
        side_signs: (n_ends,) 1 for its + side and -1 for its - side.
        cosines: (n_ends,) float64, between what the side writes and the end; 0 where none is.
    """

    features: Tensor
    end_signs: Tensor
    latents: Tensor
    side_signs: Tensor
    cosines: Tensor


@torch.no_grad()
def match_ends(
    directions: Tensor, has_side: Tensor, features: Tensor, two_sided: Tensor
) -> EndMatching:
    """Match ends of features one-to-one with sides of latents, for the largest sum of cosines.

    A feature f has the end f, and -f as well where it is two-sided. A latent writes d on its + side
    and -d on its - side. A cosine of at most 0 is no match. The ends f come first, in their order.

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
    latent_of_side, side = has_side.cpu().nonzero().unbind(1)
    other_ends = two_sided.cpu().nonzero().flatten()
    feature_of_end = torch.cat([torch.arange(n_features), other_ends])
    end_signs = torch.ones_like(feature_of_end)
    end_signs[n_features:] = -1
    side_signs = 1 - 2 * side
    match = cosine.cpu()[latent_of_side][:, feature_of_end] * torch.outer(side_signs, end_signs)
    sides, ends = map(torch.as_tensor, linear_sum_assignment(match.clamp(min=0), maximize=True))
    sides, ends = (index[match[sides, ends] > 0] for index in (sides, ends))
    latents, signs = torch.full_like(feature_of_end, -1), torch.ones_like(feature_of_end)
    cosines = torch.zeros(len(feature_of_end), dtype=torch.float64)
    latents[ends], signs[ends] = latent_of_side[sides], side_signs[sides]
    cosines[ends] = match[sides, ends]
    return EndMatching(feature_of_end, end_signs, latents, signs, cosines)


class SignedMCC(NamedTuple):
    """How the ends of the features are matched.

    Attributes:
        mcc: mean cosine over all ends, each matched with one side; 0 for an end without a side.
        joined: share of the two-sided features whose ends are matched with the two sides of one
            latent; NaN where no feature is two-sided.
    """

    mcc: float
    joined: float


def signed_mcc(matching: EndMatching) -> SignedMCC:
    """Summarise a matching of :func:`match_ends`."""
    minus = matching.end_signs < 0
    of_minus, of_plus = matching.latents[minus], matching.latents[matching.features[minus]]
    joined = (of_minus == of_plus) & (of_plus >= 0)
    return SignedMCC(
        mcc=matching.cosines.mean().item(),
        joined=joined.double().mean().item() if len(joined) else float("nan"),
    )


def ends_active(matching: EndMatching, amplitudes: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Say for each sample which ends occur, and which of their sides are active.

    Args:
        amplitudes: (n, n_features), signed.
        z: (n, n_latents), signed.

    Returns:
        Two (n, n_ends) bool masks. The side of an end that has none is never active.
    """
    occurs = amplitudes[:, matching.features] * matching.end_signs > 0
    active = z[:, matching.latents.clamp(min=0)] * matching.side_signs > 0
    return occurs, active & (matching.latents >= 0)


def signed_f1(occurs: Tensor, active: Tensor) -> float:
    """Return the mean F1 over ends that occur, of their sides as classifiers.

        F1 = 2 TP / (2 TP + FP + FN)

    Args:
        occurs, active: (n, n_ends) of :func:`ends_active`.
    """
    true, either = (occurs & active).sum(0), occurs.sum(0) + active.sum(0)
    f1 = 2 * true / either.clamp(min=1)
    return f1[occurs.any(0)].double().mean().item()
