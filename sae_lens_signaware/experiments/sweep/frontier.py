"""Frontiers of R² against L0, and the verdict on two of them (docs/experiments.md)."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Literal

from sae_lens_signaware.checks import require

N_GRID = 64
"""Points of the overlap at which two frontiers are compared, equally spaced in log L0."""

MIN_OVERLAP = 1.5
"""Factor in L0 between the ends of an overlap, below which there is no verdict: so short a piece
says nothing of a frontier."""

MAX_SPACING = 2.5
"""A frontier is read where the line between two of its points is off by no more than half-way
between points that are this factor apart in L0.

It is read on a straight line in log L0, and it is bent: half-way between points that are a factor
of 4 apart that is off by up to 0.01 of R², which is more than most gaps."""

MARGIN = 0.002
"""Gap in R² up to which two frontiers are level.

A gap depends on the seed. Of the 38 comparisons of three seeds in ``results/sweep.json``, the
standard deviation of the smallest gap over seeds has the median 0.0009 and is below 0.002 in 32.
"""

_N_DIGITS = 9
"""Of what is held against the two: 0.802 less 0.8 is above 0.002 by a rounding error alone."""

Outcome = Literal["ahead", "level", "behind", "mixed"]
"""A against B: ``ahead`` where its gap is above :data:`MARGIN` at every point of the overlap,
``behind`` where it is below minus that at every point, ``level`` where it is within at every point,
``mixed`` otherwise."""

OUTCOMES: tuple[Outcome, ...] = ("ahead", "level", "mixed", "behind")


@dataclass(frozen=True)
class Point:
    """One SAE of a frontier.

    Attributes:
        l0: mean number of active latents per token, above 0.
        explained_variance: R².
        dead_share: share of latents that never fired over the evaluated tokens.
        d_sae: its width.
    """

    l0: float
    explained_variance: float
    dead_share: float
    d_sae: int

    @property
    def floored_dead_share(self) -> float:
        """At least half a latent, so that it has a logarithm."""
        return max(self.dead_share, 0.5 / self.d_sae)

    @property
    def n_dead(self) -> int:
        """Number of latents that never fired."""
        return round(self.dead_share * self.d_sae)


@dataclass(frozen=True)
class Verdict:
    """The frontier of A against that of B.

    Attributes:
        overlap: intersection of their L0 ranges, (low, high); None where they do not overlap, and
            then there is no gap either.
        smallest_gap: least R² of A less R² of B over the overlap, where both are read; None where
            no L0 of it is near enough to points of both.
        smallest_gap_l0: the L0 of the smallest gap.
        largest_gap, mean_gap: likewise; the mean is over log L0.
        outcome: see :data:`Outcome`; None where there is no verdict, see :attr:`why_none`.
        dominates: whether A is ahead; None where there is no verdict.
        dead_share_ratio: see :func:`dead_share_ratio`; below 1 is in favour of A.
        n_dead_a, n_dead_b: number of dead latents of each SAE, in the order of their L0.
        n_read: at how many of the :data:`N_GRID` points of the overlap both are read.
    """

    overlap: tuple[float, float] | None
    smallest_gap: float | None
    smallest_gap_l0: float | None
    largest_gap: float | None
    mean_gap: float | None
    outcome: Outcome | None
    dominates: bool | None
    dead_share_ratio: float
    n_dead_a: tuple[int, ...]
    n_dead_b: tuple[int, ...]
    n_read: int

    @property
    def why_none(self) -> str | None:
        """The reason for no verdict, in words; None where there is a verdict."""
        if self.outcome is not None:
            return None
        if self.overlap is None:
            return "the L0 ranges do not overlap"
        if self.smallest_gap is None:
            return "no L0 of the overlap is near enough to points of both"
        low, high = (f"{l0:.1f}" for l0 in self.overlap)
        return f"the overlap, L0 {low} to {high}, is narrower than a factor of {MIN_OVERLAP:g}"


@dataclass(frozen=True)
class SeedSummary:
    """Verdicts of several seeds in one.

    Attributes:
        n_seeds: number of seeds with a verdict.
        n_dominating: number of these in which A is ahead.
        smallest_gap_mean, smallest_gap_std: over the seeds with a verdict; the deviation is the
            sample's, 0 for one seed.
        dead_share_ratio: geometric mean over all seeds.
    """

    n_seeds: int
    n_dominating: int
    smallest_gap_mean: float | None
    smallest_gap_std: float | None
    dead_share_ratio: float


def interpolate(points: Sequence[Point], l0: float, beyond: float = 1.0) -> float:
    """Interpolate the R² of a frontier at an L0 within its range, linearly in log L0.

    Args:
        beyond: factor by which the range is wider at both ends: its outer segments go on so far.

    Raises:
        ValueError: outside of the range.
    """
    low, high = min(p.l0 for p in points) / beyond, max(p.l0 for p in points) * beyond
    require(low <= l0 <= high, "l0", l0, f"from {low} to {high}")
    a, b = _segment(points, l0)
    if a.l0 == b.l0:
        return a.explained_variance
    t = math.log(l0 / a.l0) / math.log(b.l0 / a.l0)
    return a.explained_variance + t * (b.explained_variance - a.explained_variance)


def _segment(points: Sequence[Point], l0: float) -> tuple[Point, Point]:
    """The two neighbours whose line is read at an L0: those around it, or the outermost two."""
    points = _one_at_each_l0(points)
    segments = list(pairwise(points)) or [(points[0], points[0])]
    return next((ends for ends in segments if l0 <= ends[1].l0), segments[-1])


def _one_at_each_l0(points: Sequence[Point]) -> list[Point]:
    """The points in order of L0, the mean of those that have the same."""
    ordered = groupby(sorted(points, key=lambda p: p.l0), key=lambda p: p.l0)
    groups = (list(group) for _, group in ordered)
    return [group[0] if len(group) == 1 else _mean_r2(group) for group in groups]


def _mean_r2(group: Sequence[Point]) -> Point:
    r2 = statistics.fmean(p.explained_variance for p in group)
    return replace(group[0], explained_variance=r2)


def is_read(points: Sequence[Point], l0: float) -> bool:
    """Whether a frontier is read at an L0: see :data:`MAX_SPACING`.

    What a straight line is off by at ``l0`` is proportional to the product of its distances from
    the two points, in log L0.
    """
    a, b = _segment(points, l0)
    product = abs(math.log(l0 / a.l0) * math.log(l0 / b.l0))
    return round(product - (math.log(MAX_SPACING) / 2) ** 2, _N_DIGITS) <= 0


def overlap_of(a: Sequence[Point], b: Sequence[Point]) -> tuple[float, float] | None:
    """Return the ends of the L0 range that both frontiers cover; None where there is none."""
    low = max(min(p.l0 for p in points) for points in (a, b))
    high = min(max(p.l0 for p in points) for points in (a, b))
    return (low, high) if low <= high else None


def read_gaps(
    a: Sequence[Point], b: Sequence[Point], at: Iterable[float]
) -> list[tuple[float, float]]:
    """Return (L0, R² of A less R² of B) for those of the L0s at which both are read."""
    return [
        (l0, interpolate(a, l0) - interpolate(b, l0))
        for l0 in at
        if is_read(a, l0) and is_read(b, l0)
    ]


def compare_frontiers(a: Sequence[Point], b: Sequence[Point]) -> Verdict:
    """Compare A with B at 64 points over the overlap of their L0 ranges, near points of both.

    Of the 64 only those count where both are read, see :func:`is_read`.

    The first rule was that A dominates where its gap is above 0 at every point. That counted a gap
    of 0.00002, and an overlap of 0.009 in L0. The verdict departs from it on purpose: it has the
    margin :data:`MARGIN` and asks for an overlap of at least a factor of :data:`MIN_OVERLAP`.

    Raises:
        ValueError: a frontier without points, or a point that is not finite or not above L0 0.
    """
    for name, points in (("a", a), ("b", b)):
        require(len(points) > 0, name, list(points), "a frontier with at least one point")
        for p in points:
            require(0 < p.l0 < math.inf, f"l0 of {name}", p.l0, "finite and above 0")
            r2 = p.explained_variance
            require(math.isfinite(r2), f"explained_variance of {name}", r2, "finite")
    ratio, dead_a, dead_b = dead_share_ratio(a, b), _n_dead(a), _n_dead(b)
    overlap = overlap_of(a, b)
    read = read_gaps(a, b, _grid(*overlap)) if overlap else []
    if overlap is None or not read:
        return Verdict(overlap, None, None, None, None, None, None, ratio, dead_a, dead_b, 0)
    low, high = overlap
    smallest_l0, smallest = min(read, key=lambda pair: pair[1])
    gaps = [gap for _, gap in read]
    is_narrow = round(high / low, _N_DIGITS) < MIN_OVERLAP
    outcome = None if is_narrow else outcome_of(smallest, max(gaps))
    return Verdict(
        overlap=overlap,
        smallest_gap=smallest,
        smallest_gap_l0=smallest_l0,
        largest_gap=max(gaps),
        mean_gap=statistics.fmean(gaps),
        outcome=outcome,
        dominates=None if outcome is None else outcome == "ahead",
        dead_share_ratio=ratio,
        n_dead_a=dead_a,
        n_dead_b=dead_b,
        n_read=len(read),
    )


def _grid(low: float, high: float) -> list[float]:
    """Equally spaced in log L0, with the ends exactly, so that rounding leaves neither range."""
    inner = (low * (high / low) ** (i / (N_GRID - 1)) for i in range(1, N_GRID - 1))
    return [low, *(min(max(l0, low), high) for l0 in inner), high]


def outcome_of(smallest_gap: float, largest_gap: float) -> Outcome:
    """Decide the outcome by the smallest and the largest gap over the overlap."""
    smallest_gap, largest_gap = round(smallest_gap, _N_DIGITS), round(largest_gap, _N_DIGITS)
    if smallest_gap > MARGIN:
        return "ahead"
    if largest_gap < -MARGIN:
        return "behind"
    return "level" if smallest_gap >= -MARGIN and largest_gap <= MARGIN else "mixed"


def _n_dead(points: Sequence[Point]) -> tuple[int, ...]:
    return tuple(p.n_dead for p in sorted(points, key=lambda p: p.l0))


def dead_share_ratio(a: Sequence[Point], b: Sequence[Point]) -> float:
    """Divide the geometric mean of the dead shares of A's frontier by that of B's.

    An SAE without dead latents counts as one with half a dead latent, so that the mean exists. The
    ratio of two such SAEs is that of their widths.
    """

    def log_mean(points: Sequence[Point]) -> float:
        return statistics.fmean(math.log(p.floored_dead_share) for p in points)

    return math.exp(log_mean(a) - log_mean(b))


def summarise_seeds(verdicts: Sequence[Verdict]) -> SeedSummary:
    """Sum verdicts up: mean and deviation over the seeds.

    Raises:
        ValueError: no verdict.
    """
    require(len(verdicts) > 0, "verdicts", list(verdicts), "at least one")
    gaps = [v.smallest_gap for v in verdicts if v.outcome and v.smallest_gap is not None]
    return SeedSummary(
        n_seeds=len(gaps),
        n_dominating=sum(v.outcome == "ahead" for v in verdicts),
        smallest_gap_mean=statistics.fmean(gaps) if gaps else None,
        smallest_gap_std=(statistics.stdev(gaps) if len(gaps) > 1 else 0.0) if gaps else None,
        dead_share_ratio=statistics.geometric_mean(v.dead_share_ratio for v in verdicts),
    )
