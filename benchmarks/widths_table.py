"""The tables of what SAEs gain from a wider dictionary at one L0, and by which warm-up."""

from collections.abc import Mapping, Sequence

from recipe_tables import signed
from reproduction_tables import markdown
from result_rows import Row, r2_at

from sae_lens_signaware.experiments.sweep.frontier import Point


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
        for times in _widths(rows, cell):
            a, b = (found.get((cell, f"{sae}-{times}")) for sae in saes)
            if a is not None and b is not None:
                fields = [f"{p.r2:.4f} at {p.l0:.1f}; {p.dead_share:.1%}" for p in (a, b)]
                r2 = r2_at(_line(rows, cell, f"{third}-{times}"), b.l0)
                fields += [signed(a.r2 - b.r2), "" if r2 is None else f"{r2:.4f}"]
                table.append([cell, f"{times * d_in:,}", *fields])
    return markdown(["hook point", "width", *labels, "difference", label], table, 1)


def warm_ups_table(
    rows: Sequence[Row],
    cells: Mapping[str, int],
    saes: Mapping[str, str],
    plain: tuple[str, str],
    without_target: tuple[str, str],
) -> str:
    """R² of an SAE at each width and warm-up, and that of the best one minus that of plain SAEs.

    Args:
        rows: as those of :func:`widths_table`.
        cells: name of a cell -> its ``d_in``.
        saes: the name of the SAE with a warm-up, without the ending -> the column of that warm-up.
        plain: name and label of an SAE that has the L0 that was asked for.
        without_target: name and label of an SAE that cannot be asked for an L0. Its R² is that of
            its line in log L0, at the L0 of the best one.
    """
    (plain_sae, label), (other, other_label) = plain, without_target
    found = {(row.cell, row.sae): row for row in rows}
    table = []
    for cell, d_in in cells.items():
        for times in _widths(rows, cell):
            mine = [found.get((cell, f"{sae}-{times}")) for sae in saes]
            known = [row for row in mine if row is not None]
            if len(known) > 1:
                best = max(known, key=lambda row: row.r2)
                beside = found.get((cell, f"{plain_sae}-{times}"))
                of_other = r2_at(_line(rows, cell, f"{other}-{times}"), best.l0)
                r2s = (None if beside is None else beside.r2, of_other)
                table.append(
                    [cell, f"{times * d_in:,}"]
                    + ["" if row is None else f"{row.r2:.4f}" for row in mine]
                    + ["" if r2 is None else signed(best.r2 - r2) for r2 in r2s]
                )
    columns = ["hook point", "width", *saes.values(), f"best − {label}", f"best − {other_label}"]
    return markdown(columns, table, 1)


def _widths(rows: Sequence[Row], cell: str) -> list[int]:
    """The widths of the SAEs of a cell, in multiples of ``d_in``."""
    return sorted({times_of(row) for row in rows if row.cell == cell})


def times_of(row: Row) -> int:
    """The width of an SAE in multiples of ``d_in``, which its name ends in."""
    return int(row.sae.rpartition("-")[2])


def _line(rows: Sequence[Row], cell: str, sae: str) -> list[Point]:
    """The points of an SAE."""
    return [row.point for row in rows if (row.cell, row.sae) == (cell, sae)]
