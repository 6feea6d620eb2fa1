"""Runs of sweeps in results/*.json, as the figures and tables of the documentation read them."""

import json
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweep_source import without_ending

from sae_lens_signaware.experiments.sweep.frontier import Point, interpolate, is_read
from sae_lens_signaware.files import write_text


class Row(NamedTuple):
    """One run of a sweep."""

    cell: str
    sae: str
    seed: int
    swept: str
    value: float
    l0: float
    r2: float
    dead_share: float
    bipolar_share: float

    @property
    def point(self) -> Point:
        """The point of a frontier, without the width, which no R² depends on."""
        return Point(self.l0, self.r2, self.dead_share, d_sae=1)


def rows_of(sweep: dict[str, Any], model: str = "") -> list[Row]:
    """The runs of a sweep in results/; those of more seeds count for the SAE that they are of.

    Args:
        model: put before the name of each cell, where figures have several models.
    """
    at = [sweep["columns"].index(name) for name in Row._fields]
    rows = [Row(*(run[i] for i in at)) for run in sweep["runs"]]
    return [
        row._replace(
            sae=without_ending(row.sae), cell=f"{model}, {row.cell}" if model else row.cell
        )
        for row in rows
    ]


def r2_at(line: Sequence[Point], l0: float) -> float | None:
    """R² at an L0 on the line through the points, where it is read, at most a tenth outside."""
    line = sorted(line, key=lambda point: point.l0)
    if len(line) < 2 or not is_read(line, l0):
        return None
    try:
        return interpolate(line, l0, beyond=1.1)
    except ValueError:
        return None


def read_json(path: Path) -> dict[str, Any]:
    """A file of results/; empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_rows(value: object, path: Path) -> None:
    """Write JSON with every innermost list or object on one line, so that a run is a line.

    Raises:
        ValueError: a NaN or an inf, which is not JSON.
    """
    write_text(_json(value) + "\n", path)


def require_same_sweeps(named: Collection[str], path: Path) -> None:
    """End the script where the results that are there have a sweep that would be lost.

    Raises:
        SystemExit: so it is. The file is as it was.
    """
    lost = [name for name in read_json(path).get("sweeps", {}) if name not in named]
    if lost:
        sys.exit(f"--json: {path} has {', '.join(lost)} too; name their configs or another file")


def require_same_runs(sweeps: Mapping[str, Sequence[Sequence[object]]], path: Path) -> None:
    """End the script where a sweep has no run, or where a run of the results would be lost.

    Args:
        sweeps: name -> rows, each of them with what tells a run in its first five columns.

    Raises:
        SystemExit: so it is. The file is as it was.
    """
    empty = [name for name, rows in sweeps.items() if not rows]
    if empty:
        sys.exit(f"--root: no SAE of {', '.join(empty)} is on disk there")
    require_same_sweeps(sweeps, path)
    for name, held in read_json(path).get("sweeps", {}).items():
        found = {tuple(row[:5]) for row in sweeps[name]}
        lost = {tuple(row[:5]) for row in held["runs"]} - found
        if lost:
            sys.exit(
                f"--json: {path} has {len(lost)} runs of {name} whose SAEs are not on disk; "
                "remove it or name another file"
            )


def _json(value: object, depth: int = 1) -> str:
    if not isinstance(value, dict | list | tuple):
        return json.dumps(value, allow_nan=False)
    held = value.values() if isinstance(value, dict) else value
    if not any(isinstance(v, dict | list | tuple) for v in held):
        return json.dumps(value, allow_nan=False)
    parts = [_json(v, depth + 1) for v in held]
    if isinstance(value, dict):
        parts = [f"{json.dumps(k)}: {part}" for k, part in zip(value, parts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(" " * depth + part for part in parts)
    return f"{opening}\n{lines}\n{' ' * (depth - 1)}{closing}"


def means(rows: Sequence[Row], cell: str, sae: str) -> list[Row]:
    """Means over seeds, one row for each swept value, in the order of L0; ``seed`` is how many.

    An SAE of which no latent fires has no place in log L0, and is left out, as in the sweeps.
    """
    mine = [row for row in rows if (row.cell, row.sae) == (cell, sae) and row.l0 > 0]
    first = Row._fields.index("l0")
    found = []
    for swept, value in {(row.swept, row.value) for row in mine}:
        of_value = [row for row in mine if (row.swept, row.value) == (swept, value)]
        measured = (
            statistics.fmean(row[i] for row in of_value) for i in range(first, len(Row._fields))
        )
        found.append(Row(cell, sae, len(of_value), swept, value, *measured))
    return sorted(found, key=lambda row: row.l0)
