"""How docstrings of this package are read for the API page: an extension of griffe.

Three of our habits are not Markdown or Google style as griffe knows them: a formula stands on
indented lines right below its sentence; names that share a description share an entry ("a, b:
text"); and names are quoted with Sphinx's roles (":func:").
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
ROLE = re.compile(r":(?:func|class|meth|mod):`~?([^`]+)`")
SHARED = re.compile(r"^( +)(\w+(?:, \w+)+)(: .*)$")


def readable(text: str) -> str:
    """Formulas as code blocks, one entry for every name, no roles."""
    text = ROLE.sub(lambda match: f"`{match[1].split('.')[-1]}`", text)
    lines: list[str] = []
    in_section = False
    entry: list[str] = []  # lines of an entry that several names share
    names: list[str] = []
    for line in [*text.splitlines(), ""]:
        depth = len(line) - len(line.lstrip())
        if names and (not line.strip() or depth <= len(names[0]) - len(names[0].lstrip())):
            for name in names:
                lines += [name + entry[0], *entry[1:]]
            names = []
        if SECTION.match(line):
            in_section = True
        elif line.strip() and depth == 0:
            in_section = False
        shared = SHARED.match(line) if in_section else None
        if shared:
            indent, together, rest = shared.groups()
            names, entry = [indent + name for name in together.split(", ")], [rest]
        elif names:
            entry.append(line)
        else:
            starts = not in_section and depth >= 4 and lines and lines[-1].strip()
            if starts and lines[-1][0] != " ":
                lines.append("")
            ends = not in_section and depth == 0 and line and lines and lines[-1].startswith("    ")
            lines += ["", line] if ends else [line]
    return "\n".join(lines).rstrip()


class Docstrings(griffe.Extension):
    """Rewrites every docstring of the package before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with each object that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
