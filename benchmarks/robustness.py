"""What becomes of broken SAE files, and of a training that is killed: counts by kind.

    python benchmarks/robustness.py --json results/robustness.json

Fuzz: at least 2,000 mutated cfg.json and sae_weights.safetensors of every architecture with every
tying, for inference and for training, from a fixed seed (mutations.py and weight_mutations.py in
benchmarks/faults).
Each goes through SAE.load_from_disk or TrainingSAE.load_from_disk, and every third also through
another way a user loads: `split`, `audit`, load_weights_from_checkpoint, SAE.load_from_disk of a
training SAE.

loaded right         the output is bit for bit that of the unmutated SAE, or of one built by hand
                     from what the changed files say (a missing field means its default)
one clear line       an error of this package that names the field; of a command, exit code 2 and no
                     file left on disk
SAELens: one line    raised by SAELens, safetensors or json before this package is reached
SAELens: several     the same, of several lines
bad                  anything else

Faults: kill -9 and SIGTERM at random points of processor time, a full disk (a tmpfs; needs root), a
NaN batch (cached.py, runner.py and disk.py there). About 2 minutes of one core.
"""

import argparse
import collections
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, below

import sae_lens
import torch
from faults import cached, disk, runner
from faults.fuzzing import (
    OUTCOMES,
    cases_of,
    loaders_for,
    run_case,
    write_subjects,
)
from faults.small import VARIANTS
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sae_lens_signaware.files import write_json

COLUMNS = ("loaded right", "one clear line", "SAELens: one line", "SAELens: several", "bad")
Counts = dict[str, dict[str, int]]


def fuzz(root: Path, seed: int, n_random: int, n_values: int) -> dict[str, Any]:
    """Run every case; count by kind of mutation and by way of loading, and list the bad ones."""
    by_kind: Counts = collections.defaultdict(lambda: dict.fromkeys(OUTCOMES, 0))
    by_loader: Counts = collections.defaultdict(lambda: dict.fromkeys(OUTCOMES, 0))
    bad: list[str] = []
    own: collections.Counter[str] = collections.Counter()
    subjects = write_subjects(root)
    todo = [
        (case, subject, loader)
        for subject in subjects
        for index, case in enumerate(cases_of(subject, subjects, seed, n_random, n_values))
        for loader in loaders_for(case, subject, index)
    ]
    files = len({(id(case), subject.name) for case, subject, _ in todo})
    for case, subject, loader in track(todo, f"{files:,} files, {len(todo):,} loads", console=LOG):
        outcome, reason = run_case(case, subject, loader, root / "work")
        by_kind[case.kind][outcome] += 1
        by_loader[loader][outcome] += 1
        if outcome == "bad":
            bad.append(f"{subject.name}, {loader}, {case.kind}, {case.name}: {reason}"[:400])
        elif outcome.startswith("saelens"):
            own[reason.split(":")[0]] += 1
    return {
        "seed": seed,
        "mutated_files": files,
        "loads": len(todo),
        "by_kind": {k: by_kind[k] for k in sorted(by_kind)},
        "by_loader": dict(by_loader),
        "errors_of_saelens": dict(own.most_common()),
        "bad_cases": bad,
    }


def fault_runs(root: Path, n_kills: int) -> dict[str, Callable[[], Mapping[str, float] | None]]:
    untied = dict(VARIANTS)  # each architecture with its last tying, which shares the least
    return {
        **{
            f"cached training, {architecture}: kill -9 and SIGTERM, resumed bit for bit": partial(
                cached.kill_cached, architecture, tying, root / architecture, n_kills, seed
            )
            for seed, (architecture, tying) in enumerate(untied.items())
        },
        "SAELens's runner: kill -9, resumed from the newest whole checkpoint": lambda: (
            runner.kill_runner(root / "kill_runner", n_kills, seed=2)
        ),
        "SAELens's runner: SIGTERM": lambda: runner.terminate_runner(
            root / "terminate_runner", 10, seed=3
        ),
        "a NaN batch in the middle": lambda: cached.nan_batch(root / "nan_batch"),
        "a full disk while saving": lambda: disk.full_disk(root / "full_disk"),
        "SAELens's runner: resumed against undisturbed": lambda: runner.resume_gap(
            root / "resume_gap"
        ),
    }


def run_faults(root: Path, n_kills: int) -> dict[str, Any]:
    """Counts of what was seen, or what did not hold, by fault."""
    results: dict[str, Any] = {}
    for name, run in fault_runs(root, n_kills).items():
        start = time.perf_counter()
        try:
            seen = run()
        except AssertionError as error:
            results[name] = {"holds": False, "why": str(error)[:300]}
        else:
            skipped = {"holds": None, "why": "this user may not mount a tmpfs"}
            results[name] = skipped if seen is None else {"holds": True, **seen}
        LOG.print(f"{name}: {results[name]} ({time.perf_counter() - start:.0f} s)")
    return results


def table_of(title: str, counts: Counts) -> Table:
    table = Table(title=title)
    table.add_column("")
    for column in ("loads", *COLUMNS):
        table.add_column(column, justify="right")
    for kind, row in counts.items():
        table.add_row(kind, f"{sum(row.values()):,}", *(f"{row[o]:,}" for o in OUTCOMES))
    total = {o: sum(row[o] for row in counts.values()) for o in OUTCOMES}
    table.add_row(
        "all", f"{sum(total.values()):,}", *(f"{total[o]:,}" for o in OUTCOMES), style="bold"
    )
    return table


def fault_table(results: dict[str, Any]) -> Table:
    table = Table("fault", "holds", "seen", title="Training under faults")
    words = {True: "yes", False: "NO", None: "not run"}
    for name, row in results.items():
        seen = ", ".join(f"{k} {v}" for k, v in row.items() if k != "holds")
        table.add_row(name, words[row["holds"]], seen)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Broken files and killed trainings")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", type=int, default=4, help="of each random damage, by SAE")
    parser.add_argument("--values", type=int, default=60, help="of the wrong values, by SAE")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--skip-faults", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzzed = fuzz(Path(folder) / "fuzz", args.seed, args.random, args.values)
        faulty = {} if args.skip_faults else run_faults(Path(folder), args.kills)
    console = Console()
    console.print(table_of("Broken files, by kind", fuzzed["by_kind"]))
    console.print(table_of("Broken files, by way of loading", fuzzed["by_loader"]))
    console.print(fault_table(faulty))
    for line in fuzzed["bad_cases"]:
        console.print(f"bad: {line}", markup=False, highlight=False)
    if args.json is not None:
        versions = {"torch": torch.__version__, "sae_lens": sae_lens.__version__}
        versions["python"] = platform.python_version()
        result = {"fuzz": fuzzed, "faults": faulty, "versions": versions}
        result |= {"seconds": round(time.perf_counter() - start)}
        write_json(result, args.json)


LOG = Console(stderr=True)

if __name__ == "__main__":
    main()
