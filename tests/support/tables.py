"""Markdown tables, read back."""


def fields_of(table: str) -> list[list[str]]:
    """The fields of each line of a Markdown table, its ruler left out."""
    lines = [line.split("|")[1:-1] for line in table.splitlines()]
    return [[field.strip() for field in line] for line in lines[:1] + lines[2:]]
