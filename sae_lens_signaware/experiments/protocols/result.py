"""What a protocol found: one table, with all that made it. Written as JSON and read back by the same class."""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sae_lens_signaware.files import write_json

Cell = str | float | int | None
"""None means "does not apply" or "not measured"."""

SD = " sd"
"""A column of this ending holds the deviation of the column before it."""

MIN_WIDTH = 5
"""Of a column in a narrow terminal, for its heading."""


@dataclasses.dataclass(frozen=True)
class ProtocolResult:
    """A protocol's table.

    Attributes:
        title, question: what it is called and what it asks.
        columns: headings; "X sd" is the sample's standard deviation over seeds of "X" before it.
        rows: one cell a column.
        notes: how to read the table, one sentence or two each.
        command: what the user ran.
        versions: package -> version.
        config: the protocol's config, whole.
    """

    title: str
    question: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str]
    command: str
    versions: dict[str, str]
    config: dict[str, Any]

    def table(self, width: int = 120) -> Table:
        """For a terminal of ``width``: deviations behind their means, and no number ever cut.

        Where it is too narrow, cells are wrapped between words and headings within them.
        """
        shown = [i for i, name in enumerate(self.columns) if not name.endswith(SD)]
        headings = [self.columns[i] for i in shown]
        by_column = [[self._cell(row, i) for row in self.rows] for i in shown]
        widths = [
            max(map(len, [heading, *cells]))
            for heading, cells in zip(headings, by_column, strict=True)
        ]
        fits = sum(widths) + 2 * len(widths) + 1 <= width
        if not fits:
            widths = [
                max([MIN_WIDTH, *(len(word) for cell in cells for word in cell.split())])
                for cells in by_column
            ]
        table = Table(
            title=f"{self.title}: {self.question}",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0) if fits else 0,
        )
        for i, heading in enumerate(headings):
            justify = "left" if i == 0 else "right"
            table.add_column(heading, justify=justify, width=widths[i], overflow="fold")
        for row in zip(*by_column, strict=True):
            table.add_row(*row)
        return table

    def _cell(self, row: list[Cell], i: int) -> str:
        text = _text(row[i])
        has_sd = i + 1 < len(row) and self.columns[i + 1] == self.columns[i] + SD
        return f"{text} ±{_text(row[i + 1])}" if has_sd and row[i + 1] is not None else text

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all; NaN and inf become null."""
        values = dataclasses.asdict(self)
        values["rows"] = [[_finite(cell) for cell in row] for row in self.rows]
        write_json(values, path)

    @classmethod
    def read(cls, path: Path) -> "ProtocolResult":
        """Raises ValueError where ``path`` is no such file."""
        try:
            result = cls(**json.loads(path.read_text(encoding="utf-8")))
            if any(len(row) != len(result.columns) for row in result.rows):
                raise TypeError("a row has not as many cells as there are columns")
            return result
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not the result of a protocol: {error}") from None


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    return {name: version(name) for name in ("sae-lens-signaware", "sae-lens", "torch")}


def mean_of(values: Sequence[float | None]) -> float | None:
    """Over the seeds in which it was measured; None where in none."""
    there = [v for v in values if v is not None and math.isfinite(v)]
    return statistics.fmean(there) if there else None


def sd_of(values: Sequence[float | None]) -> float | None:
    """The sample's standard deviation over the same; None for fewer than two."""
    there = [v for v in values if v is not None and math.isfinite(v)]
    return statistics.stdev(there) if len(there) > 1 else None


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _text(cell: Cell) -> str:
    cell = _finite(cell)
    if cell is None:
        return "-"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
