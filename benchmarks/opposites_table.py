"""Tables and figure of natural opposites: by side, by axis, by set and by training."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from figure_drawing import INK, Series, panels
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from reproduction_tables import markdown

from sae_lens_signaware.evaluation.probe_scores import interval

METRICS = {"auc": (0.45, 1.02), "rho": (0.1, 0.7)}
"""Scores, and what of each the figure shows."""
TITLES = {"auc": "templates (AUC)", "rho": "rated texts (rho)"}
OPEN = {"linestyle": "", "markerfacecolor": "none"}
"""Of a marker."""
BEST_OF_THREE = (("axis", 1), ("side", 1), ("pair", 1))
AXIS_SIDE_EIGHT = (("axis", 1), ("side", 1), ("side", 8))
"""Probes, by form and k."""
N_RESAMPLES = 2000
Row = Mapping[str, Any]
Results = Mapping[str, Mapping[str, Any]]
"""Model -> results/opposites_MODEL.json."""


def score(row: Row, form: str, k: int) -> float | None:
    """The score of a probe; None where the SAE has no such features."""
    found = (value for of, n, value, *_ in row["probes"] if (of, n) == (form, k))
    return next(found, None)


def verdict(row: Row, form: str = "axis") -> str | None:
    """What the two sides of the chosen axis, or the two latents of the pair, stand for."""
    return next((found for of, _, found, *_ in row["ends"] if of == form), None)


class Field(NamedTuple):
    """Where an SAE was probed, and on which opposite."""

    model: str
    cell: str
    set: str


def place_of(path: str) -> tuple[str, str]:
    """The cell of an SAE and its name, which is the rest of the path: "batchtopk-full/k-32"."""
    found = re.search(r"/saes/(\w+)/seed-0/(.+)$", path)
    assert found is not None, path
    return found[1], found[2]


def fields_of(results: Results, name: str) -> dict[Field, Row]:
    """The probes of one SAE, at all hook points. A name that ends in / takes all below it."""
    fields = {}
    for model, result in results.items():
        for row in result["rows"]:
            cell, found = place_of(row["sae"])
            if found == name or (name.endswith("/") and found.startswith(name)):
                fields[Field(model, cell, row["set"])] = row
    return fields


def shared_fields(results: Results, names: Sequence[str]) -> dict[str, dict[Field, Row]]:
    """The probes of each SAE, at the hook points and sets where all of them were probed."""
    held = {name: fields_of(results, name) for name in names}
    shared = set.intersection(*(set(fields) for fields in held.values()))
    return {
        name: {field: fields[field] for field in sorted(shared)} for name, fields in held.items()
    }


def scores(fields: Mapping[Field, Row], metric: str, form: str, k: int) -> list[float]:
    """The scores of a metric in the order of the fields; empty where the SAE has no such form."""
    found = [score(row, form, k) for row in fields.values() if row["metric"] == metric]
    return [value for value in found if value is not None]


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.2f}" if values else "–"


def shown(fields: Mapping[Field, Row], metric: str, probes: Iterable[tuple[str, int]]) -> str:
    """The means of some probes, by form and k, in one field of a table."""
    return " / ".join(_mean(scores(fields, metric, form, k)) for form, k in probes)


def gap(values: Sequence[float], reference: Sequence[float]) -> str:
    """The mean difference, with its 95% interval by bootstrap over the fields."""
    differences = np.subtract(values, reference)
    drawn = np.random.default_rng(0).integers(
        len(differences), size=(N_RESAMPLES, len(differences))
    )
    found = interval(differences.mean(), differences[drawn].mean(1))
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})".replace("-", "−")


def sides_table(results: Results, labels: Mapping[str, str], reference: str) -> str:
    """Means over the fields of the score of eight sides, and that score less the reference's.

    Args:
        labels: name of an SAE -> its label, in the order of the rows; one is the reference.
    """
    held = shared_fields(results, list(labels))
    table = []
    for name, label in labels.items():
        cells = []
        for metric in METRICS:
            eight = scores(held[name], metric, "side", 8)
            of_reference = scores(held[reference], metric, "side", 8)
            cells += [_mean(eight), "" if name == reference else gap(eight, of_reference)]
        table.append([label, *cells])
    columns = [f"{metric}, {what}" for metric in METRICS for what in ("8 sides", "difference")]
    return markdown(["SAE", *columns], table, 1)


def axes_table(results: Results, labels: Mapping[str, str]) -> str:
    """Means over the fields of the best axis, side and pair, and how many have both ends."""
    held = shared_fields(results, list(labels))
    table = []
    for name, label in labels.items():
        cells = [shown(held[name], metric, BEST_OF_THREE) for metric in METRICS]
        table.append([label, *cells, *(both_ends(held[name], form) for form in ("axis", "pair"))])
    columns = [f"{metric}: axis / side / pair" for metric in METRICS]
    return markdown(["SAE", *columns, "axes with both ends", "pairs with both ends"], table, 1)


def both_ends(fields: Mapping[Field, Row], form: str) -> str:
    """In how many fields both sides of the chosen axis, or both latents of the pair, are ends."""
    found = [verdict(row, form) for row in fields.values()]
    known = [each for each in found if each is not None]
    return f"{known.count('both sides')} of {len(known)}" if known else "–"


def sets_table(results: Results, labels: Mapping[str, str]) -> str:
    """By set, for each SAE: axis / side with k = 1, side with k = 8; means over the hook points."""
    held = shared_fields(results, list(labels))
    table = []
    for name in dict.fromkeys(field.set for fields in held.values() for field in fields):
        cells, metric = [], ""
        for fields in held.values():
            of_set = {field: row for field, row in fields.items() if field.set == name}
            (metric,) = {row["metric"] for row in of_set.values()}
            cells.append(shown(of_set, metric, AXIS_SIDE_EIGHT))
        table.append([name.replace("_", ", "), metric, *cells])
    return markdown(["set", "score", *labels.values()], table, 2)


def saes_table(result: Mapping[str, Any], of_set: str) -> str:
    """On one set, for each SAE of a file: best axis, side and pair with their features, and more.

    Args:
        result: a file that benchmarks/opposites.py writes.
    """
    table = []
    for row in result["rows"]:
        if row["set"] == of_set:
            best = {
                form: f"{value:.2f} (`{features}`)"
                for form, k, value, _, _, features in row["probes"]
                if k == 1
            }
            ends = {form: found for form, _, found, *_ in row["ends"]}
            table.append(
                [
                    f"`{Path(row['sae']).name}`",
                    f"{best['axis']}; {ends['axis']}",
                    best["side"],
                    f"{best['pair']}; {ends['pair']}",
                    f"{score(row, 'side', 8):.2f}",
                    f"{row['probes'][-1][2]:.2f}",
                ]
            )
    return markdown(["SAE", "axis", "side", "pair", "8 sides", "raw"], table, 4)


def trainings_table(results: Results, labels: Mapping[str, str], cell: str) -> str:
    """At one hook point of both models: R², bipolar share, best axis and side, two-ended axes."""
    table = []
    for name, label in labels.items():
        fields = {
            field: row for field, row in fields_of(results, name).items() if field.cell == cell
        }
        saes = {
            field.model: results[field.model]["saes"][row["sae"]] for field, row in fields.items()
        }
        about = [saes.get(model) for model in results]
        r2 = " / ".join("–" if sae is None else f"{sae['r2']:.3f}" for sae in about)
        bipolar = " / ".join("–" if sae is None else f"{sae['bipolar_share']:.0%}" for sae in about)
        cells = [shown(fields, metric, BEST_OF_THREE[:2]) for metric in METRICS]
        table.append([label, r2, bipolar, *cells, both_ends(fields, "axis")])
    columns = [f"{metric}: axis / side" for metric in METRICS]
    return markdown(["SAE", "R²", "bipolar", *columns, "axes with both ends"], table, 1)


def sides_figure(results: Results, series: Sequence[Series]) -> Figure:
    """The score of the best axis against that of the best side; a point is an SAE on a set.

    One column of panels a model, one row a score. A point is filled where both sides of the axis
    stand for their ends, and on the dashed line an axis tells as much as one side does.

    Args:
        series: signed SAEs; ``sae`` is the name that ``fields_of`` takes.
    """
    figure, axes = panels(len(METRICS), len(results), 3.2, top=0.5, sharex=False)
    figure.subplots_adjust(hspace=0.4)
    for i, (metric, limits) in enumerate(METRICS.items()):
        for axis, model in zip(axes[i], results, strict=True):
            axis.plot(limits, limits, color=INK, linestyle="--", linewidth=0.8)
            axis.set(xlim=limits, ylim=limits)
            for one in series:
                rows = fields_of({model: results[model]}, one.sae).values()
                _draw(axis, [row for row in rows if row["metric"] == metric], one)
            axis.set_title(f"{model}, {TITLES[metric]}", loc="left", fontsize=10)
            axis.set_xlabel("best side")
        axes[i][0].set_ylabel("best axis")
    drawn = {label for axis in axes.flat for label in axis.get_legend_handles_labels()[1]}
    handles = [Line2D([], [], **(one.line() | OPEN)) for one in series if one.label in drawn]
    both = Line2D([], [], color=INK, marker="o", linestyle="", label="filled: both ends")
    figure.legend(handles=[*handles, both], loc="upper center", ncols=len(handles) + 1)
    return figure


def _draw(axis: Any, rows: Sequence[Row], one: Series) -> None:
    for is_both in (False, True):
        mine = [row for row in rows if (verdict(row) == "both sides") == is_both]
        points = [(score(row, "side", 1), score(row, "axis", 1)) for row in mine]
        known = [point for point in points if None not in point]
        if known:
            fill = {"linestyle": ""} if is_both else OPEN
            axis.plot(*zip(*known, strict=True), **(one.line() | fill))
