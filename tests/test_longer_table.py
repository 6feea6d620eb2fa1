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


def test_an_sae_without_a_target_is_read_at_the_l0_of_the_reference(
    benchmark_script: Callable[[str], Any],
) -> None:
    row = benchmark_script("result_rows").Row
    rows = {
        4000: [
            row("c", "p", 0, "l0_coefficient", 2, 25.6, 0.25, 0.0, 0.0),
            row("c", "p", 0, "l0_coefficient", 1, 40.0, 0.75, 0.0, 0.0),
            row("c", "b", 0, "k", 32, 32.0, 0.5625, 0.0, 0.0),  # half-way in log L0
        ],
        8000: [
            row("c", "p", 0, "l0_coefficient", 2, 64.0, 0.25, 0.0, 0.0),
            row("c", "p", 0, "l0_coefficient", 1, 60.0, 0.25, 0.0, 0.0),
            row("c", "b", 0, "k", 32, 32.0, 0.5, 0.0, 0.0),
        ],
    }
    longer_table = benchmark_script("longer_table").longer_table
    found = dict(reversed(rows.items()))  # an SAE that is not read after the last is left out
    of_p, of_b = fields_of(longer_table(found, ["c"], {"p": "P", "b": "B"}, "b"))[1:]
    assert of_p == ["c", "P", "", "", "0.5000 at 32.0", "−0.0625"]
    assert of_b == ["c", "B", "0.5000 at 32.0", "", "0.5625 at 32.0", ""]
    without = {n: [row for row in of_n if row.sae == "p"] for n, of_n in rows.items()}
    assert len(fields_of(longer_table(without, ["c"], {"p": "P"}, "b"))) == 1
