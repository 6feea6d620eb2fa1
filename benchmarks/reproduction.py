"""Small JSON and Markdown tables of the reproduction, from the outputs of its sweeps.

    python benchmarks/reproduction.py sweep_out --json results/sweep.json --tables results/sweep.md

Reads sweep.json of the folders of sweep_out that are named in SWEEPS; a run that is not below sweep_out keeps the figures
that the JSON has of it, so that a sweep can be added or lengthened on another machine. Computes nothing but differences.
"""

import argparse
import dataclasses
import json
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig, load_sweep_config
from sae_lens_signaware.experiments.sweep.frontier import Point, interpolate
from sae_lens_signaware.experiments.sweep.runs import RunResult
from sae_lens_signaware.experiments.sweep.summary import (
    VERDICT_COLUMNS,
    Comparison,
    SweepSummary,
    compare_on,
    comparisons_of,
    frontiers_of,
    point_of,
)
from sae_lens_signaware.files import write_json

CONFIGS = Path(__file__).parents[1] / "configs"
N_BEFORE = VERDICT_COLUMNS.index("smallest gap in R²") + 1
REFERENCE = "sa_gsae-half"  # what the ablations are compared with
# folder -> config
SWEEPS = {
    "main": "sweep",
    "ablations": "ablations",
    "double": "double",
    "quadruple": "quadruple",
    "quadruple_auxk": "quadruple-auxk",
    "eightfold": "eightfold",
    "wide": "wide",
    "widest": "widest",
    "widest_quadruple": "widest-quadruple",
}
# the comparison again, with one thing changed
AGAIN = {
    "double": "twice the steps",
    "quadruple": "four times the steps",
    "quadruple_auxk": "four times the steps, with AuxK",
    "eightfold": "eight times the steps",
    "wide": "H = 1,152 against 2H = 2,304",
    "widest": "H = 4,608 against 2H = 9,216",
    "widest_quadruple": "H = 4,608 against 2H = 9,216, four times the steps",
}
# of quadruple_auxk against one of quadruple
AUXK_AGAINST = [
    ("sa_gsae-half-auxk", "sa_gsae-half"),
    ("sa_gsae-half-auxk", "paper-gated-full"),
    ("sa_gsae-half-auxk", "gated-full"),
    ("sa_gsae-half-auxk", "abstopk-half"),
    ("sa_gsae-half-auxk", "jumprelu-full"),
    ("sa_gsae-half-auxk", "batchtopk-full"),
    ("bi_jumprelu-half-auxk", "bi_jumprelu-half"),
    ("bi_jumprelu-half-auxk", "bi_jumprelu-half-no-resets"),
    ("bi_jumprelu-half-auxk", "paper-gated-full"),
    ("paper-gated-full-auxk", "paper-gated-full"),
]
COLUMNS = ["cell", "sae", "seed", "swept", "value", "l0", "r2", "dead_share", "bipolar_share"]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep as its config and the small JSON have it.

    Attributes:
        config, runs: of ``configs/``.
        results: of ``runs``, in their order, rounded.
        command: that makes them all.
    """

    config: SweepConfig
    runs: Sequence[Run]
    results: Sequence[RunResult]
    command: str

    @property
    def frontiers(self) -> Mapping[tuple[str, int, str], Sequence[Point]]:
        return frontiers_of(self.runs, self.results)

    @cached_property
    def comparisons(self) -> Sequence[Comparison]:
        return comparisons_of(self.config, self.runs, self.results)

    def small(self) -> dict[str, Any]:
        """What the tables are made of."""
        return {
            "command": self.command,
            "n_heldout_tokens": self.config.n_heldout_tokens,
            "columns": COLUMNS,
            "runs": [row_of(r) for r in self.results],
            "comparisons": small_comparisons(self.comparisons),
        }


def row_of(result: RunResult) -> list[Any]:
    q = result.quality
    figures = (
        round(q.l0, 3),
        round(q.explained_variance, 5),
        round(q.dead_share, 5),
        round(q.bipolar_share, 4),
    )
    return [result.cell, result.sae, result.seed, result.field, result.value, *figures]


def result_of(row: Sequence[Any], run: Run, n_tokens: int) -> RunResult:
    """What a row of the small JSON tells of a run."""
    *_, l0, r2, dead_share, bipolar_share = row
    sae = run.cfg.sae
    quality = SAEQuality(
        l0, r2, dead_share, bipolar_share, n_tokens, sae.architecture(), sae.d_sae, ""
    )
    # nothing here asks for what a row leaves out
    nan = math.nan
    return RunResult(
        run.cell, run.seed, run.sae, run.field, run.value, quality, nan, nan, None, identity={}
    )


def read_sweep(name: str, sweeps: Path, kept: Mapping[str, Any]) -> Sweep:
    """The runs of a config: from ``sweeps``, else from the block ``kept`` of the small JSON.

    Raises:
        SystemExit: a run of it is in neither.
    """
    source = CONFIGS / f"{SWEEPS[name]}-smollm2-135m.yaml"
    config, runs = load_sweep_config(source)
    command = source.read_text().partition("\n")[0].removeprefix("# ")
    rows = {tuple(row[:5]): row for row in kept.get("runs", [])}
    path, n_new = sweeps / name / "sweep.json", 0
    if path.exists():
        results = SweepSummary.read(path).results
        n_new = len(results)
        rows |= {tuple(row[:5]): row for row in map(row_of, results)}
    by_run = [(run, (run.cell, run.sae, run.seed, run.field, run.value)) for run in runs]
    missing = [run.name for run, key in by_run if key not in rows]
    if missing:
        sys.exit(f"{name}: {len(missing)} runs are nowhere, the first is {missing[0]}")
    print(f"{name}: {n_new} of {len(runs)} runs from {path}, the others as they were")
    results = [result_of(rows[key], run, config.n_heldout_tokens) for run, key in by_run]
    return Sweep(config, runs, results, command)


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


def means_table(results: Sequence[RunResult]) -> str:
    """Of the SAEs with several seeds, means over them at every swept value: R2 ± its deviation at L0 (dead share)."""
    rows = []
    for cell, sae in dict.fromkeys((r.cell, r.sae) for r in results):
        mine = [r for r in results if (r.cell, r.sae) == (cell, sae)]
        n_seeds = len({r.seed for r in mine})
        if n_seeds == 1:
            continue
        by_value = [[r.quality for r in mine if r.value == v] for v in {r.value for r in mine}]
        means = sorted(map(mean_of, by_value))
        cells = [
            f"{r2:.4f} ± {deviation:.4f} at {l0:.1f}" + (f" ({dead:.2%} dead)" if dead else "")
            for l0, r2, deviation, dead in means
        ]
        rows.append([cell, sae, str(n_seeds), *cells])
    n = max(map(len, rows))
    columns = ["cell", "SAE", "seeds", *("R² at L0" for _ in range(n - 3))]
    return markdown(columns, [r + [""] * (n - len(r)) for r in rows], 2)


def mean_of(seeds: Sequence[SAEQuality]) -> tuple[float, float, float, float]:
    """L0, R2, deviation of R2 (the sample's) and dead share over the seeds of a run."""
    r2 = [q.explained_variance for q in seeds]
    l0 = statistics.fmean(q.l0 for q in seeds)
    dead = statistics.fmean(q.dead_share for q in seeds)
    return l0, statistics.fmean(r2), statistics.stdev(r2), dead


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


def across(a: Sweep, b: Sweep, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Frontiers of two sweeps on the same activations, by the cells and seeds that both have whole."""
    seeds = sorted({*a.config.seeds, *b.config.seeds})
    of_a, of_b = a.frontiers, b.frontiers
    found = [
        compare_on(cell, sae_a, sae_b, seeds, of_a, of_b)
        for sae_a, sae_b in pairs
        for cell in a.config.cells
    ]
    return [c for c in found if c is not None]


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
    kept = json.loads(args.json.read_text()) if args.json.exists() else {}
    sweeps = {name: read_sweep(name, args.sweeps, kept.get(name, {})) for name in SWEEPS}
    command = "python " + shlex.join(sys.argv)
    values = {"command": command} | {name: sweep.small() for name, sweep in sweeps.items()}
    main_sweep, ablations = sweeps["main"], sweeps["ablations"]
    parts = [f"Made by `{command}`; raw: [sweep.json]({args.json.name}).\n"]
    parts += frontier_tables(main_sweep.results, "seed 0")
    parts += ["## Means over seeds\n", means_table(main_sweep.results)]
    parts += ["## Verdicts\n", verdict_table(main_sweep.comparisons)]
    parts += ["## Ablations, seed 0\n", ablation_table(ablations.results, main_sweep.results)]
    for name, what in AGAIN.items():
        parts += frontier_tables(sweeps[name].results, f"seed 0, {what}")
        if len({r.seed for r in sweeps[name].results}) > 1:
            parts += [f"## Means over seeds, {what}\n", means_table(sweeps[name].results)]
        if sweeps[name].comparisons:
            parts += [f"## Verdicts, {what}\n", verdict_table(sweeps[name].comparisons)]
    auxk = across(sweeps["quadruple_auxk"], sweeps["quadruple"], AUXK_AGAINST)
    values["quadruple_auxk"]["against_quadruple"] = small_comparisons(auxk)
    parts += ["## Verdicts, AuxK against none, four times the steps\n", verdict_table(auxk)]
    write_json(values, args.json)
    args.tables.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
