"""Small JSON and Markdown tables of the reproduction, from the outputs of its sweeps.

    python benchmarks/reproduction.py sweep_out --json results/sweep.json --tables results/sweep.md

Reads sweep.json of the folders main, ablations, double, quadruple, quadruple_auxk, eightfold and wide of
sweep_out; computes nothing but differences.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_lens_signaware.activation_cache import write_json_atomically
from sae_lens_signaware.experiments.frontier import (
    Point,
    compare_frontiers,
    interpolate,
    summarise_seeds,
)
from sae_lens_signaware.experiments.summary import (
    VERDICT_COLUMNS,
    Comparison,
    SweepSummary,
    point_of,
)
from sae_lens_signaware.experiments.sweep import RunResult

N_BEFORE = VERDICT_COLUMNS.index("smallest gap in R²") + 1
REFERENCE = "sa_gsae-half"  # what the ablations are compared with
# the comparison again, with one thing changed
AGAIN = {
    "double": "twice the steps",
    "quadruple": "four times the steps",
    "quadruple_auxk": "four times the steps, with AuxK",
    "eightfold": "eight times the steps",
    "wide": "H = 1,152 against 2H = 2,304",
}
# of quadruple_auxk against one of quadruple
AUXK_AGAINST = [
    ("sa_gsae-half-auxk", "sa_gsae-half"),
    ("sa_gsae-half-auxk", "paper-gated-full"),
    ("bi_jumprelu-half-auxk", "bi_jumprelu-half"),
    ("bi_jumprelu-half-auxk", "paper-gated-full"),
    ("paper-gated-full-auxk", "paper-gated-full"),
]


def small(summary: SweepSummary) -> dict[str, Any]:
    """What the tables are made of."""
    runs = [
        [
            r.cell,
            r.sae,
            r.seed,
            r.field,
            r.value,
            round(r.quality.l0, 3),
            round(r.quality.explained_variance, 5),
            round(r.quality.dead_share, 5),
            round(r.quality.bipolar_share, 4),
        ]
        for r in summary.results
    ]
    columns = ["cell", "sae", "seed", "swept", "value", "l0", "r2", "dead_share", "bipolar_share"]
    n_tokens = summary.results[0].quality.n_tokens
    return {
        "command": summary.command,
        "n_heldout_tokens": n_tokens,
        "columns": columns,
        "runs": runs,
        "comparisons": small_comparisons(summary.comparisons),
    }


def small_comparisons(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "cell": c.cell,
            "a": c.a,
            "b": c.b,
            "overlap": c.overlap,
            "smallest_gap_by_seed": {s: v.smallest_gap for s, v in c.verdicts.items()},
            "smallest_gap_l0_by_seed": {s: v.smallest_gap_l0 for s, v in c.verdicts.items()},
            "largest_gap_by_seed": {s: v.largest_gap for s, v in c.verdicts.items()},
            "mean_gap_by_seed": {s: v.mean_gap for s, v in c.verdicts.items()},
            "n_dominating": c.summary.n_dominating,
            "dead_share_ratio": c.summary.dead_share_ratio,
        }
        for c in comparisons
    ]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], n_left: int) -> str:
    rule = ["---"] * n_left + ["---:"] * (len(columns) - n_left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows)) + "\n"


def frontier_table(results: Sequence[RunResult], cell: str) -> str:
    """R2 at L0 (dead share where any) of the points of every SAE, the first seed."""
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


def verdict_row(c: Comparison) -> list[str]:
    verdicts = list(c.verdicts.values())
    at = ", ".join(f"{v.smallest_gap_l0:.0f}" for v in verdicts if v.smallest_gap_l0 is not None)
    mean = [v.mean_gap for v in verdicts if v.mean_gap is not None]
    row = list(c.row())
    return [*row[:N_BEFORE], at, f"{sum(mean) / len(mean):+.4f}" if mean else "", *row[N_BEFORE:]]


def verdict_table(comparisons: Sequence[Comparison]) -> str:
    columns = [*VERDICT_COLUMNS[:N_BEFORE], "at L0", "mean gap", *VERDICT_COLUMNS[N_BEFORE:]]
    return markdown(columns, [verdict_row(c) for c in comparisons], 3)


def frontier_tables(results: Sequence[RunResult], what: str) -> list[str]:
    parts = []
    for cell in dict.fromkeys(r.cell for r in results):
        parts += [f"## {cell}, {what}\n", frontier_table(results, cell)]
    return parts


def across(
    a: SweepSummary, sae_a: str, b: SweepSummary, sae_b: str, seed: int = 0
) -> list[Comparison]:
    """Frontiers of two sweeps on the same activations, by the cells that both have whole."""

    def points(sweep: SweepSummary, sae: str, cell: str) -> list[Point]:
        found = [r for r in sweep.results if (r.sae, r.cell, r.seed) == (sae, cell, seed)]
        return [point_of(r) for r in found]

    comparisons = []
    for cell in dict.fromkeys(r.cell for r in a.results if r.sae == sae_a):
        verdict = compare_frontiers(points(a, sae_a, cell), points(b, sae_b, cell))
        comparisons.append(
            Comparison(cell, sae_a, sae_b, {seed: verdict}, summarise_seeds([verdict]))
        )
    return comparisons


def ablation_table(results: Sequence[RunResult], main: Sequence[RunResult]) -> str:
    """Of every ablation against SA-GSAE as it is, at the L0 it came out at; the frontier is the main sweep's."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", type=Path, help="folder of the sweeps' outputs")
    parser.add_argument("--json", type=Path, default=Path("results/sweep.json"))
    parser.add_argument("--tables", type=Path, default=Path("results/sweep.md"))
    args = parser.parse_args()
    sweeps = {
        name: SweepSummary.read(args.sweeps / name / "sweep.json")
        for name in ("main", "ablations", *AGAIN)
    }
    command = "python " + shlex.join(sys.argv)
    auxk, plain = sweeps["quadruple_auxk"], sweeps["quadruple"]
    against = [c for a, b in AUXK_AGAINST for c in across(auxk, a, plain, b)]
    values = {"command": command} | {name: small(sweep) for name, sweep in sweeps.items()}
    values["quadruple_auxk"]["against_quadruple"] = small_comparisons(against)
    write_json_atomically(values, args.json)
    main_sweep, ablations = sweeps["main"], sweeps["ablations"]
    parts = [f"Made by `{command}`; raw: [sweep.json]({args.json.name}).\n"]
    parts += frontier_tables(main_sweep.results, "seed 0")
    parts += ["## Verdicts\n", verdict_table(main_sweep.comparisons)]
    parts += ["## Ablations, seed 0\n", ablation_table(ablations.results, main_sweep.results)]
    for name, what in AGAIN.items():
        again = sweeps[name]
        parts += frontier_tables(again.results, f"seed 0, {what}")
        parts += [f"## Verdicts, {what}\n", verdict_table(again.comparisons)]
    parts += ["## Verdicts, AuxK against none, four times the steps\n", verdict_table(against)]
    args.tables.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
