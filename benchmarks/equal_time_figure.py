"""The figure and the table of results/equal_time.json: R² at one L0 against time and FLOPs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from equal_time import L0, StepCost, TimedPoint
from figure_drawing import Series, legend_above, panels
from matplotlib.figure import Figure
from reproduction_tables import markdown
from result_rows import r2_at

from sae_lens_signaware.evaluation.quality import missed_target_l0
from sae_lens_signaware.experiments.sweep.frontier import Point

SECONDS = (20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
"""Of training: ticks of the figure, and the budgets that are the table's columns."""

BASELINE = "batchtopk"
"""Architecture at whose L0 those without a target L0 are read."""

SHOWN_ABOVE = 0.02
"""Share by which an L0 is off from which on the tables say it."""


class Reached(NamedTuple):
    """R² of one architecture at or near :data:`~equal_time.L0`, and what its training cost."""

    cell: str
    architecture: str
    d_sae: int
    n_steps: int
    l0: float
    r2: float
    seconds: float
    flops: float


def reached_of(values: Mapping[str, Any]) -> list[Reached]:
    """What was reached, from the JSON.

    The points of one SAE, width and length are a line in log L0. It is read at the L0 of
    :data:`BASELINE` of that width and length, where that SAE meets its L0, and else at the L0 that
    is wanted: SAEs that are asked for an L0 all miss it by about as much on held-out tokens. One
    point alone counts where its L0 is met, by the rule of the sweeps.
    """
    costs = {(c.architecture, c.d_sae): c for c in (StepCost(*row) for row in values["step_costs"])}
    groups: dict[tuple[str, str, int, int], list[TimedPoint]] = {}
    for point in (TimedPoint(*row) for row in values["points"]):
        groups.setdefault(point[:4], []).append(point)
    found = []
    for (cell, architecture, d_sae, n_steps), points in groups.items():
        baseline = groups.get((cell, BASELINE, d_sae, n_steps), [])
        l0, r2 = _near_l0(points, next((p.l0 for p in baseline if _is_met(p)), L0))
        cost = costs.get((architecture, d_sae))
        if r2 is not None and cost is not None:
            spent = (n_steps * cost.seconds, float(n_steps * cost.flops))
            found.append(Reached(cell, architecture, d_sae, n_steps, l0, r2, *spent))
    return found


def _is_met(point: TimedPoint) -> bool:
    return not missed_target_l0(L0, point.l0)


def _near_l0(points: Sequence[TimedPoint], l0: float) -> tuple[float, float | None]:
    """R², and its L0: that of the only point, or ``l0`` where there is a line."""
    if len(points) == 1:
        only = points[0]
        return only.l0, only.r2 if _is_met(only) else None
    line = [Point(p.l0, p.r2, p.dead_share, p.d_sae) for p in points]
    return l0, r2_at(line, l0)


def best_so_far(points: Sequence[Reached], spent: Callable[[Reached], float]) -> list[Reached]:
    """The points that no other one exceeds in R² at the same cost or less, in order of cost."""
    best: list[Reached] = []
    for point in sorted(points, key=lambda p: (spent(p), -p.r2)):
        if not best or point.r2 > best[-1].r2:
            best.append(point)
    return best


def equal_time_figure(
    reached: Sequence[Reached], cells: Sequence[str], series: Sequence[Series]
) -> Figure:
    """R² against seconds and against FLOPs, a row of panels for each cell.

    A line joins what no other width or length of the same architecture exceeds; the faint points
    are the others.
    """
    axes_of: tuple[tuple[str, Callable[[Reached], float]], ...] = (
        ("seconds of training, one thread", lambda point: point.seconds),
        ("FLOPs of training", lambda point: point.flops),
    )
    figure, axes = panels(len(cells), 2, 2.9, top=0.7, sharex="col", sharey="row")
    for row, cell in zip(axes, cells, strict=True):
        for axis, (label, spent) in zip(row, axes_of, strict=True):
            for one in series:
                mine = [p for p in reached if (p.cell, p.architecture) == (cell, one.sae)]
                best = best_so_far(mine, spent)
                axis.plot([spent(p) for p in best], [p.r2 for p in best], **one.line())
                rest = [p for p in mine if p not in best]
                look = one.line() | {"linestyle": "", "alpha": 0.3, "label": None}
                axis.plot([spent(p) for p in rest], [p.r2 for p in rest], **look)
            axis.set_xscale("log")
            axis.minorticks_off()
            axis.set_title(cell, loc="left", fontsize=10)
            if cell == cells[-1]:
                axis.set_xlabel(label)
        row[0].set_ylabel(f"R² at an L0 near {L0:g}")
        row[0].set_xticks(SECONDS, [f"{s:g}" for s in SECONDS])
    legend_above(figure, axes[0][0])
    return figure


def equal_time_table(
    reached: Sequence[Reached], cells: Sequence[str], names: Mapping[str, str]
) -> str:
    """The best R² within a time, by cell and SAE, with the width and the steps that gave it."""
    rows = []
    for cell in cells:
        best = {
            name: [_best_within(reached, cell, name, budget) for budget in SECONDS]
            for name in names
        }
        tops = [
            max((p.r2 for p in column if p is not None), default=math.nan)
            for column in zip(*best.values(), strict=True)
        ]
        for name, label in names.items():
            fields = [_field(p, top) for p, top in zip(best[name], tops, strict=True)]
            if any(fields):
                rows.append([cell, label, *fields])
    return markdown(["hook point", "SAE", *(f"{b:g} s" for b in SECONDS)], rows, 2)


def equal_steps_table(
    reached: Sequence[Reached], cells: Sequence[str], names: Mapping[str, str], d_sae: int
) -> str:
    """R² after so many steps, by cell and SAE, of one width; the highest after as many is bold.

    The L0 stands behind it where it is off by more than :data:`SHOWN_ABOVE`.
    """
    mine = [p for p in reached if p.d_sae == d_sae and p.architecture in names]
    lengths = sorted({p.n_steps for p in mine})
    rows = []
    for cell in cells:
        held = {(p.architecture, p.n_steps): p for p in mine if p.cell == cell}
        tops = {
            n: max((p.r2 for p in held.values() if p.n_steps == n), default=0.0) for n in lengths
        }
        for name, label in names.items():
            shown = [_r2_of(held.get((name, n)), tops[n]) for n in lengths]
            if any(shown):
                rows.append([cell, label, *shown])
    return markdown(["hook point", "SAE", *(f"{n:,} steps" for n in lengths)], rows, 2)


def _best_within(
    reached: Sequence[Reached], cell: str, architecture: str, seconds: float
) -> Reached | None:
    mine = [
        p
        for p in reached
        if (p.cell, p.architecture) == (cell, architecture) and p.seconds <= seconds
    ]
    return max(mine, key=lambda p: p.r2, default=None)


def _field(point: Reached | None, top: float) -> str:
    return "" if point is None else f"{_r2_of(point, top)}; {point.d_sae}, {point.n_steps}"


def _r2_of(point: Reached | None, top: float) -> str:
    """R² to four places, bold where it is the highest; then the L0 where it is off."""
    if point is None:
        return ""
    shown = f"{point.r2:.4f}"
    r2 = f"**{shown}**" if shown == f"{top:.4f}" else shown
    return r2 + at_l0_if_off(point.l0)


def at_l0_if_off(l0: float) -> str:
    """What follows R² where the L0 is off by more than :data:`SHOWN_ABOVE`; else nothing."""
    return f" at {l0:.1f}" if abs(l0 / L0 - 1) > SHOWN_ABOVE else ""
