"""Tables of SAEs that are trained by one recipe: R², L0 and dead latents, by place and by L0."""

from collections.abc import Mapping, Sequence

from reproduction_tables import markdown
from result_rows import Row, means, r2_at

from sae_lens_signaware.evaluation.quality import missed_target_l0
from sae_lens_signaware.experiments.sweep.result import TARGET_FIELDS

ASKED = (8.0, 32.0, 128.0)


def points_table(rows: Sequence[Row], cells: Sequence[str], saes: Mapping[str, str]) -> str:
    """R², L0, bipolar share and number of seeds, by cell and SAE; the highest R² of a cell is bold.

    An SAE that cannot be asked for an L0 stands where its L0 is nearest, and does not compete: its
    L0 is another one. Where an L0 is missed, by the rule of the sweeps, R² is in brackets and does
    not compete either.

    Args:
        saes: name in the results -> name in the table, in the order of the rows.
    """
    table = []
    for cell in cells:
        points = {sae: _by_asked(means(rows, cell, sae)) for sae in saes}
        best = {
            asked: max((p[asked].r2 for p in points.values() if _competes(p, asked)), default=None)
            for asked in ASKED
        }
        for sae, label in saes.items():
            if points[sae]:
                fields = [_field(points[sae], asked, best[asked]) for asked in ASKED]
                table.append([cell, label, *fields])
    return markdown(["place", "SAE", *(f"L0 {asked:g}" for asked in ASKED)], table, 2)


def gaps_table(
    rows: Sequence[Row],
    cells: Sequence[str],
    sae: str,
    saes: Mapping[str, str],
    l0s: Sequence[float] = ASKED,
) -> str:
    """R² of one SAE less that of others at its own L0, by cell and by the L0 that was asked for.

    The others are lines in log L0, as in the verdicts, which go on by a tenth of L0 at their ends.

    Args:
        sae: name in the results of the one.
        saes: name in the results of the others -> name in the table, in the order of the rows.
        l0s: that were asked for, the columns.
    """
    table = []
    for cell in cells:
        mine = _by_asked(means(rows, cell, sae))
        for other, label in saes.items():
            line = [row.point for row in means(rows, cell, other)]
            gaps = [
                None
                if not _is_near(mine, asked) or (r2 := r2_at(line, mine[asked].l0)) is None
                else mine[asked].r2 - r2
                for asked in l0s
            ]
            if any(gap is not None for gap in gaps):
                shown = ["" if g is None else f"{g:+.4f}".replace("-", "−") for g in gaps]
                table.append([cell, label, *shown])
    return markdown(["place", "baseline", *(f"L0 {asked:g}" for asked in l0s)], table, 2)


def dead_table(rows: Sequence[Row], cells: Sequence[str], saes: Mapping[str, str]) -> str:
    """The largest share of dead latents over the runs of an SAE in a cell, and their number."""
    table = []
    for sae, label in saes.items():
        fields = []
        for cell in cells:
            dead = [row.dead_share for row in rows if (row.cell, row.sae) == (cell, sae)]
            fields.append(f"{max(dead):.2%} of {len(dead)}" if dead else "")
        if any(fields):
            table.append([label, *fields])
    return markdown(["largest dead share, of n runs", *cells], table, 1)


def _by_asked(points: Sequence[Row]) -> dict[float, Row]:
    """Points by the L0 that was asked for; by the nearest one where none was, the nearest point."""
    pairs = [(_asked(point), point) for point in points]
    return dict(sorted(pairs, key=lambda pair: _ratio(*pair), reverse=True))


def _asked(point: Row) -> float:
    if point.swept in TARGET_FIELDS:
        return point.value
    return min(ASKED, key=lambda asked: _ratio(asked, point))


def _ratio(asked: float, point: Row) -> float:
    return max(asked / point.l0, point.l0 / asked)


def _is_near(points: Mapping[float, Row], asked: float) -> bool:
    return asked in points and missed_target_l0(asked, points[asked].l0) is None


def _competes(points: Mapping[float, Row], asked: float) -> bool:
    return _is_near(points, asked) and points[asked].swept in TARGET_FIELDS


def _field(points: Mapping[float, Row], asked: float, best: float | None) -> str:
    if asked not in points:
        return ""
    point = points[asked]
    r2 = f"{point.r2:.4f}"
    if not _is_near(points, asked):
        r2 = f"({r2})"
    elif _competes(points, asked) and best is not None and r2 == f"{best:.4f}":
        r2 = f"**{r2}**"
    seeds = f", n = {point.seed}" if point.seed > 1 else ""
    return f"{r2} at {point.l0:.1f}; {point.bipolar_share:.0%}{seeds}"
