"""The figure and the table of results/speed.json: time and memory of a training step."""

from collections.abc import Sequence
from typing import Any

from figure_drawing import ARCHITECTURES
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from reproduction_tables import markdown

SPEED = {  # rows of results/speed.json, in the order of figure and table, and their architecture
    "sa_gsae W": "sa_gsae",
    "bi_jumprelu W": "bi_jumprelu",
    "bi_batchtopk W": "bi_batchtopk",
    "bi_matryoshka_batchtopk W": "bi_matryoshka_batchtopk",
    "batchtopk W": "batchtopk",
    "matryoshka_batchtopk W": "matryoshka_batchtopk",
    "gated W": "gated",
    "gated 2W": "gated",
    "jumprelu 2W": "jumprelu",
    "batchtopk 2W": "batchtopk",
    "abstopk W": "abstopk",
    "topk W, sparse": "topk",
    "dense floor": "floor",
    "sparse floor": "floor",
}


def speed_label(name: str) -> str:
    """The name of a row of results/speed.json, in words."""
    names = {
        "dense floor": "products of a dense step",
        "sparse floor": "encoder's product alone",
        "topk W, sparse": "SAELens topk W, sparse activations",
    }
    return names.get(name, name if name in list(SPEED)[:4] else f"SAELens {name}")


def speed_figure(sizes: Sequence[dict[str, Any]]) -> Figure:
    """Time of a training step, one panel for each size of results/speed.json."""
    figure, axes = plt.subplots(1, len(sizes), figsize=(9, 3.9), sharey=True)
    figure.subplots_adjust(left=0.26, right=0.97, bottom=0.12, top=0.93, wspace=0.08)
    names = list(SPEED)
    for axis, size in zip(axes, sizes, strict=True):
        times = [size["step_ms"][name] for name in names]
        colours = [ARCHITECTURES[SPEED[name]][0] for name in names]
        bars = axis.barh([speed_label(name) for name in names], times, color=colours, height=0.7)
        axis.bar_label(bars, [f"{t:,.0f}" for t in times], padding=3, fontsize=8)
        axis.set_xlim(0, 1.14 * max(times))
        axis.set_xlabel("ms per training step")
        axis.set_title(f"W {int(size['size'].split(':')[1]):,}", loc="left", fontsize=10)
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_axisbelow(True)
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
    axes[0].invert_yaxis()
    return figure


def speed_table(sizes: Sequence[dict[str, Any]]) -> str:
    """Time and memory of a training step, and the time over that of sa_gsae."""
    columns, rows = ["one training step"], [[speed_label(name)] for name in SPEED]
    for size in sizes:
        width = f"W {int(size['size'].split(':')[1]):,}"
        columns += [f"ms, {width}", "against sa_gsae", "MiB"]
        ours = size["step_ms"]["sa_gsae W"]
        for row, name in zip(rows, SPEED, strict=True):
            time, memory = size["step_ms"][name], size["memory_mib"].get(name)
            ratio = f"{time / ours:.2f}" if time < 2 * ours else f"{time / ours:.1f}"
            row += [f"{time:.1f}" if time < 1000 else f"{time:,.0f}", ratio]
            row += ["" if memory is None else f"{memory:,.0f}"]
    return markdown(columns, rows, 1)
