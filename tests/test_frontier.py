"""Frontiers: the gap at equal L0, the verdict in a word, and the ratio of dead shares, by hand."""

import math

import numpy as np
import pytest

from sae_lens_signaware.sweep.frontier import (
    Point,
    compare_frontiers,
    dead_share_ratio,
    gaps_of,
    verdict_of,
)


def line(r2_at_8: float, r2_at_32: float, dead: float = 0.0, d_sae: int = 100) -> list[Point]:
    """A frontier of two points."""
    return [Point(8, r2_at_8, dead, d_sae), Point(32, r2_at_32, dead, d_sae)]


def test_r2_is_read_on_a_line_in_log_l0_at_64_points() -> None:
    a = line(0.5, 0.9)
    gaps, low, high = gaps_of(a, line(0.0, 0.0))
    assert (low, high) == (8, 32)
    assert len(gaps) == 64
    assert gaps[0] == pytest.approx(0.5)
    assert gaps[-1] == pytest.approx(0.9)
    # point i is at L0 8 * 4^(i / 63), where the line has 0.5 + 0.4 i / 63
    assert gaps[21] == pytest.approx(0.5 + 0.4 / 3)
    middle = 16  # half-way from 8 to 32 in log L0
    only = gaps_of(a, [Point(middle, 0.0, 0, 1), Point(32, 0.0, 0, 1)])
    assert only[0][0] == pytest.approx(0.7)


def test_the_overlap_is_where_both_ranges_are() -> None:
    a = [Point(4, 0.1, 0, 10), Point(20, 0.1, 0, 10)]
    b = [Point(8, 0.0, 0, 10), Point(64, 0.0, 0, 10)]
    _, low, high = gaps_of(a, b)
    assert (low, high) == (8, 20)
    comparison = compare_frontiers("c", "a", "b", {0: a}, {0: b})
    assert comparison.l0_range == (8, 20)


@pytest.mark.parametrize(
    ("ends", "is_compared"),
    [((8, 12.0), True), ((8, 11.9), False), ((8, 8), False), ((33, 40), False), ((2, 7), False)],
)
def test_a_narrow_overlap_has_no_verdict(ends: tuple[float, float], is_compared: bool) -> None:
    a = [Point(l0, 0.5, 0, 10) for l0 in ends]
    found = compare_frontiers("c", "a", "b", {0: a}, {0: line(0.1, 0.2)})
    assert (found.verdict == "better") == is_compared
    if not is_compared:
        assert (found.smallest_gap, found.mean_gap, found.l0_range) == (None, None, None)
        assert found.dead_share_ratio == pytest.approx(0.05 / 0.005)


@pytest.mark.parametrize(
    ("smallest", "largest", "word"),
    [
        (0.0021, 0.1, "better"),
        (0.002, 0.002, "same"),
        (0.802 - 0.8, 0.802 - 0.8, "same"),  # above 0.002 by rounding alone
        (-0.002, 0.002, "same"),
        (-0.0021, 0.0, "depends on L0"),
        (-0.1, 0.1, "depends on L0"),
        (-0.1, -0.0021, "worse"),
    ],
)
def test_words(smallest: float, largest: float, word: str) -> None:
    assert verdict_of(smallest, largest) == word


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        (line(0.6, 0.9), line(0.5, 0.8), "better"),
        (line(0.5, 0.8), line(0.6, 0.9), "worse"),
        (line(0.5, 0.801), line(0.5, 0.8), "same"),
        (line(0.4, 0.9), line(0.5, 0.8), "depends on L0"),
    ],
)
def test_verdicts_of_frontiers(a: list[Point], b: list[Point], word: str) -> None:
    found = compare_frontiers("cell", "a", "b", {3: a}, {3: b})
    assert (found.cell, found.a, found.b, found.seeds) == ("cell", "a", "b", [3])
    assert found.verdict == word
    assert found.smallest_gap_sd is None
    gaps = gaps_of(a, b)[0]
    assert found.smallest_gap == pytest.approx(gaps.min())
    assert found.largest_gap == pytest.approx(gaps.max())
    assert found.mean_gap == pytest.approx(gaps.mean())


def test_seeds_are_averaged_and_a_seed_of_one_alone_is_left_out() -> None:
    of_a = {0: line(0.51, 0.81), 1: line(0.53, 0.83), 7: line(0, 0)}
    of_b = {0: line(0.5, 0.8), 1: line(0.5, 0.8), 8: line(1, 1)}
    found = compare_frontiers("c", "a", "b", of_a, of_b)
    assert found.seeds == [0, 1]
    assert found.smallest_gap == pytest.approx(0.02)
    assert found.mean_gap == pytest.approx(0.02)
    assert found.smallest_gap_sd == pytest.approx(math.sqrt(2) * 0.01)
    assert found.verdict == "better"


def test_points_need_no_order_and_those_of_one_l0_count_by_their_mean() -> None:
    a = [Point(32, 0.9, 0, 10), Point(8, 0.4, 0, 10), Point(8, 0.6, 0, 10)]
    expected = gaps_of(line(0.5, 0.9), line(0, 0))[0]
    np.testing.assert_allclose(gaps_of(a, line(0, 0))[0], expected)


def test_an_sae_that_never_fires_is_no_point() -> None:
    silent = Point(0, 0.0, 1.0, 100)
    with_silent = gaps_of([silent, *line(0.5, 0.9)], line(0, 0))
    np.testing.assert_array_equal(with_silent[0], gaps_of(line(0.5, 0.9), line(0, 0))[0])
    assert gaps_of([silent], line(0, 0)) is None


def test_dead_share_ratio_is_geometric_with_half_a_latent_for_none() -> None:
    a = [Point(8, 0, 0.02, 100), Point(16, 0, 0.08, 100)]  # geometric mean 0.04
    b = [Point(8, 0, 0.1, 200), Point(16, 0, 0.4, 200)]  # 0.2
    assert dead_share_ratio(a, b) == pytest.approx(0.2)
    none = [Point(8, 0, 0.0, 50)]  # half of 1 / 50
    assert dead_share_ratio(none, [Point(8, 0, 0.04, 100)]) == pytest.approx(0.25)
    # over seeds, geometric too: 0.25 and 1 give 0.5
    other = {0: [Point(8, 0, 0.04, 100)], 1: [Point(8, 0, 0.01, 50)]}
    found = compare_frontiers("c", "a", "b", {0: none, 1: none}, other)
    assert found.dead_share_ratio == pytest.approx(0.5)
