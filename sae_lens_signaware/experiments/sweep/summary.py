"""What a sweep found: points, verdicts and tables, from its result files."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sae_lens
import torch
from rich.table import Table

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.experiments.sweep.frontier import (
    Point,
    SeedSummary,
    Verdict,
    compare_frontiers,
    summarise_seeds,
)
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.files import write_json

SUMMARY_FILENAME = "sweep.json"
VERDICT_COLUMNS = (
    "cell",
    "A",
    "B",
    "L0 overlap",
    "smallest gap in R²",
    "A dominates (seeds)",
    "dead A / B",
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One pair of SAEs on one cell: a verdict a seed, and all seeds in one.

    Attributes:
        cell, a, b: what was compared.
        verdicts: seed -> verdict.
        summary: over the seeds.
    """

    cell: str
    a: str
    b: str
    verdicts: dict[int, Verdict]
    summary: SeedSummary

    @property
    def overlap(self) -> tuple[float, float] | None:
        """L0 range over which every seed that has an overlap is compared; None where there is none."""
        found = [v.overlap for v in self.verdicts.values() if v.overlap is not None]
        if not found:
            return None
        low, high = max(low for low, _ in found), min(high for _, high in found)
        return (low, high) if low < high else None

    def row(self) -> tuple[str, ...]:
        """What every table says of it: the texts of :data:`VERDICT_COLUMNS`."""
        s = self.summary
        overlap = "none" if self.overlap is None else " to ".join(f"{x:.1f}" for x in self.overlap)
        gap = "–" if s.smallest_gap_mean is None else f"{s.smallest_gap_mean:+.4f}"
        if s.smallest_gap_mean is not None and s.n_seeds > 1:
            gap += f" ± {s.smallest_gap_std:.4f}"
        dominates = f"{s.n_dominating} of {s.n_seeds}"
        return self.cell, self.a, self.b, overlap, gap, dominates, f"{s.dead_share_ratio:.2f}"


