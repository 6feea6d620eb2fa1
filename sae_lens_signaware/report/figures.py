"""Charts as plotly figures: plain dicts of data and layout, which plotly.js reads."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import SweepSummary, missed_l0, point_of
from sae_lens_signaware.report.colours import AXIS, BAND, GRID, INK, MINUS, PAPER, PLUS, Style
from sae_lens_signaware.report.load import LabelledLatents

Figure = dict[str, Any]

L0_TITLE = "L0 (log scale)"
N_BINS = 48
MAX_CURVE_POINTS = 300
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif'


def escape(value: object) -> str:
    """Escape text for plotly, which reads some HTML, but no entity of a quotation mark."""
    return html.escape(str(value), quote=False)


def frontier(summary: SweepSummary, cell: str, looks: dict[str, Style]) -> Figure:
    """Draw R² against L0: a line for each SAE and seed, and the overlaps of the verdicts.

    A run that misses the L0 asked for is hollow. ``layout.meta.bands`` names the two SAEs of each
    overlap, with which the page's script hides it.
    """
    compared = [
        (overlap, (c.a, c.b))
        for c in summary.comparisons
        if c.cell == cell and c.summary.n_seeds
        for overlap in c.overlaps
    ]
    shapes = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": overlap[0],
            "x1": overlap[1],
            "y0": 0,
            "y1": 1,
            "fillcolor": BAND,
            "opacity": 0.06,
            "line": {"width": 0},
            "layer": "below",
        }
        for overlap, _ in compared
    ]
    figure = _against_l0(
        [r for r in summary.results if r.cell == cell],
        looks,
        y=lambda r: r.quality.explained_variance,
        yaxis={"title": {"text": "R²"}},
        shapes=shapes,
        hollow=lambda r: missed_l0(r) is not None,
    )
    figure["layout"]["meta"] = {"bands": [saes for _, saes in compared]}
    return figure


def dead_shares(summary: SweepSummary, cell: str, looks: dict[str, Style]) -> Figure:
    """Draw the dead share against L0; none dead is drawn as half a latent, hollow."""
    results = [r for r in summary.results if r.cell == cell]
    values = [point_of(r).floored_dead_share for r in results]
    ticks = _percent_ticks(min(values), max(values))
    return _against_l0(
        results,
        looks,
        y=lambda r: point_of(r).floored_dead_share,
        yaxis={
            "title": {"text": "dead latents (log scale)"},
            "type": "log",
            "tickvals": ticks,
            "ticktext": [f"{100 * v:.4g}%" for v in ticks],
        },
        hollow=lambda r: r.quality.dead_share == 0,
    )


def _against_l0(
    results: list[RunResult],
    looks: dict[str, Style],
    y: Callable[[RunResult], float],
    yaxis: dict[str, Any],
    shapes: Sequence[dict[str, object]] = (),
    hollow: Callable[[RunResult], bool] = lambda r: False,
) -> Figure:
    traces = []
    for name in dict.fromkeys(r.sae for r in results):
        look = looks[name]
        for i, seed in enumerate(dict.fromkeys(r.seed for r in results if r.sae == name)):
            mine = [r for r in results if r.sae == name and r.seed == seed]
            mine.sort(key=lambda r: r.quality.l0)
            symbols = [look.symbol + ("-open" if hollow(r) else "") for r in mine]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": escape(name),
                    "legendgroup": escape(name),
                    "meta": name,  # by which the page's boxes find the trace
                    "showlegend": i == 0,
                    "x": [r.quality.l0 for r in mine],
                    "y": [y(r) for r in mine],
                    "text": [_hover(r) for r in mine],
                    "hovertemplate": "%{text}<extra></extra>",
                    "line": {"color": look.colour, "width": 1.4, "dash": look.dash},
                    "marker": {"color": look.colour, "size": 7, "symbol": symbols},
                }
            )
    ticks = _log2_ticks([r.quality.l0 for r in results if r.quality.l0 > 0])
    xaxis = {
        "title": {"text": L0_TITLE},
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{v:.3g}" for v in ticks],
    }
    return {"data": traces, "layout": _layout(xaxis, yaxis, shapes=list(shapes))}


def _hover(r: RunResult) -> str:
    q = r.quality
    missed = missed_l0(r)
    return (
        f"<b>{escape(r.sae)}</b>, seed {r.seed}<br>{escape(r.field)} {r.value:g}<br>"
        f"L0 {q.l0:.2f}{f', {missed}' if missed else ''}<br>R² {q.explained_variance:.4f}<br>"
        f"dead {q.dead_share:.3%} of {q.d_sae:,}"
    )


def census(all_latents: Sequence[LabelledLatents], looks: dict[str, Style]) -> Figure:
    """Draw the share of bipolar latents among the k of most energy, a line for each SAE."""
    traces = []
    for one in all_latents:
        curve = one.latents.bipolar_share_by_energy_rank
        ranks = _thinned(len(curve))
        look = looks[one.sae]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(one.name),
                "x": ranks,
                "y": [curve[k - 1] for k in ranks],
                "hovertemplate": f"{escape(one.name)}<br>%{{y:.1%}} of the %{{x}} of most energy"
                "<extra></extra>",
                "line": {"color": look.colour, "width": 2, "dash": look.dash},
            }
        )
    xaxis = {"title": {"text": "k (log scale)"}, "type": "log", "dtick": 1}
    yaxis = {"title": {"text": "bipolar among the k"}, "range": [-0.02, 1.02], "tickformat": ".0%"}
    return {"data": traces, "layout": _layout(xaxis, yaxis, showlegend=True)}


def _thinned(n: int) -> list[int]:
    """Ranks from 1 to n, about evenly spaced in their logarithm where there are many."""
    if n <= MAX_CURVE_POINTS:
        return list(range(1, n + 1))
    step = math.log(n) / (MAX_CURVE_POINTS - 1)
    return sorted({round(math.exp(i * step)) for i in range(MAX_CURVE_POINTS)})


def gain_range(all_latents: Sequence[LabelledLatents]) -> tuple[float, float]:
    """Find the range that the histograms show: all gains but a hundredth at either end, and 1."""
    gains = sorted(g for one in all_latents for side in _gains(one) for g in side)
    if not gains:
        return 0.5, 1.5
    low, high = gains[len(gains) // 100], gains[-1 - len(gains) // 100]
    margin = 0.05 * max(high - low, 0.1)
    return min(low, 1.0) - margin, max(high, 1.0) + margin


def _gains(one: LabelledLatents) -> tuple[list[float], list[float]]:
    latents = one.latents
    return (
        [g for g in latents.gain_pos if g is not None],
        [g for g in latents.gain_neg if g is not None],
    )


def calibration(one: LabelledLatents, low: float, high: float) -> Figure:
    """Draw the gains of the + side upwards and of the - side downwards.

    The outermost bars hold what is beyond the range.
    """
    width = (high - low) / N_BINS
    centres = [low + (i + 0.5) * width for i in range(N_BINS)]
    traces = []
    for name, sign, colour, gains in zip(
        ("+ side", "− side"), (1, -1), (PLUS, MINUS), _gains(one), strict=True
    ):
        counts = [0] * N_BINS
        for gain in gains:
            counts[min(max(int((gain - low) / width), 0), N_BINS - 1)] += 1
        traces.append(
            {
                "type": "bar",
                "name": f"{name} ({len(gains):,} latents)",
                "x": centres,
                "y": [sign * n for n in counts],
                "width": width,
                "marker": {"color": colour},
                "customdata": counts,
                "hovertemplate": f"{name}<br>gain about %{{x:.3f}}: %{{customdata}} latents"
                "<extra></extra>",
            }
        )
    one_line = {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": 1,
        "x1": 1,
        "y0": 0,
        "y1": 1,
        "line": {"color": INK, "width": 1.5, "dash": "dash"},
    }
    ticks = _count_ticks(max([1, *(abs(n) for trace in traces for n in trace["y"])]))
    xaxis = {"title": {"text": "gain (1, dashed: calibrated)"}, "range": [low, high]}
    yaxis = {"title": {"text": "latents"}, "zeroline": True, "zerolinecolor": INK}
    yaxis |= {"tickvals": ticks, "ticktext": [f"{abs(n):,}" for n in ticks]}
    layout = _layout(xaxis, yaxis, shapes=[one_line], barmode="overlay")
    return {"data": traces, "layout": layout}


def _log2_ticks(values: Sequence[float]) -> list[float]:
    """Powers of two, and parts between them where a narrow range holds fewer than two."""
    low, high = math.log2(min(values, default=1)), math.log2(max(values, default=1))
    tried = (1, 2, 4, 8, 16, 32)
    # of one value, or of values nearer than that, the powers of two are enough
    parts = next((n for n in tried if math.floor(high * n) - math.ceil(low * n) >= 1), 1)
    return [2 ** (i / parts) for i in range(-4 * parts, 16 * parts + 1)]


def _percent_ticks(low: float, high: float) -> list[float]:
    digits = (1, 2, 5) if high / low < 100 else (1,)
    return [digit * 10.0**power for power in range(-7, 1) for digit in digits]


def _count_ticks(most: int) -> list[int]:
    """Round numbers on both sides of 0, three to seven of them above it."""
    power = 10 ** int(math.log10(most))
    step = next(s for s in (power // 5, power // 2, power, 2 * power) if s and most / s <= 7)
    return list(range(-step * (most // step), most + 1, step))


def _layout(xaxis: dict[str, Any], yaxis: dict[str, Any], **more: object) -> dict[str, object]:
    axis = {
        "gridcolor": GRID,
        "linecolor": AXIS,
        "showline": True,
        "ticks": "outside",
        "tickcolor": AXIS,
        "zeroline": False,
        "automargin": True,
    }
    return {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "margin": {"l": 62, "r": 14, "t": 12, "b": 48},
        "hoverlabel": {"bgcolor": PAPER, "font": {"family": FONT, "size": 13}, "align": "left"},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "uirevision": "kept",  # a chart that is drawn again stays zoomed
        "xaxis": axis | {**xaxis, "title": xaxis["title"] | {"standoff": 6}},
        "yaxis": axis | {**yaxis, "title": yaxis["title"] | {"standoff": 8}},
        **more,
    }
