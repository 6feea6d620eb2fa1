"""The figure and the table of protocol E: R² and F1 against the share of two-sided features."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from figure_drawing import Series, legend_above, panels
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from reproduction_tables import markdown

SERIES = (
    Series("sa_gsae W", "sa_gsae, W", "sa_gsae"),
    Series("bi_jumprelu W", "bi_jumprelu, W", "bi_jumprelu"),
    Series("bi_batchtopk W", "bi_batchtopk, W", "bi_batchtopk"),
    Series("batchtopk W", "SAELens's BatchTopK, W", "batchtopk"),
    Series("sa_gsae H", "sa_gsae, W/2", "sa_gsae", dashed=True),
    Series("bi_jumprelu H", "bi_jumprelu, W/2", "bi_jumprelu", dashed=True),
)
"""Those whose L0 can be asked for. JumpReLU and Gated miss it, and are in the table alone."""


class World(NamedTuple):
    """One SAE in the worlds of one share, at one L0; means over seeds."""

    sae: str
    share: float
    factor: float
    r2: float
    f1: float
    mcc: float
    joined: float | None
    absorption: float | None
    found: float | None
    l0: float


COLUMNS = (
    *("SAE", "two-sided share", "L0 factor", "R2", "F1", "signed MCC", "joined"),
    *("absorption", "parents found"),
)


def worlds_of(result: dict[str, Any]) -> list[World]:
    """The rows of results/protocol-e.json."""
    at = [result["columns"].index(name) for name in (*COLUMNS, "L0")]
    return [World(*(row[i] for i in at)) for row in result["rows"]]


def two_sided_figure(worlds: Sequence[World], target_l0: float) -> Figure:
    """R² above and F1 below against the share, one column of panels for each L0."""
    factors = sorted({world.factor for world in worlds})
    figure, axes = panels(2, len(factors), 2.2, top=0.75)
    for column, factor in enumerate(factors):
        for one in SERIES:
            mine = sorted(w for w in worlds if (w.sae, w.factor) == (one.sae, factor))
            shares = [w.share for w in mine]
            axes[0][column].plot(shares, [w.r2 for w in mine], **one.line())
            axes[1][column].plot(shares, [w.f1 for w in mine], **one.line())
        title = f"L0 {factor * target_l0:g}"
        axes[0][column].set_title(
            title + (", the true L0" if factor == 1 else ""), loc="left", fontsize=10
        )
        axes[1][column].set_xlabel("share of two-sided features")
        axes[1][column].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0][0].set_ylabel("R²")
    axes[1][0].set_ylabel("F1 of the ends")
    legend_above(figure, axes[0][0])
    figure.align_ylabels()
    return figure


def two_sided_table(worlds: Sequence[World], factor: float = 1.0) -> str:
    """R², F1, joined ends, absorption and the parents found, at one L0."""
    shares = sorted({world.share for world in worlds})
    table = []
    for sae in dict.fromkeys(world.sae for world in worlds):
        mine = {w.share: w for w in worlds if (w.sae, w.factor) == (sae, factor)}
        last = mine[shares[-1]]
        l0s = sorted({f"{w.l0:.1f}" for w in mine.values()}, key=float)
        ends = [mine[share] for share in (shares[0], shares[-1])]
        table.append(
            [
                f"`{sae}`",
                l0s[0] if len(l0s) == 1 else f"{l0s[0]} to {l0s[-1]}",
                *(f"{mine[share].r2:.3f} / {mine[share].f1:.2f}" for share in shares),
                "" if last.joined is None else f"{last.joined:.0%}",
                *("" if w.absorption is None else f"{w.absorption:.2f}" for w in ends),
                " / ".join("–" if w.found is None else f"{w.found:.0%}" for w in ends),
            ]
        )
    columns = ["SAE", "L0", *(f"p = {share:g}" for share in shares), "joined, p = 1"]
    return markdown([*columns, "absorption, p = 0", "p = 1", "parents found"], table, 1)
