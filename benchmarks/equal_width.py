"""Small JSON and Markdown tables of sweeps of SAEs of equal width, as far as they are done.

    python benchmarks/equal_width.py configs/equal-width-smollm2-135m.yaml \\
        configs/equal-width-gemma3-270m.yaml

Each config is a sweep; its output is read where the command in its first line writes it, below
--root. A run that is not there keeps the figures that the JSON has of it, and a frontier counts
where all of its runs are known. An SAE whose name ends in "-more-seeds" is the one before that
ending, at fewer L0s of other seeds. --import takes the module that registers an architecture of a
config. Trains nothing.
"""

import argparse
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from own_command import own_command
from reproduction import Sweep
from reproduction_rows import identities_of, read_rows
from reproduction_tables import frontier_tables, markdown, means_table, verdict_table
from result_rows import read_json, require_same_sweeps, write_rows
from sweep_source import command_of, without_ending

from sae_lens_signaware.experiments.sweep.comparison import DEAD_NOTE, VERDICT_NOTE, Comparison
from sae_lens_signaware.experiments.sweep.config import Run, load_sweep_config
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import comparisons_of, missed_notes
from sae_lens_signaware.files import write_text

Named = TypeVar("Named", Run, RunResult)


class JoinedSweep(Sweep):
    """A sweep in which the seeds of an SAE stand under one name."""

    @cached_property
    def joined(self) -> Sequence[RunResult]:
        """The results under these names."""
        return _joined(self.results)

    @cached_property
    def comparisons(self) -> Sequence[Comparison]:
        """The comparisons that the config asks for."""
        return comparisons_of(self.config, _joined(self.runs), self.joined)


def _joined(items: Sequence[Named]) -> list[Named]:
    return [dataclasses.replace(item, sae=without_ending(item.sae)) for item in items]


def read_joined(source: Path, root: Path, kept: Mapping[str, Any]) -> JoinedSweep:
    """Read the runs of a config from its output below ``root``, else from the small JSON.

    Args:
        kept: the whole small JSON of before.

    Raises:
        SystemExit: the first line of the config is not the command of its sweep.
    """
    command, folder = command_of(source)
    config, runs = load_sweep_config(source)
    block, fields = kept.get("sweeps", {}).get(source.stem, {}), kept.get("identity_fields", {})
    rows, line = read_rows(config, runs, root / folder, block, fields)
    print(f"{source.stem}: {line}")
    return JoinedSweep(config, runs, rows, command)


def lead_table(sweeps: Mapping[str, JoinedSweep]) -> str:
    """Count, for each cell and each first SAE of a comparison, the SAEs that it is ahead of."""
    rows = []
    for name, sweep in sweeps.items():
        for cell, a in dict.fromkeys((c.cell, c.a) for c in sweep.comparisons):
            mine = [c for c in sweep.comparisons if (c.cell, c.a) == (cell, a)]
            ahead = [c for c in mine if all(v.dominates for v in c.verdicts.values())]
            gaps = [(c.summary.smallest_gap_mean, c.b) for c in mine]
            known = [(gap, b) for gap, b in gaps if gap is not None]
            worst = "{0[0]:+.4f} to {0[1]}".format(min(known)) if known else "–"
            rows.append([name, cell, a, f"{len(ahead)} of {len(mine)}", worst])
    columns = ["sweep", "cell", "SAE", "ahead of, in every seed", "smallest gap in R²"]
    return markdown(columns, rows, 3)


def tables_of(name: str, sweep: JoinedSweep) -> list[str]:
    """The tables of one sweep: points of the first seed, means, verdicts, missed L0s."""
    results = sweep.joined
    parts = frontier_tables([r for r in results if r.seed == 0], f"seed 0, {name}")
    if len({r.seed for r in results}) > 1:
        parts += [f"## Means over seeds, {name}\n", means_table(results)]
    if sweep.comparisons:
        parts += [f"## Verdicts, {name}\n", verdict_table(sweep.comparisons)]
    missed = missed_notes(results)
    if missed:
        parts += [f"## L0 missed, {name}\n", "".join(f"- {note}\n" for note in missed)]
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="sweeps")
    parser.add_argument("--root", type=Path, default=Path(), help="folder the sweeps were run in")
    parser.add_argument("--json", type=Path, default=Path("results/equal_width.json"))
    parser.add_argument("--tables", type=Path, default=Path("results/equal_width.md"))
    parser.add_argument("--import", dest="modules", action="append", default=[])
    args = parser.parse_args()
    for module in args.modules:
        importlib.import_module(module)
    require_same_sweeps([source.stem for source in args.configs], args.json)
    kept = read_json(args.json)
    sweeps = {source.stem: read_joined(source, args.root, kept) for source in args.configs}
    command = own_command()
    fields: dict[str, list[str]] = {}
    for sweep in sweeps.values():
        fields |= identities_of(sweep.config, sweep.runs, sweep.rows)[1]
    values = {
        "command": command,
        "sweeps": {
            name: sweep.small() | {"n_runs": len(sweep.runs)} for name, sweep in sweeps.items()
        },
        "identity_fields": fields,
    }
    write_rows(values, args.json)
    parts = [f"Made by `{command}`; raw: [{args.json.name}]({args.json.name}).\n"]
    parts += [f"{VERDICT_NOTE}\n", f"{DEAD_NOTE}\n", "## Who leads\n", lead_table(sweeps)]
    for name, sweep in sweeps.items():
        parts += tables_of(name, sweep)
    write_text("\n".join(parts), args.tables)


if __name__ == "__main__":
    main()
