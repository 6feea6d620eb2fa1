"""What a probe reads of a text: latents summed over its tokens, by axis, by side, and by pair."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.activations_of_texts import TextActivations
from sae_lens_signaware.evaluation.audit import find_antipodal_pairs
from sae_lens_signaware.evaluation.inputs import (
    MAX_TOKENS,
    dense_latents,
    flat_activations,
    require_autoencoder,
    require_folded,
    require_in_range,
)
from sae_lens_signaware.evaluation.streaming import decoder_directions

Aggregation = Literal["sum", "mean", "max"]
AGGREGATIONS: tuple[Aggregation, ...] = ("sum", "mean", "max")


@dataclasses.dataclass(frozen=True)
class Features:
    """Numbers of each text that a probe chooses from.

    Attributes:
        values: (n_texts, n_features) float32.
        names: of each feature: ``"12"`` is the signed value of latent 12, ``"12+"`` and ``"12-"``
            its sides, ``"12+ 40+"`` the value of 12+ minus that of 40+.
    """

    values: Tensor
    names: list[str]


@dataclasses.dataclass(frozen=True)
class SideValues:
    """Aggregated magnitudes of both signs of every latent, or of every raw activation.

    Attributes:
        pos, neg: (n_texts, width) float32, of the + and of the - side; at least 0.
        aggregation: how they come from those of the tokens.
    """

    pos: Tensor
    neg: Tensor
    aggregation: Aggregation

    @property
    def has_negative(self) -> bool:
        """Whether any latent was ever negative."""
        return bool((self.neg > 0).any())


@torch.no_grad()
def side_values(
    sae: SAE[Any], source: TextActivations, aggregation: Aggregation = "sum"
) -> SideValues:
    """Encode the tokens of every text, and aggregate each side of every latent over them.

    Raises:
        InvalidInputError: the activations are not those that the SAE takes, or their scale is not
            folded into it.
    """
    require_autoencoder(sae)
    require_folded(sae)
    width = source.activations.shape[1]
    require(width == sae.cfg.d_in, "activations", f"{width} wide", f"{sae.cfg.d_in} wide")

    def encoded(x: Tensor) -> Tensor:
        require_in_range(x)
        return dense_latents(sae, x)

    with flat_activations(sae):
        return _sides_of(source, sae.cfg.d_sae, encoded, aggregation)


def _sides_of(
    source: TextActivations,
    width: int,
    values_of: Callable[[Tensor], Tensor],
    aggregation: Aggregation,
) -> SideValues:
    """Aggregate both signs of what ``values_of`` makes of tokens, (n, width), over each text."""
    shape = (2, len(source.n_tokens_of), width)
    pos, neg = torch.zeros(shape, dtype=torch.float32, device="cpu")
    for x, text in source.batches(MAX_TOKENS):
        values = values_of(x).float().cpu()
        _add(pos, text, values.clamp(min=0), aggregation)
        _add(neg, text, (-values).clamp(min=0), aggregation)
    if aggregation == "mean":
        pos /= source.n_tokens_of[:, None]
        neg /= source.n_tokens_of[:, None]
    return SideValues(pos, neg, aggregation)


def _add(total: Tensor, text: Tensor, values: Tensor, aggregation: Aggregation) -> None:
    if aggregation == "max":
        index = text[:, None].expand_as(values)
        total.scatter_reduce_(0, index, values, "amax", include_self=True)
    else:
        total.index_add_(0, text, values)


def raw_features(source: TextActivations, aggregation: Aggregation = "sum") -> Features:
    """Aggregate the raw activations of every text; ``max`` takes the largest size, sign kept."""
    width = source.activations.shape[1]
    sides = _sides_of(source, width, lambda x: x, aggregation)
    return Features(_signed(sides), [f"x{i}" for i in range(width)])


def _opposed(pos: Tensor, neg: Tensor, aggregation: Aggregation) -> Tensor:
    """One signed value of two magnitudes: their difference, or the larger with its sign."""
    if aggregation == "max":
        return torch.where(pos >= neg, pos, -neg)
    return pos - neg


def _signed(sides: SideValues) -> Tensor:
    return _opposed(sides.pos, sides.neg, sides.aggregation)


def axis_features(sides: SideValues) -> Features:
    """Return the signed value of every latent."""
    return Features(_signed(sides), [str(i) for i in range(sides.pos.shape[1])])


def side_features(sides: SideValues) -> Features:
    """Return both sides of every latent: the latents of the plain twin, in its order."""
    width = sides.pos.shape[1]
    names = [f"{i}{sign}" for sign in "+-" for i in range(width)]
    return Features(torch.cat([sides.pos, sides.neg], 1), names)


def pair_features(
    sae: SAE[Any], side: Features, aggregation: Aggregation, fit: Tensor, max_cosine: float
) -> tuple[Features, list[float]]:
    """Return the difference of every two sides that write nearly opposite directions.

    A side counts with the norm of what it writes, so that both are in units of the activations.

    Args:
        side: as :func:`side_features` gives them.
        fit: (n_texts,) bool; both sides of a pair are active in some text of these.
        max_cosine: of the two directions, at most; below 0.

    Returns:
        The features, and the cosine of each pair.
    """
    used = (side.values[fit] > 0).any(0).nonzero().flatten()
    rows = decoder_directions(sae).detach().cpu()
    directions = torch.cat([rows, -rows])[used]
    magnitudes = side.values[:, used] * directions.norm(dim=1)
    a, b, cosine = find_antipodal_pairs(directions, max_cosine)
    values = _opposed(magnitudes[:, a], magnitudes[:, b], aggregation)
    names = [side.names[i] for i in used.tolist()]
    pairs = [f"{names[i]} {names[j]}" for i, j in zip(a.tolist(), b.tolist(), strict=True)]
    return Features(values, pairs), cosine.tolist()
