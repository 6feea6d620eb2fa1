"""Parts of a probe by hand: features of texts, and the ends that the sides of an axis stand for."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.labelled_texts import Labels
from sae_lens_signaware.evaluation.probe_ends import EndOfSide, ends_of
from sae_lens_signaware.evaluation.probe_features import (
    Aggregation,
    Features,
    axis_features,
    pair_features,
    side_features,
    side_values,
)
from sae_lens_signaware.evaluation.probe_scores import Scorer
from tests.support.saes import D_IN, make_sae


def identity_sae(n: int) -> Any:
    """A signed SAE whose latent i is coordinate i."""
    sae = make_sae("sa_gsae", d_sae=n)
    for name, param in sae.named_parameters():
        eye = torch.eye(D_IN)[:n]
        is_weight = name.startswith("W_")
        param.data = (eye.T if name == "W_enc" else eye) if is_weight else torch.zeros_like(param)
    return sae


@pytest.mark.parametrize(
    ("how", "pos", "neg", "signed"),
    [
        ("sum", [[3.0, 1.0], [0.0, 2.0]], [[5.0, 0.0], [4.0, 0.0]], [[-2.0, 1.0], [-4.0, 2.0]]),
        (
            "mean",
            [[1.0, 1 / 3], [0.0, 1.0]],
            [[5 / 3, 0.0], [2.0, 0.0]],
            [[-2 / 3, 1 / 3], [-2.0, 1.0]],
        ),
        ("max", [[2.0, 1.0], [0.0, 2.0]], [[5.0, 0.0], [3.0, 0.0]], [[-5.0, 1.0], [-3.0, 2.0]]),
    ],
)
def test_each_side_of_a_latent_is_aggregated_by_itself(
    how: Aggregation, pos: Any, neg: Any, signed: Any
) -> None:
    x = torch.zeros(5, D_IN)
    x[:, 0] = torch.tensor([1.0, -5.0, 2.0, -1.0, -3.0])
    x[:, 1] = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0])
    source = signaware.TextActivations(x, torch.tensor([3, 2]))
    sides = side_values(identity_sae(2), source, how)
    torch.testing.assert_close(sides.pos, torch.tensor(pos))
    torch.testing.assert_close(sides.neg, torch.tensor(neg))
    side = side_features(sides)
    assert side.names == ["0+", "1+", "0-", "1-"]
    torch.testing.assert_close(side.values, torch.cat([sides.pos, sides.neg], 1))
    torch.testing.assert_close(axis_features(sides).values, torch.tensor(signed))


@pytest.mark.parametrize("how", ["sum", "max"])
def test_a_pair_is_in_the_units_of_what_it_writes(how: Aggregation) -> None:
    sae = identity_sae(3)
    sae.W_dec.data = torch.zeros(3, D_IN)
    sae.W_dec.data[:, 0] = torch.tensor([2.0, -0.5, 1.0])
    names = ["0+", "1+", "2+", "0-", "1-", "2-"]
    # 2+ is active in no text that is fitted, and neither is a - side
    values = torch.tensor(
        [[1.0, 8.0, 0, 0, 0, 0], [3.0, 2.0, 0, 0, 0, 0], [1.0, 1.0, 5.0, 0, 7, 0]]
    )
    fit = torch.tensor([True, True, False])
    found, cosines = pair_features(sae, Features(values, names), how, fit, max_cosine=-0.9)
    assert found.names == ["0+ 1+"]
    assert cosines == pytest.approx([-1.0])
    expected = {"sum": [2 - 4.0, 6 - 1.0, 2 - 0.5], "max": [-4.0, 6.0, 2.0]}[how]
    assert found.values[:, 0].tolist() == expected


@pytest.mark.parametrize("classes", [None, ("down", "up")])
def test_the_fitted_texts_say_which_side_should_stand_for_which_end(classes: Any) -> None:
    # on the fitted texts the value rises with the label, and on the others it falls
    label = np.array([0.0, 0.0, 1.0, 1.0])
    fit = np.array([True] * 4 + [False] * 4)
    value = np.array([-1.0, -2.0, 1.0, 2.0, 1.0, 2.0, -1.0, -2.0])
    labels = Labels(np.concatenate([label, label]), classes)
    ends = ends_of("axis", "0", value, labels, fit, Scorer(Labels(label, classes), 20, 0))
    assert (ends.pos.end, ends.neg.end) == (("up", "down") if classes else ("high", "low"))
    assert ends.pos.at_end == ends.neg.at_end == 0.0
    assert (ends.pos.mean_label, ends.neg.mean_label) == (0.0, 1.0)
    assert ends.verdict == "neither side"


def test_high_and_low_are_above_and_below_the_median_label() -> None:
    # the mean is 2.6: above it is the last text alone
    label = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.1, 1.2, 1.3, 1.4, 24.0])
    value = np.array([-1.0] * 6 + [1.0] * 6)
    labels = Labels(np.concatenate([label, label]), None)
    fit = np.array([True] * 12 + [False] * 12)
    both = np.concatenate([value, value])
    ends = ends_of("axis", "0", both, labels, fit, Scorer(Labels(label, None), 20, 0))
    assert (ends.pos.end, ends.neg.end) == ("high", "low")
    assert ends.pos.at_end == ends.neg.at_end == 1.0
    assert ends.verdict == "both sides"


@pytest.mark.parametrize(
    "label", [np.r_[np.zeros(7), 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], np.r_[-7.0:-1.0, np.zeros(7)]]
)
def test_where_most_texts_have_the_lowest_or_highest_label_they_are_an_end(
    label: np.ndarray,
) -> None:
    middle = np.median(label)
    assert middle in (label.min(), label.max())
    high = label > label.min() if middle == label.min() else label == label.max()
    value = np.where(high, 1.0, -1.0)
    labels, fit = Labels(np.tile(label, 2), None), np.arange(26) < 13
    ends = ends_of("axis", "0", np.tile(value, 2), labels, fit, Scorer(Labels(label, None), 20, 0))
    assert ends.pos.at_end == ends.neg.at_end == 1.0
    assert ends.verdict == "both sides"
    # one draw of all C(13, 6), where the other end has 7
    assert ends.pos.by_chance == pytest.approx(1 / 1716)


@pytest.mark.parametrize(
    ("n_texts", "at_end", "low", "stands"),
    [
        (20, 2 / 3, 0.51, True),
        (20, 0.66, 0.51, False),
        (20, 0.9, 0.5, False),  # it may be chance
        (20, 0.9, 0.2, False),
        (0, np.nan, np.nan, False),
        (6, 1.0, 1.0, True),
        (5, 1.0, 1.0, False),  # of so few the interval says nothing
    ],
)
def test_when_a_side_stands_for_its_end(
    n_texts: int, at_end: float, low: float, stands: bool
) -> None:
    side = EndOfSide("high", n_texts, 0.5, 1.0, 0.0, at_end, at_end_low=low, at_end_high=1.0)
    assert side.stands_for_end is stands


def test_a_side_seldom_stands_for_an_end_by_chance() -> None:
    # the side's texts are drawn without regard to the label; a bootstrap of few has no width
    label = np.arange(100) % 2 * 1.0
    scorer = Scorer(Labels(label, ("a", "b")), 200, 0)
    fit = np.array([True] * 100 + [False] * 100)
    generator = np.random.default_rng(0)
    for n_texts in (1, 2, 4, 6, 12):
        stand = 0
        for _ in range(200):
            value = np.zeros(100)
            value[generator.choice(100, n_texts, replace=False)] = 1.0
            values = np.concatenate([label - 0.5, value])
            ends = ends_of("axis", "0", values, Labels(np.tile(label, 2), ("a", "b")), fit, scorer)
            stand += ends.pos.stands_for_end
        assert stand <= 12, n_texts  # of 5 that are expected at most


@pytest.mark.parametrize("n_high", [100, 180, 190])
def test_chance_is_as_rare_where_one_end_is(n_high: int) -> None:
    rng = np.random.default_rng(0)
    label = (np.arange(400) % 200 < n_high).astype(float)
    labels, fit = Labels(label, ("down", "up")), np.arange(400) < 200
    scorer = Scorer(labels._replace(values=label[~fit]), 200, 0)
    verdicts = []
    for _ in range(100):
        values = np.where(rng.random(400) < 0.1, rng.choice([-1.0, 1.0], 400), 0.0)
        verdicts.append(ends_of("axis", "0", values, labels, fit, scorer).verdict)
    assert sum(verdict != "neither side" for verdict in verdicts) <= 8  # 5% is 5


def test_the_exact_test_by_hand() -> None:
    # 6 of 6 at an end of 3 in 6: C(3, 3) / C(6, 3) where all three are drawn
    label = np.array([1.0, 1, 1, 0, 0, 0] * 2)
    labels, fit = Labels(label, ("down", "up")), np.arange(12) < 6
    values = np.where(label == 1, 1.0, 0.0)
    ends = ends_of(
        "axis", "0", values, labels, fit, Scorer(Labels(label[6:], labels.classes), 9, 0)
    )
    assert ends.pos.by_chance == pytest.approx(1 / 20)
    assert ends.neg.by_chance == 1
    assert not dataclasses.replace(ends.pos, n_texts=6).stands_for_end
    assert dataclasses.replace(ends.pos, n_texts=6, by_chance=np.nan).stands_for_end


def test_resamples_without_a_rho_do_not_count() -> None:
    label = np.array([0.0] * 19 + [3.0])
    score = Scorer(Labels(label, None), 200, 0).score(label)
    assert (score.value, score.low, score.high) == (1.0, 1.0, 1.0)
