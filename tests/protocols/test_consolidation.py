"""Protocol C: planted pairs, and who carries them."""

import functools
from typing import Any

import pytest
import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware import BiJumpReLUSAE, BiJumpReLUSAEConfig
from sae_lens_signaware.experiments.protocols import consolidation
from sae_lens_signaware.experiments.protocols.data import ConsolidationData
from sae_lens_signaware.experiments.protocols.world import seeded
from tests.protocols.examples import CONSOLIDATION, plain_sae, signed_sae


@functools.cache
def toy() -> tuple[consolidation.ToyModel, Tensor, Tensor]:
    model = consolidation.make_toy_model(ConsolidationData(**CONSOLIDATION), 0.5, seed=0)
    with seeded(0, 1):
        return model, *model.sample(4_000)


def test_planted_pairs_are_antipodal_exclusive_and_as_frequent_as_other_features() -> None:
    model, features, x = toy()
    vectors = model.dictionary.feature_vectors.detach()
    assert model.n_pairs == 2
    assert vectors[0:4:2].equal(-vectors[1:4:2])
    axes = torch.cat([vectors[0:4:2], vectors[4:]])
    assert (axes @ axes.T - torch.eye(6)).abs().max() < 0.02
    on = features > 0
    assert not (on[:, 0:4:2] & on[:, 1:4:2]).any()
    assert on.float().mean(0).tolist() == pytest.approx([0.2] * 8, abs=0.025)
    assert torch.allclose(x, features @ vectors, atol=1e-6)


def test_an_odd_feature_is_in_no_pair() -> None:
    data = ConsolidationData(**CONSOLIDATION | {"n_features": 7})
    model = consolidation.make_toy_model(data, 1.0, seed=0)
    assert model.n_pairs == 3
    assert consolidation.make_toy_model(data, 0.5, seed=0).n_pairs == 2  # the nearest to 1.75
    features, x = model.sample(100)
    assert features.shape == (100, 7)
    assert x.isfinite().all()


def test_one_feature_is_too_few() -> None:
    with pytest.raises(
        ValueError, match="n_features\n  Input should be greater than or equal to 2"
    ):
        ConsolidationData(**CONSOLIDATION | {"n_features": 1})


