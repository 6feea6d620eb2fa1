"""Charts of a sweep as plotly figures: dicts of data and layout, which plotly.js reads.

The colours stand out from light and dark paper alike; the page's script adds those of the theme.
"""

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sae_lens_signaware.sweep.frontier import Comparison
    from sae_lens_signaware.sweep.results import RunResult

Values = dict[str, Any]

COLOURS = ("#3f7fd1", "#c8502d", "#2f8f4e", "#b04fb0", "#8f7a14", "#1f8a94", "#d1487c", "#7a6fd0")
SYMBOLS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "x": "✖", "star": "★",
    "cross": "✚",
}  # fmt: skip
DASHES = {"solid": "━", "dot": "┅", "dash": "╍"}
GRID = "rgba(128,128,128,.28)"


class Look(NamedTuple):
    """Look of one SAE in every chart; ``sign`` is its line and symbol as characters."""

    colour: str
    symbol: str
    dash: str
    sign: str


def looks(names: list[str]) -> dict[str, Look]:
    """Choose a look for each name, all different until colours and symbols are used up."""
    found = {}
    for i, name in enumerate(names):
        symbol, dash = list(SYMBOLS)[i % len(SYMBOLS)], list(DASHES)[i // len(COLOURS) % 3]
        sign = f"{DASHES[dash]}{SYMBOLS[symbol]}{DASHES[dash]}"
        found[name] = Look(COLOURS[i % len(COLOURS)], symbol, dash, sign)
    return found


def frontier(
    results: list["RunResult"], comparisons: list["Comparison"], look: dict[str, Look]
) -> Values:
    """Draw R² against L0, a line for each SAE and seed; grey: where frontiers are compared.

    Args:
        results, comparisons: of one cell.
        look: of each SAE.
    """
    ranges = {c.l0_range for c in comparisons if c.l0_range}
    shapes = [
        {
            "type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1,
            "fillcolor": f"rgba(128,128,128,{min(0.12, 0.5 / len(ranges)):.3f})",
            "line": {"width": 0}, "layer": "below",
        }
        for low, high in sorted(ranges)
    ]  # fmt: skip
    axis = {"title": {"text": "R²"}}
    return _against_l0(
        results, look, lambda q: q["explained_variance"], lambda r: r.misses_target, axis, shapes
    )


def dead_shares(results: list["RunResult"], look: dict[str, Look]) -> Values:
    """Draw the dead share against L0; none dead is drawn as half a latent, hollow."""

    def share(quality: Values) -> float:
        return quality["dead_share"] or 0.5 / quality["d_sae"]

    shares = [share(r.quality) for r in results]
    digits = (1, 2, 5) if max(shares) < 50 * min(shares) else (1,)
    ticks = [digit * 10.0**power for power in range(-7, 1) for digit in digits]
    axis = {"title": {"text": "dead latents"}, "type": "log", "tickvals": ticks, "tickformat": "~%"}
    return _against_l0(
        results, look, share, lambda r: r.quality["dead_share"] == 0, axis, shapes=[]
    )


def _against_l0(
    results: list["RunResult"],
    look: dict[str, Look],
    y: Callable[[Values], float],
    hollow: Callable[["RunResult"], bool],
    yaxis: Values,
    shapes: list[Values],
) -> Values:
    lines: dict[tuple[str, int], list[RunResult]] = {}
    for r in sorted(results, key=lambda r: r.quality["l0"]):
        lines.setdefault((r.sae, r.seed), []).append(r)
    names = [name for name in look if name in {sae for sae, _ in lines}]
    traces = []
    for name in names:
        for seed in sorted(seed for sae, seed in lines if sae == name):
            mine, colour = lines[name, seed], look[name].colour
            symbols = [look[name].symbol + ("-open" if hollow(r) else "") for r in mine]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": html.escape(name, quote=False),  # plotly reads some HTML
                    "meta": name,  # by which the page's boxes find it
                    "x": [r.quality["l0"] for r in mine],
                    "y": [y(r.quality) for r in mine],
                    "text": [_hover(r) for r in mine],
                    "hovertemplate": "%{text}<extra></extra>",
                    "line": {"color": colour, "width": 1.6, "dash": look[name].dash},
                    "marker": {"color": colour, "size": 8, "symbol": symbols},
                }
            )
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True}
    l0s = [x for trace in traces for x in trace["x"] if x > 0] or [1]
    steps = 1 if max(l0s) >= 4 * min(l0s) else 8  # ticks at powers of two, or parts of them
    ticks = [2 ** (i / steps) for i in range(-4 * steps, 16 * steps)]
    xaxis = {"title": {"text": "L0 (log scale)"}, "type": "log", "tickvals": ticks}
    layout = {
        "height": 340,
        "margin": {"l": 56, "r": 12, "t": 8, "b": 44},
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "uirevision": "kept",
        "shapes": shapes,
        "xaxis": axis | xaxis | {"tickformat": ".3~r"},
        "yaxis": axis | yaxis,
    }
    return {"data": traces, "layout": layout}


def _hover(r: "RunResult") -> str:
    q = r.quality
    asked = ", not the one asked for" if r.misses_target else ""
    return (
        f"<b>{html.escape(r.sae, quote=False)}</b>, seed {r.seed}<br>"
        f"{html.escape(r.field, quote=False)} {r.value:g}<br>"
        f"L0 {q['l0']:.2f}{asked}<br>R² {q['explained_variance']:.4f}<br>"
        f"dead {q['dead_share']:.3%} of {q['d_sae']:,}"
    )
