"""Markdown tables of the reproduction: frontiers, means over seeds, verdicts, ablations."""

import statistics
from collections.abc import Sequence

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments.sweep.comparison import (
    VERDICT_COLUMNS,
    Comparison,
)
from sae_lens_signaware.experiments.sweep.frontier import interpolate
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import point_of

N_BEFORE = VERDICT_COLUMNS.index("smallest gap in R²") + 1
REFERENCE = "sa_gsae-half"  # what the ablations are compared with


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], n_left: int) -> str:
    """Make a table of texts; the first ``n_left`` columns stand at the left."""
    rule = ["---"] * n_left + ["---:"] * (len(columns) - n_left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows)) + "\n"


def frontier_table(results: Sequence[RunResult], cell: str) -> str:
    """Tabulate R2 at L0 of the points of every SAE for the first seed, and any dead share."""
    rows = []
    mine = [r for r in results if r.cell == cell and r.seed == 0]
    for sae in dict.fromkeys(r.sae for r in mine):
        points = sorted((point_of(r) for r in mine if r.sae == sae), key=lambda p: p.l0)
        cells = [
            f"{p.explained_variance:.4f} at {p.l0:.1f}"
            + (f" ({p.dead_share:.2%} dead)" if p.dead_share else "")
            for p in points
        ]
        rows.append([sae, *cells])
    n = max(len(row) for row in rows)
    return markdown(
        ["SAE", *("R² at L0" for _ in range(n - 1))], [r + [""] * (n - len(r)) for r in rows], 1
    )


def means_table(results: Sequence[RunResult]) -> str:
    """Tabulate means over seeds of the SAEs that have several, one for each swept value.

    A mean is R2 ± its standard deviation at L0, and any dead share.
    """
    rows = []
    for cell, sae in dict.fromkeys((r.cell, r.sae) for r in results):
        mine = [r for r in results if (r.cell, r.sae) == (cell, sae)]
        n_seeds = len({r.seed for r in mine})
        if n_seeds == 1:  # a value of one seed alone has no mean either
            continue
        by_value = [[r.quality for r in mine if r.value == v] for v in {r.value for r in mine}]
        means = sorted(mean_of(seeds) for seeds in by_value if len(seeds) > 1)
        cells = [
            f"{r2:.4f} ± {deviation:.4f} at {l0:.1f}" + (f" ({dead:.2%} dead)" if dead else "")
            for l0, r2, deviation, dead in means
        ]
        rows.append([cell, sae, str(n_seeds), *cells])
    n = max(map(len, rows), default=3)
    columns = ["cell", "SAE", "seeds", *("R² at L0" for _ in range(n - 3))]
    return markdown(columns, [r + [""] * (n - len(r)) for r in rows], 2)


def mean_of(seeds: Sequence[SAEQuality]) -> tuple[float, float, float, float]:
    """L0, R2, deviation of R2 (the sample's) and dead share over the seeds of a run."""
    r2 = [q.explained_variance for q in seeds]
    l0 = statistics.fmean(q.l0 for q in seeds)
    dead = statistics.fmean(q.dead_share for q in seeds)
    return l0, statistics.fmean(r2), statistics.stdev(r2), dead


def verdict_row(c: Comparison) -> list[str]:
    """The row of every verdict table, with the L0 of each smallest gap and the mean gap in it."""
    verdicts = [v for v in c.verdicts.values() if v.outcome is not None]
    at = ", ".join(f"{v.smallest_gap_l0:.0f}" for v in verdicts if v.smallest_gap_l0 is not None)
    mean = [v.mean_gap for v in verdicts if v.mean_gap is not None]
    row = list(c.row())
    return [*row[:N_BEFORE], at, f"{sum(mean) / len(mean):+.4f}" if mean else "", *row[N_BEFORE:]]


def verdict_table(comparisons: Sequence[Comparison]) -> str:
    """Tabulate comparisons, and say below why a verdict is missing."""
    columns = [*VERDICT_COLUMNS[:N_BEFORE], "at L0", "mean gap", *VERDICT_COLUMNS[N_BEFORE:]]
    table = markdown(columns, [verdict_row(c) for c in comparisons], 3)
    reasons = [f"- {note}\n" for c in comparisons for note in c.notes()]
    return table + ("\n" + "".join(reasons) if reasons else "")


def frontier_tables(results: Sequence[RunResult], what: str) -> list[str]:
    """One headed table for each cell."""
    parts = []
    for cell in dict.fromkeys(r.cell for r in results):
        parts += [f"## {cell}, {what}\n", frontier_table(results, cell)]
    return parts


def ablation_table(results: Sequence[RunResult], main: Sequence[RunResult]) -> str:
    """Compare every ablation with the frontier of the main sweep's SA-GSAE, at the same L0."""
    values = sorted({r.value for r in results})
    frontier = {
        cell: [point_of(r) for r in main if (r.sae, r.seed, r.cell) == (REFERENCE, 0, cell)]
        for cell in dict.fromkeys(r.cell for r in results)
    }
    rows = []
    for sae in dict.fromkeys(r.sae for r in results):
        for cell in frontier:
            row = [sae, cell]
            for value in values:
                q = next(
                    r.quality for r in results if (r.sae, r.cell, r.value) == (sae, cell, value)
                )
                try:
                    gap = f"{q.explained_variance - interpolate(frontier[cell], q.l0):+.4f}"
                except ValueError:  # outside of the frontier's L0
                    gap = ""
                row += [f"{q.l0:.1f}", f"{q.explained_variance:.4f}", gap, f"{q.dead_share:.2%}"]
            rows.append(row)
    columns = [x for v in values for x in (f"L0 (target {v:g})", "R²", "ΔR²", "dead")]
    return markdown(["ablation", "cell", *columns], rows, 2)
