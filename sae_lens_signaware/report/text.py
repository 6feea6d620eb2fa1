"""Tokens and numbers as text, and the jinja2 environment in which all of it is escaped."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sae_lens_signaware.report.drawing import strength

_HERE = Path(__file__).parent
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# what neither HTML nor XML can hold
_NO_TEXT = re.compile("[^\t\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def visible(token: str) -> str:
    """A token as a reader sees it: ⏎ for a line break, ⇥ for a tab, ∅ for an empty one."""
    token = _LINE_BREAK.sub("⏎", token).replace("\t", "⇥")
    return _NO_TEXT.sub("\ufffd", token) or "∅"


def number(value: float | None, form: str = ".3g") -> str:
    """Format a number with a real minus sign; a dash for None."""
    return "–" if value is None else format(value, form).replace("-", "−")


def short(value: float | None, sign: str = "") -> str:
    """Format a number in three digits or more, without an exponent where it is large."""
    large = value is not None and abs(value) >= 999.5
    return number(value, sign + (",.0f" if large else ".3g"))


def asset(name: str) -> Markup:
    """A file of ``assets``, as it is."""
    return Markup((_HERE / "assets" / name).read_text(encoding="utf-8"))


@cache
def environment() -> Environment:
    """The templates, in which every value is escaped."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"visible": visible, "number": number, "short": short}
    made.globals |= {"asset": asset, "strength": strength}
    return made


def render(template: str, **values: object) -> Markup:
    """Fill a template."""
    return Markup(environment().get_template(template).render(values))
