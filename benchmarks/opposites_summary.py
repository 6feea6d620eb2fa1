"""Tables of natural opposites over both models and all places: by side, by axis, by training."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from opposites_table import METRICS, Row, score, verdict
from reproduction_tables import markdown

N_RESAMPLES = 2000
Results = Mapping[str, Mapping[str, Any]]
"""Model -> results/opposites_MODEL.json."""


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
    """The probes of one SAE, at all places. A name that ends in / takes what stands below it."""
    fields = {}
    for model, result in results.items():
        for row in result["rows"]:
            cell, found = place_of(row["sae"])
            if found == name or (name.endswith("/") and found.startswith(name)):
                fields[Field(model, cell, row["set"])] = row
    return fields


def shared_fields(results: Results, names: Sequence[str]) -> dict[str, dict[Field, Row]]:
    """The probes of each SAE, at the places and sets where all of them were probed."""
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


def gap(values: Sequence[float], reference: Sequence[float]) -> str:
    """The mean difference, with its 95% interval by bootstrap over the fields."""
    differences = np.subtract(values, reference)
    drawn = np.random.default_rng(0).integers(
        len(differences), size=(N_RESAMPLES, len(differences))
    )
    low, high = np.percentile(differences[drawn].mean(1), [2.5, 97.5])
    shown = f"{differences.mean():+.2f} ({low:+.2f} to {high:+.2f})"
    return shown.replace("-", "−")


def sides_table(results: Results, labels: Mapping[str, str], reference: str) -> str:
    """Means over the fields: best side and eight sides, and eight sides less the reference.

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
            cells += [_mean(scores(held[name], metric, "side", 1)), _mean(eight)]
            cells.append("" if name == reference else gap(eight, of_reference))
        table.append([label, *cells])
    columns = [
        f"{metric}, {what}" for metric in METRICS for what in ("best side", "8 sides", "difference")
    ]
    return markdown(["SAE", *columns], table, 1)


def axes_table(results: Results, labels: Mapping[str, str]) -> str:
    """Means over the fields of the best axis, side and pair, and how many have both ends."""
    held = shared_fields(results, list(labels))
    table = []
    for name, label in labels.items():
        fields = held[name]
        cells = [
            _mean(scores(fields, metric, form, 1))
            for metric in METRICS
            for form in ("axis", "side", "pair")
        ]
        table.append([label, *cells, *(both_ends(fields, form) for form in ("axis", "pair"))])
    columns = [f"{metric}, {form}" for metric in METRICS for form in ("axis", "side", "pair")]
    return markdown(["SAE", *columns, "axes with both ends", "pairs with both ends"], table, 1)


def both_ends(fields: Mapping[Field, Row], form: str) -> str:
    """In how many fields both sides of the chosen axis, or both latents of the pair, are ends."""
    found = [verdict(row, form) for row in fields.values()]
    known = [each for each in found if each is not None]
    return f"{known.count('both sides')} of {len(known)}" if known else "–"


def trainings_table(results: Results, labels: Mapping[str, str], cell: str) -> str:
    """At one place of both models: R², bipolar latents, best axis and side, axes with both ends."""
    table = []
    for name, label in labels.items():
        fields = {
            field: row for field, row in fields_of(results, name).items() if field.cell == cell
        }
        saes = {
            field.model: results[field.model]["saes"][row["sae"]] for field, row in fields.items()
        }
        about = [saes.get(model) for model in results]
        shown = " / ".join("–" if sae is None else f"{sae['r2']:.3f}" for sae in about)
        bipolar = " / ".join("–" if sae is None else f"{sae['bipolar_share']:.0%}" for sae in about)
        means = [
            _mean(scores(fields, metric, form, 1))
            for metric in METRICS
            for form in ("axis", "side")
        ]
        table.append([label, shown, bipolar, *means, both_ends(fields, "axis")])
    columns = [f"{metric}, {form}" for metric in METRICS for form in ("axis", "side")]
    return markdown(["SAE", "R²", "bipolar", *columns, "axes with both ends"], table, 1)
