"""Protocol B: AUROC, the choice of latents, and the labelled samples."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sae_lens_signaware.experiments.protocols import anomaly
from sae_lens_signaware.experiments.protocols.data import AnomalyData
from sae_lens_signaware.experiments.protocols.world import make_world, seeded
from tests.protocols.examples import ANOMALY


def brute_force_auroc(scores: Tensor, positive: Tensor) -> float:
    pairs = [(p, n) for p in scores[positive].tolist() for n in scores[~positive].tolist()]
    return sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs)


def test_auroc_counts_pairs_and_halves_ties() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (60,), generator=g).float()
    positive = torch.rand(60, generator=g) < 0.4
    assert anomaly.auroc(scores, positive) == pytest.approx(brute_force_auroc(scores, positive))
    ends = torch.tensor([False, False, True])
    assert anomaly.auroc(torch.tensor([0.0, 1.0, 2.0]), ends) == 1.0
    assert anomaly.auroc(torch.tensor([3.0, 3.0, 3.0]), ends) == 0.5
    assert anomaly.auroc(torch.tensor([1.0, 2.0, 0.0]), ends) == 0.0


def directions(n: int) -> Tensor:
    return torch.tensor([0, 0, 1, -1]).repeat(n)


def test_one_signed_latent_knows_both_sides_and_a_plain_one_does_not() -> None:
    d = directions(25)
    signed = d[:, None].float()
    (one,) = anomaly.measure_detection(signed, d, signed, d, (1,), 0.05)
    assert (one.n_latents, one.auroc, one.direction_accuracy) == (1, 1.0, 1.0)
    plain = torch.stack([d.float().relu(), (-d).float().relu()], dim=1)
    one, two = anomaly.measure_detection(plain, d, plain, d, (1, 2), 0.05)
    # half of the anomalies are seen; the others tie with the normal samples
    assert one.auroc == pytest.approx(0.75)
    assert one.direction_accuracy == pytest.approx(0.5)
    assert (two.auroc, two.direction_accuracy) == (1.0, 1.0)


def test_latents_that_say_nothing_do_no_harm_and_dead_ones_neither() -> None:
    d = directions(100)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 2, generator=g)
    z = torch.cat([noise, torch.zeros(400, 1), 0.01 * d[:, None].float()], dim=1)
    one, four = anomaly.measure_detection(z, d, z, d, (1, 4), 0.05)
    assert (one.auroc, one.direction_accuracy) == (1.0, 1.0)
    assert (four.auroc, four.direction_accuracy) == (1.0, 1.0)


def test_latents_are_chosen_on_the_labelled_split_alone() -> None:
    d = directions(10)
    informative, silent = d[:, None].float(), torch.zeros(40, 1)
    train, test = torch.cat([informative, silent], 1), torch.cat([silent, informative], 1)
    (detection,) = anomaly.measure_detection(train, d, test, d, (1,), 0.05)
    assert detection.auroc == 0.5
    assert detection.direction_accuracy == 0.0


def test_labelled_samples_are_half_anomalies_each_on_one_planted_axis() -> None:
    data = AnomalyData(**ANOMALY)
    world = make_world(data, data.n_planted, data.planted_rate, seed=0)
    with seeded(0, 1):
        labelled = anomaly.sample_labelled(world, data, 4_000)
        train = anomaly.sample_training(world, data, 20_000)
    inverse = torch.linalg.pinv(world.directions)
    planted = (labelled.x @ inverse)[:, 6:]
    moved = planted.abs() > 1e-3
    assert (labelled.direction == 0).sum() == 2_000
    assert (labelled.direction == 1).float().mean() == pytest.approx(0.25, abs=0.02)
    assert moved.sum(1)[:2_000].max() == 0
    assert (moved.sum(1)[2_000:] == 1).all()
    assert planted.sum(1).sign()[2_000:].equal(labelled.direction[2_000:].float())
    assert planted[moved].abs().mean() == pytest.approx(2.0, abs=0.05)
    assert planted[moved].abs().std() == pytest.approx(2.0 * 0.25, abs=0.03)
    assert moved[2_000:, 0].float().mean() == pytest.approx(0.5, abs=0.04)
    in_training = (train @ inverse)[:, 6:]
    assert (in_training.abs() > 1e-3).float().mean(0).tolist() == pytest.approx(
        [0.1, 0.1], abs=0.01
    )
    assert in_training[in_training.abs() > 1e-3].abs().mean() == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(("false_alarms", "n_flagged"), [(0.25, 4), (0.001, 2), (0.5, 6)])
def test_an_anomaly_counts_above_the_share_of_false_alarms(
    false_alarms: float, n_flagged: int
) -> None:
    # normal samples are 0.1 to 1.0 to either side: a quarter of them is from 0.8 on, half from 0.55
    normal = torch.arange(1, 11) / 10
    z = torch.cat([normal, -normal, torch.tensor([3.0] * 15 + [-3.0] * 5)])[:, None]
    train = torch.tensor([0] * 20 + [1] * 15 + [-1] * 5)  # more on one side than on the other
    z_test = torch.tensor([0.0, 0.75, 0.85, 3.0, -0.75, -0.85, -3.0, 0.0])[:, None]
    test = torch.tensor([0, 1, 1, 1, -1, -1, -1, 0])
    (one,) = anomaly.measure_detection(z, train, z_test, test, (1,), false_alarms)
    assert one.direction_accuracy == pytest.approx(n_flagged / 6)
    assert one.auroc == 1.0


def test_the_logistic_regression_is_scikit_learn_s_of_the_same_penalty() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([0.0, 1.0, 2.0], size=(200, 3))
    label = x[:, 0] + 0.5 * x[:, 1] + rng.normal(size=200) > 2  # a bias is needed
    found = anomaly.logistic_regression(torch.tensor(x), torch.tensor(label))
    # theirs sums the cross-entropy over the samples and weighs that by C
    theirs: Any = LogisticRegression(C=1 / (200 * 1e-3), tol=1e-10, max_iter=1000).fit(x, label)
    expected = [*theirs.coef_[0], *theirs.intercept_]
    assert found.tolist() == pytest.approx(expected, rel=1e-3)
    logits = anomaly.logits_of(torch.tensor(x), found)
    assert logits.tolist() == pytest.approx(theirs.decision_function(x).tolist(), abs=1e-2)
