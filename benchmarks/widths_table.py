"""The table of what two SAEs gain from a wider dictionary, at one L0."""

from collections.abc import Mapping, Sequence

from recipe_tables import signed
from reproduction_tables import markdown
from result_rows import Row, r2_at


def widths_table(
    rows: Sequence[Row],
    cells: Mapping[str, int],
    saes: tuple[str, str],
    labels: tuple[str, str],
    without_target: tuple[str, str],
) -> str:
    """R², L0 and dead latents of two SAEs at each width, and the difference of their R².

    Args:
        rows: runs of one seed and one L0 each; an SAE's name ends in "-N" at N times ``d_in``.
        cells: name of a cell -> its ``d_in``.
        saes: the names of the two without that ending.
        labels: their names in the table.
        without_target: name and label of an SAE that cannot be asked for an L0. Its R² is that of
            its line in log L0, at the L0 of the second SAE.
    """
    third, label = without_target
    found = {(row.cell, row.sae): row for row in rows}
    table = []
    for cell, d_in in cells.items():
        widths = {int(sae.rpartition("-")[2]) for of_cell, sae in found if of_cell == cell}
        for times in sorted(widths):
            a, b = (found.get((cell, f"{sae}-{times}")) for sae in saes)
            if a is not None and b is not None:
                fields = [f"{p.r2:.4f} at {p.l0:.1f}; {p.dead_share:.1%}" for p in (a, b)]
                line = [
                    row.point for row in rows if (row.cell, row.sae) == (cell, f"{third}-{times}")
                ]
                r2 = r2_at(line, b.l0)
                fields += [signed(a.r2 - b.r2), "" if r2 is None else f"{r2:.4f}"]
                table.append([cell, f"{times * d_in:,}", *fields])
    return markdown(["hook point", "width", *labels, "difference", label], table, 1)
