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
