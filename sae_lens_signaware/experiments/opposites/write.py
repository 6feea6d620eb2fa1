"""CSV files of all opposites, with a list of what they hold."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sae_lens_signaware.files import replacing, sha256_of, write_json

COLUMNS = ("text", "label", "part")
LIST_FILENAME = "opposites.json"


class Row(NamedTuple):
    """A line of the CSV.

    Attributes:
        label: a number, or the name of a class.
        part: "fit" or "report".
    """

    text: str
    label: str
    part: str


def write_opposites(sets: Mapping[str, Sequence[Row]], folder: Path) -> None:
    """Write ``NAME.csv`` for each set, and ``opposites.json`` with the number of texts of each."""
    held = {}
    for name, rows in sets.items():
        path = folder / f"{name}.csv"
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        parts = Counter(row.part for row in rows)
        held[name] = {"n_texts": dict(sorted(parts.items())), "sha256": sha256_of(path)}
    write_json(held, folder / LIST_FILENAME)
