"""Small JSON of the runs of one sweep, as far as they are done.

    python benchmarks/sweep_rows.py sweep_out/dead_latents --command "..." --json results/FILE.json

A row is a run: where, which SAE, what it was asked for, and what was measured on the held-out
tokens. --command is what made the sweep.
"""

import argparse
import sys
from pathlib import Path

from reproduction_rows import COLUMNS, row_of
from result_rows import write_rows
from rich.console import Console
from rich.table import Table

from sae_lens_signaware.experiments.sweep.result import RunResult


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="outputs of a sweep, or of its parts")
    parser.add_argument("--command", required=True)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    files = [file for folder in args.folders for file in (folder / "runs").rglob("*.json")]
    if not files:
        sys.exit(f"folders: no runs/**/*.json in {', '.join(map(str, args.folders))}")
    results = [RunResult.read(file) for file in files]
    rows = sorted((row_of(r) for r in results), key=lambda row: row[:5])
    n_tokens = {r.quality.n_tokens for r in results}
    trainings = {r.identity["trainer"]["total_training_samples"] for r in results}
    write_rows(
        {
            "command": args.command,
            "heldout_tokens": sorted(n_tokens),
            "training_tokens": sorted(trainings),
            "columns": COLUMNS,
            "runs": rows,
        },
        args.json,
    )
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
