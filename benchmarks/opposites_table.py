"""Tables and figure of natural opposites: how well latents tell them, by axis and by side."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from figure_drawing import INK, Series, panels
from matplotlib.figure import Figure
from reproduction_tables import markdown

Row = Mapping[str, Any]
METRICS = {"auc": (0.45, 1.02), "rho": (0.15, 0.62)}
"""Scores, and what of each the figure shows."""


class Probed(NamedTuple):
    """An SAE of the probes, as tables and figures show it.

    Attributes:
        cell: its place.
        series: its name in the results and in the figure.
        label: its name in a table.
    """

    cell: str
    series: Series
    label: str


def score(row: Row, form: str, k: int) -> float | None:
    """The score of a probe; None where the SAE has no such features."""
    found = (value for of, n, value, *_ in row["probes"] if (of, n) == (form, k))
    return next(found, None)


def verdict(row: Row, form: str = "axis") -> str | None:
    """What the two sides of the chosen axis, or the two latents of the pair, stand for."""
    return next((found for of, _, found, *_ in row["ends"] if of == form), None)


def opposites_table(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """By set, for each SAE: axis / side with k = 1, and side with k = 8.

    The axis is in bold where both of its sides stand for their ends.

    Args:
        rows: of results/opposites.json.
        names: folder of an SAE -> its name in the table, in the order of the columns.
    """
    table = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = {row["sae"]: row for row in rows if row["set"] == name}
        cells = []
        for sae in names:
            row = of_set[sae]
            axis, side, eight = (
                None if (value := score(row, form, k)) is None else f"{value:.2f}"
                for form, k in (("axis", 1), ("side", 1), ("side", 8))
            )
            if axis is not None and verdict(row) == "both sides":
                axis = f"**{axis}**"
            cells.append(f"{'–' if axis is None else axis} / {side} / {eight}")
        table.append([name.replace("_", ", "), of_set[next(iter(names))]["metric"], *cells])
    return markdown(["set", "score", *names.values()], table, 2)


def means_table(rows: Sequence[Row], probed: Mapping[str, Probed]) -> str:
    """By place and SAE: means over the sets of each score, and axes with an end on each side.

    Args:
        rows: of results/opposites.json.
        probed: folder of an SAE -> how it is shown, in the order of the rows.
    """
    table = []
    for path, sae in probed.items():
        mine = [row for row in rows if row["sae"] == path]
        fields = []
        for metric in METRICS:
            of_metric = [row for row in mine if row["metric"] == metric]
            for form, k in (("axis", 1), ("side", 1), ("side", 8)):
                found = [score(row, form, k) for row in of_metric]
                known = [value for value in found if value is not None]
                fields.append(f"{statistics.fmean(known):.2f}" if known else "–")
        both = [verdict(row) for row in mine]
        n_both = f"{both.count('both sides')} of {len(both)}" if any(both) else "–"
        table.append([sae.cell, sae.label, *fields, n_both])
    columns = [
        f"{name}, {form}" for name in METRICS for form in ("best axis", "best side", "8 sides")
    ]
    return markdown(["place", "SAE", *columns, "axes with both ends"], table, 2)


def sides_figure(rows: Sequence[Row], probed: Mapping[str, Probed], cells: Sequence[str]) -> Figure:
    """The score of the best axis against that of the best side; a point is an SAE on a set.

    One column of panels a place, one row a score. A point is filled where both sides of the axis
    stand for their ends, and on the dashed line an axis tells as much as one side does.
    """
    figure, axes = panels(len(METRICS), len(cells), 2.9, top=0.5, sharex=False)
    figure.subplots_adjust(hspace=0.4)
    for i, (metric, shown) in enumerate(METRICS.items()):
        for axis, cell in zip(axes[i], cells, strict=True):
            axis.plot(shown, shown, color=INK, linestyle="--", linewidth=0.8)
            axis.set(xlim=shown, ylim=shown)
            for path, sae in probed.items():
                if sae.cell == cell:
                    _draw(axis, [r for r in rows if (r["sae"], r["metric"]) == (path, metric)], sae)
            axis.set_title(f"{cell}, {metric}", loc="left", fontsize=10)
            axis.set_xlabel("best side")
        axes[i][0].set_ylabel("best axis")
    handles = {}
    for axis in axes.flat:
        found = zip(*axis.get_legend_handles_labels(), strict=True)
        handles |= {label: handle for handle, label in found}
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncols=len(handles))
    return figure


def _draw(axis: Any, rows: Sequence[Row], sae: Probed) -> None:
    line = sae.series.line() | {"linestyle": ""}
    for is_both in (False, True):
        mine = [row for row in rows if (verdict(row) == "both sides") == is_both]
        points = [(score(row, "side", 1), score(row, "axis", 1)) for row in mine]
        known = [point for point in points if None not in point]
        if known:
            fill = {} if is_both else {"markerfacecolor": "none"}
            axis.plot(*zip(*known, strict=True), **(line | fill))
