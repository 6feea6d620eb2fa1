"""The table of natural opposites: how well one latent tells them, by axis and by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from reproduction_tables import markdown

Row = Mapping[str, Any]


def score(row: Row, form: str, k: int) -> float | None:
    """The score of a probe; None where the SAE has no such features."""
    found = (p["value"] for p in row["probes"] if (p["form"], p["k"]) == (form, k))
    return next(found, None)


def verdict(row: Row) -> str | None:
    """What the two sides of the chosen axis stand for."""
    return next((ends["verdict"] for ends in row["ends"] if ends["form"] == "axis"), None)


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
