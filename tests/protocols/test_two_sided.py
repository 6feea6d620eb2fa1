"""Protocol E: worlds of two-sided features, and what is measured of SAEs built by hand."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_lens_signaware.experiments import protocols
from sae_lens_signaware.experiments.protocols import two_sided
from sae_lens_signaware.experiments.protocols.config import TwoSidedConfig
from sae_lens_signaware.experiments.protocols.data import TwoSidedData
from sae_lens_signaware.experiments.protocols.world import seeded
from tests.protocols.examples import SAES, TWO_SIDED, plain_sae, signed_sae, values_of

N = 10_000


def data(**changes: Any) -> TwoSidedData:
    # wide enough for directions that are orthogonal
    return TwoSidedData(**{**TWO_SIDED, "d_in": 16, "magnitude_sd": 0.0, **changes})


@functools.cache
def world(share: float) -> tuple[two_sided.TwoSidedWorld, Tensor, Tensor]:
    made = two_sided.make_two_sided_world(data(), share, 1.2, seed=0)
    with seeded(0, 1):
        return made, *made.sample(N)


def test_a_share_of_the_features_occurs_on_both_sides() -> None:
    made, amplitudes, x = world(0.5)
    assert made.signed.sum() == 4
    assert not made.signed[-2:].any()
    negative = (amplitudes < 0).sum(0) / (amplitudes != 0).sum(0)
    assert negative[made.signed].tolist() == pytest.approx([0.5] * 4, abs=0.06)
    assert not negative[~made.signed].any()
    torch.testing.assert_close(x, amplitudes @ made.directions)


def test_only_the_sides_differ_between_worlds_of_a_seed() -> None:
    none, half, whole = (world(share)[0] for share in (0.0, 0.5, 1.0))
    assert none.directions.equal(whole.directions)
    assert none.generator.firing_probabilities.equal(whole.generator.firing_probabilities)
    assert not none.signed.any()
    assert (half.signed <= whole.signed).all()
    assert whole.signed[:-2].all()


def test_l0_and_the_zipfian_rates() -> None:
    made, amplitudes, _ = world(0.0)
    rates = (amplitudes != 0).double().mean(0)
    assert rates[:-2].sum().item() == pytest.approx(1.2, rel=0.05)
    assert (made.generator.firing_probabilities[:-2].diff() < 0).all()


def test_a_child_occurs_with_its_parents_plus_end_alone() -> None:
    made, amplitudes, _ = world(1.0)
    for parent in (0, 1):
        child = amplitudes[:, 8 + parent] > 0
        plus = amplitudes[:, parent] > 0
        assert not (child & ~plus).any()
        assert child[plus].double().mean().item() == pytest.approx(0.3, abs=0.04)
    assert (amplitudes[:, 0] < 0).any()
    assert made.n_children == 2


def measured(sae: Any, share: float) -> two_sided.Measures:
    return two_sided.measure_world(sae, *world(share))


def encoder(vectors: Tensor) -> Tensor:
    return torch.linalg.pinv(vectors)


def test_a_signed_latent_for_each_feature_finds_all() -> None:
    vectors = world(0.5)[0].directions
    sae = signed_sae(encoder(vectors), vectors)
    sae.threshold.data += 0.5  # above what rounding leaves of a feature that does not occur
    found = measured(sae, 0.5)
    assert found.f1 == pytest.approx(1.0)
    assert found.mcc == pytest.approx(1.0)
    assert found.joined == 1.0
    assert found.absorption == 0.0


def test_a_plain_latent_for_each_feature_finds_the_plus_ends() -> None:
    vectors = world(0.5)[0].directions
    found = measured(plain_sae(encoder(vectors), vectors, threshold=0.5), 0.5)
    # 10 of 14 ends; the unsigned MCC does not see that
    assert found.f1 == pytest.approx(10 / 14)
    assert found.mcc == pytest.approx(10 / 14)
    assert found.unsigned_mcc == pytest.approx(1.0)
    assert found.joined == 0.0


def test_no_feature_is_two_sided_and_none_is_joined() -> None:
    vectors = world(0.0)[0].directions
    found = measured(plain_sae(encoder(vectors), vectors, threshold=0.5), 0.0)
    assert found.joined is None
    assert found.f1 == pytest.approx(1.0)


def test_a_latent_that_leaves_its_parent_to_the_child_is_absorbed() -> None:
    vectors = world(1.0)[0].directions
    W_enc = encoder(vectors)
    W_enc[:, 0] -= 2 * W_enc[:, 8]  # silent where the child occurs
    sae = signed_sae(W_enc, vectors)
    sae.threshold.data += 0.5
    # of two parents one is absorbed whole, so its + end is missed; what it reads is -1, its - side
    assert measured(sae, 1.0).absorption == pytest.approx(0.5)
    assert measured(sae, 1.0).found == 1.0


def test_a_parent_that_no_latent_stands_for_does_not_count_as_not_absorbed() -> None:
    vectors = world(1.0)[0].directions
    W_enc, W_dec = encoder(vectors), vectors.clone()
    W_enc[:, 0] -= 2 * W_enc[:, 8]
    W_enc[:, 1] = W_dec[1] = 0  # the other parent
    sae = signed_sae(W_enc, W_dec)
    sae.threshold.data += 0.5
    found = measured(sae, 1.0)
    assert found.absorption == pytest.approx(1.0)
    assert found.found == 0.5


def test_absorption_by_hand() -> None:
    amplitudes = torch.tensor([[1.0, 1], [1, 0], [1, 0], [1, 1], [-1, 0], [0, 0]])
    active = torch.tensor([[True], [True], [False], [False], [True], [True]])
    # without the child in one of two, with it in one of two
    assert two_sided.absorption_of(amplitudes, active, 1) == (0.0, 1.0)
    active[3] = active[2] = True
    active[0] = False
    assert two_sided.absorption_of(amplitudes, active, 1) == pytest.approx((1 - 0.5, 1.0))
    # without the child in one of three, which is no parent found
    rare = torch.tensor([[1.0, 1], [1, 0], [1, 0], [1, 0]])
    seldom = torch.tensor([[True], [True], [False], [False]])
    assert two_sided.absorption_of(rare, seldom, 1) == (None, 0.0)
    active[:3] = False  # the side misses both samples without the child
    assert two_sided.absorption_of(amplitudes, active, 1) == (None, 0.0)
    assert two_sided.absorption_of(amplitudes[:, :1] * 0, active, 0) == (None, None)
    assert two_sided.absorption_of(amplitudes * 0, active, 1) == (None, None)


def test_the_two_sided_features_are_the_nearest_number_to_their_share() -> None:
    # 2.8 of 8
    made = two_sided.make_two_sided_world(data(), 0.35, 1.2, seed=0)
    assert made.signed.sum() == 3


def test_a_child_occurs_as_often_as_the_data_say() -> None:
    made = two_sided.make_two_sided_world(data(child_probability=0.7), 0.0, 1.2, seed=0)
    with seeded(0, 1):
        amplitudes, _ = made.sample(N)
    plus = amplitudes[:, 0] > 0
    assert (amplitudes[plus, 8] > 0).double().mean().item() == pytest.approx(0.7, abs=0.05)


def test_the_rates_are_saelens_s_of_the_data_scaled_to_l0() -> None:
    rates = data(exponent=0.5, max_probability=0.2, min_probability=0.05).probabilities(2.0)
    by_rank = torch.arange(1, 9) ** -0.5
    share = (by_rank - by_rank[-1]) / (1 - by_rank[-1])
    expected = 0.05 + 0.15 * share
    torch.testing.assert_close(rates, 2.0 * expected / expected.sum())


def test_the_noise_has_its_deviation_in_each_coordinate() -> None:
    made = two_sided.make_two_sided_world(data(noise=0.3), 0.5, 1.2, seed=0)
    with seeded(0, 1):
        amplitudes, x = made.sample(5_000)
    rest = x - amplitudes @ made.directions
    assert rest.std(0).tolist() == pytest.approx([0.3] * 16, rel=0.05)


def test_trainings_are_counted_at_the_l0s_that_are_trained() -> None:
    # abstopk takes no k of 1.5, which no SAE is asked for
    values = values_of("e") | {"target_l0": 1.5, "saes": {"x": SAES["abstopk H"]}}
    values["data"]["l0_factors"] = [2.0, 4.0]
    config = TwoSidedConfig.model_validate(values)
    assert protocols.n_trainings(config) == 2 * len(values["data"]["shares"])


def test_an_l0_that_a_factor_gives_is_a_whole_number() -> None:
    values = values_of("e") | {"target_l0": 50.0, "saes": {"x": SAES["abstopk H"] | {"d_sae": 64}}}
    values["data"]["l0_factors"] = [1.1, 0.02]  # 55.00000000000001
    config = TwoSidedConfig.model_validate(values)
    assert config.target_l0s == [55.0, 1.0]
    assert protocols.n_trainings(config) == 2 * len(values["data"]["shares"])
