"""Colours of the charts: one look for each SAE, and the colours of the dark scheme."""

from collections.abc import Sequence
from dataclasses import dataclass

# Paul Tol's muted colours, told apart with any colour vision, those that stand out most first; blue
# and vermillion are left out: on this page they are the signs
COLOURS = ("#332288", "#CC6677", "#117733", "#AA4499", "#999933", "#44AA99", "#882255", "#88CCEE")
SYMBOLS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "x": "✖", "star": "★",
    "cross": "✚",
}  # fmt: skip
"""Symbol of plotly -> the same as a character."""
DASHES = ("solid", "dot", "dash")
PLUS, MINUS = "#0072B2", "#D55E00"
PAPER, INK, QUIET = "#fff", "#222", "#57606a"
GRID, AXIS, BAND = "#e4e4e4", "#888", "#555"

DARK = {
    PAPER: "#15181c",
    INK: "#e4e7eb",
    QUIET: "#9ba5b0",
    GRID: "#2f353c",
    AXIS: "#7d8690",
    BAND: "#dde3ea",
    PLUS: "#4ea8e6",
    MINUS: "#ff8c42",
    # the same hues, light enough to be told from the paper
    "#332288": "#a395f7",
    "#CC6677": "#f59a9a",
    "#117733": "#52c271",
    "#AA4499": "#e27fd4",
    "#999933": "#cfcb5c",
    "#44AA99": "#58cfbb",
    "#882255": "#cf5585",
    "#88CCEE": "#b4e2f9",
}
"""Colour of the light scheme -> colour of the dark one."""


@dataclass(frozen=True)
class Style:
    """Style of one SAE in every chart."""

    colour: str
    symbol: str
    dash: str


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Choose a style for each name, all different until colours, symbols and dashes are used up."""
    return {
        name: Style(
            COLOURS[i % len(COLOURS)],
            list(SYMBOLS)[i % len(SYMBOLS)],
            DASHES[i // len(COLOURS) % len(DASHES)],
        )
        for i, name in enumerate(names)
    }
