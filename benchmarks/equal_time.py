"""R² at one L0 against training time and FLOPs, from sweeps of several widths and lengths.

    python benchmarks/equal_time.py configs/equal-time-smollm2-135m.yaml \
        --more configs/equal-width-smollm2-135m.yaml results/equal_width.json \
        --more configs/longer-smollm2-135m.yaml results/longer.json \
        --more configs/widths-smollm2-135m.yaml results/widths.json --time-steps all

Reads the output of the sweep where the command in its first line writes it, below --root; a run
that is not there keeps the figures that the JSON has of it. Runs of other sweeps count too.

--time-steps all trains the shortest schedule of the sweep, of each SAE and width once a turn, alone
on one thread, --turns times. Every schedule has the same shares of warm-up and of decay, so the
mean step of the shortest one stands for all lengths. It is an upper bound for an SAE that has not
come down to its L0 by then. With "missing" the times in the JSON are kept, and those of SAEs that
have none are added. A machine is not as fast every day, so one whose time is known takes turns with
them, and theirs are scaled by it. Without --time-steps all are kept.

FLOPs are those of the products that a step needs where all latents are computed, without Adam and
without the loss that revives dead latents.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from equal_width import JoinedSweep, read_joined
from evaluation import machine
from own_command import own_command
from reproduction_rows import identities_of
from result_rows import read_json, write_rows
from rich.progress import track
from run_alone import train_alone
from sweep_source import command_of

from sae_lens_signaware.experiments.sweep.config import Run
from sae_lens_signaware.experiments.sweep.store import SweepStore

L0 = 32.0
PRODUCTS = {"sa_gsae": 7, "gated": 8}
"""Products of (batch, d_in, d_sae) in a step: 5 are encoder, decoder, and the gradients of latents,
decoder and encoder. The auxiliary reconstruction of ``sa_gsae`` has two more, and that of SAELens's
``gated``, whose decoder learns from it, three."""
OWN_SETTINGS = ("-full", "-half", "-double", "-8000")
"""What follows the architecture in the name of an SAE of another sweep that counts too."""
CLOSER = ("jumprelu-4",)
"""SAEs of another sweep with coefficients that give an L0 nearer to the one that is wanted."""


class TimedPoint(NamedTuple):
    """What one run reached, and after how many steps. The columns of the JSON's ``points``."""

    cell: str
    architecture: str
    d_sae: int
    n_steps: int
    l0: float
    r2: float
    dead_share: float


class StepCost(NamedTuple):
    """What a step of an SAE costs. The columns of the JSON's ``step_costs``."""

    architecture: str
    d_sae: int
    seconds: float
    flops: int


Measure = Callable[[Collection[tuple[str, int]]], list[StepCost]]
"""Measures what a step of each architecture and width costs."""


def n_steps_of(run: Run) -> int:
    """Steps of a run's schedule."""
    return run.cfg.training_tokens // run.cfg.train_batch_size_tokens


def points_of(sweeps: Sequence[JoinedSweep]) -> list[TimedPoint]:
    """The runs of the first seed that were asked for :data:`L0`, or cannot be asked for an L0.

    Of the cells and the architectures of the first sweep; of the other sweeps the SAEs that have
    their architecture's own settings, such as "bi_jumprelu-full", and no other warm-up.
    """
    first = sweeps[0]
    architectures = {run.cfg.sae.architecture() for run in first.runs}
    saes = {run.sae for run in first.runs}
    saes |= {f"{name}{ending}" for name in architectures for ending in OWN_SETTINGS} | {*CLOSER}
    points = (point for sweep in sweeps for point in _points_of(sweep, first.config.cells, saes))
    return sorted({*points})  # one run can be in two sweeps


def _points_of(
    sweep: JoinedSweep, cells: Collection[str], saes: Collection[str]
) -> Iterator[TimedPoint]:
    runs = {run.name: run for run in sweep.runs}
    for name, row in sweep.rows.by_run.items():
        run = runs[name]
        *_, l0, r2, dead_share, _ = row
        architecture = run.cfg.sae.architecture()
        if (
            run.seed == sweep.config.seeds[0]
            and run.cell in cells
            and run.sae in saes
            and run.target_l0 in (None, L0)
            and l0 > 0  # else it has no place in log L0
        ):
            d_sae = run.cfg.sae.d_sae
            yield TimedPoint(run.cell, architecture, d_sae, n_steps_of(run), l0, r2, dead_share)


def shortest_runs(runs: Sequence[Run], wanted: Collection[tuple[str, int]]) -> list[Run]:
    """One run of the shortest schedule for each wanted architecture and width, first cell."""
    shortest = min(map(n_steps_of, runs))
    found: dict[tuple[str, int], Run] = {}
    for run in runs:
        if run.cell == runs[0].cell and n_steps_of(run) == shortest:
            found.setdefault((run.cfg.sae.architecture(), run.cfg.sae.d_sae), run)
    return [run for key, run in found.items() if key in wanted]


