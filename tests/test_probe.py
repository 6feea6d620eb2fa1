"""Sparse probes: by hand with scikit-learn, on planted labels, of a split SAE, and their sides."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.labelled_texts import Labels, labels_of
from sae_lens_signaware.evaluation.probe_features import AGGREGATIONS, Aggregation
from sae_lens_signaware.evaluation.probe_scores import Scorer, fitted_predictions
from tests.support.saes import D_IN, each_saved_variant, make_sae

N_TEXTS = 120


def texts(n: int = N_TEXTS, seed: int = 0) -> signaware.TextActivations:
    """Texts of 1 to 6 tokens of noise."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 7, (n,), generator=generator)
    return signaware.TextActivations(
        torch.randn(int(counts.sum()), D_IN, generator=generator), counts, "hook"
    )


def noisy_labels(source: signaware.TextActivations) -> np.ndarray:
    """Labels that go with one direction of the activations, and with noise."""
    means = [chunk[:, 0].sum().item() for chunk in source.activations.split(lengths(source))]
    return np.array(means) + np.random.default_rng(0).normal(size=len(means))


def lengths(source: signaware.TextActivations) -> list[int]:
    return source.n_tokens_of.tolist()


def parts(n: int = N_TEXTS) -> list[str]:
    return ["fit" if i % 2 else "report" for i in range(n)]


def latents_by_hand(sae: Any, source: signaware.TextActivations, how: str) -> np.ndarray:
    rows = []
    for chunk in source.activations.split(lengths(source)):
        z = sae.encode(chunk).detach().double()
        rows.append({"sum": z.sum(0), "mean": z.mean(0), "max": z.max(0).values}[how])
    return torch.stack(rows).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_the_reference_does_not_depend_on_how_the_texts_are_sorted(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, fit = rng.normal(size=(400, 256)), np.arange(400) % 2 == 0
    y = x @ rng.normal(size=256) / 16 + 0.3 * rng.normal(size=400)
    order = np.argsort(y)

    def score(at: np.ndarray) -> float:
        labels = labels_of([*y[at]] if kind == "numbers" else [*(y[at] > 0)])
        predicted = fitted_predictions(x[at], labels, fit[at], chooses_penalty=True)
        return spearmanr(predicted[~fit[at]], y[at][~fit[at]]).statistic

    # folds of one range of labels each chose another penalty
    assert score(order) == pytest.approx(score(np.arange(400)), abs=1e-6)
    assert score(rng.permutation(400)) == pytest.approx(score(order), abs=1e-6)


@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_equal_texts_tie_wherever_they_stand(kind: str) -> None:
    for seed in range(10):  # a product of matrices rounds some rows apart, and others not
        rng = np.random.default_rng(seed)
        x = np.maximum(rng.normal(size=(203, 16)) - 1.5, 0)
        is_empty = rng.random(203) < 0.5  # no latent is active in these
        x[is_empty] = 0
        y = x.sum(1) + rng.normal(size=203)
        labels = labels_of([*y] if kind == "numbers" else [*(y > 0)])
        predicted = fitted_predictions(x, labels, np.arange(203) % 2 == 0)
        assert len(np.unique(predicted[is_empty])) == 1
        assert len(np.unique(predicted)) > 50


def plain_sae() -> Any:
    return signaware.split_polarities(make_sae("bi_jumprelu"))


@pytest.mark.parametrize("how", AGGREGATIONS)
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_a_plain_sae_scores_as_by_hand_with_scikit_learn(kind: str, how: Aggregation) -> None:
    sae, source = plain_sae(), texts()
    y = noisy_labels(source)
    if kind == "classes":
        y = (y > np.median(y)).astype(float)
    labels = y.tolist() if kind == "numbers" else ["up" if v else "down" for v in y]
    result = signaware.probe(
        sae, source, labels, parts=parts(), aggregation=how, n_resamples=10, with_raw=False
    )
    x, fit = latents_by_hand(sae, source, how), np.array(parts()) == "fit"
    if kind == "numbers":
        strength = [abs(np.nan_to_num(spearmanr(c[fit], y[fit]).statistic)) for c in x.T]
    else:
        strength = [abs(roc_auc_score(y[fit], c[fit]) - 0.5) for c in x.T]
    linear = [abs(np.corrcoef(c[fit], y[fit])[0, 1]) if np.ptp(c[fit]) else 0 for c in x.T]
    order = sorted(range(len(strength)), key=lambda i: (-round(strength[i], 12), -linear[i]))
    assert not any(p.form == "axis" for p in result.probes)
    for k in (1, 2, 4, 8, 16):
        chosen = order[:k]
        scaler = StandardScaler().fit(x[fit][:, chosen])
        scaled = scaler.transform(x[:, chosen])
        if kind == "numbers":
            predicted = Ridge(alpha=1.0).fit(scaled[fit], y[fit]).predict(scaled)
            expected = spearmanr(predicted[~fit], y[~fit]).statistic
        else:
            model = LogisticRegression(C=1.0, max_iter=1000).fit(scaled[fit], y[fit])
            expected = roc_auc_score(y[~fit], model.predict_proba(scaled)[~fit, 1])
        probe = result.of("side", k)
        assert probe.features == tuple(f"{i}+" for i in chosen)
        assert probe.value == pytest.approx(expected, abs=1e-9)
        assert probe.low <= probe.high


def axis_sae() -> Any:
    """A signed SAE whose latent i is coordinate i, where that is larger than 0.5 in size."""
    sae = make_sae("sa_gsae", "none", d_sae=4)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(D_IN)[:4])
        sae.W_enc.copy_(torch.eye(D_IN)[:4].T)
        for p in (sae.b_dec, sae.r_mag, sae.b_mag):
            p.zero_()
        sae.threshold.fill_(0.5)
    return sae


