"""Tables of the opposition of two sides: by SAE, and the latents that stand out most."""

import html
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from opposites_table import place_of
from reproduction_tables import markdown

Results = Mapping[str, Mapping[str, Any]]
"""Model -> results/opposition_MODEL.json."""
MARKUP = re.compile(r"[\\`*_{}\[\]()+\-.!|~^:$=]")
"""But for & and #, of which the entities are made."""


def measured_of(results: Results, name: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(Model, cell) -> what was measured of the SAE of that name there."""
    return {
        (model, cell): row
        for model, result in results.items()
        for path, row in result["saes"].items()
        for cell, found in [place_of(path)]
        if found == name
    }


def opposition_table(results: Results, labels: Mapping[str, str]) -> str:
    """One row for each SAE, over all hook points: sums of latents, and means of their values.

    Args:
        labels: name of an SAE -> its label, in the order of the rows.
    """
    table = []
    for name, label in labels.items():
        rows = list(measured_of(results, name).values())
        judged = [row for row in rows if "passing" in row]
        bipolar, width = (sum(row[key] for row in rows) for key in ("bipolar", "d_sae"))
        stand_out, of = (sum(row[key] for row in judged) for key in ("passing", "measured"))
        means = [
            statistics.fmean(values)
            for values in (
                [row["opposition_quartiles"][1] for row in judged],
                [row["null"] for row in judged],
                [row["dial_median"] for row in judged],
            )
        ]
        shown = [f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[2]:.3f}"]
        table.append([label, f"{bipolar / width:.0%}", *shown, f"{stand_out} of {of}"])
    columns = ["SAE", "bipolar latents", "opposition, median", "chance level"]
    columns += ["median if the opposite sign is written in"]
    return markdown([*columns, "latents above chance"], table, 1)


def places_table(results: Results, labels: Mapping[str, str]) -> str:
    """By hook point, for each SAE: bipolar latents, and how many of those measured stand out."""
    held = {name: measured_of(results, name) for name in labels}
    table = []
    for place in dict.fromkeys(place for rows in held.values() for place in rows):
        cells = []
        for rows in held.values():
            row = rows.get(place)
            if row is None:
                cells.append("–")
            else:
                judged = f"{row['passing']} of {row['measured']}" if "passing" in row else "–"
                cells.append(f"{row['bipolar']} / {judged}")
        table.append([", ".join(place), *cells])
    return markdown(["hook point", *labels.values()], table, 1)


def contexts_table(row: Mapping[str, Any]) -> str:
    """The latents of an SAE that stand out most, with the strongest contexts of each side.

    Args:
        row: an SAE of results/opposition_MODEL.json.
    """
    rows = []
    for latent, contexts in row["contexts"].items():
        found = row["latents"][latent]
        interval = f"{found['opposition']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
        sides = ["<br>".join(map(_shown, contexts[side])) for side in "+-"]
        rows.append([latent, interval, *sides])
    columns = ["latent", "opposition", "+ side, strongest contexts", "− side, strongest contexts"]
    return markdown(columns, rows, 4)


def _shown(parts: Sequence[str]) -> str:
    """A context as HTML in a Markdown table, its peak bold."""
    before, peak, after = map(_escaped, parts)
    return f"… {before}<b>{peak}</b>{after} …"


def _escaped(text: str) -> str:
    """Text of a model's tokens, with an entity for every character that Markdown reads."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", html.escape(text, quote=False))
