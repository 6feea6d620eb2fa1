"""Markdown tables and the small JSON of results/, read back."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent.parent / "results"


def fields_of(table: str) -> list[list[str]]:
    """The fields of each line of a Markdown table, its ruler left out."""
    lines = [line.split("|")[1:-1] for line in table.splitlines()]
    return [[field.strip() for field in line] for line in lines[:1] + lines[2:]]


def json_of(name: str) -> Any:
    """What results/NAME.json holds."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def result_page(name: str) -> str:
    """The text of docs/results/NAME.md."""
    return (RESULTS.parent / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")


def result_section(name: str, heading: str) -> str:
    """The text under a second-level ``heading`` of docs/results/NAME.md."""
    return result_page(name).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table_of(name: str) -> list[list[str]]:
    """The fields of the table results/NAME.md, with minus signs that ``float`` reads."""
    return fields_of((RESULTS / f"{name}.md").read_text().replace("−", "-"))


def gaps_of(name: str) -> dict[str, dict[str, list[float]]]:
    """Baseline -> hook point -> the gaps of results/NAME.md by L0, without empty fields."""
    found: dict[str, dict[str, list[float]]] = {}
    for place, baseline, *fields in table_of(name)[1:]:
        found.setdefault(baseline, {})[place] = [float(field) for field in fields if field]
    return found
