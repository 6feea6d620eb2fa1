"""Examples, histogram and dial of a latent as numbers that a template draws."""

import math
from typing import Any, NamedTuple


def largest_act(page: dict[str, Any]) -> float:
    """The largest size of an activation in the examples of a latent."""
    examples = page["examples_pos"] + page["examples_neg"]
    return max((abs(act) for example in examples for act in example["acts"]), default=0.0)


def strength(act: float, largest: float) -> float:
    """Size of an activation from 0 to 1, where ``largest`` is 1."""
    return min(1.0, abs(act) / largest) if largest else 0.0


class Bar(NamedTuple):
    """A bar of a histogram; lengths are shares of the width and of the height.

    Attributes:
        side: "pos" or "neg", the sign of its middle.
        x, width, height: where it stands; heights are logarithmic, so that few large activations
            are seen beside many small ones.
        low, high, n_tokens: its edges, and the tokens in it.
    """

    side: str
    x: float
    width: float
    height: float
    low: float
    high: float
    n_tokens: int


def bars(histogram: dict[str, list[float]]) -> list[Bar]:
    """The bars of a latent's signed activations that are not empty."""
    edges, counts = histogram["edges"], histogram["counts"]
    span, most = edges[-1] - edges[0], math.log1p(max(counts))
    return [
        Bar(
            side="neg" if low + high < 0 else "pos",
            x=(low - edges[0]) / span,
            width=(high - low) / span,
            height=math.log1p(count) / most,
            low=low,
            high=high,
            n_tokens=int(count),
        )
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]


class Curve(NamedTuple):
    """A dial's curve in a box of width and height 1, with y downwards.

    Attributes:
        points: (x, y, c, metric) each.
        zero: (x, y) of c = 0 and of metric = 0; the box holds both.
        low, high: of the metric in the box.
    """

    points: list[tuple[float, float, float, float]]
    zero: tuple[float, float]
    low: float
    high: float


def curve(dial: dict[str, Any]) -> Curve:
    """The curve of a dial's metric against its coefficient."""
    x, y = _scale(dial["c"]), _scale(dial["metric"])
    points = [(x(c), 1 - y(m), c, m) for c, m in zip(dial["c"], dial["metric"], strict=True)]
    low, high = min(0, *dial["metric"]), max(0, *dial["metric"])
    return Curve(points, (x(0), 1 - y(0)), low, high)


def _scale(values: list[float]) -> Any:
    low, high = min(0, *values), max(0, *values)
    return lambda value: (value - low) / (high - low or 1)
