"""Ticks of the report's charts."""

import pytest

from sae_lens_signaware.report import figures


@pytest.mark.parametrize("most", [1, 2, 7, 8, 9, 10, 83, 99, 100, 576, 12_345])
def test_counts_have_round_ticks_on_both_sides(most: int) -> None:
    ticks = figures._count_ticks(most)
    above = [n for n in ticks if n > 0]
    assert 1 <= len(above) <= 7
    assert max(above) <= most
    assert ticks == [*(-n for n in reversed(above)), 0, *above]


@pytest.mark.parametrize("values", [[8, 16, 64], [20, 25], [24.0, 24.0], [17, 40], [0.2, 0.3], []])
def test_an_l0_axis_has_labels_in_a_narrow_range_too(values: list[float]) -> None:
    ticks = figures._log2_ticks(values)
    inside = [t for t in ticks if min(values, default=0) <= t <= max(values, default=0)]
    distinct = len(set(values))
    assert len(inside) >= (2 if distinct > 1 else 0)
    # powers of two are among them, whatever is between
    assert {1.0, 2.0, 16.0} <= set(ticks)


@pytest.mark.parametrize("values", [[24.0], [0.5, 0.5], [31.9, 32.2]])
def test_one_value_has_a_tick_at_each_power_of_two(values: list[float]) -> None:
    ticks = figures._log2_ticks(values)
    assert ticks == [2.0**i for i in range(-4, 17)]