def step_seconds(runs: Sequence[Run], store: SweepStore, n_turns: int) -> list[float]:
    """Mean seconds of a step over each run's whole training, the median of turns.

    The trainings take turns, so that noise of the machine meets all of them.
    """
    torch.set_num_threads(1)
    activations = store.load_cache(runs[0])
    # few: what is measured here is not of interest
    activations = dataclasses.replace(activations, heldout=activations.heldout[:2048])
    times: list[list[float]] = [[] for _ in runs]
    for _ in track(range(n_turns), description="Turns of trainings"):
        for of_run, run in zip(times, runs, strict=True):
            trained = train_alone(run, activations)
            assert trained.seconds_per_step is not None  # no run is resumed
            of_run.append(trained.seconds_per_step)
    return [statistics.median(of_run) for of_run in times]


def step_flops(run: Run) -> int:
    """FLOPs of the products that a step of a run needs, all latents computed."""
    sae = run.cfg.sae
    n_products = PRODUCTS.get(sae.architecture(), 5)
    return n_products * 2 * run.cfg.train_batch_size_tokens * sae.d_in * sae.d_sae


def measured_costs(
    sweep: JoinedSweep, store: SweepStore, n_turns: int, wanted: Collection[tuple[str, int]]
) -> list[StepCost]:
    """What a step of each wanted architecture and width costs."""
    runs = shortest_runs(sweep.runs, wanted)
    seconds = step_seconds(runs, store, n_turns)
    return [
        StepCost(run.cfg.sae.architecture(), run.cfg.sae.d_sae, time, step_flops(run))
        for run, time in zip(runs, seconds, strict=True)
    ]


def with_missing_costs(
    known: Sequence[StepCost], wanted: Collection[tuple[str, int]], measure: Measure
) -> list[StepCost]:
    """The known costs and those of wanted SAEs that have none, in seconds of the known ones.

    Args:
        wanted: architecture and width of each.
        measure: gives what it measures now of some of them.
    """
    names = {cost[:2] for cost in known}
    if names >= {*wanted}:
        return [*known]
    reference = max(known, key=lambda cost: cost.d_sae)
    measured = measure({*wanted} - names | {reference[:2]})
    (now,) = (cost.seconds for cost in measured if cost[:2] == reference[:2])
    scale = reference.seconds / now
    added = [cost for cost in measured if cost[:2] not in names]
    return [*known, *(cost._replace(seconds=scale * cost.seconds) for cost in added)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, help="the sweep of lengths and widths")
    parser.add_argument(
        "--more",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("CONFIG", "JSON"),
        help="a sweep that counts too, and its results; may be given more than once",
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder the sweeps were run in")
    parser.add_argument("--json", type=Path, default=Path("results/equal_time.json"))
    parser.add_argument("--time-steps", choices=("all", "missing"), help="of the SAEs to time")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    kept = read_json(args.json)
    if args.time_steps is None and "step_costs" not in kept:
        sys.exit(f"--time-steps: {args.json} has no times of steps yet, give all")
    sweep = read_joined(args.config, args.root, kept)
    others = [read_joined(config, args.root, read_json(of_it)) for config, of_it in args.more]
    points = points_of([sweep, *others])
    costs = {name: kept[name] for name in ("timed_on", "step_costs") if name in kept}
    if args.time_steps:
        store = SweepStore(sweep.config, args.root / command_of(args.config)[1])
        wanted = {(p.architecture, p.d_sae) for p in points}
        measure = functools.partial(measured_costs, sweep, store, args.turns)
        known = [StepCost(*cost) for cost in costs.get("step_costs", [])]
        add = args.time_steps == "missing" and known
        measured = with_missing_costs(known, wanted, measure) if add else measure(wanted)
        where = machine() | {"turns": args.turns}  # after the timing, which sets the threads
        if add:  # what was added is in seconds of the machine that timed the others
            where = costs.get("timed_on", where)
        costs = {"timed_on": where, "step_costs": [list(cost) for cost in measured]}
    write_rows(small(args.config.stem, sweep, points, costs), args.json)


def small(
    name: str, sweep: JoinedSweep, points: Sequence[TimedPoint], costs: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON: the points, what a step costs, and the rows of the sweep to keep."""
    return {
        "command": own_command(),
        "cost_columns": list(StepCost._fields),
        **costs,
        "point_columns": list(TimedPoint._fields),
        "points": [list(point) for point in points],
        "sweeps": {name: sweep.small()},
        "identity_fields": identities_of(sweep.config, sweep.runs, sweep.rows)[1],
    }


if __name__ == "__main__":
    main()
