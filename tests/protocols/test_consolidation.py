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
    features, x = model.sample(100)
    assert features.shape == (100, 7)
    assert x.isfinite().all()


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
