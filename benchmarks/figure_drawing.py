"""How the figures of the results look, and how they are written as SVG.

An SVG has its colours as CSS variables, one set for light pages and one for dark ones, so that a
reader of either sees it well. The same data give the same bytes.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_signaware.files import write_text

INK, RULE = "#555555", "#cccccc"

ARCHITECTURES = {  # colour on a light page, on a dark page, marker
    "sa_gsae": ("#0072b2", "#56b4e9", "o"),
    "bi_jumprelu": ("#008a64", "#2fc79a", "^"),
    "bi_batchtopk": ("#7b52b9", "#b79aea", "v"),
    "bi_matryoshka_batchtopk": ("#b5428b", "#ec8fc8", "<"),
    "gated": ("#b07500", "#e6b84a", "s"),
    "paper_gated": ("#d55e00", "#ff8c42", "D"),
    "jumprelu": ("#8c5a44", "#cf9f88", "P"),
    "batchtopk": ("#6f6f6f", "#a8a8a8", "X"),
    "matryoshka_batchtopk": ("#5c7080", "#9db4c4", "h"),
    "abstopk": ("#a33b3b", "#ef8a8a", "*"),
    "topk": ("#7a7a2a", "#c2c25e", "p"),
    "floor": ("#999999", "#808080", ""),
}
"""Of each architecture, the same in every figure. Markers tell them apart without colour."""

_DARK = {INK: "#c4c7cf", RULE: "#4a4d57"} | {a: b for a, b, _ in ARCHITECTURES.values()}

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that texts have one size everywhere
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "sae_lens_signaware",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "savefig.transparent": True,
}


@dataclass(frozen=True)
class Series:
    """One SAE of the results, and how it is drawn.

    Attributes:
        sae: its name in the column ``sae`` of the results.
        label: its name in the figure.
        architecture: a key of :data:`ARCHITECTURES`.
        dashed: whether its line is dashed; for a second SAE of one architecture.
    """

    sae: str
    label: str
    architecture: str
    dashed: bool = False

    def line(self) -> dict[str, Any]:
        """Keyword arguments of ``plot``."""
        colour, _, marker = ARCHITECTURES[self.architecture]
        style = "--" if self.dashed else "-"
        return {"color": colour, "marker": marker, "linestyle": style, "label": self.label}


def panels(
    n_rows: int,
    n_columns: int,
    height: float,
    top: float,
    sharey: Any = False,
    sharex: Any = True,
) -> Any:
    """A figure and its axes; ``top`` is the height in inches that the legend takes."""
    whole = height * n_rows + top
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(9, whole), squeeze=False, sharex=sharex, sharey=sharey
    )
    # fixed margins: a layout that is computed differs in its last digits from machine to machine
    figure.subplots_adjust(
        left=0.08, right=0.99, bottom=0.5 / whole, top=1 - top / whole, wspace=0.22, hspace=0.28
    )
    return figure, axes


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, at the top, in at most two rows."""
    handles, labels = axes.get_legend_handles_labels()
    n = len(labels)
    n_columns = n if n <= 4 else math.ceil(n / 2)
    figure.legend(handles, labels, loc="upper center", ncols=n_columns, handlelength=2.6)


def l0_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of L0 with a tick at each value that was asked for."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(values), [f"{v:g}" for v in values])
    axes.minorticks_off()
    axes.set_xlabel("L0")


def rounded_places(tag: re.Match[str]) -> str:
    """A tag of an SVG with its places to a hundredth of a point."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])


def save_svg(figure: Figure, path: Path, title: str) -> None:
    """Write a figure whose colours follow the reader's colour scheme."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    plt.close(figure)
    text = re.sub(r"^ +", "", buffer.getvalue(), flags=re.MULTILINE)  # indentation takes room
    text = re.sub(r'style="[^"]*"', lambda style: re.sub(r"([:;]) ", r"\1", style[0]), text)
    names = {colour: f"--c{i}" for i, colour in enumerate(_DARK)}
    text = re.sub(
        "|".join(names), lambda match: f"var({names[match[0]]})", text, flags=re.IGNORECASE
    )
    light = "".join(f"{names[colour]}:{colour};" for colour in _DARK)
    dark = "".join(f"{names[colour]}:{other};" for colour, other in _DARK.items())
    css = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    text = text.replace("</style>", f"{css}</style>", 1)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    text = re.sub(r"<[^>]*>", rounded_places, text)  # not in the texts between the tags
    write_text(re.sub(r" +\n", "\n", text), path)
