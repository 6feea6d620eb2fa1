"""Verdicts on frontiers: by hand, and by what must hold for any two."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_lens_signaware.experiments import (
    Point,
    compare_frontiers,
    dead_share_ratio,
    summarise_seeds,
)
from sae_lens_signaware.experiments.sweep.frontier import interpolate
from sae_lens_signaware.experiments.sweep.summary import Comparison


def frontier(*l0_r2: tuple[float, float], dead: float = 0.0, d_sae: int = 100) -> list[Point]:
    return [Point(l0, r2, dead, d_sae) for l0, r2 in l0_r2]


def test_interpolation_is_linear_in_log_l0() -> None:
    points = frontier((64, 0.9), (16, 0.5), (4, 0.3))
    assert interpolate(points, 4) == 0.3
    assert interpolate(points, 8) == pytest.approx(0.4)
    assert interpolate(points, 32) == pytest.approx(0.7)
    assert interpolate(points, 64) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="l0 must be from 4 to 64, got 3"):
        interpolate(points, 3)


def test_a_crossing_is_no_domination() -> None:
    # A rises by 0.12 an octave; B by 0.1 up to its kink at 32, then by 0.01
    a = frontier((8, 0.4), (128, 0.88))
    b = frontier((4, 0.4), (32, 0.7), (64, 0.71))
    verdict = compare_frontiers(a, b)
    assert verdict.overlap == (8, 64)
    assert verdict.smallest_gap == pytest.approx(-0.1)
    assert verdict.smallest_gap_l0 == 8
    assert verdict.largest_gap == pytest.approx(0.05)
    assert verdict.dominates is False
    # mean over log L0: -0.1 to -0.06 over two octaves, -0.06 to 0.05 over one
    assert verdict.mean_gap == pytest.approx((2 * -0.08 + -0.005) / 3, abs=2e-3)
    level = frontier((8, 0.5), (128, 0.98))
    assert compare_frontiers(level, b).dominates is False  # equal at 8, ahead from there on
    above = compare_frontiers(frontier((8, 0.51), (128, 0.99)), b)
    assert above.dominates is True
    assert above.smallest_gap == pytest.approx(0.01)


def test_without_an_overlap_nothing_is_said_of_r2() -> None:
    verdict = compare_frontiers(frontier((4, 0.3), (8, 0.4)), frontier((16, 0.1), (32, 0.2)))
    assert verdict.overlap is None
    assert verdict.dominates is None
    assert verdict.smallest_gap is None


def test_the_overlap_of_all_seeds_is_none_where_no_l0_is_in_each() -> None:
    b = frontier((4, 0.3), (64, 0.6))

    def comparison(*ranges: tuple[float, float]) -> Comparison:
        verdicts = [compare_frontiers(frontier((low, 0.4), (high, 0.5)), b) for low, high in ranges]
        return Comparison("cell", "a", "b", dict(enumerate(verdicts)), summarise_seeds(verdicts))

    assert comparison((8, 32), (16, 48)).overlap == (16, 32)
    assert comparison((8, 16), (32, 48)).overlap is None
    assert comparison((80, 90)).overlap is None


def test_dead_share_ratio_counts_none_as_half_a_latent() -> None:
    a = [Point(8, 0.5, 0.0, 50), Point(16, 0.6, 0.04, 50)]
    b = [Point(8, 0.5, 0.1, 100), Point(16, 0.6, 0.4, 100)]
    # sqrt(0.01 * 0.04) = 0.02 over sqrt(0.1 * 0.4) = 0.2
    assert dead_share_ratio(a, b) == pytest.approx(0.1)


def test_seeds() -> None:
    b = frontier((8, 0.5), (64, 0.8))
    verdicts = [
        compare_frontiers(frontier((8, 0.5 + gap), (64, 0.8 + gap)), b)
        for gap in (0.01, 0.03, -0.01)
    ]
    verdicts.append(compare_frontiers(frontier((1, 0.1), dead=0.5), b))
    summary = summarise_seeds(verdicts)
    assert summary.n_seeds == 3
    assert summary.n_dominating == 2
    assert summary.smallest_gap_mean == pytest.approx(0.01)
    assert summary.smallest_gap_std == pytest.approx(0.02)
    # the fourth has 50 dead of 100 against half a one: 100 times as many
    assert summary.dead_share_ratio == pytest.approx(100 ** (1 / 4))
    alone = summarise_seeds(verdicts[:1])
    assert alone.smallest_gap_std == 0.0


@given(
    data=st.lists(
        st.tuples(st.floats(1, 500), st.floats(-1, 1), st.floats(0, 1)), min_size=2, max_size=8
    ),
    split=st.integers(1, 7),
)
def test_the_other_way_round_is_the_opposite(
    data: list[tuple[float, float, float]], split: int
) -> None:
    points = [Point(l0, r2, dead, 100) for l0, r2, dead in data]
    a, b = points[:split], points[split:]
    if not b:
        return
    ab, ba = compare_frontiers(a, b), compare_frontiers(b, a)
    assert ab.overlap == ba.overlap
    assert math.log(ab.dead_share_ratio) == pytest.approx(-math.log(ba.dead_share_ratio), abs=1e-9)
    if ab.overlap is not None:
        assert ab.smallest_gap == pytest.approx(-ba.largest_gap, abs=1e-9)  # type: ignore[operator]
        assert ab.mean_gap == pytest.approx(-ba.mean_gap, abs=1e-9)  # type: ignore[operator]
        assert not (ab.dominates and ba.dominates)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="a must be a frontier with at least one point"):
        compare_frontiers([], frontier((8, 0.5)))
    with pytest.raises(ValueError, match="l0 of b must be above 0, got 0"):
        compare_frontiers(frontier((8, 0.5)), frontier((0, 0.5)))
