"""The table of what two SAEs gain from a wider dictionary, at one L0."""

from collections.abc import Mapping, Sequence

from recipe_tables import signed
from reproduction_tables import markdown
from result_rows import Row


def widths_table(
    rows: Sequence[Row], cells: Mapping[str, int], saes: tuple[str, str], labels: tuple[str, str]
) -> str:
    """R², L0 and dead latents of two SAEs at each width, and the difference of their R².

    Args:
        rows: runs of one seed and one L0 each; an SAE's name ends in "-N" at N times ``d_in``.
        cells: name of a cell -> its ``d_in``.
        saes: the names of the two without that ending.
        labels: their names in the table.
    """
    found = {(row.cell, row.sae): row for row in rows}
    table = []
    for cell, d_in in cells.items():
        widths = {int(sae.rpartition("-")[2]) for of_cell, sae in found if of_cell == cell}
        for times in sorted(widths):
            a, b = (found.get((cell, f"{sae}-{times}")) for sae in saes)
            if a is not None and b is not None:
                fields = [f"{p.r2:.4f} at {p.l0:.1f}; {p.dead_share:.1%}" for p in (a, b)]
                table.append([cell, f"{times * d_in:,}", *fields, signed(a.r2 - b.r2)])
    return markdown(["hook point", "width", *labels, "difference"], table, 1)
