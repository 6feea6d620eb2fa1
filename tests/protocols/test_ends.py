"""The MCC and the F1 that see the sign, by hand, beside SAELens's own."""

import math

import pytest
import torch
from sae_lens.synthetic import mean_correlation_coefficient

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.experiments.protocols.ends import (
    SignedMCC,
    ends_active,
    match_ends,
    signed_f1,
    signed_mcc,
)

F = torch.eye(4)
ALL, NONE = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)


def mcc_of(*args: torch.Tensor) -> SignedMCC:
    return signed_mcc(match_ends(*args))


def sides(n: int, pos: bool = True, neg: bool = True) -> torch.Tensor:
    return torch.tensor([[pos, neg]]).expand(n, 2)


def test_a_signed_latent_for_each_two_sided_feature() -> None:
    # in another order, of other norms, and two of them turned round
    directions = F[[2, 0, 3, 1]] * torch.tensor([2.0, -1.0, 0.5, -3.0])[:, None]
    assert mcc_of(directions, sides(4), F, ALL) == (1.0, 1.0)


def test_two_plain_latents_for_each_two_sided_feature_join_nothing() -> None:
    directions = torch.cat([F, -F])
    assert mcc_of(directions, sides(8, neg=False), F, ALL) == (1.0, 0.0)


def test_plain_latents_at_one_end_alone_are_half_of_it() -> None:
    mcc, joined = mcc_of(F, sides(4, neg=False), F, ALL)
    assert (mcc, joined) == (0.5, 0.0)
    assert mean_correlation_coefficient(F, F) == pytest.approx(1.0)


def test_a_latent_that_writes_the_opposite_of_a_feature_does_not_count() -> None:
    mcc, joined = mcc_of(-F, sides(4, neg=False), F, NONE)
    assert mcc == 0
    assert math.isnan(joined)
    assert mean_correlation_coefficient(-F, F) == pytest.approx(1.0)
    # its - side would write the feature
    assert mcc_of(-F, sides(4, pos=False), F, NONE).mcc == 1


def test_cosines_are_averaged_over_all_ends() -> None:
    # latent 0 is at 60 degrees to feature 0, latent 1 is feature 1; features 2 and 3 have none
    directions = torch.tensor([[0.5, 0, 0, 0, math.sqrt(0.75)], [0, 1, 0, 0, 0]])
    features = torch.nn.functional.pad(F, (0, 1))
    two_sided = torch.tensor([True, False, False, True])
    mcc, joined = mcc_of(directions, sides(2), features, two_sided)
    # ends: 0.5 and 0.5 of feature 0, 1 of feature 1, 0 of feature 2, 0 and 0 of feature 3
    assert mcc == pytest.approx(2.0 / 6)
    assert joined == 0.5


def test_the_matching_is_the_best_of_all_and_not_greedy() -> None:
    # greedily latent 0 takes feature 0 (0.9) and leaves 0.1 for latent 1: 1.0 in sum, not 1.2
    b = math.sqrt(1 - 0.9**2 - 0.4**2)
    c = math.sqrt(1 - 0.8**2 - 0.1**2)
    directions = torch.tensor([[0.9, 0.4, b, 0.0], [0.8, 0.1, 0.0, c]])
    mcc, _ = mcc_of(directions, sides(2, neg=False), F[:2], NONE[:2])
    assert mcc == pytest.approx((0.4 + 0.8) / 2)


def test_a_latent_of_zeros_matches_nothing() -> None:
    directions = torch.cat([F[:1], torch.zeros(3, 4)])
    assert mcc_of(directions, sides(4), F, ALL) == (0.25, 0.25)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(InvalidInputError, match=r"has_side must be \(4, 2\), got \(4,\)"):
        mcc_of(F, ALL, F, ALL)
    with pytest.raises(InvalidInputError, match=r"features must be \(3, 4\), got \(3, 2\)"):
        mcc_of(F, sides(4), torch.zeros(3, 2), ALL[:3])
    with pytest.raises(InvalidInputError, match=r"two_sided must be \(4,\), got \(3,\)"):
        mcc_of(F, sides(4), F, ALL[:3])
    with pytest.raises(InvalidInputError, match="features must be at least one, got 0"):
        mcc_of(F, sides(4), F[:0], ALL[:0])


def test_f1_of_the_ends_by_hand() -> None:
    # latent 0 is feature 0 turned round, latent 1 is feature 1; feature 2 is two-sided, without one
    directions = torch.stack([-F[0], F[1]])
    two_sided = torch.tensor([True, False, True])
    matching = match_ends(directions, sides(2), F[:3], two_sided)
    amplitudes = torch.tensor(
        [[1.0, 2.0, 1.0], [3.0, 0.0, -1.0], [-1.0, 1.0, 0.0], [-2.0, 0.0, 0.0]]
    )
    z = torch.tensor([[-1.0, 0.5], [-0.1, 0.0], [2.0, -1.0], [0.0, 1.0]])
    occurs, active = ends_active(matching, amplitudes, z)
    # the ends: f0, f1, f2, -f0, -f2
    assert occurs.int().T.tolist() == [
        [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0],
    ]  # fmt: skip
    assert active.int().T.tolist() == [
        [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0],
    ]  # fmt: skip
    # f0: 1; f1: one true, one false, one missed; -f0: one true, one missed
    expected = (1 + 2 / (2 + 1 + 1) + 0 + 2 / (2 + 1) + 0) / 5
    assert signed_f1(occurs, active) == pytest.approx(expected)
    # an end that never occurs says nothing
    assert signed_f1(occurs[:1], active[:1]) == pytest.approx((1 + 1 + 0) / 3)
    # even where its side is active
    assert signed_f1(torch.tensor([[True, False]]), torch.tensor([[True, True]])) == 1.0


def test_the_size_of_a_feature_does_not_matter() -> None:
    sizes = torch.tensor([3.0, 0.1, 1.0, 20.0])[:, None]
    mcc, joined = mcc_of(F, sides(4), sizes * F, ALL)
    assert (mcc, joined) == (pytest.approx(1.0), 1.0)
