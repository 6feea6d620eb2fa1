"""The opposition of two sets of rows, its interval and its chance level, by hand."""

import math
from typing import Any

import pytest
import torch

from sae_lens_signaware.evaluation import opposition


@pytest.mark.parametrize(
    ("plus", "minus", "expected"),
    [
        ([[1.0, 0], [3, 0]], [[-2.0, 0], [-1, 0]], 1.0),
        ([[1.0, 0], [3, 0]], [[2.0, 0], [1, 0]], -1.0),
        ([[1.0, 0], [3, 0]], [[0.0, 1], [0, 5]], 0.0),
    ],
)
def test_opposition_of_rows_on_an_axis(plus: Any, minus: Any, expected: float) -> None:
    found = opposition.opposition_of(torch.tensor(plus), torch.tensor(minus))
    assert found == pytest.approx((expected, expected, expected))


def test_the_interval_holds_the_value_and_narrows_with_more_contexts() -> None:
    g = torch.Generator().manual_seed(5)
    axis = torch.randn(20, generator=g)

    def interval(n: int) -> opposition.Interval:
        plus, minus = (
            s * axis + 2 * torch.randn(n, 20, generator=torch.Generator().manual_seed(i))
            for i, s in enumerate((1, -1))
        )
        return opposition.opposition_of(plus, minus)

    few, many = interval(4), interval(64)
    for found in (few, many):
        assert found.low < found.value < found.high
    assert many.high - many.low < few.high - few.low


def test_the_interval_is_the_jackknifes() -> None:
    g = torch.Generator().manual_seed(5)
    plus = torch.tensor([1.0, 0]) + torch.randn(5, 2, generator=g) / 3
    minus = torch.tensor([-1.0, 0.5]) + torch.randn(4, 2, generator=g) / 3

    def value(a: torch.Tensor, b: torch.Tensor) -> float:
        return -torch.cosine_similarity(a.mean(0), b.mean(0), dim=0).item()

    def without(rows: torch.Tensor, i: int) -> torch.Tensor:
        return torch.cat([rows[:i], rows[i + 1 :]])

    of_plus = [value(without(plus, i), minus) for i in range(5)]
    of_minus = [value(plus, without(minus, i)) for i in range(4)]
    variance = sum(
        (len(v) - 1) / len(v) * sum((x - sum(v) / len(v)) ** 2 for x in v)
        for v in (of_plus, of_minus)
    )
    found = opposition.opposition_of(plus, minus)
    assert found.value == pytest.approx(value(plus, minus), rel=1e-5)
    assert found.value - found.low == pytest.approx(1.96 * variance**0.5, rel=1e-4)


def test_the_interval_ends_where_a_cosine_does() -> None:
    plus = torch.tensor([[1.0, 2.0], [1.0, -1.0], [1.0, 0.0]])
    found = opposition.opposition_of(plus, -plus)
    assert (found.value, found.high) == (pytest.approx(1.0), 1.0)
    assert 0 < found.low < 0.95
    found = opposition.opposition_of(plus, plus)
    assert (found.value, found.low) == (pytest.approx(-1.0), -1.0)
    assert -0.95 < found.high < 0


def test_a_side_with_one_context_has_no_opposition() -> None:
    rows = torch.eye(3)
    assert all(map(math.isnan, opposition.opposition_of(rows[:1], rows[1:])))
    assert all(map(math.isnan, opposition.opposition_of(rows, rows[:0])))


def test_the_null_is_of_pairs_of_different_latents() -> None:
    sides = opposition._Sides()
    e = torch.eye(2)
    # the sides of each latent are opposites; those of different ones are at right angles
    sides.add(e[:1].repeat(2, 1), -e[:1].repeat(2, 1))
    sides.add(e[1:].repeat(2, 1), -e[1:].repeat(2, 1))
    assert sides.opposition()[0].tolist() == [1.0, 1.0]
    assert sides.null() == pytest.approx(0.0)
    sides.add(-e[1:].repeat(2, 1), torch.zeros(0, 2))  # a latent of one side
    assert math.isnan(sides.opposition()[0][2])
    # of eight pairs, one more is a pair of opposites: the 95th percentile of [-1, 0 x 6, 1]
    assert sides.null() == pytest.approx(torch.tensor([-1.0, *[0.0] * 6, 1.0]).quantile(0.95))


@pytest.mark.slow
def test_the_null_is_of_as_many_latents_as_there_are() -> None:
    # the pairs of 2,900 are more than torch takes a quantile of
    sides = opposition._Sides()
    for i in range(2_900):
        sides.directions += [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
        sides.latents += [i, i]
    assert sides.null() == 0.0  # -cos is -1 or 0


def test_products_in_blocks_are_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(7, 3)
    whole = opposition._products(list(rows))
    torch.testing.assert_close(whole, rows.double() @ rows.double().T)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert opposition._products(list(rows)).equal(whole)
    monkeypatch.setattr(opposition, "BLOCK", 3)
    torch.testing.assert_close(opposition._products(list(rows)), whole)


def test_a_mean_of_0_has_no_opposition() -> None:
    zero, rows = torch.zeros(3, 5), torch.randn(3, 5)
    assert all(math.isnan(value) for value in opposition.opposition_of(zero, rows))
    sides = opposition._Sides()
    sides.add(zero, rows)
    sides.add(rows, zero)
    assert sides.latents == [0, 1]
    assert sides.null() == pytest.approx(-1)
