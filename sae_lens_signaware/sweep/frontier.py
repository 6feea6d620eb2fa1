"""Frontiers of R² against L0, and which of two is better.

R² is interpolated linearly in log L0 at 64 points over the overlap of the two L0 ranges.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

N_GRID = 64
MARGIN = 0.002  # two or three standard deviations of a gap over seeds, in most comparisons of 0.1
MIN_OVERLAP = 1.5

Verdict = Literal["better", "same", "worse", "depends on L0"]


class Point(NamedTuple):
    """One SAE of a frontier: L0, R², share of dead latents, width."""

    l0: float
    r2: float
    dead_share: float
    d_sae: int


Frontiers = Mapping[int, Sequence[Point]]  # seed -> the points of an SAE


@dataclass(frozen=True)
class Comparison:
    """SAE ``a`` against ``b`` on one cell. A gap is R² of A less R² of B; means over ``seeds``.

    Attributes:
        seeds: that have both frontiers whole.
        dead_share_ratio: geometric mean of the dead shares of A, divided by that of B; no dead
            latent counts as half a one. Below 1 is in favour of A.
        verdict: A is better where its smallest gap is above 0.002, worse where the largest is below
            -0.002, the same where both are within, else it depends on L0. None, and so are the
            gaps, where the L0 ranges overlap by less than a factor of 1.5 in one of the seeds.
        smallest_gap, largest_gap, mean_gap: over the 64 points. A dominates where the smallest > 0.
        smallest_gap_sd: sample standard deviation over seeds; None for one seed.
        l0_range: the overlap that all seeds share.
    """

    cell: str
    a: str
    b: str
    seeds: list[int]
    dead_share_ratio: float
    verdict: Verdict | None = None
    smallest_gap: float | None = None
    largest_gap: float | None = None
    mean_gap: float | None = None
    smallest_gap_sd: float | None = None
    l0_range: tuple[float, float] | None = None


def compare_frontiers(cell: str, a: str, b: str, of_a: Frontiers, of_b: Frontiers) -> Comparison:
    """Compare A with B by the seeds, at least one, that both have."""
    seeds = sorted(of_a.keys() & of_b.keys())
    ratio = statistics.geometric_mean(dead_share_ratio(of_a[s], of_b[s]) for s in seeds)
    found = [found for s in seeds if (found := gaps_of(of_a[s], of_b[s])) is not None]
    if len(found) < len(seeds):
        return Comparison(cell, a, b, seeds, ratio)
    smallest = [float(gaps.min()) for gaps, _, _ in found]
    lows, highs = [low for _, low, _ in found], [high for _, _, high in found]
    least, most = statistics.fmean(smallest), statistics.fmean(float(g.max()) for g, _, _ in found)
    return Comparison(
        *(cell, a, b, seeds, ratio),
        verdict=verdict_of(least, most),
        smallest_gap=least,
        largest_gap=most,
        mean_gap=statistics.fmean(float(gaps.mean()) for gaps, _, _ in found),
        smallest_gap_sd=statistics.stdev(smallest) if len(seeds) > 1 else None,
        l0_range=(max(lows), min(highs)),
    )


def verdict_of(smallest_gap: float, largest_gap: float) -> Verdict:
    """The word for A against B; see :class:`Comparison`."""
    # 0.802 less 0.8 is above 0.002 by a rounding error alone
    smallest, largest = round(smallest_gap, 9), round(largest_gap, 9)
    if smallest > MARGIN:
        return "better"
    if largest < -MARGIN:
        return "worse"
    return "same" if smallest >= -MARGIN and largest <= MARGIN else "depends on L0"


def gaps_of(a: Sequence[Point], b: Sequence[Point]) -> tuple[np.ndarray, float, float] | None:
    """The gaps of A over B at 64 points of their overlap, equally spaced in log L0, and its ends.

    None where the overlap is narrower than a factor of 1.5.
    """
    # an SAE of which no latent fires has no place in log L0
    a, b = ([p for p in points if p.l0 > 0] for points in (a, b))
    if not a or not b:
        return None
    low, high = max(min(a).l0, min(b).l0), min(max(a).l0, max(b).l0)
    if round(high / low, 9) < MIN_OVERLAP:
        return None
    grid = np.linspace(math.log(low), math.log(high), N_GRID)
    return _r2_at(a, grid) - _r2_at(b, grid), low, high


def _r2_at(points: Sequence[Point], log_l0: np.ndarray) -> np.ndarray:
    """R² on the straight line in log L0; points of the same L0 count by their mean."""
    ordered = groupby(sorted(points), key=lambda p: p.l0)
    means = {l0: statistics.fmean(p.r2 for p in group) for l0, group in ordered}
    return np.interp(log_l0, [math.log(l0) for l0 in means], list(means.values()))


def dead_share_ratio(a: Sequence[Point], b: Sequence[Point]) -> float:
    """The geometric mean of the dead shares of A divided by that of B; see :class:`Comparison`."""

    def log_mean(points: Sequence[Point]) -> float:
        return statistics.fmean(math.log(max(p.dead_share, 0.5 / p.d_sae)) for p in points)

    return math.exp(log_mean(a) - log_mean(b))
