"""Frontiers of R2 against L0 and what may be said of two of them (docs/experiments.md; ours)."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sae_lens_signaware.checks import require

N_GRID = 64
"""Points of the overlap at which two frontiers are compared, equally spaced in log L0."""


@dataclass(frozen=True)
class Point:
    """One SAE of a frontier.

    Attributes:
        l0: mean number of open latents per token, above 0.
        explained_variance: R2.
        dead_share: share of latents that never fired over the evaluated tokens.
        d_sae: its width.
    """

    l0: float
    explained_variance: float
    dead_share: float
    d_sae: int


@dataclass(frozen=True)
class Verdict:
    """What the frontier of A is to that of B.

    Attributes:
        overlap: intersection of their L0 ranges, (low, high); None where they do not overlap, and
            then there is nothing else to say.
        smallest_gap: least R2 of A less R2 of B over the overlap.
        smallest_gap_l0: the L0 where that is.
        largest_gap, mean_gap: likewise; the mean is over log L0.
        dominates: whether the gap is above 0 all over the overlap.
        dead_share_ratio: see :func:`dead_share_ratio`; below 1 is in favour of A.
    """

    overlap: tuple[float, float] | None
    smallest_gap: float | None
    smallest_gap_l0: float | None
    largest_gap: float | None
    mean_gap: float | None
    dominates: bool | None
    dead_share_ratio: float


@dataclass(frozen=True)
class SeedSummary:
    """Verdicts of several seeds in one.

    Attributes:
        n_seeds: seeds with an overlap.
        n_dominating: of these, seeds in which A dominates B.
        smallest_gap_mean, smallest_gap_std: over those seeds; the deviation is the sample's, 0 for one.
        dead_share_ratio: geometric mean over all seeds.
    """

    n_seeds: int
    n_dominating: int
    smallest_gap_mean: float | None
    smallest_gap_std: float | None
    dead_share_ratio: float


def interpolate(points: Sequence[Point], l0: float) -> float:
    """R2 of a frontier at an L0 within its range, linear in log L0 between neighbours.

    Raises:
        ValueError: outside of the range.
    """
    points = sorted(points, key=lambda p: p.l0)
    require(
        points[0].l0 <= l0 <= points[-1].l0, "l0", l0, f"from {points[0].l0} to {points[-1].l0}"
    )
    for a, b in pairwise(points):
        if l0 <= b.l0:
            if a.l0 == b.l0:
                return a.explained_variance
            t = math.log(l0 / a.l0) / math.log(b.l0 / a.l0)
            return a.explained_variance + t * (b.explained_variance - a.explained_variance)
    return points[-1].explained_variance  # a frontier of one point


def compare_frontiers(a: Sequence[Point], b: Sequence[Point]) -> Verdict:
    """A against B at 64 points over the overlap of their L0 ranges.

    Raises:
        ValueError: a frontier without points, or an L0 that is not above 0.
    """
    for name, points in (("a", a), ("b", b)):
        require(len(points) > 0, name, list(points), "a frontier with at least one point")
        for p in points:
            require(p.l0 > 0, f"l0 of {name}", p.l0, "above 0")
    ratio = dead_share_ratio(a, b)
    low = max(min(p.l0 for p in points) for points in (a, b))
    high = min(max(p.l0 for p in points) for points in (a, b))
    if low > high:
        return Verdict(None, None, None, None, None, None, ratio)
    grid = [low * (high / low) ** (i / (N_GRID - 1)) for i in range(1, N_GRID - 1)]
    grid = [low, *grid, high]  # the ends exactly, so that rounding leaves neither range
    gaps = [interpolate(a, l0) - interpolate(b, l0) for l0 in grid]
    smallest = min(range(N_GRID), key=gaps.__getitem__)
    return Verdict(
        overlap=(low, high),
        smallest_gap=gaps[smallest],
        smallest_gap_l0=grid[smallest],
        largest_gap=max(gaps),
        mean_gap=statistics.fmean(gaps),
        dominates=gaps[smallest] > 0,
        dead_share_ratio=ratio,
    )


def dead_share_ratio(a: Sequence[Point], b: Sequence[Point]) -> float:
    """Geometric mean of the dead shares of A's sweep over that of B's; no dead latent counts as half a one."""

    def log_mean(points: Sequence[Point]) -> float:
        return statistics.fmean(math.log(max(p.dead_share, 0.5 / p.d_sae)) for p in points)

    return math.exp(log_mean(a) - log_mean(b))


def summarise_seeds(verdicts: Sequence[Verdict]) -> SeedSummary:
    """Mean and deviation over seeds.

    Raises:
        ValueError: no verdict.
    """
    require(len(verdicts) > 0, "verdicts", list(verdicts), "at least one")
    gaps = [v.smallest_gap for v in verdicts if v.smallest_gap is not None]
    return SeedSummary(
        n_seeds=len(gaps),
        n_dominating=sum(v.dominates is True for v in verdicts),
        smallest_gap_mean=statistics.fmean(gaps) if gaps else None,
        smallest_gap_std=(statistics.stdev(gaps) if len(gaps) > 1 else 0.0) if gaps else None,
        dead_share_ratio=statistics.geometric_mean(v.dead_share_ratio for v in verdicts),
    )
