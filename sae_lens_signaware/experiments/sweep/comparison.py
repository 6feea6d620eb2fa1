"""Comparisons of a sweep's SAEs, and the words in which every table and the report state them."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sae_lens_signaware.experiments.sweep.frontier import (
    MARGIN,
    MIN_OVERLAP,
    N_GRID,
    OUTCOMES,
    Point,
    SeedSummary,
    Verdict,
    compare_frontiers,
    summarise_seeds,
)

Frontiers = Mapping[tuple[str, int, str], Sequence[Point]]
"""(cell, seed, SAE) -> its frontier."""

VERDICT_COLUMNS = (
    "cell",
    "A",
    "B",
    "L0 overlap",
    "smallest gap in R²",
    "A is (seeds)",
    "dead A / B",
)

VERDICT_NOTE = (
    f"A is ahead where its R² is above that of B by more than {MARGIN:g} at every point of the "
    f"overlap, behind where it is below by more than {MARGIN:g} at every point, level where they "
    f"differ by at most {MARGIN:g} at every point, and mixed otherwise. There is no verdict where "
    f"the overlap is narrower than a factor of {MIN_OVERLAP:g} in L0. A frontier is a line between "
    "its points. Where points are far apart, only the part of the overlap near points of both is "
    "read, and the share of it is given."
)

DEAD_NOTE = (
    "dead A / B is the ratio of the dead shares, the geometric mean over the sweep; below 1 is in "
    "favour of A. Where an SAE has no dead latent, it is the mean number of dead latents of an SAE "
    "of A and of B."
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One pair of SAEs on one cell: a verdict for each seed, and all seeds in one.

    Attributes:
        cell, a, b: what was compared.
        verdicts: seed -> verdict.
        summary: over the seeds.
    """

    cell: str
    a: str
    b: str
    verdicts: dict[int, Verdict]
    summary: SeedSummary

    @property
    def overlap(self) -> tuple[float, float] | None:
        """L0 range that the overlaps of the seeds share; None where no L0 is in all of them.

        Seeds without a verdict count only where no seed has one.
        """
        with_verdict = [v.overlap for v in self.verdicts.values() if v.outcome]
        overlaps = with_verdict or [v.overlap for v in self.verdicts.values()]
        ranges = [overlap for overlap in overlaps if overlap is not None]
        if not ranges:
            return None
        low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
        return (low, high) if low <= high else None

    @property
    def overlaps(self) -> list[tuple[float, float]]:
        """L0 ranges to show: that of all seeds, or else of each seed that has a verdict."""
        if self.overlap is not None:
            return [self.overlap]
        ranges = [v.overlap for v in self.verdicts.values() if v.outcome]
        return [overlap for overlap in dict.fromkeys(ranges) if overlap is not None]

    def row(self) -> tuple[str, ...]:
        """Return the texts of :data:`VERDICT_COLUMNS`."""
        s = self.summary
        overlap = "; ".join(f"{low:.1f} to {high:.1f}" for low, high in self.overlaps) or "none"
        share = (
            min((v.n_read for v in self.verdicts.values() if v.outcome), default=N_GRID) / N_GRID
        )
        overlap += f", {share:.0%} read" if share < 1 else ""
        gap = "–" if s.smallest_gap_mean is None else f"{s.smallest_gap_mean:+.4f}"
        if s.smallest_gap_mean is not None and s.n_seeds > 1:
            gap += f" ± {s.smallest_gap_std:.4f}"
        return self.cell, self.a, self.b, overlap, gap, self._outcomes(), self._dead()

    def _outcomes(self) -> str:
        n_seeds = len(self.verdicts)
        counts = Counter(v.outcome for v in self.verdicts.values())
        return ", ".join(
            f"{outcome or 'no verdict'} {counts[outcome]} of {n_seeds}"
            for outcome in (*OUTCOMES, None)
            if counts[outcome]
        )

    def _dead(self) -> str:
        a = [n for v in self.verdicts.values() for n in v.n_dead_a]
        b = [n for v in self.verdicts.values() for n in v.n_dead_b]
        if not any(a) and not any(b):
            return "none / none"
        if all(a) and all(b):
            return f"{self.summary.dead_share_ratio:.2f}"
        return " / ".join(_count(statistics.fmean(n)) for n in (a, b)) + " latents"

    def notes(self) -> Iterator[str]:
        """Yield one sentence for each seed without a verdict: why there is none."""
        for seed, verdict in self.verdicts.items():
            if verdict.why_none is not None:
                where = f"{self.cell}, {self.a} against {self.b}, seed {seed}"
                yield f"{where}: no verdict: {verdict.why_none}"


def compare_on(
    cell: str, a: str, b: str, seeds: Sequence[int], of_a: Frontiers, of_b: Frontiers
) -> Comparison | None:
    """Compare A with B on one cell, by the seeds that have both frontiers; None where none has."""
    verdicts = {
        seed: compare_frontiers(of_a[cell, seed, a], of_b[cell, seed, b])
        for seed in seeds
        if (cell, seed, a) in of_a and (cell, seed, b) in of_b
    }
    if not verdicts:
        return None
    return Comparison(cell, a, b, verdicts, summarise_seeds(list(verdicts.values())))


def _count(mean: float) -> str:
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"
