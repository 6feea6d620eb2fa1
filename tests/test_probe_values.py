"""Numbers of a probe against a slow computation: scores, intervals, penalties, what is chosen."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.labelled_texts import Labels
from sae_lens_signaware.evaluation.probe_ends import EndOfSide, Ends, ends_of
from sae_lens_signaware.evaluation.probe_features import raw_features
from sae_lens_signaware.evaluation.probe_results import Probe
from sae_lens_signaware.evaluation.probe_scores import (
    Scorer,
    fitted_predictions,
    interval,
    strongest_first,
)
from sae_lens_signaware.evaluation.results import Provenance
from tests.support.defaults import default_dtype
from tests.support.saes import D_IN


def plain_sae_of_axes(directions: torch.Tensor) -> Any:
    """A plain SAE whose latent i is the positive part of coordinate i, and writes row i."""
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=len(directions)))
    for param in sae.parameters():
        param.data.zero_()
    sae.W_enc.data = torch.eye(D_IN)[:, : len(directions)].clone()
    sae.W_dec.data = directions
    return sae


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed))


def one_token_texts(x: torch.Tensor) -> signaware.TextActivations:
    return signaware.TextActivations(x, torch.ones(len(x), dtype=torch.int64))


# ---- ends


def test_texts_at_the_median_label_are_at_no_end() -> None:
    # of four texts above the median the + side has three, of four below one, and both at it
    label = np.array([3.0] * 4 + [1.0] * 4 + [2.0] * 2)
    on_side = np.array([1.0, 1, 1, 0, 1, 0, 0, 0, 1, 1])
    values = np.concatenate([label - 2, on_side])
    fit = np.arange(20) < 10
    labels, scorer = Labels(np.tile(label, 2), None), Scorer(Labels(label, None), 200, 0)
    side = ends_of("axis", "0", values, labels, fit, scorer).pos
    assert (side.end, side.n_texts, side.share) == ("high", 6, 0.6)
    assert side.at_end == pytest.approx(3 / 4)
    # three or more of four drawn of eight, four of which are high: (4 * 4 + 1) / 70
    assert side.by_chance == pytest.approx(17 / 70)
    shares = []
    for rows in scorer.resamples:
        y, on = label[rows], on_side[rows] > 0
        high, low = on[y > 2], on[y < 2]
        if len(high) and len(low) and high.any() | low.any():  # others have no share
            shares.append(high.mean() / (high.mean() + low.mean()))
    expected = np.percentile(shares, [2.5, 97.5])
    assert (side.at_end_low, side.at_end_high) == pytest.approx(tuple(expected))
    assert side.at_end_low < side.at_end < side.at_end_high


@pytest.mark.parametrize(("by_chance", "stands"), [(0.0249, True), (0.025, False), (0.03, False)])
def test_a_side_that_chance_would_give_stands_for_nothing(by_chance: float, stands: bool) -> None:
    side = EndOfSide("high", 20, 0.5, 1.0, 0.0, 0.9, 0.6, 1.0, by_chance)
    assert side.stands_for_end is stands


def test_the_auc_within_a_side_is_of_its_signed_values() -> None:
    label = np.array([0.0, 1, 0, 1, 1, 1, 0, 0])
    value = np.array([1.0, 2, 3, 4, -1, -2, -3, -4])
    classes = ("down", "up")
    fit = np.arange(16) < 8
    labels = Labels(np.concatenate([(value > 0) * 1.0, label]), classes)
    ends = ends_of(
        "axis", "0", np.tile(value, 2), labels, fit, Scorer(Labels(label, classes), 9, 0)
    )
    assert ends.pos.within == pytest.approx(3 / 4)  # of four pairs, 2 is not above 3
    assert ends.neg.within == pytest.approx(1.0)  # -1 and -2 are above -3 and -4


# ---- scores


def test_an_interval_is_from_2_5_to_97_5_percent_of_what_is_known() -> None:
    resampled = np.concatenate([np.arange(1001.0), [np.nan] * 50])
    score = interval(7.0, resampled)
    assert (score.value, score.low, score.high) == (7.0, 25.0, 975.0)
    assert np.isnan(interval(7.0, np.array([np.nan])).low)


@pytest.mark.parametrize("classes", [None, ("down", "up")])
def test_a_score_is_that_of_each_resample_by_itself(classes: Any) -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=30).round(1)  # some are equal
    label = (predicted + rng.normal(size=30)).round(1)
    label = label if classes is None else (label > 0) * 1.0
    scorer = Scorer(Labels(label, classes), 150, seed=3)
    assert scorer.resamples.shape == (150, 30)

    def by_hand(rows: Any) -> float:
        if classes is None:
            return spearmanr(predicted[rows], label[rows]).statistic
        return float(roc_auc_score(label[rows], predicted[rows]))

    score = scorer.score(predicted)
    assert score.value == pytest.approx(by_hand(np.arange(30)))
    expected = np.percentile([by_hand(rows) for rows in scorer.resamples], [2.5, 97.5])
    assert (score.low, score.high) == pytest.approx(tuple(expected))


def test_the_seed_draws_the_resamples() -> None:
    labels = Labels(np.arange(30.0), None)
    first, again, other = (Scorer(labels, 5, seed).resamples for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_of_equal_ranks_the_more_linear_column_is_first_whatever_its_sign() -> None:
    label = np.arange(-30.0, 30.0) + 0.5
    columns = np.stack([-(label**3), -label, label**5], axis=1)
    assert strongest_first(columns, Labels(label, None)) == [1, 0, 2]


@pytest.mark.parametrize("classes", [None, ("down", "up")])
def test_the_penalty_is_the_best_of_five_folds_of_the_fitted_texts(classes: Any) -> None:
    rng = np.random.default_rng(0)
    x, fit = rng.normal(size=(120, 40)), np.arange(120) % 2 == 0
    y = x @ rng.normal(size=40) / 6 + rng.normal(size=120)
    y = y if classes is None else (y > 0) * 1.0
    at = np.flatnonzero(fit)
    at = at[np.lexsort((x[at, 0], y[at]))]
    kind: Any = KFold if classes is None else StratifiedKFold
    folds = list(kind(5, shuffle=True, random_state=0).split(x[at], y[at]))

    def predictions(rows: Any, penalty: float) -> Any:
        scaler = StandardScaler().fit(x[rows])
        if classes is None:
            return (
                Ridge(alpha=penalty)
                .fit(scaler.transform(x[rows]), y[rows])
                .predict(scaler.transform(x))
            )
        model = LogisticRegression(C=1 / penalty, max_iter=1000)
        return model.fit(scaler.transform(x[rows]), y[rows]).decision_function(scaler.transform(x))

    score: Any = r2_score if classes is None else roc_auc_score
    means = {
        penalty: np.mean([score(y[at[b]], predictions(at[a], penalty)[at[b]]) for a, b in folds])
        for penalty in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
    }
    best = max(means, key=means.__getitem__)
    assert best not in (0.001, 1.0, 10000.0)  # neither an end, nor what is taken without a choice
    found = fitted_predictions(x, Labels(y, classes), fit, chooses_penalty=True)
    np.testing.assert_allclose(found, predictions(at, best), atol=1e-6)


# ---- a whole probe


def test_the_score_on_the_fitted_texts_is_in_the_same_units() -> None:
    x = noise(80)
    fit = np.arange(80) < 50
    parts = ["fit" if f else "report" for f in fit]
    y = x[:, 0] + torch.randn(80, generator=torch.Generator().manual_seed(1))
    sae = plain_sae_of_axes(torch.eye(D_IN)[:2])
    of_latent = x[:, 0].clamp(min=0).numpy()
    options: Any = {"parts": parts, "ks": [1], "n_resamples": 5, "with_raw": False}
    numbers = signaware.probe(sae, one_token_texts(x), y.tolist(), **options)
    assert numbers.of("side").features == ("0+",)
    rho = spearmanr(of_latent[fit], y.numpy()[fit]).statistic
    assert numbers.of("side").fit_value == pytest.approx(rho)
    is_up = (y > 0).numpy()
    classes = signaware.probe(sae, one_token_texts(x), is_up.tolist(), **options)
    assert classes.of("side").features == ("0+",)
    auc = roc_auc_score(is_up[fit], of_latent[fit])
    assert classes.of("side").fit_value == pytest.approx(auc)
    assert (classes.n_fit, classes.n_report, classes.n_tokens) == (50, 30, 80)


def test_the_pair_s_cosine_is_that_of_the_pair_that_was_chosen() -> None:
    directions = torch.zeros(4, D_IN)
    directions[0, 0], directions[2, 2], directions[3, 2] = 1, 1, -1
    directions[1, :2] = torch.tensor([-0.8, 0.6])
    x = noise(80)
    label = x[:, 0].clamp(min=0) - x[:, 1].clamp(min=0)

    def probed(max_cosine: float) -> signaware.SparseProbes:
        return signaware.probe(
            plain_sae_of_axes(directions),
            one_token_texts(x),
            label.tolist(),
            ks=[1],
            max_cosine=max_cosine,
            n_resamples=5,
            with_raw=False,
        )

    found = probed(-0.5)
    assert (found.n_pairs, found.max_cosine) == (2, -0.5)
    assert found.of("pair").features == ("0+ 1+",)
    assert found.pair_cosine == pytest.approx(-0.8)
    # without it the other one is left, which is more antipodal
    found = probed(-0.9)
    assert (found.n_pairs, found.max_cosine) == (1, -0.9)
    assert found.of("pair").features == ("2+ 3+",)
    assert found.pair_cosine == pytest.approx(-1.0)


def test_as_many_features_as_there_are_can_be_asked_for() -> None:
    x = noise(80)
    sae = plain_sae_of_axes(torch.eye(D_IN)[:4])
    found = signaware.probe(
        sae, one_token_texts(x), x[:, 0].tolist(), ks=[8, 5, 8], with_raw=False, n_resamples=5
    )
    assert [(p.form, p.k) for p in found.probes] == [("side", 5), ("side", 8)]
    found = signaware.probe(
        sae, one_token_texts(x), x[:, 0].tolist(), ks=[9], with_raw=False, n_resamples=5
    )
    assert found.probes == ()


def test_the_raw_activations_are_aggregated_as_the_latents_are() -> None:
    x, counts = noise(240), torch.tensor([1, 3, 2] * 40)
    source = signaware.TextActivations(x, counts)
    label = [chunk[:, 0].max().item() for chunk in x.split(counts.tolist())]
    parts = ["fit", "report"] * 60
    sae = plain_sae_of_axes(torch.eye(D_IN)[:2])
    found = signaware.probe(
        sae, source, label, parts=parts, aggregation="max", ks=[1], n_resamples=5
    )
    fit, y = np.array(parts) == "fit", np.array(label)
    raw = raw_features(source, "max").values.numpy()
    predicted = fitted_predictions(raw, Labels(y, None), fit, chooses_penalty=True)
    expected = spearmanr(predicted[~fit], y[~fit]).statistic
    assert found.of("raw").value == pytest.approx(expected)
    assert found.of("raw").k == D_IN
    assert (found.n_tokens, found.max_cosine) == (240, -0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_default_dtype_gives_the_same_probes(dtype: torch.dtype) -> None:
    x = noise(80)
    of_axes = plain_sae_of_axes(torch.eye(D_IN)[:2]), one_token_texts(x), x[:, 0].tolist()
    expected = signaware.probe(*of_axes, ks=[1], n_resamples=5)
    with default_dtype(dtype):
        found = signaware.probe(*of_axes, ks=[1], n_resamples=5)
    assert found.probes == expected.probes


def test_the_seed_draws_the_halves_and_the_resamples() -> None:
    x = noise(80)
    sae, label = plain_sae_of_axes(torch.eye(D_IN)[:2]), (x[:, 0] + x[:, 3]).tolist()

    def probed(seed: int, parts: Any = None) -> signaware.SparseProbes:
        return signaware.probe(
            sae, one_token_texts(x), label, parts=parts, ks=[1], n_resamples=20, seed=seed
        )

    one = probed(1).of("side")
    assert one == probed(1).of("side")
    assert one.value != probed(2).of("side").value
    given = ["fit", "report"] * 40
    first, other = probed(1, given).of("side"), probed(2, given).of("side")
    assert (first.value, first.fit_value) == (other.value, other.fit_value)
    assert (first.low, first.high) != (other.low, other.high)


# ---- tables


def probes_by_hand() -> signaware.SparseProbes:
    pos = EndOfSide("[up]", 30, 0.25, 0.75, 0.5, 0.875, 0.625, 0.955, 0.001)
    neg = EndOfSide("down", 0, 0.0, np.nan, np.nan, np.nan, np.nan, np.nan)
    names = tuple(f"{i}+" for i in range(8))
    return signaware.SparseProbes(
        provenance=Provenance(1000, {"architecture": "gated", "d_sae": 8}, {}),
        hook_name="hook",
        metric="auc",
        classes=("down", "[up]"),
        aggregation="sum",
        n_fit=2000,
        n_report=1000,
        n_pairs=0,
        max_cosine=-0.5,
        pair_cosine=np.nan,
        probes=(
            Probe(0.75, 0.625, 0.875, "side", 1, names[:1], 0.8125),
            Probe(0.8, 0.7, 0.9, "side", 4, names[:4], 0.85),
            Probe(0.9, 0.85, 0.95, "side", 8, names, 0.96),
            Probe(0.5, 0.25, 0.6, "raw", 1024, (), 1.0),
        ),
        ends=(Ends("side", "0+", pos, neg),),
    )


def rows_of(table: Any) -> list[list[str]]:
    return [list(row) for row in zip(*([*map(str, c.cells)] for c in table.columns), strict=True)]


def test_a_row_of_the_table_is_a_probe_with_its_score_before_that_of_the_fit() -> None:
    found = probes_by_hand()
    table = found.table()
    assert str(table.title).endswith("AUC on 1,000 texts, chosen and fitted on 2,000 others")
    headers = ["form", "k", "AUC", "95% interval", "fitted", "features"]
    assert [str(column.header) for column in table.columns] == headers
    assert rows_of(table) == [
        ["side", "1", "0.750", "0.625 to 0.875", "0.812", "0+"],
        ["side", "4", "0.800", "0.700 to 0.900", "0.850", "0+, 1+, 2+, 3+"],
        ["side", "8", "0.900", "0.850 to 0.950", "0.960", "0+, 1+, 2+, 3+, ..."],
        ["raw", "1,024", "0.500", "0.250 to 0.600", "1.000", ""],
    ]
    assert "side k=1 0.75" in repr(found)
    assert "k=4" not in repr(found)


def test_an_interval_that_is_not_known_reads_back(tmp_path: Path) -> None:
    known = probes_by_hand()
    unknown = Probe(0.5, np.nan, np.nan, "side", 1, ("0+",), np.nan)
    found = dataclasses.replace(known, probes=(unknown, *known.probes))
    found.write(tmp_path / "probes.json")
    read = signaware.SparseProbes.read(tmp_path / "probes.json")
    assert rows_of(read.table()) == rows_of(found.table())
    assert rows_of(read.table())[0] == ["side", "1", "0.500", "nan to nan", "nan", "0+"]


def test_a_row_of_the_table_of_ends_is_a_side() -> None:
    table = probes_by_hand().ends_table()
    assert [str(column.header) for column in table.columns] == [
        *("form", "feature", "side", "end", "texts", "at its end", "mean label"),
        *("auc within", "stands for it"),
    ]
    assert rows_of(table) == [
        ["side", "0+", "+", "[up]", "25.0%", "88% (62% to 96%)", "0.750", "0.500", "yes"],
        ["side", "0+", "-", "down", "0.0%", "-", "-", "-", "no"],
    ]
