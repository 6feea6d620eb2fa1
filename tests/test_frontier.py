"""Verdicts on frontiers: by hand, and by what must hold for any two."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_lens_signaware.experiments import (
    Point,
    compare_frontiers,
    dead_share_ratio,
    summarise_seeds,
)
from sae_lens_signaware.experiments.sweep.comparison import Comparison
from sae_lens_signaware.experiments.sweep.frontier import (
    MARGIN,
    MAX_SPACING,
    MIN_OVERLAP,
    Outcome,
    Verdict,
    interpolate,
    is_read,
)


def frontier(*l0_r2: tuple[float, float], dead: float = 0.0, d_sae: int = 100) -> list[Point]:
    return [Point(l0, r2, dead, d_sae) for l0, r2 in l0_r2]


def dense(*l0_r2: tuple[float, float]) -> list[Point]:
    """The same line with points close enough that all of it is read."""
    corners = frontier(*l0_r2)
    low, high = l0_r2[0][0], l0_r2[-1][0]
    between = (low * 2**n for n in range(1, math.ceil(math.log2(high / low))))
    return corners + [Point(l0, interpolate(corners, l0), 0.0, 100) for l0 in between]


def comparison_of(*verdicts: Verdict) -> Comparison:
    return Comparison("cell", "a", "b", dict(enumerate(verdicts)), summarise_seeds(list(verdicts)))


def test_interpolation_is_linear_in_log_l0() -> None:
    points = frontier((64, 0.9), (16, 0.5), (4, 0.3))
    assert interpolate(points, 4) == 0.3
    assert interpolate(points, 8) == pytest.approx(0.4)
    assert interpolate(points, 32) == pytest.approx(0.7)
    assert interpolate(points, 64) == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"l0 must be from 4\.0 to 64\.0, got 3"):
        interpolate(points, 3)
    # the outer segments go on
    assert interpolate(points, 2, beyond=2) == pytest.approx(0.2)
    assert interpolate(points, 128, beyond=2) == pytest.approx(1.1)
    assert interpolate(points, 32, beyond=2) == interpolate(points, 32)
    assert interpolate(points[:1], 60, beyond=2) == 0.9
    with pytest.raises(ValueError, match=r"l0 must be from 2\.0 to 128, got 129"):
        interpolate(points, 129, beyond=2)


@pytest.mark.parametrize("ulps", range(4))
def test_frontiers_that_meet_within_rounding_have_no_verdict(ulps: int) -> None:
    for x in (58.15587569660847, 32.0, 31.999999999999996, 7.3):
        y = x
        for _ in range(ulps):
            y = math.nextafter(y, math.inf)
        verdict = compare_frontiers(
            frontier((x / 2, 0.5), (y, 0.6)), frontier((x, 0.5), (5 * x, 0.9))
        )
        assert verdict.outcome is None


def test_a_crossing_is_no_domination() -> None:
    # A rises by 0.12 an octave; B by 0.1 up to its kink at 32, then by 0.01
    a = dense((8, 0.4), (128, 0.88))
    b = dense((4, 0.4), (32, 0.7), (64, 0.71))
    verdict = compare_frontiers(a, b)
    assert verdict.overlap == (8, 64)
    assert verdict.smallest_gap == pytest.approx(-0.1)
    assert verdict.smallest_gap_l0 == 8
    assert verdict.largest_gap == pytest.approx(0.05)
    assert (verdict.outcome, verdict.dominates) == ("mixed", False)
    # mean over log L0: -0.1 to -0.06 over two octaves, -0.06 to 0.05 over one
    assert verdict.mean_gap == pytest.approx((2 * -0.08 + -0.005) / 3, abs=2e-3)
    touching = compare_frontiers(dense((8, 0.5), (128, 0.98)), b)
    # equal at 8, ahead from there on
    assert (touching.outcome, touching.dominates) == ("mixed", False)
    above = compare_frontiers(dense((8, 0.51), (128, 0.99)), b)
    assert (above.outcome, above.dominates) == ("ahead", True)
    assert above.smallest_gap == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("gap_at_8", "gap_at_64", "outcome"),
    [
        (0.0021, 0.0021, "ahead"),
        (0.0021, 0.05, "ahead"),
        (0.0000188, 0.0000188, "level"),  # 0.0000188 counted as dominating once
        (0.0019, -0.0019, "level"),
        (0.002, 0.002, "level"),  # as floats, 0.502 - 0.5 is more and 0.802 - 0.8 as well
        (-0.002, -0.002, "level"),
        (0.002, 0.0021, "mixed"),
        (-0.0021, -0.3, "behind"),
        (0.0019, 0.0021, "mixed"),  # ahead at one end only
        (-0.0019, -0.0021, "mixed"),
        (0.01, -0.01, "mixed"),
    ],
)
def test_a_verdict_has_a_margin(gap_at_8: float, gap_at_64: float, outcome: Outcome) -> None:
    assert MARGIN == 0.002
    a = frontier((8, 0.5 + gap_at_8), (64, 0.8 + gap_at_64))
    verdict = compare_frontiers(a, frontier((8, 0.5), (64, 0.8)))
    assert verdict.outcome == outcome
    assert verdict.dominates is (outcome == "ahead")
    assert verdict.why_none is None


def test_without_an_overlap_nothing_is_said_of_r2() -> None:
    verdict = compare_frontiers(frontier((4, 0.3), (8, 0.4)), frontier((16, 0.1), (32, 0.2)))
    assert verdict.overlap is None
    assert verdict.outcome is None
    assert verdict.dominates is None
    assert verdict.smallest_gap is None
    assert verdict.why_none == "the L0 ranges do not overlap"


def test_a_narrow_overlap_has_no_verdict_and_says_why() -> None:
    a = frontier((8, 0.5), (30.2, 0.9))
    verdict = compare_frontiers(a, frontier((30.1, 0.5), (64, 0.8)))
    assert verdict.overlap == (30.1, 30.2)
    assert verdict.smallest_gap is not None
    assert verdict.smallest_gap > 0.3
    assert (verdict.outcome, verdict.dominates) == (None, None)
    reason = "the overlap, L0 30.1 to 30.2, is narrower than a factor of 1.5"
    assert verdict.why_none == reason
    comparison = comparison_of(verdict)
    assert comparison.summary.n_seeds == comparison.summary.n_dominating == 0
    assert comparison.summary.smallest_gap_mean is None
    assert comparison.row()[3:6] == ("30.1 to 30.2", "–", "no verdict 1 of 1")
    assert list(comparison.notes()) == [f"cell, a against b, seed 0: no verdict: {reason}"]


@pytest.mark.parametrize(("high", "outcome"), [(14.9, None), (15.0, "ahead"), (40.0, "ahead")])
def test_the_least_overlap_is_a_factor(high: float, outcome: Outcome | None) -> None:
    assert MIN_OVERLAP == 1.5
    b = dense((10, 0.4), (high, 0.5))
    assert compare_frontiers(dense((5, 0.5), (60, 0.9)), b).outcome == outcome


@pytest.mark.parametrize("low", [1.1, 2.3, 7.7, 20.4])
def test_a_factor_of_just_the_least_overlap_is_enough(low: float) -> None:
    b = frontier((low, 0.4), (round(1.5 * low, 2), 0.5))
    assert compare_frontiers(dense((1, 0.5), (60, 0.9)), b).outcome == "ahead"


def test_the_order_of_the_points_does_not_matter() -> None:
    a, b = frontier((8, 0.5), (8, 0.9), (64, 0.95)), frontier((8, 0.6), (64, 0.7))
    verdict = compare_frontiers(a, b)
    assert compare_frontiers(a[::-1], b[::-1]) == verdict
    assert verdict.smallest_gap == pytest.approx(0.1)  # at 8, by the mean of the two


def test_two_points_of_equal_l0_are_no_verdict() -> None:
    verdict = compare_frontiers(frontier((30, 0.9)), frontier((30, 0.5)))
    assert verdict.overlap == (30, 30)
    assert verdict.smallest_gap == pytest.approx(0.4)
    assert verdict.outcome is None
    assert verdict.why_none == "the overlap, L0 30.0 to 30.0, is narrower than a factor of 1.5"
    assert compare_frontiers(frontier((16, 0.9)), frontier((58, 0.5))).overlap is None


def test_the_overlap_of_all_seeds_is_none_where_no_l0_is_in_each() -> None:
    b = dense((4, 0.3), (64, 0.6))

    def overlap(*ranges: tuple[float, float]) -> tuple[float, float] | None:
        a = [dense((low, 0.4), (high, 0.5)) for low, high in ranges]
        return comparison_of(*(compare_frontiers(points, b) for points in a)).overlap

    assert overlap((8, 32), (16, 48)) == (16, 32)
    assert overlap((8, 16), (32, 48)) is None
    assert overlap((80, 90)) is None
    # a seed without a verdict takes nothing away from those with one
    assert overlap((8, 32), (30, 31)) == (8, 32)
    assert overlap((8, 9), (8, 10)) == (8, 9)


def test_where_the_seeds_share_no_l0_the_ranges_of_their_verdicts_are_shown() -> None:
    b = dense((4, 0.3), (64, 0.6))
    verdicts = [
        compare_frontiers(dense((low, 0.7), (high, 0.8)), b)
        for low, high in ((8, 16), (32, 48), (50, 51))
    ]
    comparison = comparison_of(*verdicts)
    assert comparison.overlaps == [(8, 16), (32, 48)]
    assert comparison.row()[3].startswith("8.0 to 16.0; 32.0 to 48.0")
    assert comparison_of(verdicts[2]).overlaps == [(50, 51)]


def test_a_row_counts_the_verdicts_of_the_seeds() -> None:
    b = frontier((8, 0.5), (64, 0.8))
    gaps = [(0.01, 0.01), (0.001, 0.001), (0.03, 0.03), (-0.01, 0.01)]
    verdicts = [
        compare_frontiers(frontier((8, 0.5 + low), (64, 0.8 + high)), b) for low, high in gaps
    ]
    verdicts.append(compare_frontiers(frontier((80, 0.9), (90, 0.9)), b))
    words = "ahead 2 of 5, level 1 of 5, mixed 1 of 5, no verdict 1 of 5"
    assert comparison_of(*verdicts).row()[5] == words
    row = comparison_of(verdicts[0]).row()
    assert row[3:6] == ("8.0 to 64.0, 12% read", "+0.0100", "ahead 1 of 1")
    assert comparison_of(verdicts[0], verdicts[-1]).row()[3:4] == ("8.0 to 64.0, 12% read",)
    whole = compare_frontiers(dense((8, 0.5), (64, 0.8)), dense((8, 0.5), (64, 0.8)))
    assert comparison_of(whole, verdicts[0]).row()[3] == "8.0 to 64.0, 12% read"  # the least


@pytest.mark.parametrize(
    ("points", "l0", "is_near"),
    [
        ((8, 32), 8, True),
        ((8, 32), 9.5, True),  # ln(9.5 / 8) ln(32 / 9.5) = 0.2087; (ln 2.5 / 2)^2 = 0.2099
        ((8, 32), 9.6, False),  # 0.2195
        ((8, 32), 16, False),
        ((8, 32), 27, True),
        ((8, 32), 7.2, True),  # just outside the line is as far off
        ((8, 32), 6.5, False),
        ((10, 25), math.sqrt(250), True),  # half-way at the largest spacing
        ((10, 25.1), math.sqrt(251), False),
        ((10, 25, 100), 40, False),
        ((10,), 10, True),
        ((10,), 16, False),
    ],
)
def test_a_frontier_is_read_near_its_points(
    points: tuple[float, ...], l0: float, is_near: bool
) -> None:
    assert MAX_SPACING == 2.5
    assert is_read(frontier(*((p, 0.5) for p in points)), l0) is is_near


def test_a_gap_far_from_points_does_not_count() -> None:
    # on one concave frontier: B has a point at 16 that A lacks, and A's line is 0.04 below it
    a, b = frontier((8, 0.50), (32, 0.62)), frontier((8, 0.50), (16, 0.60), (32, 0.62))
    verdict = compare_frontiers(a, b)
    assert verdict.n_read == 16  # of 64: up to 9.5 and from 26.9
    assert verdict.overlap == (8, 32)
    # 0.04 ln(x / 8) / ln 2 at the last point read, 8 * 4 ** (7 / 63)
    assert verdict.smallest_gap == pytest.approx(-0.04 * 2 * 7 / 63)
    assert verdict.outcome == "mixed"
    (row,) = [comparison_of(verdict).row()]
    assert row[3] == "8.0 to 32.0, 25% read"


def test_frontiers_without_a_common_near_point_have_no_verdict() -> None:
    a, b = frontier((8, 0.5), (64, 0.8)), frontier((4, 0.4), (24, 0.7), (200, 0.9))
    verdict = compare_frontiers(a, b)
    assert (verdict.overlap, verdict.n_read) == ((8, 64), 0)
    assert (verdict.smallest_gap, verdict.mean_gap, verdict.outcome) == (None, None, None)
    assert verdict.why_none == "no L0 of the overlap is near enough to points of both"
    assert comparison_of(verdict).row()[3:6] == ("8.0 to 64.0", "–", "no verdict 1 of 1")


@pytest.mark.parametrize(
    ("dead_a", "dead_b", "words"),
    [
        ((0, 0), (0, 0), "none / none"),  # was "2.00", the ratio of the widths
        ((6, 0), (0, 0), "3 / 0 latents"),
        ((0, 0), (20, 21), "0 / 20.5 latents"),
        ((1, 4), (0, 9), "2.5 / 4.5 latents"),
        ((99, 0), (3000, 2001), "49.5 / 2,500 latents"),  # was "2.5e+03"
        # sqrt(2 * 8) / 100 over sqrt(4 * 16) / 200
        ((2, 8), (4, 16), "1.00"),
        ((1, 4), (9, 36), "0.22"),
    ],
)
def test_a_ratio_of_dead_shares_is_never_made_of_zeros(
    dead_a: tuple[int, int], dead_b: tuple[int, int], words: str
) -> None:
    a = [Point(l0, 0.5, n / 100, 100) for l0, n in zip((8, 64), dead_a, strict=True)]
    b = [Point(l0, 0.5, n / 200, 200) for l0, n in zip((8, 64), dead_b, strict=True)]
    verdict = compare_frontiers(a, b)
    assert (verdict.n_dead_a, verdict.n_dead_b) == (dead_a, dead_b)
    assert comparison_of(verdict).row()[-1] == words


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


@settings(deadline=None)
@given(
    data=st.lists(
        st.tuples(st.floats(1, 500), st.floats(-1, 1), st.floats(0, 1)), min_size=2, max_size=8
    ),
    draws=st.data(),
)
def test_the_other_way_round_is_the_opposite(
    data: list[tuple[float, float, float]], draws: st.DataObject
) -> None:
    split = draws.draw(st.integers(1, len(data) - 1))
    points = [Point(l0, r2, dead, 100) for l0, r2, dead in data]
    a, b = points[:split], points[split:]
    ab, ba = compare_frontiers(a, b), compare_frontiers(b, a)
    assert ab.overlap == ba.overlap
    assert math.log(ab.dead_share_ratio) == pytest.approx(-math.log(ba.dead_share_ratio), abs=1e-9)
    assert ab.n_read == ba.n_read
    if ab.n_read:
        assert ab.smallest_gap == pytest.approx(-ba.largest_gap, abs=1e-9)  # type: ignore[operator]
        assert ab.mean_gap == pytest.approx(-ba.mean_gap, abs=1e-9)  # type: ignore[operator]
        opposite = {"ahead": "behind", "behind": "ahead"}
        assert ba.outcome == opposite.get(str(ab.outcome), ab.outcome)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="a must be a frontier with at least one point"):
        compare_frontiers([], frontier((8, 0.5)))
    for l0 in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"l0 of b must be finite and above 0, got {l0}"):
            compare_frontiers(frontier((8, 0.5)), frontier((l0, 0.5)))
    for r2 in (math.nan, -math.inf):
        with pytest.raises(ValueError, match=f"explained_variance of a must be finite, got {r2}"):
            compare_frontiers(frontier((8, r2)), frontier((8, 0.5)))


def test_points_of_one_l0_are_their_mean_in_any_order() -> None:
    both, above = frontier((8, 0.5), (8, 0.9), (32, 0.95)), 8 * (1 + 1e-9)
    for points in (both, both[::-1]):
        assert interpolate(points, 8) == pytest.approx(0.7)
        assert interpolate(points, above) == pytest.approx(0.7)
