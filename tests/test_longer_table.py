"""The table of longer trainings, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.tables import fields_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")


def test_an_sae_that_was_trained_longer_is_a_row(benchmark_script: Callable[[str], Any]) -> None:
    row = benchmark_script("result_rows").Row
    rows = {
        4000: [
            row("c", "a", 0, "k", 32, 32.0, 0.75, 0.0, 0.0),
            row("c", "b", 0, "k", 32, 31.0, 0.5, 0.0, 0.0),
            row("c", "short", 0, "k", 32, 31.0, 0.5, 0.0, 0.0),
            row("d", "a", 0, "k", 32, 32.0, 0.75, 0.0, 0.0),
        ],
        8000: [
            row("c", "a", 0, "k", 32, 33.0, 0.75, 0.0, 0.0),
            row("c", "b", 0, "k", 32, 31.5, 0.875, 0.0, 0.0),
        ],
    }
    names = {"a": "A", "short": "S", "b": "B"}
    table = benchmark_script("longer_table").longer_table(rows, ["c", "d"], names, "b")
    assert fields_of(table) == [
        ["hook point", "SAE", "4,000 steps", "difference", "8,000 steps", "difference"],
        ["c", "A", "0.7500 at 32.0", "+0.2500", "0.7500 at 33.0", "−0.1250"],
        ["c", "B", "0.5000 at 31.0", "", "0.8750 at 31.5", ""],
    ]
