"""The figure and the tables of this study, from its result."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from studies.common import LABELS, LOOKS, Run, line_of, markdown, panels, r2_at, records

TITLE = "Time of a training step, and R² at L0 32 against the time of training"
NAMES = {
    "dense floor": "products of a dense step",
    "sparse floor": "encoder's product alone",
    "topk W, sparse": "TopK W, sparse activations",
}
RATIOS = (
    ("sa_gsae W", "gated 2W"),
    ("sa_gsae W", "gated W"),
    ("bi_jumprelu W", "jumprelu 2W"),
    ("bi_jumprelu W", "jumprelu W"),
    ("bi_batchtopk W", "batchtopk W"),
    ("bi_matryoshka_batchtopk W", "matryoshka_batchtopk W"),
    ("sa_gsae W, dense", "gated 2W"),
    ("sa_gsae W", "dense floor"),
    ("sa_gsae W, dense", "dense floor"),
    ("bi_jumprelu W, dense", "dense floor"),
)
"""(A, B): how many times as fast A's step is."""
L0 = 32.0
SECONDS = (20, 40, 80, 160, 320, 640, 1280)
SAES = ("bi_batchtopk", "bi_jumprelu", "sa_gsae", "batchtopk", "jumprelu")


def name_of(row: str) -> str:
    """A row of ``step_ms`` in words, such as "BatchTopK 2W"."""
    architecture, _, width = row.partition(" ")
    return NAMES.get(row, f"{LABELS.get(architecture, architecture).replace('`', '')} {width}")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """How many times as fast, and the best R² within a time."""
    return {"ratios": ratios_table(result["sizes"]), "equal time": _time_table(reached(result))}


def ratios_table(sizes: Sequence[dict[str, Any]]) -> str:
    """The time of B's step over that of A's, at each size."""
    rows = []
    for a, b in RATIOS:
        steps = [size["step_ms"] for size in sizes]
        if all(a in ms and b in ms for ms in steps):
            rows.append([name_of(a), name_of(b), *(f"{ms[b] / ms[a]:.1f}" for ms in steps)])
    widths = [f"W {int(size['size'].split(':')[1]):,}" for size in sizes]
    columns = ["step of", "compared with", *(f"{w}, times as fast" for w in widths)]
    return markdown(columns, rows, 2)


class Reached(NamedTuple):
    """R² of one architecture at or near L0 32, and the seconds of its training."""

    cell: str
    sae: str
    d_sae: int
    n_steps: int
    l0: float
    r2: float
    seconds: float


def reached(result: dict[str, Any]) -> list[Reached]:
    """What each SAE reached by width and number of steps.

    JumpReLU has no target L0: the line through its runs is read at the L0 of BatchTopK of the same
    width and length. A single run counts where its L0 is within a tenth of 32.
    """
    seconds = {
        (cost["architecture"], cost["d_sae"]): cost["seconds"]
        for cost in records(result, "step_costs", "cost_columns")
    }
    groups: dict[tuple[str, str, int, int], list[Run]] = {}
    for p in records(result, "points", "point_columns"):
        key = (p["cell"], p["architecture"], p["d_sae"], p["n_steps"])
        run = Run(p["cell"], p["architecture"], 0, 0, p["l0"], p["r2"], 0, 0)
        groups.setdefault(key, []).append(run)
    found = []
    for (cell, sae, d_sae, n_steps), runs in groups.items():
        runs.sort(key=lambda run: run.l0)
        base = groups.get((cell, "batchtopk", d_sae, n_steps), [])
        l0 = next((run.l0 for run in base if _is_met(run)), L0)
        r2 = r2_at(runs, l0) if len(runs) > 1 else runs[0].r2 if _is_met(runs[0]) else None
        if r2 is not None and (sae, d_sae) in seconds:
            at = l0 if len(runs) > 1 else runs[0].l0
            cost = n_steps * seconds[sae, d_sae]
            found.append(Reached(cell, sae, d_sae, n_steps, at, r2, cost))
    return found


def _is_met(run: Run) -> bool:
    return abs(run.l0 / L0 - 1) <= 0.1


def _time_table(points: Sequence[Reached]) -> str:
    rows = []
    for cell in ("mlp_out", "attn_out"):
        best = {
            sae: [
                max(
                    (p for p in points if p[:2] == (cell, sae) and p.seconds <= budget),
                    key=lambda p: p.r2,
                    default=None,
                )
                for budget in SECONDS
            ]
            for sae in SAES
        }
        tops = [
            max(p.r2 for p in column if p is not None)
            for column in zip(*best.values(), strict=True)
        ]
        for sae, column in best.items():
            rows.append([cell, LABELS[sae], *map(_time_field, column, tops)])
    return markdown(["hook point", "SAE", *(f"{s:,} s" for s in SECONDS)], rows, 2)


def _time_field(point: Reached | None, top: float) -> str:
    if point is None:
        return ""
    return f"**{point.r2:.4f}**" if point.r2 == top else f"{point.r2:.4f}"


def figure(result: dict[str, Any]) -> Figure:
    """Above the time of a step at both widths, below R² against the time of a training."""
    drawn, axes = panels(2, 2, 3.6, top=0.4)
    drawn.subplots_adjust(left=0.24, wspace=0.3, hspace=0.3)
    for axis, size in zip(axes[0], result["sizes"], strict=True):
        times = {row: ms for row, ms in size["step_ms"].items() if ", dense" not in row}
        colours = [LOOKS.get(row.split()[0], LOOKS["floor"])[0] for row in times]
        bars = axis.barh([name_of(row) for row in times], list(times.values()), color=colours)
        axis.bar_label(bars, [f"{ms:,.0f}" for ms in times.values()], padding=3, fontsize=8)
        axis.set_xlim(0, 1.16 * max(times.values()))
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        width = int(size["size"].split(":")[1])
        axis.set_title(f"ms of a training step, W {width:,}", loc="left", fontsize=10)
    axes[0][1].set_yticklabels([])
    points = reached(result)
    for axis, cell in zip(axes[1], ("mlp_out", "attn_out"), strict=True):
        for sae in SAES:
            mine = sorted((p for p in points if p[:2] == (cell, sae)), key=lambda p: p.seconds)
            best: list[Reached] = []
            for point in mine:
                if not best or point.r2 > best[-1].r2:
                    best.append(point)
            axis.plot([p.seconds for p in best], [p.r2 for p in best], **line_of(sae))
        axis.set_xscale("log")
        axis.set_xticks(SECONDS, [f"{s}" for s in SECONDS])
        axis.minorticks_off()
        axis.set_title(f"R² at L0 32, {cell}", loc="left", fontsize=10)
        axis.set_xlabel("seconds of training, one thread")
    axes[1][0].legend(fontsize=8)
    return drawn
