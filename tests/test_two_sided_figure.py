"""``benchmarks/two_sided_figure.py``: what it reads from a result, and what it shows."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the [demo] extra")


@pytest.fixture
def drawn(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("two_sided_figure")


def result(drawn: Any) -> dict[str, Any]:
    """Two SAEs at two shares and two L0s; R² is share + factor / 10, F1 half of that."""
    rows = []
    for sae in ("sa_gsae W", "batchtopk W"):
        for share in (1.0, 0.0):
            for factor in (2.0, 1.0):
                r2, joined = share + factor / 10, None if share == 0 else 0.25
                rows.append([sae, share, factor, r2, r2 / 2, 0.5, joined, 0.125, 0.5, 8.0])
    return {"columns": [*drawn.COLUMNS, "L0"], "rows": rows}


def test_the_lines_are_those_of_the_result(drawn: Any) -> None:
    figure = drawn.two_sided_figure(drawn.worlds_of(result(drawn)), 8)
    upper, lower = figure.axes[1].lines[0], figure.axes[3].lines[0]  # the second L0
    assert figure.axes[0].get_title(loc="left") == "L0 8, the true L0"
    assert figure.axes[1].get_title(loc="left") == "L0 16"
    assert list(upper.get_xdata()) == [0.0, 1.0]
    assert list(upper.get_ydata()) == pytest.approx([0.2, 1.2])
    assert list(lower.get_ydata()) == pytest.approx([0.1, 0.6])


def test_the_table_has_a_row_for_each_sae(drawn: Any) -> None:
    lines = drawn.two_sided_table(drawn.worlds_of(result(drawn))).splitlines()
    assert len(lines) == 2 + 2
    assert lines[0].startswith("| SAE | L0 | p = 0 | p = 1 | joined, p = 1 |")
    assert (
        lines[2]
        == "| `sa_gsae W` | 8.0 | 0.100 / 0.05 | 1.100 / 0.55 | 25% | 0.12 | 0.12 | 50% / 50% |"
    )
