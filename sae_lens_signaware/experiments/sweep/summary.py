"""Results of a sweep on disk: points, comparisons, tables, and one picture for each cell."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sae_lens
import torch
from rich.table import Table
from rich.text import Text

from sae_lens_signaware.checks import check_fields
from sae_lens_signaware.evaluation.quality import L0_FIELDS, missed_target_l0, target_l0_of
from sae_lens_signaware.experiments.plots import as_text, frontier_axes
from sae_lens_signaware.experiments.sweep.comparison import (
    DEAD_NOTE,
    VERDICT_COLUMNS,
    VERDICT_NOTE,
    Comparison,
    Frontiers,
    compare_on,
)
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.frontier import Point
from sae_lens_signaware.experiments.sweep.result import TARGET_FIELDS, RunResult
from sae_lens_signaware.experiments.sweep.store import SUMMARY_FILENAME, SweepStore
from sae_lens_signaware.files import write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSED = "!"
"""Stands behind an L0 that misses the one asked for."""
MISSED_NOTE = "hollow: misses the L0 asked for"


@dataclasses.dataclass(frozen=True, repr=False)
class SweepSummary:
    """All results of a sweep that are there, the comparisons that they allow, and what failed.

    Attributes:
        n_runs: runs of the sweep, finished or not.
        results: of those that are finished.
        failures: name of the run -> reason.
        comparisons: for the pairs and cells of which at least one seed has both frontiers whole.
        command: that made the file; empty before it is written.
    """

    n_runs: int
    results: list[RunResult]
    failures: dict[str, str]
    comparisons: list[Comparison]
    command: str = ""

    def __repr__(self) -> str:
        """One line: how much of the sweep is there."""
        return (
            f"SweepSummary of {len(self.results)} of {self.n_runs} runs, "
            f"{len(self.failures)} failed, {len(self.comparisons)} comparisons"
        )

    def write(self, out: Path, command: str) -> None:
        """Write ``sweep.json`` in ``out``."""
        value = {
            "command": command,
            "sae_lens_version": sae_lens.__version__,
            "torch_version": torch.__version__,
            **dataclasses.asdict(dataclasses.replace(self, command=command)),
        }
        for result in value["results"]:
            # long, and in the run's own file
            identity = result.pop("identity")
            if result["field"] not in TARGET_FIELDS and (asked := _asks_for_l0(identity)):
                result["identity"] = asked
        write_json(value, out / SUMMARY_FILENAME)

    @classmethod
    def read(cls, path: Path) -> "SweepSummary":
        """Read what :meth:`write` wrote, by this version of the package or an earlier one.

        Verdicts are those of the points in the file, by the rule of today. Of an ``identity`` there
        is at most what asks for an L0, where the swept value does not say it.

        Raises:
            ValueError: ``path`` is no such file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            results = [_result(r) for r in values["results"]]
            frontiers = _by_frontier(results)
            comparisons = [_compared_again(c, frontiers) for c in values["comparisons"]]
            made = {
                "n_runs": values["n_runs"],
                "results": results,
                "failures": values["failures"],
                "comparisons": [c for c in comparisons if c is not None],
                "command": values["command"],
            }
            check_fields(cls, made)
            return cls(**made)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not the summary of a sweep: {error}") from None

    def verdict_table(self) -> Table:
        """Make a table of the comparisons; below it the rule, and why a verdict is missing."""
        notes = [VERDICT_NOTE, DEAD_NOTE, *self.verdict_notes()]
        table = _table("Frontiers: A against B", notes)
        for column in VERDICT_COLUMNS:
            table.add_column(column, overflow="fold")  # never a name cut short
        for c in self.comparisons:
            table.add_row(*map(Text, c.row()))
        return table

    def verdict_notes(self) -> list[str]:
        """Say what verdicts lack, a sentence each: of a seed without one, or a run left out."""
        compared = {
            (c.cell, seed, sae)
            for c in self.comparisons
            for seed in c.verdicts
            for sae in (c.a, c.b)
        }
        left_out = [
            f"{r.cell}, {r.sae}, seed {r.seed}, {r.field} {r.value:g}: left out, its dead latents "
            "as well: no latent is active"
            for r in self.results
            if r.quality.l0 == 0 and (r.cell, r.seed, r.sae) in compared
        ]
        return [note for c in self.comparisons for note in c.notes()] + left_out

    def point_table(self) -> Table:
        """Make a table of the runs; below it those that miss the L0 asked for."""
        table = _table("Runs", missed_notes(self.results))
        for column in ("cell", "SAE", "seed", "swept", "L0", "R2", "dead", "ms / step"):
            justify = "left" if column in ("cell", "SAE") else "right"
            table.add_column(column, justify=justify, overflow="fold")
        for r in self.results:
            q = r.quality
            ms = "-" if r.seconds_per_step is None else f"{1000 * r.seconds_per_step:.1f}"
            measured = (marked_l0(r), f"{q.explained_variance:.4f}", f"{q.dead_share:.2%}", ms)
            cells = (r.cell, r.sae, str(r.seed), f"{r.field} {r.value:g}", *measured)
            table.add_row(*map(Text, cells))
        return table


