"""The tables of wider SAEs, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.tables import fields_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")


def test_a_width_that_both_have_is_a_row(benchmark_script: Callable[[str], Any]) -> None:
    row = benchmark_script("result_rows").Row
    rows = [
        row("M, mlp_out", "a-16", 0, "k", 32, 31.0, 0.9, 0.25, 0.0),
        row("M, mlp_out", "b-16", 0, "k", 32, 33.0, 0.85, 0.0, 0.0),
        row("M, mlp_out", "a-2", 0, "k", 32, 32.0, 0.5, 0.0, 0.0),
        row("M, mlp_out", "b-2", 0, "k", 32, 32.0, 0.6, 0.0, 0.0),
        row("M, mlp_out", "a-4", 0, "k", 32, 32.0, 0.7, 0.0, 0.0),  # b has no run
        row("N, mlp_out", "a-2", 0, "k", 32, 32.0, 0.7, 0.0, 0.0),
        # 33 is half-way in log L0; at the other width it has but one run
        row("M, mlp_out", "c-16", 0, "l0_coefficient", 1.0, 44.0, 0.9, 0.0, 0.0),
        row("M, mlp_out", "c-16", 0, "l0_coefficient", 2.0, 24.75, 0.7, 0.0, 0.0),
        row("M, mlp_out", "c-2", 0, "l0_coefficient", 2.0, 32.0, 0.7, 0.0, 0.0),
    ]
    table = benchmark_script("widths_table").widths_table(
        rows, {"M, mlp_out": 576, "N, mlp_out": 640}, ("a", "b"), ("A", "B"), ("c", "C")
    )
    assert fields_of(table) == [
        ["hook point", "width", "A", "B", "difference", "C"],
        ["M, mlp_out", "1,152", "0.5000 at 32.0; 0.0%", "0.6000 at 32.0; 0.0%", "−0.1000", ""],
        [
            "M, mlp_out",
            "9,216",
            "0.9000 at 31.0; 25.0%",
            "0.8500 at 33.0; 0.0%",
            "+0.0500",
            "0.8000",
        ],
    ]


def test_the_best_warm_up_is_set_beside_the_plain_saes(
    benchmark_script: Callable[[str], Any],
) -> None:
    row = benchmark_script("result_rows").Row
    rows = [
        row("M, mlp_out", "a-4", 0, "k", 32, 32.0, 0.7, 0.0, 0.0),
        row("M, mlp_out", "a-slow-4", 0, "k", 32, 33.0, 0.75, 0.0, 0.0),
        row("M, mlp_out", "b-4", 0, "k", 32, 32.0, 0.6, 0.0, 0.0),
        row("M, mlp_out", "a-16", 0, "k", 32, 33.0, 0.9, 0.0, 0.0),
        row("M, mlp_out", "a-slower-16", 0, "k", 32, 32.0, 0.8, 0.0, 0.0),
        row("M, mlp_out", "c-16", 0, "l0_coefficient", 1.0, 44.0, 0.9, 0.0, 0.0),
        row("M, mlp_out", "c-16", 0, "l0_coefficient", 2.0, 24.75, 0.7, 0.0, 0.0),
        row("M, mlp_out", "a-2", 0, "k", 32, 32.0, 0.5, 0.0, 0.0),  # of one warm-up alone
        row("M, mlp_out", "b-2", 0, "k", 32, 32.0, 0.4, 0.0, 0.0),
    ]
    table = benchmark_script("widths_table").warm_ups_table(
        rows,
        {"M, mlp_out": 576},
        {"a": "1 step", "a-slow": "2 steps", "a-slower": "3 steps"},
        ("b", "B"),
        ("c", "C"),
    )
    assert fields_of(table) == [
        ["hook point", "width", "1 step", "2 steps", "3 steps", "best − B", "best − C"],
        ["M, mlp_out", "2,304", "0.7000", "0.7500", "", "+0.1500", ""],
        # C at 33, half-way in log L0, has 0.8
        ["M, mlp_out", "9,216", "0.9000", "", "0.8000", "", "+0.1000"],
    ]
