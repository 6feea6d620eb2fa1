"""Results of a sweep: ``sweep.json``, tables, and a picture of the frontiers."""

import dataclasses
import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_lens_signaware.sweep.frontier import Comparison, Point, compare_frontiers

if TYPE_CHECKING:
    from sae_lens_signaware.sweep.config import Run
    from sae_lens_signaware.sweep.store import SweepStore

SUMMARY_FILENAME, FIGURE_FILENAME = "sweep.json", "frontier.png"
TOLERANCE = 0.1  # share of the L0 asked for by which a measured one may differ


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
        cell, seed, sae, field, value: which run.
        quality: fields of :class:`~sae_lens_signaware.evaluation.measures.SAEQuality`, measured on
            the held-out activations.
        l0_pos, l0_neg: mean number of active latents of each side.
        bipolar_share: of the alive latents.
        seconds_per_step: of training; None where a checkpoint had all steps.
        identity: all that the result depends on; not in ``sweep.json``.
    """

    cell: str
    seed: int
    sae: str
    field: str
    value: float
    quality: dict[str, Any]
    l0_pos: float
    l0_neg: float
    bipolar_share: float
    seconds_per_step: float | None
    identity: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def point(self) -> Point:
        """The run as a point of a frontier."""
        q = self.quality
        return Point(q["l0"], q["explained_variance"], q["dead_share"], q["d_sae"])

    @property
    def misses_target(self) -> bool:
        """Whether the L0 is more than a tenth from the one that was asked for."""
        is_asked = self.field in ("target_l0", "k")
        return is_asked and abs(self.point.l0 - self.value) > TOLERANCE * self.value


@dataclasses.dataclass(frozen=True)
class SweepSummary:
    """All results of a sweep that are there, the comparisons that they allow, and what failed.

    ``n_runs`` counts all runs, finished or not. A pair is compared on a cell where a seed has both
    frontiers whole. A failure is {"run": name, "error": reason}.
    """

    command: str
    config: dict[str, Any]
    versions: dict[str, str]
    n_runs: int
    results: list[RunResult]
    comparisons: list[Comparison]
    failures: list[dict[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """As ``sweep.json`` has it."""
        values = dataclasses.asdict(self)
        for result in values["results"]:
            del result["identity"]  # long, and in the run's own file
        return values

    @classmethod
    def read(cls, path: Path) -> "SweepSummary":
        """Read a ``sweep.json``; an OSError or ValueError where it is not there."""
        return TypeAdapter(cls).validate_json(path.read_bytes())

    def run_table(self) -> Table:
        """The runs; an L0 that misses the one asked for is marked."""
        is_missed = any(result.misses_target for result in self.results)
        note = f"! misses the L0 asked for by more than {TOLERANCE:.0%}" if is_missed else ""
        columns = "cell|SAE|seed|setting|L0|R²|dead|both signs|ms / step"
        rows = [
            (
                *(r.cell, r.sae, str(r.seed), f"{r.field} {r.value:g}"),
                f"{r.point.l0:.2f}" + (" !" if r.misses_target else ""),
                *(f"{r.point.r2:.4f}", f"{r.point.dead_share:.2%}", f"{r.bipolar_share:.1%}"),
                "–" if r.seconds_per_step is None else f"{1000 * r.seconds_per_step:.1f}",
            )
            for r in self.results
        ]
        return _table("Runs", columns, rows, note)

    def verdict_table(self) -> Table:
        """The comparisons, and below them how they are made."""
        note = (
            "A is better than B where its R² at equal L0 is higher by more than 0.002 over the "
            "whole overlap, worse where it is lower by more, the same where it is within 0.002; "
            "else it depends on L0. dead A / B: ratio of the dead shares, below 1 in favour of A."
        )
        columns = "cell|A|B|A is|smallest gap|mean gap|L0|dead A / B|seeds"
        rows = []
        for c in self.comparisons:
            numbers = ("–", "–", "too narrow")
            if c.l0_range is not None:
                sd = "" if c.smallest_gap_sd is None else f" ± {c.smallest_gap_sd:.4f}"
                ends = "{:.1f} to {:.1f}".format(*c.l0_range)
                numbers = (f"{c.smallest_gap:+.4f}{sd}", f"{c.mean_gap:+.4f}", ends)
            last = (f"{c.dead_share_ratio:.2f}", str(len(c.seeds)))
            rows.append((c.cell, c.a, c.b, c.verdict or "no verdict", *numbers, *last))
        return _table("Frontiers: A against B", columns, rows, note)


def _table(title: str, columns: str, rows: Sequence[Sequence[str]], note: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = Text(note) if note else None
    for column in columns.split("|"):
        table.add_column(column, overflow="fold")  # never a name cut short
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def summarise(store: "SweepStore", runs: Sequence["Run"], command: str = "") -> SweepSummary:
    """Sum up the results and failures of ``runs`` that are on disk."""
    finished = {run.name: store.finished(run) for run in runs}
    results = [result for result in finished.values() if result is not None]
    failed = {run.name: store.failure(run) for run in runs if finished[run.name] is None}
    n_expected = Counter((run.cell, run.sae, run.seed) for run in runs)

    def frontiers(cell: str, sae: str) -> dict[int, list[Point]]:
        points: dict[int, list[Point]] = {}
        for r in results:
            if (r.cell, r.sae) == (cell, sae):
                points.setdefault(r.seed, []).append(r.point)
        return {s: whole for s, whole in points.items() if len(whole) == n_expected[cell, sae, s]}

    asked = [(cell, a, b) for cell in store.config.cells for a, b in store.config.compare]
    pairs = [(*names, frontiers(*names[:2]), frontiers(names[0], names[2])) for names in asked]
    return SweepSummary(
        command=command,
        config=json.loads(store.config.model_dump_json()),
        versions=store.versions,
        n_runs=len(runs),
        results=results,
        comparisons=[compare_frontiers(*p) for p in pairs if p[3].keys() & p[4].keys()],
        failures=[{"run": name, "error": why} for name, why in failed.items() if why is not None],
    )


def plot_frontiers(summary: SweepSummary, path: Path) -> None:
    """Draw R² against L0, a panel for each cell, a colour for each SAE, a line for each seed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    cells = list(dict.fromkeys(r.cell for r in summary.results)) or [""]
    saes = list(dict.fromkeys(r.sae for r in summary.results))
    # without pyplot, whose backend is the caller's, as in a notebook
    fig = Figure(figsize=(4.2 * len(cells) + 2, 3.8), dpi=150, layout="constrained")
    lines = {}
    for ax, cell in zip(fig.subplots(1, len(cells), squeeze=False)[0], cells, strict=True):
        for sae, seed in dict.fromkeys((r.sae, r.seed) for r in summary.results):
            of = [r for r in summary.results if (r.cell, r.sae, r.seed) == (cell, sae, seed)]
            points = sorted(r.point for r in of if r.point.l0 > 0)
            l0, r2 = [p.l0 for p in points], [p.r2 for p in points]
            (lines[sae],) = ax.plot(l0, r2, "o-", ms=3, color=f"C{saes.index(sae) % 10}")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.set(title=cell, xlabel="L0 (active latents per token)", ylabel="R² on held-out tokens")
        ax.grid(alpha=0.3)
    fig.legend(lines.values(), lines.keys(), loc="outside right upper", frameon=False)
    fig.savefig(path)


def print_summary(summary: SweepSummary, out: Path, console: Console) -> None:
    """Print the tables and what failed, and draw ``frontier.png`` where matplotlib is installed."""
    console.print(summary.run_table())
    if summary.comparisons:
        console.print(summary.verdict_table())
    for failure in summary.failures:
        console.print(Text("failed: {run}: {error}".format(**failure)), soft_wrap=True)
    if importlib.util.find_spec("matplotlib") is not None:
        plot_frontiers(summary, out / FIGURE_FILENAME)
    line = f"{len(summary.results)} of {summary.n_runs} runs; {SUMMARY_FILENAME} is in {out}"
    console.print(Text(line), soft_wrap=True)
