"""The figure and the tables of this study, from its result."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from studies.common import LABELS, LOOKS, gap_at, markdown, panels, records, runs_of, signed

TITLE = "Share of the 50 most active latents that are in antipodal pairs, and that are bipolar"
BOTH = "bi_jumprelu-both-sides"
NAMES = LABELS | {BOTH: "`bi_jumprelu`, both sides open"}
BASELINES = {
    "bi_jumprelu": "`bi_jumprelu`, one side open",
    "batchtopk": "BatchTopK",
    "batchtopk-annealed": "BatchTopK, annealed k",
    "jumprelu": "JumpReLU",
}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Pairs by SAE, and what it costs to start with both sides open."""
    rows = [
        [
            *(row["cell"], NAMES[row["sae"]], f"{row['d_sae']:,}", f"{row['r2']:.4f}"),
            str(row["n_pairs"]),
            *(f"{row[name]:.0%}" for name in result["pair_columns"][6:]),
        ]
        for row in records(result, "pairs", "pair_columns")
    ]
    columns = ["hook point", "SAE", "width", "R²", "antipodal pairs", "frequent in pairs"]
    columns += ["frequent and bipolar", "bipolar share of active latents"]
    runs, l0s = runs_of(result) if "runs" in result else [], (8, 32, 128)
    cost = [
        [cell, label, *(signed(gap_at(runs, cell, BOTH, base, l0)) for l0 in l0s)]
        for cell in dict.fromkeys(run.cell for run in runs)
        for base, label in BASELINES.items()
    ]
    return {
        "pairs": markdown(columns, rows, 2),
        "cost": markdown(["hook point", "baseline", *(f"L0 {l0}" for l0 in l0s)], cost, 2),
    }


def figure(result: dict[str, Any]) -> Figure:
    """One panel a hook point; a filled bar for pairs, an open one for bipolar latents."""
    rows = records(result, "pairs", "pair_columns")
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    drawn, axes = panels(1, len(cells), 2.6, top=0.5, sharex=True)
    drawn.subplots_adjust(left=0.16, wspace=0.75)
    for axis, cell in zip(axes[0], cells, strict=True):
        mine = [row for row in rows if row["cell"] == cell]
        names = [NAMES[row["sae"]].replace("`", "").replace(", ", ",\n") for row in mine]
        for i, row in enumerate(mine):
            colour = LOOKS[row["sae"].split("-")[0]][0]
            axis.barh(i - 0.2, row["frequent_in_pairs"], 0.36, color=colour)
            axis.barh(i + 0.2, row["frequent_bipolar"], 0.36, fill=False, edgecolor=colour)
        axis.set_yticks(range(len(mine)), names, fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_title(cell, loc="left", fontsize=10)
    drawn.suptitle(
        "of the 50 most active latents: filled, in an antipodal pair; open, bipolar", y=1
    )
    return drawn
