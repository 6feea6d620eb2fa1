"""Figures of frontiers, and of dead latents, against L0: one panel or two for each hook point."""

import math
from collections.abc import Sequence

from figure_drawing import RULE, Series, l0_axis, legend_above, panels
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from result_rows import Row, means

from sae_lens_signaware.experiments.sweep.frontier import MARGIN, overlap_of, read_gaps

TICKS = (8, 16, 32, 64, 128)
"""Of the axis of L0, where a figure has room for them."""


def gaps(points: Sequence[Row], base: Sequence[Row]) -> tuple[list[float], list[float]]:
    """L0 and R² minus that of ``base``, at each point and at both ends of the overlap.

    Both are lines in log L0, as in the verdicts, and are read near their points alone.
    """
    if not points or not base:
        return [], []
    a, b = ([row.point for row in frontier] for frontier in (points, base))
    overlap = overlap_of(a, b)
    if overlap is None:
        return [], []
    low, high = overlap
    read = read_gaps(a, b, sorted({low, high, *(p.l0 for p in a if low <= p.l0 <= high)}))
    return [l0 for l0, _ in read], [gap for _, gap in read]


def frontier_figure(
    rows: Sequence[Row],
    cells: Sequence[str],
    series: Sequence[Series],
    reference: Series,
    ticks: Sequence[float] = TICKS,
) -> Figure:
    """R² against L0, and below each panel the gap: R² minus that of ``reference`` at the same L0.

    The gaps have one scale. What a verdict calls level is shaded.

    Args:
        rows: runs; seeds are averaged.
        cells: one column of panels each, at most three beside each other.
        series: what is drawn, the reference too if it is to have a line.
        reference: what the lower panels compare with, on its line in log L0.
        ticks: of the axis of L0.
    """
    n_columns = min(3, len(cells))
    n_blocks = math.ceil(len(cells) / n_columns)
    figure, axes = panels(2 * n_blocks, n_columns, 2.0, top=0.75)
    figure.subplots_adjust(left=0.1, hspace=0.4)  # ticks such as -0.0025; titles of every block
    of_gaps = []
    for i, cell in enumerate(cells):
        block, column = divmod(i, n_columns)
        upper, lower = axes[2 * block][column], axes[2 * block + 1][column]
        of_gaps.append(lower)
        for one in series:
            points = means(rows, cell, one.sae)
            upper.plot([p.l0 for p in points], [p.r2 for p in points], **one.line())
        upper.set_title(cell, loc="left", fontsize=10)
        _gaps_panel(lower, rows, cell, series, reference, ticks)
        if block < n_blocks - 1:
            lower.set_xlabel("")  # the titles of the next block stand there
        if column == 0:
            upper.set_ylabel("R²")
            lower.set_ylabel("gap in R²")
    _one_scale(of_gaps)
    for unused in range(len(cells), n_blocks * n_columns):
        block, column = divmod(unused, n_columns)
        axes[2 * block][column].axis("off")
        axes[2 * block + 1][column].axis("off")
    legend_above(figure, axes[1][0])  # it has the band of what is level too
    figure.align_ylabels()
    return figure


def gap_figure(
    rows: Sequence[Row],
    cells: Sequence[str],
    series: Sequence[Series],
    reference: Series,
    ticks: Sequence[float] = TICKS,
) -> Figure:
    """The gaps of :func:`frontier_figure` alone, three cells beside each other.

    Args are those of :func:`frontier_figure`; the number of cells is a multiple of three.
    """
    n_rows = len(cells) // 3
    figure, axes = panels(n_rows, 3, 2.2, top=0.75)
    figure.subplots_adjust(left=0.11, hspace=0.3)
    for i, (axis, cell) in enumerate(zip(axes.flat, cells, strict=True)):
        _gaps_panel(axis, rows, cell, series, reference, ticks)
        axis.set_title(cell, loc="left", fontsize=10)
        if i < 3 * (n_rows - 1):
            axis.set_xlabel("")
        if i % 3 == 0:
            axis.set_ylabel(f"R² minus that of\n{reference.label}")
    _one_scale(list(axes.flat))
    legend_above(figure, axes[0][0])
    figure.align_ylabels()
    return figure


def _gaps_panel(
    axis: Axes,
    rows: Sequence[Row],
    cell: str,
    series: Sequence[Series],
    reference: Series,
    ticks: Sequence[float],
) -> None:
    """The gaps of one cell, with what a verdict calls level shaded."""
    base = means(rows, cell, reference.sae)
    for one in series:
        axis.plot(*gaps(means(rows, cell, one.sae), base), **one.line())
    axis.axhspan(-MARGIN, MARGIN, color=RULE, alpha=0.5, linewidth=0, label=f"level: ±{MARGIN:g}")
    l0_axis(axis, ticks)
    axis.tick_params(labelbottom=True)  # of the upper panels too, whose axis is shared
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _one_scale(panels_of_gaps: Sequence[Axes]) -> None:
    limits = [limit for axis in panels_of_gaps for limit in axis.get_ylim()]
    for axis in panels_of_gaps:
        axis.set_ylim(min(limits), max(limits))


def dead_figure(
    rows: Sequence[Row],
    cells: Sequence[str],
    series: Sequence[Series],
    ticks: Sequence[float] = TICKS,
) -> Figure:
    """Share of dead latents against L0, one panel a cell, on one scale."""
    figure, axes = panels(1, len(cells), 2.6, top=0.85, sharey=True)
    for axis, cell in zip(axes[0], cells, strict=True):
        for one in series:
            points = means(rows, cell, one.sae)
            axis.plot([p.l0 for p in points], [p.dead_share for p in points], **one.line())
        axis.set_title(cell, loc="left", fontsize=10)
        l0_axis(axis, ticks)
    top = axes[0][0].get_ylim()[1]
    axes[0][0].set_ylim(-0.02 * top, top)  # a marker at 0 is seen whole
    axes[0][0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if top > 0.05 else 1))
    axes[0][0].set_ylabel("dead latents")
    legend_above(figure, axes[0][0])
    return figure
