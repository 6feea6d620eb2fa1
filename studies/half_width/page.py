"""The figure and the table of this study, from its result."""

from typing import Any

from matplotlib.figure import Figure

from studies.common import CELLS, L0S, gap_at, gap_figure, line_of, markdown, runs_of, signed

TITLE = "R² of SAEs of half width minus that of SAEs of full width at the same L0, six hook points"
PAIRS = {
    ("sa_gsae-half", "paper_gated"): "`sa_gsae` − Gated",
    ("bi_jumprelu-half", "batchtopk"): "`bi_jumprelu` − BatchTopK",
    ("batchtopk-half", "batchtopk"): "BatchTopK − BatchTopK",
}
"""(Half width, full width) -> its name in the table."""


def tables(result: dict[str, Any]) -> dict[str, str]:
    """R² of half width minus that of full width, seed 0."""
    runs = runs_of(result)
    rows = [
        [cell, label, *(signed(gap_at(runs, cell, *pair, l0)) for l0 in L0S)]
        for cell in CELLS
        for pair, label in PAIRS.items()
    ]
    columns = ["hook point", "half width − full width", *(f"L0 {l0}" for l0 in L0S)]
    return {"gaps": markdown(columns, rows, 2)}


def figure(result: dict[str, Any]) -> Figure:
    """The gap of both signed SAEs against L0."""
    pairs = list(PAIRS)[:2]
    looks = {pair: line_of(pair[0], PAIRS[pair].replace("`", "")) for pair in pairs}
    return gap_figure(runs_of(result), looks)
