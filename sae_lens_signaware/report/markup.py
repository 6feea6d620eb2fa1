"""Small pieces of HTML. Text goes in as it is and is escaped here."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence

from sae_lens_signaware.experiments.protocols.result import TableValue

MINUS = "−"
Section = tuple[str, str, str]
"""Name, title and HTML of a section of the page."""


def text(value: object) -> str:
    """Escape any text for HTML, fit for an attribute in quotes as well."""
    return html.escape(str(value))


def number(value: float | None, form: str = ".4g") -> str:
    """Format a number with a real minus sign; a dash for none."""
    return "–" if value is None else format(value, form).replace("-", MINUS)


def in_words(value: TableValue) -> str:
    """Format a value of a table as text."""
    if value is None or isinstance(value, bool):
        return "–" if value is None else ("yes" if value else "no")
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    return number(value) if isinstance(value, float) else value


def table(columns: Sequence[str], rows: Sequence[Sequence[TableValue]], n_names: int = 1) -> str:
    """Make a table, with numbers at the right.

    Args:
        n_names: number of first columns that are names. They stand at the left, and so does a
            column with a text that is no number.
    """
    numeric = [i >= n_names and _all_numbers(rows, i) for i in range(len(columns))]
    head = "".join(
        f'<th scope="col"{" class=n" if numeric[i] else ""}>{text(column)}</th>'
        for i, column in enumerate(columns)
    )
    body = "".join(f"<tr>{_values(row, numeric)}</tr>" for row in rows)
    # A table that is wider than the screen scrolls, and a region that scrolls must take the focus.
    return (
        '<div class="table" tabindex="0" role="region" aria-label="Table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _values(row: Sequence[TableValue], numeric: Sequence[bool]) -> str:
    return "".join(
        f"<td{' class=n' if is_number else ''}>{text(in_words(value))}</td>"
        for value, is_number in zip(row, numeric, strict=True)
    )


def _all_numbers(rows: Sequence[Sequence[TableValue]], column: int) -> bool:
    # A text is a number where this module or a caller has formatted one
    values = [row[column] for row in rows if column < len(row)]
    return all(
        value is None
        or isinstance(value, int | float)
        or value[:1].isdigit()
        or value[:1] in (MINUS, "-", "+", "–")
        or value.startswith("none")
        for value in values
    )


def data(name: str, value: object) -> str:
    """Make a block of JSON that a script of the page reads; nothing in it can end the block."""
    dumped = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{text(name)}">{dumped}</script>'


def chart(name: str, title: str, figure: Mapping[str, object], height: int = 400) -> str:
    """Make the place of a chart, and its title; the page's script draws it."""
    return (
        f'<figure class="chart"><figcaption>{text(title)}</figcaption>'
        f'<div class="chart-area" data-figure="{text(name)}" style="height:{height}px"></div>'
        f"{data(name, figure)}</figure>"
    )


def charts(figures: Iterable[tuple[str, str, Mapping[str, object]]], height: int = 400) -> str:
    """Put charts side by side, each given as a name, a title and a figure."""
    drawn = [chart(name, title, figure, height) for name, title, figure in figures]
    # rows that are full, where that can be
    columns = 2 if len(drawn) in (2, 4) else min(len(drawn), 3)
    return f'<div class="charts" style="--columns:{columns}">{"".join(drawn)}</div>'


def command(words: str) -> str:
    """Show the command that made a result; nothing for an empty one."""
    return f'<p class="command"><code>{text(words)}</code></p>' if words else ""


def section(name: str, title: str, *parts: str) -> str:
    """Make a section that the table of contents links to."""
    return (
        f'<section id="{text(name)}" aria-labelledby="{text(name)}-title">'
        f'<h2 id="{text(name)}-title">{text(title)}</h2>{"".join(parts)}</section>'
    )


def note(words: str) -> str:
    """Put a plain sentence under a heading."""
    return f'<p class="note">{text(words)}</p>'