def _asks_for_l0(identity: Mapping[str, Any]) -> dict[str, Any]:
    sae = identity.get("sae", {})
    asked = {name: sae[name] for name in L0_FIELDS if name in sae}
    return {} if target_l0_of(asked) is None else {"sae": asked}


def _result(values: Mapping[str, Any]) -> RunResult:
    return RunResult.of({**values, "identity": _asks_for_l0(values.get("identity", {}))})


def _compared_again(values: Mapping[str, Any], frontiers: Frontiers) -> Comparison | None:
    seeds = [int(seed) for seed in values["verdicts"]]
    return compare_on(values["cell"], values["a"], values["b"], seeds, frontiers, frontiers)


def _table(title: str, notes: Sequence[str]) -> Table:
    # as Text, here and in the rows, so that rich reads no markup in the names of the config
    caption = Text("\n".join(notes)) if notes else None
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left")


def missed_l0(result: RunResult) -> str | None:
    """Say how a run misses the L0 asked for; None where it does not or none was asked."""
    return missed_target_l0(result.target_l0, result.quality.l0)


def marked_l0(result: RunResult) -> str:
    """Format a run's L0 for a table, with :data:`MISSED` behind it where it misses its target."""
    return f"{result.quality.l0:.2f}" + (f" {MISSED}" if missed_l0(result) else "")


def missed_notes(results: Sequence[RunResult]) -> list[str]:
    """Make a sentence for each run that misses the L0 asked for."""
    return [
        f"{MISSED} {r.cell}, {r.sae}, seed {r.seed}{_swept(r)}: {missed}"
        for r in results
        if (missed := missed_l0(r)) is not None
    ]


def _swept(result: RunResult) -> str:
    # a swept target is said in the words of the miss
    return "" if result.field in TARGET_FIELDS else f", {result.field} {result.value:g}"


def point_of(result: RunResult) -> Point:
    """Make the point of a frontier from the result of a run."""
    q = result.quality
    return Point(q.l0, q.explained_variance, q.dead_share, q.d_sae)


def summarise(
    config: SweepConfig, runs: Sequence[Run], out: str | Path, store: SweepStore | None = None
) -> SweepSummary:
    """Sum up the results and failures of ``runs`` that are on disk, or that ``store`` remembers.

    Args:
        config, runs, out: as :func:`~sae_lens_signaware.run_local` has them.
        store: what that returned; None reads the disk alone.
    """
    store = store or SweepStore(config, out)
    by_run = [(run, store.finished(run)) for run in runs]
    results = [result for _, result in by_run if result is not None]
    failures = {
        run.name: reason
        for run, result in by_run
        if result is None and (reason := store.failure_of(run)) is not None
    }
    return SweepSummary(len(runs), results, failures, comparisons_of(config, runs, results))


