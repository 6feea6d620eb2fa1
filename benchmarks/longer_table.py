"""The table of what a longer training changes, at one L0."""

from collections.abc import Mapping, Sequence

from recipe_tables import signed
from reproduction_tables import markdown
from result_rows import Row, r2_at


def longer_table(
    rows: Mapping[int, Sequence[Row]],
    cells: Sequence[str],
    saes: Mapping[str, str],
    reference: str,
) -> str:
    """R² of each SAE after some numbers of steps, and that R² minus the reference's.

    Args:
        rows: number of steps -> runs of one seed near one L0. An SAE that cannot be asked for it
            has several runs in a cell, and R² is that of its line in log L0 at the reference's L0.
        saes: name of an SAE -> its label, in the order of the table; one is the reference.
    """
    table = []
    for cell in cells:
        for sae, label in saes.items():
            fields = []
            for of_n in rows.values():
                mine, of_reference = (
                    [row for row in of_n if (row.cell, row.sae) == (cell, name)]
                    for name in (sae, reference)
                )
                fields += _fields(mine, next(iter(of_reference), None))
            if fields[-2]:
                table.append([cell, label, *fields])
    columns = [column for n in rows for column in (f"{n:,} steps", "difference")]
    return markdown(["hook point", "SAE", *columns], table, 2)


def _fields(runs: Sequence[Row], other: Row | None) -> tuple[str, str]:
    """R² of an SAE at its L0, and that R² minus the reference's; empty where there is none."""
    l0, r2 = 0.0, None
    if len(runs) == 1:
        l0, r2 = runs[0].l0, runs[0].r2
    elif other is not None:
        l0, r2 = other.l0, r2_at([row.point for row in runs], other.l0)
    if r2 is None:
        return "", ""
    gap = "" if other is None or runs[0].sae == other.sae else signed(r2 - other.r2)
    return f"{r2:.4f} at {l0:.1f}", gap
