"""Tables of the opposition of two sides: by SAE, and the latents that stand out most."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reproduction_tables import markdown

SAEs = Mapping[str, Mapping[str, Any]]
MARKUP = re.compile(r"[\\`*_{}\[\]()+\-.!|~^:$=]")
"""But for & and #, of which the entities are made."""


def opposition_table(saes: SAEs, names: Mapping[str, tuple[str, str]]) -> str:
    """One row for each SAE: bipolar latents, median opposition, that of chance, and who passes.

    Args:
        saes: of results/opposition.json.
        names: folder of an SAE -> its place and its name, in the order of the rows.
    """
    rows = []
    for path, (place, name) in names.items():
        row = saes[path]
        cells = [f"{row['bipolar']} of {row['d_sae']:,}"]
        if "passing" in row:
            median = row["opposition_quartiles"][1]
            cells += [f"{median:.2f}", f"{row['null']:.2f}", f"{row['dial_median']:.3f}"]
            cells += [f"{row['passing']} of {row['measured']}"]
        rows.append([place, name, *cells, *[""] * (5 - len(cells))])
    columns = ["place", "SAE", "bipolar latents", "opposition, median", "of chance", "of a dial"]
    return markdown([*columns, "stand out"], rows, 2)


def contexts_table(row: Mapping[str, Any]) -> str:
    """The latents of an SAE that stand out most, with the strongest contexts of each side.

    Args:
        row: an SAE of results/opposition.json.
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
