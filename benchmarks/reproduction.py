"""Small JSON and Markdown tables of the reproduction, from the outputs of its sweeps.

    python benchmarks/reproduction.py sweep_out --json results/sweep.json --tables results/sweep.md

Reads the outputs of the sweeps in the folders of sweep_out that are named in SWEEPS. A run that is
not below sweep_out keeps the figures that the JSON has of it, so that a sweep can be added or
lengthened on another machine; a run of other settings than the config's is dropped. Computes
nothing but differences.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from own_command import own_command
from reproduction_rows import COLUMNS, Rows, identities_of, read_rows, result_of, row_of
from reproduction_tables import (
    ablation_table,
    frontier_tables,
    means_table,
    verdict_table,
)
from result_rows import read_json
from sweep_source import command_of

from sae_lens_signaware.experiments.sweep.comparison import (
    DEAD_NOTE,
    VERDICT_NOTE,
    Comparison,
    Frontiers,
    compare_on,
)
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig, load_sweep_config
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import comparisons_of, frontiers_of
from sae_lens_signaware.files import write_json, write_text

CONFIGS = Path(__file__).parents[1] / "configs"
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


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep as its config and the small JSON have it.

    Attributes:
        config, runs: of ``configs/``.
        rows: of ``runs``.
        command: that makes them all.
    """

    config: SweepConfig
    runs: Sequence[Run]
    rows: Rows
    command: str

    @cached_property
    def results(self) -> Sequence[RunResult]:
        """Results of ``runs`` that are there, in their order, rounded."""
        n_tokens, rows = self.config.n_heldout_tokens, self.rows.by_run
        return [result_of(rows[r.name], r, n_tokens) for r in self.runs if r.name in rows]

    @property
    def frontiers(self) -> Frontiers:
        """The frontiers of all cells, seeds and SAEs."""
        return frontiers_of(self.runs, self.results)

    @cached_property
    def comparisons(self) -> Sequence[Comparison]:
        """The comparisons that the config asks for."""
        return comparisons_of(self.config, self.runs, self.results)

    def small(self) -> dict[str, Any]:
        """The block of the small JSON: what the tables are made of."""
        digests, _ = identities_of(self.config, self.runs, self.rows)
        block = {
            "command": self.command,
            "n_heldout_tokens": self.config.n_heldout_tokens,
            "columns": COLUMNS,
            "runs": [row_of(r) for r in self.results],
            "comparisons": small_comparisons(self.comparisons),
        }
        carried = {"identities": digests, "contents": self.rows.contents}
        return block | {name: values for name, values in carried.items() if values}


def read_sweep(
    name: str, sweeps: Path, kept: Mapping[str, Any], fields: Mapping[str, Sequence[str]]
) -> Sweep:
    """Read the runs of a config from ``sweeps``, else from the small JSON.

    Args:
        kept: block of the sweep in the small JSON.
        fields: see :func:`read_rows`.

    Raises:
        SystemExit: a run of it is in neither.
    """
    source = CONFIGS / f"{SWEEPS[name]}-smollm2-135m.yaml"
    config, runs = load_sweep_config(source)
    command, _ = command_of(source)
    rows, line = read_rows(config, runs, sweeps / name, kept, fields)
    print(f"{name}: {line}")
    missing = [run.name for run in runs if run.name not in rows.by_run]
    if missing:
        sys.exit(f"{name}: {len(missing)} runs are nowhere, the first is {missing[0]}")
    return Sweep(config, runs, rows, command)


def small_comparisons(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The comparisons as the small JSON holds them."""
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
            "outcome_by_seed": {s: v.outcome for s, v in c.verdicts.items()},
            "n_dominating": c.summary.n_dominating,
            "dead_share_ratio": c.summary.dead_share_ratio,
        }
        for c in comparisons
    ]


def across(a: Sweep, b: Sweep, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Compare frontiers of two sweeps on the same activations, where both have them whole."""
    seeds = sorted({*a.config.seeds, *b.config.seeds})
    of_a, of_b = a.frontiers, b.frontiers
    comparisons = [
        compare_on(cell, sae_a, sae_b, seeds, of_a, of_b)
        for sae_a, sae_b in pairs
        for cell in a.config.cells
    ]
    return [c for c in comparisons if c is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", type=Path, help="folder of the sweeps' outputs")
    parser.add_argument("--json", type=Path, default=Path("results/sweep.json"))
    parser.add_argument("--tables", type=Path, default=Path("results/sweep.md"))
    args = parser.parse_args()
    kept = read_json(args.json)
    kept_fields = kept.get("identity_fields", {})
    sweeps = {
        name: read_sweep(name, args.sweeps, kept.get(name, {}), kept_fields) for name in SWEEPS
    }
    command = own_command()
    values = {"command": command} | {name: sweep.small() for name, sweep in sweeps.items()}
    fields = {
        architecture: names
        for sweep in sweeps.values()
        for architecture, names in identities_of(sweep.config, sweep.runs, sweep.rows)[1].items()
    }
    if fields:
        values["identity_fields"] = fields
    main_sweep, ablations = sweeps["main"], sweeps["ablations"]
    parts = [f"Made by `{command}`; raw: [sweep.json]({args.json.name}).\n"]
    parts += [f"{VERDICT_NOTE}\n", f"{DEAD_NOTE}\n"]
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
    write_text("\n".join(parts), args.tables)


if __name__ == "__main__":
    main()
