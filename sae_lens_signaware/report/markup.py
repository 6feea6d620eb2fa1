"""Small pieces of HTML. Text goes in as it is and is escaped here."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

MINUS = "−"
Section = tuple[str, str, str]
"""Name, title and HTML of a section of the page."""

Cell = str | int | float | None


def text(value: object) -> str:
    """Any text as HTML, fit for an attribute in quotes as well."""
    return html.escape(str(value))


def number(value: float | None, form: str = ".4g") -> str:
    """A number with a real minus sign; a dash for none."""
    return "–" if value is None else format(value, form).replace("-", MINUS)


def cell(value: Cell) -> str:
    """A value of a table, in words."""
    if value is None or isinstance(value, bool):
        return "–" if value is None else ("yes" if value else "no")
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    return number(value) if isinstance(value, float) else value


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], n_names: int = 1) -> str:
    """A table; numbers stand at the right.

    Args:
        n_names: of the first columns that are names, and stand at the left; elsewhere a text that
            is no number does.
    """
    numeric = [i >= n_names and _all_numbers(rows, i) for i in range(len(columns))]
    head = "".join(
        f'<th scope="col"{" class=n" if numeric[i] else ""}>{text(column)}</th>'
        for i, column in enumerate(columns)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if i < len(numeric) and numeric[i] else ''}>{text(cell(value))}</td>"
            for i, value in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    # wider than a narrow screen, it scrolls; a region that scrolls must take the focus
    return (
        '<div class="table" tabindex="0" role="region" aria-label="Table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _all_numbers(rows: Sequence[Sequence[Cell]], column: int) -> bool:
    # a text is a number where this module or a caller has formatted one
    values = [row[column] for row in rows if column < len(row)]
    return all(
        value is None
        or isinstance(value, int | float)
        or value[:1].isdigit()
        or value[:1] in (MINUS, "-", "+", "–")
        or value.startswith("none")
        for value in values
    )


def data(name: str, value: Any) -> str:
    """A block of JSON that a script reads; nothing in it can end the block."""
    dumped = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{text(name)}">{dumped}</script>'


def chart(name: str, title: str, figure: dict[str, Any], height: int = 400) -> str:
    """A chart and its title; the page's script draws it."""
    return (
        f'<figure class="chart"><figcaption>{text(title)}</figcaption>'
        f'<div class="chart-area" data-figure="{text(name)}" style="height:{height}px"></div>'
        f"{data(name, figure)}</figure>"
    )


def charts(figures: Iterable[tuple[str, str, dict[str, Any]]], height: int = 400) -> str:
    """Charts side by side, each a name, a title and a figure."""
    drawn = "".join(chart(name, title, figure, height) for name, title, figure in figures)
    return f'<div class="charts">{drawn}</div>'


def command(words: str) -> str:
    """The command that made a result; nothing for an empty one."""
    return f'<p class="command"><code>{text(words)}</code></p>' if words else ""


def section(name: str, title: str, *parts: str) -> str:
    """A section that the table of contents links to."""
    return (
        f'<section id="{text(name)}" aria-labelledby="{text(name)}-title">'
        f'<h2 id="{text(name)}-title">{text(title)}</h2>{"".join(parts)}</section>'
    )


def note(words: str) -> str:
    """A plain sentence under a heading."""
    return f'<p class="note">{text(words)}</p>'