def one_token_texts(x: torch.Tensor) -> signaware.TextActivations:
    return signaware.TextActivations(x, torch.ones(len(x), dtype=torch.int64))


def labelled_by_axis(n: int = 80) -> tuple[signaware.TextActivations, np.ndarray]:
    """One token for each text, of noise in all coordinates but 2, which is the label."""
    label = torch.cat([torch.linspace(-4, -1, n // 2), torch.linspace(1, 4, n // 2)])
    x = torch.randn(n, D_IN, generator=torch.Generator().manual_seed(0))
    x[:, 2] = label
    return one_token_texts(x), label.numpy()


def test_a_latent_that_is_the_label_has_rho_1_and_both_sides_stand_for_the_ends() -> None:
    source, label = labelled_by_axis()
    result = signaware.probe(axis_sae(), source, label.tolist(), ks=[1], parts=parts(80))
    axis = result.of("axis")
    assert axis.features == ("2",)
    assert axis.value == axis.low == axis.high == axis.fit_value == 1.0
    ends = result.ends_of("axis")
    assert ends.verdict == "both sides"
    for side, end, mean in ((ends.pos, "high", 2.5), (ends.neg, "low", -2.5)):
        assert side.end == end
        assert side.n_texts == 20
        assert side.share == 0.5
        assert side.mean_label == pytest.approx(mean, abs=0.1)
        assert side.within == pytest.approx(1.0)
        assert side.at_end == side.at_end_low == 1.0
    # each side sees one half of the texts, so that half of the order is lost
    side = result.of("side")
    assert side.features in {("2+",), ("2-",)}
    assert side.value < 0.95
    pair = result.of("pair")
    assert set(pair.features[0].split()) == {"2+", "2-"}
    assert pair.value == 1.0
    assert result.pair_cosine == pytest.approx(-1.0)
    assert result.of("raw").value > 0.95


def test_two_classes_are_named_and_scored_by_auc() -> None:
    source, label = labelled_by_axis()
    names = ["up" if v > 0 else "down" for v in label]
    result = signaware.probe(axis_sae(), source, names, ks=[1], parts=parts(80))
    assert result.metric == "auc"
    assert result.classes == ("down", "up")
    assert result.of("axis").value == 1.0
    ends = result.ends_of("axis")
    assert (ends.pos.end, ends.neg.end) == ("up", "down")
    assert ends.pos.mean_label == 1
    assert np.isnan(ends.pos.within)  # one class alone is there
    assert ends.verdict == "both sides"


def test_a_side_that_fires_on_everything_stands_for_nothing() -> None:
    # class "up" is seen by the + side of latent 2; its - side is active on the others, on which
    # the classes are mixed half and half
    n = 400
    is_up = torch.arange(n) % 2 == 0
    x = torch.zeros(n, D_IN)
    x[:, 2] = torch.where(is_up & (torch.arange(n) % 8 == 0), 2.0, -2.0)
    labels = ["up" if v else "down" for v in is_up]
    half = ["fit" if i < n // 2 else "report" for i in range(n)]
    result = signaware.probe(axis_sae(), one_token_texts(x), labels, ks=[1], parts=half)
    ends = result.ends_of("axis")
    assert ends.pos.at_end == 1.0
    # 100 of 100 "down" against 75 of 100 "up"
    assert ends.neg.at_end == pytest.approx(1 / 1.75)
    assert ends.verdict == "+ side alone"


def test_classes_of_unequal_size_are_weighted_alike() -> None:
    # 30 of 120 texts are "a"; the + side is active on 10 of these and on 30 of the 90 others
    label = np.array([1.0] * 30 + [0.0] * 90)
    value = np.array(([1.0] * 10 + [-1.0] * 20) + ([1.0] * 30 + [-1.0] * 60))
    x = torch.zeros(240, D_IN)
    x[:, 0] = torch.from_numpy(np.concatenate([value, value])).float()
    half = ["fit"] * 120 + ["report"] * 120
    result = signaware.probe(
        axis_sae(), one_token_texts(x), np.concatenate([label, label]).tolist(), ks=[1], parts=half
    )
    assert result.of("axis").value == pytest.approx(0.5)
    ends = result.ends_of("axis")
    assert ends.pos.at_end == ends.neg.at_end == pytest.approx(0.5)
    assert ends.pos.mean_label == pytest.approx(0.25)
    assert ends.verdict == "neither side"


@each_saved_variant
def test_a_split_sae_scores_by_side_as_its_plain_twin(architecture: str, tying: str) -> None:
    sae, source = make_sae(architecture, tying), texts()
    labels = noisy_labels(source).tolist()
    signed = signaware.probe(sae, source, labels, n_resamples=20)
    plain = signaware.probe(signaware.split_polarities(sae), source, labels, n_resamples=20)
    assert {p.form for p in signed.probes} == {"axis", "side", "pair", "raw"}
    assert {p.form for p in plain.probes} == {"side", "pair", "raw"}
    width = sae.cfg.d_sae
    for k in (1, 2, 4, 8, 16):
        ours, theirs = signed.of("side", k), plain.of("side", k)
        index = [int(name[:-1]) + width * (name[-1] == "-") for name in ours.features]
        assert tuple(f"{i}+" for i in index) == theirs.features
        for field in ("value", "low", "high", "fit_value"):
            assert getattr(ours, field) == pytest.approx(getattr(theirs, field), abs=1e-4)
    assert signed.of("pair").value == pytest.approx(plain.of("pair").value, abs=1e-4)
    assert signed.of("raw") == plain.of("raw")


def test_the_largest_of_both_sides_is_the_value_by_max() -> None:
    x = torch.zeros(60, D_IN)
    x[::3, 0], x[1::3, 0], x[2::3, 0] = 1.0, -3.0, 2.0  # three tokens of each text
    x[3:30:3, 0] = 4.0
    source = signaware.TextActivations(x, torch.full((20,), 3))
    assert signaware.evaluation.probe_features.axis_features(
        signaware.evaluation.probe_features.side_values(axis_sae(), source, "max")
    ).values[:, 0].tolist() == [-3.0, *[4.0] * 9, *[-3.0] * 10]


def test_of_latents_that_order_the_texts_alike_the_more_linear_one_is_chosen() -> None:
    label = torch.arange(-30.0, 30.0) + 0.5
    x = torch.zeros(60, D_IN)
    x[:, 1], x[:, 3] = label**3, label
    result = signaware.probe(axis_sae(), one_token_texts(x), label.tolist(), ks=[1, 2])
    assert result.of("axis", 2).features == ("3", "1")


def test_the_interval_is_that_of_chance_for_noise() -> None:
    rng = np.random.default_rng(1)
    labels = Labels(rng.normal(size=400), None)
    score = Scorer(labels, 1000, 0).score(rng.normal(size=400))
    # the standard error of rho without an association is 1 / sqrt(n - 1)
    assert score.high - score.low == pytest.approx(2 * 1.96 / np.sqrt(399), rel=0.15)
    assert score.low < 0 < score.high
    classes = Labels((rng.random(400) < 0.2).astype(float), ("a", "b"))
    auc = Scorer(classes, 1000, 0).score(rng.normal(size=400))
    n = classes.values.sum()
    # and that of AUC is sqrt((n0 + n1 + 1) / (12 n0 n1))
    error = np.sqrt(401 / (12 * n * (400 - n)))
    assert auc.high - auc.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_what_is_reported_does_not_see_the_labels_of_the_other_part() -> None:
    sae, source = plain_sae(), texts()
    labels = noisy_labels(source)
    other = labels.copy()
    reported = np.array(parts()) == "report"
    other[reported] = np.random.default_rng(5).permutation(labels[reported])
    a, b = (
        signaware.probe(sae, source, y.tolist(), parts=parts(), n_resamples=5)
        for y in (labels, other)
    )
    for p, q in zip(a.probes, b.probes, strict=True):
        assert p.features == q.features
        assert p.fit_value == q.fit_value
    assert a.of("raw").value > 0.5
    assert abs(b.of("raw").value) < 0.3


def test_an_sae_that_is_never_active_tells_nothing() -> None:
    sae, source = plain_sae(), texts()
    for name in ("b_enc", "W_enc"):
        getattr(sae, name).data.zero_()
    result = signaware.probe(sae, source, noisy_labels(source).tolist(), n_resamples=5)
    assert {probe.form for probe in result.probes} == {"side", "raw"}  # no pair
    assert [probe.value for probe in result.probes[:-1]] == [0.0] * 5
    assert result.of("raw").value > 0.5  # the activations still tell it


def test_probes_read_back_and_print(tmp_path: Path) -> None:
    source, label = labelled_by_axis()
    source = dataclasses.replace(source, n_cut=7)
    result = signaware.probe(axis_sae(), source, label.tolist(), ks=[1, 2], n_resamples=50, seed=3)
    result.write(tmp_path / "probes.json")
    again = signaware.SparseProbes.read(tmp_path / "probes.json")
    assert (again.n_cut, again.n_resamples, again.seed) == (7, 50, 3)
    assert again.probes == result.probes
    assert [e.verdict for e in again.ends] == [e.verdict for e in result.ends]
    assert np.isnan(again.ends_of("side").neg.at_end)
    (tmp_path / "wrong.json").write_text('{"provenance": {}}')
    with pytest.raises(ValueError, match="not a SparseProbes"):
        signaware.SparseProbes.read(tmp_path / "wrong.json")
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(result.table())
    console.print(result.ends_table())
    text = console.export_text()
    assert "; of 7 texts only the beginning was read" in text
    assert f"{result.of('side', 2).value:.3f}" in text
    assert "stands for it" in text
    with pytest.raises(KeyError):
        result.of("axis", 3)
