"""How results/*.json are written (``benchmarks/result_rows.py``)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_a_run_is_a_line_and_nothing_is_lost(
    benchmark_script: Callable[[str], Any], tmp_path: Path
) -> None:
    value = {"command": 'x "é"', "empty": [], "runs": [[1, 0.5, None], ["a", True]], "of": {"n": 1}}
    path = tmp_path / "made.json"
    benchmark_script("result_rows").write_rows(value, path)
    assert json.loads(path.read_text()) == value
    assert path.read_text().splitlines() == [
        "{",
        ' "command": "x \\"\\u00e9\\"",',
        ' "empty": [],',
        ' "runs": [',
        "  [1, 0.5, null],",
        '  ["a", true]',
        " ],",
        ' "of": {"n": 1}',
        "}",
    ]


def test_what_is_no_json_is_refused(benchmark_script: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        benchmark_script("result_rows").write_rows({"rows": [[float("nan")]]}, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_an_sae_that_never_fires_is_no_point_of_a_table(
    benchmark_script: Callable[[str], Any],
) -> None:
    row, tables = benchmark_script("result_rows").Row, benchmark_script("recipe_tables")
    runs = [row("c", "a", 0, "k", l0, l0, 0.5, 0.0, 0.5) for l0 in (8.0, 32.0, 128.0)]
    other = [row("c", "b", 0, "l1", 9 - i, 16.0 * i, 0.4, 0.0, 0.5) for i in range(4)]
    table = tables.gaps_table(runs + other, ["c"], "a", {"b": "B"})
    assert table == tables.gaps_table(runs + other[1:], ["c"], "a", {"b": "B"})
    assert "+0.1000" in table