def test_exclusion_silences_one_end_and_nothing_else() -> None:
    features = torch.tensor([[1.0, 2.0, 3.0, 0.0, 5.0, 6.0]]).repeat(1_000, 1)
    kept = consolidation.exclusive_pairs(2)(features)
    assert (kept[:, :2] > 0).sum(1).tolist() == [1] * 1_000
    assert kept[:, 2:].equal(features[:, 2:])  # one end alone, and unpaired features, stay
    assert (kept[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert consolidation.exclusive_pairs(0)(features).equal(features)
    # 0.4 - 0.4^2 / 2
    assert consolidation.probability_before_exclusion(0.32) == pytest.approx(0.4)


def measured(sae: SAE[Any]) -> consolidation.Consolidation:
    model, features, x = toy()
    data = ConsolidationData(**CONSOLIDATION)
    return consolidation.measure_consolidation(sae, model, features, x, data)


def axes_of_toy() -> tuple[Tensor, Tensor]:
    vectors = toy()[0].dictionary.feature_vectors.detach()
    axes = torch.cat([vectors[0:4:2], vectors[4:]])
    return axes, torch.linalg.pinv(axes)


def test_signed_latents_on_the_axes_carry_every_pair() -> None:
    axes, encoder = axes_of_toy()
    sae = BiJumpReLUSAE(BiJumpReLUSAEConfig(d_in=8, d_sae=6))
    sae.W_enc.data, sae.W_dec.data = encoder, axes
    sae.threshold.data.fill_(0.05)
    assert measured(sae) == consolidation.Consolidation(1.0, 0.0, 1.0)
    sae.W_enc.data, sae.W_dec.data = -encoder, -axes  # the other sign of a latent is as good
    assert measured(sae) == consolidation.Consolidation(1.0, 0.0, 1.0)


def test_plain_latents_carry_a_pair_by_two() -> None:
    axes, encoder = axes_of_toy()
    sae = plain_sae(torch.cat([encoder, -encoder], 1), torch.cat([axes, -axes]), threshold=0.05)
    assert measured(sae) == consolidation.Consolidation(0.0, 1.0, 1.0)


def test_what_does_not_carry() -> None:
    axes, encoder = axes_of_toy()
    # writes the other end
    assert measured(signed_sae(encoder, -axes)) == consolidation.Consolidation(0.0, 0.0, 0.0)
    # the - side stays inactive: one end of each pair, and the unpaired features
    half = measured(signed_sae(encoder, axes, sides=(1.0, 0.0)))
    assert half == consolidation.Consolidation(0.0, 0.0, 6 / 8)
    # decoder rows between two axes have a cosine of 0.71
    mixed = measured(signed_sae(encoder, axes + axes.roll(1, 0)))
    assert mixed == consolidation.Consolidation(0.0, 0.0, 0.0)
    # active in none of an end's firings, however well it points
    inactive = plain_sae(torch.cat([encoder, -encoder], 1), torch.cat([axes, -axes]), threshold=9.0)
    assert measured(inactive) == consolidation.Consolidation(0.0, 0.0, 0.0)


def test_without_pairs_there_is_no_share_of_them() -> None:
    carries = torch.tensor([[True, False], [False, False]])
    assert consolidation.consolidation_of(carries, 0) == consolidation.Consolidation(
        None, None, 0.5
    )


def test_a_latent_carries_an_end_of_which_it_is_active_in_more_than_the_share() -> None:
    # end 0 occurs in four samples and its opposite in two
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    features = torch.tensor([[1.0, 0]] * 4 + [[0, 1.0]] * 2)
    directions = torch.tensor([[2.0, 0], [-2.0, 0], [-2.0, 0], [2.0, 1.0]])
    z = torch.tensor(
        [
            [
                1.0,
                1,
                0,
                -2,
                -1,
                0,
            ],  # of end 0 two of four on its + side, of end 1 one on its - side
            [-1.0, -1, -1, 0, 3, 3],  # three of four on its - side, all of end 1 on its + side
            [-1.0, 0, 0, 0, 0, 0],  # one of four
            [1.0, 1, 1, 1, -1, -1],  # all, at a cosine of 0.894
        ]
    ).T

    def carried(min_cosine: float, min_firing_share: float) -> list[list[int]]:
        found = consolidation.carried(
            directions, z, vectors, features, min_cosine, min_firing_share
        )
        return found.int().tolist()

    assert carried(1.0, 0.5) == [[0, 0], [1, 1], [0, 0], [0, 0]]
    assert carried(0.9, 0.49) == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert carried(0.89, 0.75) == [[0, 0], [0, 1], [0, 0], [1, 1]]
    assert carried(0.9, 0.2) == [[1, 1], [1, 1], [1, 0], [0, 0]]


def test_both_ends_of_a_pair_are_carried_by_the_same_latent_or_by_two() -> None:
    # pair 0 by latent 0, pair 1 by latents 0 and 1, of pair 2 one end; then one feature of two
    carries = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 0, 0, 0]]) > 0
    found = consolidation.consolidation_of(carries, 3)
    assert found.by_one == pytest.approx(1 / 3)
    assert found.by_two == pytest.approx(1 / 3)
    assert found.features == 6 / 8


def test_what_counts_as_carried_is_what_the_data_say() -> None:
    axes, encoder = axes_of_toy()
    model, features, x = toy()
    # at 60 degrees to the axes, and active in all of their firings
    sae = signed_sae(encoder, axes + 3**0.5 * axes.roll(1, 0))
    for min_cosine, share in ((0.9, 0.0), (0.4, 1.0)):
        data = ConsolidationData(**CONSOLIDATION | {"min_cosine": min_cosine})
        found = consolidation.measure_consolidation(sae, model, features, x, data)
        assert found.features == share


def test_the_toy_model_s_noise_has_its_deviation_in_each_coordinate() -> None:
    model = consolidation.make_toy_model(
        ConsolidationData(**CONSOLIDATION | {"noise": 0.3}), 0.5, seed=0
    )
    with seeded(0, 1):
        features, x = model.sample(5_000)
    rest = x - features @ model.dictionary.feature_vectors.detach()
    assert rest.std(0).tolist() == pytest.approx([0.3] * 8, rel=0.05)
