"""Tables of SAEs that one recipe trains: R², L0 and dead latents, by hook point and by L0."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from reproduction_tables import markdown
from result_rows import Row, means, r2_at

from sae_lens_signaware.evaluation.quality import missed_target_l0
from sae_lens_signaware.experiments.sweep.frontier import outcome_of
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
    return markdown(["hook point", "SAE", *(f"L0 {asked:g}" for asked in ASKED)], table, 2)


def gaps_table(
    rows: Sequence[Row],
    cells: Sequence[str],
    sae: str,
    saes: Mapping[str, str],
    l0s: Sequence[float] = ASKED,
) -> str:
    """R² of one SAE minus that of others at its own L0, by cell and by the L0 that was asked for.

    The others are lines in log L0, as in the verdicts, which go on by a tenth of L0 at their ends.

    Args:
        sae: name in the results of the one.
        saes: name in the results of the others -> name in the table, in the order of the rows.
        l0s: that were asked for, the columns.
    """
    table = []
    for cell in cells:
        for other, label in saes.items():
            found = _gaps(rows, cell, sae, other)
            fields = [signed(found[asked]) if asked in found else "" for asked in l0s]
            if any(fields):
                table.append([cell, label, *fields])
    return markdown(["hook point", "baseline", *(f"L0 {asked:g}" for asked in l0s)], table, 2)


def same_l0_table(
    rows: Sequence[Row], cells: Sequence[str], sae: str, saes: Mapping[str, str], asked: float
) -> str:
    """R² of SAEs at the L0 of the first one, by cell; the highest and all level with it are bold.

    The others are on their lines, as in :func:`gaps_table`.

    Args:
        sae: name in the results of the first one.
        saes: name in the results -> name in the table, of all columns; the first one among them.
        asked: the L0 that was asked for.
    """
    table = []
    for cell in cells:
        own = _by_asked(means(rows, cell, sae))[asked].r2
        gaps = {name: _gaps(rows, cell, sae, name).get(asked) for name in saes if name != sae}
        found = {sae: own} | {name: own - gap for name, gap in gaps.items() if gap is not None}
        best = max(found.values())
        fields = []
        for other in saes:
            gap = found.get(other, math.nan) - best
            bold = "**" if outcome_of(gap, gap) == "level" else ""
            fields.append("" if math.isnan(gap) else f"{bold}{found[other]:.4f}{bold}")
        table.append([cell, *fields])
    return markdown(["hook point", *saes.values()], table, 1)


def best_table(
    rows: Sequence[Row], cells: Sequence[str], ours: Mapping[str, str], others: Mapping[str, str]
) -> str:
    """Which of ``ours`` is best in R² against the best of the others, by cell and by L0 asked for.

    A field has the one of ours whose lowest gap to any of the others is highest; the gap; and the
    other that it is to. Gaps are those of :func:`gaps_table`.

    Args:
        ours, others: name in the results -> name in the table.
    """
    table = []
    for cell in cells:
        lowest: dict[float, list[tuple[float, str]]] = {asked: [] for asked in ASKED}
        for sae, label in ours.items():
            gaps = {name: _gaps(rows, cell, sae, other) for other, name in others.items()}
            for asked, found in lowest.items():
                at = [(of[asked], name) for name, of in gaps.items() if asked in of]
                if at:
                    gap, name = min(at)
                    found.append((gap, f"{label} {signed(gap)} to {name}"))
        table.append([cell, *(max(found)[1] if found else "" for found in lowest.values())])
    return markdown(["hook point", *(f"L0 {asked:g}" for asked in ASKED)], table, len(ASKED) + 1)


def two_gaps_table(
    rows: Sequence[Row],
    cells: Sequence[str],
    saes: Mapping[str, str],
    reference: str,
    asked: float,
) -> str:
    """The gaps of :func:`gaps_table` of two SAEs to a third, at one L0, and what lies between them.

    Args:
        saes: name in the results of the two -> name in the table.
        reference: name in the results of the third.
    """
    table = []
    for cell in cells:
        first, second = (_gaps(rows, cell, sae, reference).get(asked) for sae in saes)
        if first is not None and second is not None:
            table.append([cell, *map(signed, (first, second, second - first))])
    return markdown(["hook point", *saes.values(), "difference"], table, 1)


def peers_table(
    rows: Sequence[Row], cells: Sequence[str], sae: str, saes: Mapping[str, str], asked: float
) -> str:
    """R² of one SAE minus that of others at their own L0, near one L0; with L0 and dead latents.

    The one is a line in log L0, so that an SAE with a single run can be compared with it.

    Args:
        sae, saes: as in :func:`gaps_table`; an SAE a row, a cell a column.
        asked: the L0. One that is more than a quarter off leaves its field empty.
    """
    table = []
    for other, label in saes.items():
        fields = []
        for cell in cells:
            line = [row.point for row in means(rows, cell, sae)]
            point = _by_asked(means(rows, cell, other)).get(asked)
            r2 = None if point is None else r2_at(line, point.l0)
            if point is None or r2 is None or _ratio(asked, point) > 1.25:
                fields.append("")
            else:
                fields.append(f"{signed(r2 - point.r2)} at {point.l0:.1f}; {point.dead_share:.1%}")
        if any(fields):
            table.append([label, *fields])
    return markdown(["baseline", *cells], table, 1)


def seeds_table(
    rows: Sequence[Row], cells: Sequence[str], sae: str, saes: Mapping[str, str]
) -> str:
    """The gaps of :func:`gaps_table` over seeds: their mean, the lowest and the highest.

    A seed counts where it has both SAEs. Lines have the same points in all of these seeds. A cell
    of one seed alone is left out.
    """
    table = []
    for cell in cells:
        for other, label in saes.items():
            of_seeds = [_gaps(seed, cell, sae, other) for seed in _by_seed(rows, cell, sae, other)]
            fields = []
            for asked in ASKED:
                gaps = [found[asked] for found in of_seeds if asked in found]
                ends = f"{signed(min(gaps))} to {signed(max(gaps))}" if len(gaps) > 1 else ""
                fields.append(f"{signed(fmean(gaps))} ({ends}), n = {len(gaps)}" if ends else "")
            if any(fields):
                table.append([cell, label, *fields])
    return markdown(["hook point", "baseline", *(f"L0 {asked:g}" for asked in ASKED)], table, 2)


def _by_seed(rows: Sequence[Row], cell: str, *saes: str) -> list[list[Row]]:
    """The runs of each seed that has all of the SAEs, at the values that all these seeds have."""
    mine = [row for row in rows if row.cell == cell and row.sae in saes]
    runs_of = {
        sae: {
            seed: {(row.swept, row.value) for row in mine if (row.sae, row.seed) == (sae, seed)}
            for seed in {row.seed for row in mine}
        }
        for sae in saes
    }
    seeds = [seed for seed in {row.seed for row in mine} if all(runs_of[s][seed] for s in saes)]
    common = {sae: set.intersection(*(runs_of[sae][s] for s in seeds)) for sae in saes if seeds}
    return [
        [row for row in mine if row.seed == seed and (row.swept, row.value) in common[row.sae]]
        for seed in seeds
    ]


def _gaps(rows: Sequence[Row], cell: str, sae: str, other: str) -> dict[float, float]:
    """R² of one SAE minus that of another, by the L0 that was asked for, where both are known."""
    mine = _by_asked(means(rows, cell, sae))
    line = [row.point for row in means(rows, cell, other)]
    return {
        asked: point.r2 - r2
        for asked, point in mine.items()
        if _is_near(mine, asked) and (r2 := r2_at(line, point.l0)) is not None
    }


def signed(gap: float) -> str:
    """A gap in R² or the like, with its sign."""
    return f"{gap:+.4f}".replace("-", "−")


def counted(n_runs: int) -> str:
    return f"{n_runs} run{'' if n_runs == 1 else 's'}"


def dead_table(rows: Sequence[Row], cells: Sequence[str], saes: Mapping[str, str]) -> str:
    """The largest share of dead latents over the runs of an SAE in a cell, and their number."""
    table = []
    for sae, label in saes.items():
        fields = []
        for cell in cells:
            dead = [row.dead_share for row in rows if (row.cell, row.sae) == (cell, sae)]
            fields.append(f"{max(dead):.2%} ({counted(len(dead))})" if dead else "")
        if any(fields):
            table.append([label, *fields])
    return markdown(["largest share of dead latents", *cells], table, 1)


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
