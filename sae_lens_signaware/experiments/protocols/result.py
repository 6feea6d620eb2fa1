"""The result of a protocol: one table and all that made it, as JSON and for a terminal."""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from sae_lens_signaware.checks import check_fields
from sae_lens_signaware.files import write_json

TableValue = str | float | int | None
"""A value of a table; None means "does not apply" or "not measured"."""

SD = " sd"
"""Ending of the name of a column that holds the deviation of the column before it."""

MIN_WIDTH = 5
"""Least width of a column in a narrow terminal, for its heading."""


@dataclasses.dataclass(frozen=True, repr=False)
class ProtocolResult:
    """The table of a protocol.

    Attributes:
        title, question: name of the protocol, and what it asks.
        columns: headings; "X sd" is the sample's standard deviation over seeds of "X" before it.
        rows: one value for each column.
        notes: how to read the table, one or two sentences each.
        command: the command that the user ran.
        versions: package -> version.
        config: the protocol's config, whole.
    """

    title: str
    question: str
    columns: list[str]
    rows: list[list[TableValue]]
    notes: list[str]
    command: str
    versions: dict[str, str]
    config: dict[str, object]

    def __repr__(self) -> str:
        """One line: which protocol, and the size of its table."""
        return f"ProtocolResult of {self.title}, {len(self.rows)} rows"

    def table(self, width: int = 120) -> Table:
        """Make a table for a terminal of ``width``: deviations behind their means, no number cut.

        Where the terminal is too narrow, values wrap between words, and headings within words.
        """
        shown = self.shown_columns
        headings = [self.columns[i] for i in shown]
        by_column = [[self._text_of(row, i) for row in self.rows] for i in shown]
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
            table.add_row(*map(Text, row))  # no markup: the config names the SAEs
        return table

    def _text_of(self, row: list[TableValue], i: int) -> str:
        deviation = self.deviation_of(row, i)
        return _text(row[i]) + ("" if deviation is None else f" ±{_text(deviation)}")

    @property
    def shown_columns(self) -> list[int]:
        """Indices of the columns of a table: a deviation stands behind its mean, not alone."""
        return [i for i, name in enumerate(self.columns) if not name.endswith(SD)]

    def deviation_of(self, row: Sequence[TableValue], i: int) -> TableValue:
        """The standard deviation of the mean in column ``i`` of a row; None where it has none."""
        has_sd = self.columns[i + 1 : i + 2] == [self.columns[i] + SD]
        return row[i + 1] if has_sd else None

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all; NaN and inf become null."""
        values = dataclasses.asdict(self)
        values["rows"] = [[_finite(value) for value in row] for row in self.rows]
        write_json(values, path)

    @classmethod
    def read(cls, path: Path) -> "ProtocolResult":
        """Read what :meth:`write` wrote.

        Raises:
            ValueError: ``path`` is no such file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            check_fields(cls, values)
            result = cls(**values)
            if any(len(row) != len(result.columns) for row in result.rows):
                raise TypeError("a row has not as many cells as there are columns")
            return result
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not the result of a protocol: {error}") from None


def mean_of(values: Sequence[float | None]) -> float | None:
    """Average over the seeds in which a value was measured; None where in none."""
    measured = [v for v in values if v is not None and math.isfinite(v)]
    return statistics.fmean(measured) if measured else None


def sd_of(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation of the sample over these seeds; None for fewer than two."""
    measured = [v for v in values if v is not None and math.isfinite(v)]
    return statistics.stdev(measured) if len(measured) > 1 else None


def _finite(value: TableValue) -> TableValue:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: TableValue) -> str:
    value = _finite(value)
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
