"""The table of what a longer training changes, at one L0."""

from collections.abc import Mapping, Sequence

from recipe_tables import signed
from reproduction_tables import markdown
from result_rows import Row


def longer_table(
    rows: Mapping[int, Sequence[Row]],
    cells: Sequence[str],
    saes: Mapping[str, str],
    reference: str,
) -> str:
    """R² of each SAE after some numbers of steps, and that R² minus the reference's.

    Args:
        rows: number of steps -> runs of one seed and one L0 each.
        saes: name of an SAE -> its label, in the order of the table; one is the reference.
    """
    held = {n: {(row.cell, row.sae): row for row in of_n} for n, of_n in rows.items()}
    table = []
    for cell in cells:
        for sae, label in saes.items():
            fields = []
            for found in held.values():
                mine, other = found.get((cell, sae)), found.get((cell, reference))
                known = mine is not None and other is not None and sae != reference
                gap = signed(mine.r2 - other.r2) if known else ""
                fields += [f"{mine.r2:.4f} at {mine.l0:.1f}" if mine is not None else "", gap]
            if fields[-2]:
                table.append([cell, label, *fields])
    columns = [column for n in held for column in (f"{n:,} steps", "difference")]
    return markdown(["hook point", "SAE", *columns], table, 2)