def frontiers_of(runs: Sequence[Run], results: Sequence[RunResult]) -> Frontiers:
    """Return the frontiers of which every one of ``runs`` has a result."""
    n_runs = Counter((run.cell, run.seed, run.sae) for run in runs)
    n_results = Counter((r.cell, r.seed, r.sae) for r in results)
    frontiers = _by_frontier(results)
    return {key: points for key, points in frontiers.items() if n_results[key] == n_runs[key]}


def _by_frontier(results: Sequence[RunResult]) -> Frontiers:
    # an SAE of which no latent fires is a result, and no point: it has no place in log L0
    points: dict[tuple[str, int, str], list[Point]] = {}
    for r in results:
        if r.quality.l0 > 0:
            points.setdefault((r.cell, r.seed, r.sae), []).append(point_of(r))
    return points


def comparisons_of(
    config: SweepConfig, runs: Sequence[Run], results: Sequence[RunResult]
) -> list[Comparison]:
    """Compare as ``config.compare`` asks, on cells where a seed has both frontiers whole."""
    frontiers = frontiers_of(runs, results)
    comparisons = [
        compare_on(cell, a, b, config.seeds, frontiers, frontiers)
        for cell in config.cells
        for a, b in config.compare
    ]
    return [c for c in comparisons if c is not None]


def plot_cell(summary: SweepSummary, cell: str, path: Path) -> None:
    """Draw R² against L0 of every SAE of a cell, the seeds of an SAE in one colour.

    The overlap of each verdict is shaded. A run that misses the L0 asked for is hollow.
    """
    verdicts = [v for c in summary.comparisons if c.cell == cell for v in c.verdicts.values()]
    overlaps = [v.overlap for v in verdicts if v.outcome is not None and v.overlap is not None]
    title = cell + ("; shaded: where frontiers are compared" if overlaps else "")
    with frontier_axes(path, title, (8.4, 4.4)) as ax:
        _draw_frontiers(ax, [r for r in summary.results if r.cell == cell])
        for overlap in overlaps:  # the more there are, the fainter, so that lines stay visible
            ax.axvspan(*overlap, color="grey", alpha=min(0.06, 0.3 / len(overlaps)), linewidth=0)
        if ax.get_legend_handles_labels()[0]:  # no run of the cell is finished: nothing to name
            ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)


def _draw_frontiers(ax: "Axes", results: Sequence[RunResult]) -> None:
    names = list(dict.fromkeys(r.sae for r in results))
    for i, name in enumerate(names):
        seeds = dict.fromkeys(r.seed for r in results if r.sae == name)
        for j, seed in enumerate(seeds):
            runs = [r for r in results if (r.sae, r.seed) == (name, seed)]
            label = as_text(name) if j == 0 else None
            # matplotlib has ten colours
            style = ("-", "--", ":", "-.")[i // 10 % 4]
            ax.plot(*_l0_and_r2(runs), style, color=f"C{i}", marker="o", ms=3, label=label)
    missed = [r for r in results if missed_l0(r) is not None]
    for i, name in enumerate(names):
        of_name = [r for r in missed if r.sae == name]
        _draw_hollow(ax, *_l0_and_r2(of_name), color=f"C{i}")
    if missed:
        _draw_hollow(ax, [], [], color="grey", label=MISSED_NOTE)


def _l0_and_r2(runs: Sequence[RunResult]) -> tuple[list[float], list[float]]:
    """L0s and R² in order; an L0 of 0 has no place on a log axis, and is no point of a frontier."""
    by_l0 = sorted((r.quality for r in runs if r.quality.l0 > 0), key=lambda q: q.l0)
    return [q.l0 for q in by_l0], [q.explained_variance for q in by_l0]


def _draw_hollow(
    ax: "Axes", l0: list[float], r2: list[float], color: str, label: str | None = None
) -> None:
    ax.plot(l0, r2, "o", color=color, markerfacecolor="white", markersize=6, label=label)
