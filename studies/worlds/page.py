"""The figure and the table of this study, from its result."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from studies.common import LABELS, legend_above, line_of, markdown, panels, records

TITLE = "R² and F1 against the share of two-sided features, synthetic worlds"
DRAWN = {
    "sa_gsae W": "sa_gsae, W",
    "bi_jumprelu W": "bi_jumprelu, W",
    "bi_batchtopk W": "bi_batchtopk, W",
    "batchtopk W": "BatchTopK, W",
    "sa_gsae H": "sa_gsae, W/2",
    "bi_jumprelu H": "bi_jumprelu, W/2",
}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """At the L0 of the worlds: R² and F1 by share, and what is found where all are two-sided."""
    rows = [row for row in records(result, "rows") if row["l0_factor"] == 1]
    shares = sorted({row["share"] for row in rows})
    table = []
    for sae in dict.fromkeys(row["sae"] for row in rows):
        mine = {row["share"]: row for row in rows if row["sae"] == sae}
        name, _, width = sae.partition(" ")
        joined = mine[shares[-1]]["joined"]
        ends = [mine[share]["absorption"] for share in (shares[0], shares[-1])]
        table.append(
            [
                f"{LABELS[name]} {'W/2' if width == 'H' else width}",
                *(f"{mine[share]['r2']:.3f} / {mine[share]['f1']:.2f}" for share in shares),
                "" if joined is None else f"{joined:.0%}",
                " / ".join("–" if a is None else f"{a:.2f}" for a in ends),
            ]
        )
    columns = ["SAE", *(f"p = {share:.2g}" for share in shares), "joined, p = 1"]
    return {"worlds": markdown([*columns, "absorption, p = 0 / 1"], table, 1)}


def figure(result: dict[str, Any]) -> Figure:
    """R² above and F1 below, one column of panels for each L0."""
    rows = records(result, "rows")
    factors = sorted({row["l0_factor"] for row in rows})
    drawn, axes = panels(2, len(factors), 2.2, sharex=True)
    for column, factor in enumerate(factors):
        for sae, label in DRAWN.items():
            mine = [row for row in rows if (row["sae"], row["l0_factor"]) == (sae, factor)]
            mine.sort(key=lambda row: row["share"])
            look = line_of(sae.split()[0], label, dashed=sae.endswith("H"))
            for axis, name in zip(axes[:, column], ("r2", "f1"), strict=True):
                axis.plot([row["share"] for row in mine], [row[name] for row in mine], **look)
        true = ", the true L0" if factor == 1 else ""
        axes[0][column].set_title(f"L0 {factor * result['target_l0']:g}{true}", loc="left")
        axes[1][column].set_xlabel("share of two-sided features")
        axes[1][column].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0][0].set_ylabel("R²")
    axes[1][0].set_ylabel("F1 of the ends")
    legend_above(drawn, axes[0][0])
    return drawn