@dataclasses.dataclass(frozen=True)
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

    def write(self, out: Path, command: str) -> None:
        """``sweep.json`` in ``out``."""
        value = {
            "command": command,
            "sae_lens_version": sae_lens.__version__,
            "torch_version": torch.__version__,
            **dataclasses.asdict(dataclasses.replace(self, command=command)),
        }
        for result in value["results"]:
            del result["identity"]  # long, and in the run's own file
        write_json(value, out / SUMMARY_FILENAME)

    @classmethod
    def read(cls, path: Path) -> "SweepSummary":
        """What :meth:`write` wrote, but that every ``identity`` is empty: it is in the run's own file.

        Raises:
            ValueError: ``path`` is no such file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                n_runs=values["n_runs"],
                results=[
                    RunResult(**{**r, "quality": SAEQuality(**r["quality"]), "identity": {}})
                    for r in values["results"]
                ],
                failures=dict(values["failures"]),
                comparisons=[_comparison(c) for c in values["comparisons"]],
                command=values["command"],
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not the summary of a sweep: {error!r}") from None

    def verdict_table(self) -> Table:
        """One row a comparison."""
        table = Table(*VERDICT_COLUMNS, title="Frontiers: A against B", title_justify="left")
        for c in self.comparisons:
            table.add_row(*c.row())
        return table

    def point_table(self) -> Table:
        """One row a run."""
        table = Table(title="Runs", title_justify="left")
        for column in ("cell", "SAE", "seed", "swept", "L0", "R2", "dead", "ms / step"):
            table.add_column(column, justify="left" if column in ("cell", "SAE") else "right")
        for r in self.results:
            q = r.quality
            ms = "-" if r.seconds_per_step is None else f"{1000 * r.seconds_per_step:.1f}"
            measured = (f"{q.l0:.2f}", f"{q.explained_variance:.4f}", f"{q.dead_share:.2%}", ms)
            table.add_row(r.cell, r.sae, str(r.seed), f"{r.field} {r.value:g}", *measured)
        return table


def _comparison(values: dict[str, Any]) -> Comparison:
    verdicts = {
        int(seed): Verdict(**{**v, "overlap": v["overlap"] and tuple(v["overlap"])})
        for seed, v in values["verdicts"].items()
    }
    return Comparison(
        **{**values, "verdicts": verdicts, "summary": SeedSummary(**values["summary"])}
    )


def point_of(result: RunResult) -> Point:
    q = result.quality
    return Point(q.l0, q.explained_variance, q.dead_share, q.d_sae)


def summarise(config: SweepConfig, runs: Sequence[Run], out: Path) -> SweepSummary:
    """Read what is on disk."""
    store = SweepStore(config, out)
    by_run = [(run, store.finished(run)) for run in runs]
    results = [result for _, result in by_run if result is not None]
    failures = {
        run.name: reason
        for run, result in by_run
        if result is None and (reason := store.failure_of(run)) is not None
    }
    return SweepSummary(len(runs), results, failures, comparisons_of(config, runs, results))


def frontiers_of(
    runs: Sequence[Run], results: Sequence[RunResult]
) -> dict[tuple[str, int, str], list[Point]]:
    """(cell, seed, SAE) -> its frontier.

    One counts where all of its ``runs`` have a result. An SAE of which no latent fires is a result, and
    no point of a frontier: it has no place in log L0.
    """
    n_points = Counter((run.cell, run.seed, run.sae) for run in runs)
    found: dict[tuple[str, int, str], list[RunResult]] = {}
    for r in results:
        found.setdefault((r.cell, r.seed, r.sae), []).append(r)
    points = {
        key: [point_of(r) for r in mine if r.quality.l0 > 0]
        for key, mine in found.items()
        if len(mine) == n_points[key]
    }
    return {key: frontier for key, frontier in points.items() if frontier}


def comparisons_of(
    config: SweepConfig, runs: Sequence[Run], results: Sequence[RunResult]
) -> list[Comparison]:
    """Those of ``config.compare``, by every cell of which at least one seed has both frontiers."""
    frontiers = frontiers_of(runs, results)
    pairs = [(cell, a, b) for cell in config.cells for a, b in config.compare]
    found = [compare_on(cell, a, b, config.seeds, frontiers, frontiers) for cell, a, b in pairs]
    return [c for c in found if c is not None]


def compare_on(
    cell: str,
    a: str,
    b: str,
    seeds: Sequence[int],
    of_a: Mapping[tuple[str, int, str], Sequence[Point]],
    of_b: Mapping[tuple[str, int, str], Sequence[Point]],
) -> Comparison | None:
    """A against B on one cell, by the seeds of which both frontiers are there; None where there is none."""
    verdicts = {
        seed: compare_frontiers(of_a[cell, seed, a], of_b[cell, seed, b])
        for seed in seeds
        if (cell, seed, a) in of_a and (cell, seed, b) in of_b
    }
    if not verdicts:
        return None
    return Comparison(cell, a, b, verdicts, summarise_seeds(list(verdicts.values())))


def plot_cell(summary: SweepSummary, cell: str, path: Path) -> None:
    """R2 against L0 of every SAE of a cell, seeds in one colour, the overlap of each comparison shaded."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    fig, ax = plt.subplots(figsize=(6.8, 4.4), dpi=150, layout="constrained")
    results = [r for r in summary.results if r.cell == cell]
    names = list(dict.fromkeys(r.sae for r in results))
    for i, name in enumerate(names):
        label: str | None = name  # of the first seed it has
        for seed in dict.fromkeys(r.seed for r in results):
            mine: list[Any] = sorted(
                (r.quality.l0, r.quality.explained_variance)
                for r in results
                if r.sae == name and r.seed == seed
            )
            if mine:
                x, y = zip(*mine, strict=True)
                ax.plot(x, y, color=f"C{i}", marker="o", markersize=3, label=label)
                label = None
    for c in summary.comparisons:
        for verdict in c.verdicts.values() if c.cell == cell else ():
            if verdict.overlap is not None:
                ax.axvspan(*verdict.overlap, color="grey", alpha=0.06, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("L0 (open latents per token)")
    ax.set_ylabel("R² on held-out tokens")
    ax.set_title(f"{cell}; shaded: where frontiers are compared", loc="left", fontsize=10)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path)
    plt.close(fig)
