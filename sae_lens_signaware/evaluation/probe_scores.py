"""Scores of a probe: rank correlation or ROC area, a bootstrap interval, and the fit itself."""

import dataclasses
import importlib.util
from typing import Any

import numpy as np

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation.labelled_texts import Labels

RIDGE_ALPHA, LOGISTIC_C = 1.0, 1.0
RAW_GRID = 10.0 ** np.arange(-3, 5)
"""Ridge penalties that the probe of the raw activations chooses from; C of a class is 1 / penalty.

With as many features as texts the penalty decides the score, so it is chosen by cross-validation.
"""

COLUMNS_AT_ONCE, RESAMPLES_AT_ONCE = 1024, 100


@dataclasses.dataclass(frozen=True)
class Score:
    """A score with its 95% interval.

    Attributes:
        value: Spearman's rho, or the area under the ROC curve.
        low, high: percentiles 2.5 and 97.5 over resamples of the texts.
    """

    value: float
    low: float
    high: float


def require_scikit_learn() -> None:
    """Raise ConfigError where scikit-learn is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            "probe: scikit-learn is not installed; run: pip install 'sae-lens-signaware[probe]'"
        )


def ranks(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Rank from 1, in float64; equal values share the mean of their ranks."""
    from scipy.stats import rankdata  # scikit-learn brings it

    # newer scipy ranks float32 in float32, whose sums are then off in the seventh digit
    return rankdata(values.astype(np.float64), axis=axis)


def correlation(a: np.ndarray, b: np.ndarray, axis: int = 0) -> np.ndarray:
    """Pearson's correlation along ``axis``, of ranks Spearman's; 0 where one does not vary."""
    a = a - a.mean(axis, keepdims=True)
    b = b - b.mean(axis, keepdims=True)
    size = np.sqrt((a * a).sum(axis) * (b * b).sum(axis))
    return np.divide((a * b).sum(axis), size, out=np.zeros_like(size), where=size > 1e-9)


def auc_of_ranks(rank_sum: np.ndarray, n_pos: int, n_neg: int) -> np.ndarray:
    """Area under the ROC curve, P(a positive is above a negative) + P(equal) / 2.

    Args:
        rank_sum: of the positives, any shape; ranks from 1, those of equals their mean.
    """
    return (rank_sum - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)


def association(values: np.ndarray, labels: Labels) -> np.ndarray:
    """Score each column of (n, m) against the labels: (m,) rho, or AUC less ½.

    Both are 0 where a column says nothing, as where it does not vary.
    """
    out = np.zeros(values.shape[1])
    varies = np.flatnonzero(values.max(0) > values.min(0))
    is_pos = labels.values == 1
    label_ranks = ranks(labels.values)[:, None]
    for start in range(0, len(varies), COLUMNS_AT_ONCE):
        columns = varies[start : start + COLUMNS_AT_ONCE]
        r = ranks(values[:, columns])
        if labels.classes is None:
            out[columns] = correlation(r, np.broadcast_to(label_ranks, r.shape))
        else:
            n_pos = int(is_pos.sum())
            out[columns] = auc_of_ranks(r[is_pos].sum(0), n_pos, len(r) - n_pos) - 0.5
    return out


def strongest_first(values: np.ndarray, labels: Labels) -> list[int]:
    """Order the columns of (n, m) by the size of their :func:`association` with the labels.

    Ranks tie where the label is easy, as several columns then order it without a fault. Of equal
    ones Pearson's correlation decides, and then the earlier column.
    """
    # rounded: 0.55 - 0.5 is not 0.5 - 0.45
    strength = np.abs(association(values, labels)).round(12)
    y = labels.values[:, None]
    linear = np.zeros(values.shape[1])
    for start in range(0, values.shape[1], COLUMNS_AT_ONCE):
        x = values[:, start : start + COLUMNS_AT_ONCE].astype(np.float64)
        linear[start : start + x.shape[1]] = correlation(x, np.broadcast_to(y, x.shape))
    return np.lexsort((-np.abs(linear).round(9), -strength)).tolist()


class Scorer:
    """Scores of predictions of the same texts, over the same resamples.

    Of two classes each is resampled by itself, so that no resample lacks one.
    """

    def __init__(self, labels: Labels, n_resamples: int, seed: int) -> None:
        self.labels = labels
        generator = np.random.default_rng(seed)
        groups = labels.values if labels.classes else np.zeros(len(labels.values))
        members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        self.resamples = np.concatenate(
            [generator.choice(m, size=(n_resamples, len(m))) for m in members], axis=1
        )

    def score(self, predictions: np.ndarray) -> Score:
        """Return the score of (n,) predictions, and its interval."""
        value = self._scores(predictions, np.arange(len(predictions))[None])[0]
        steps = range(0, len(self.resamples), RESAMPLES_AT_ONCE)
        parts = [self.resamples[i : i + RESAMPLES_AT_ONCE] for i in steps]
        return interval(value, np.concatenate([self._scores(predictions, part) for part in parts]))

    def _scores(self, predictions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(b,) scores of (b, n) numbers of texts."""
        predicted, actual = ranks(predictions[rows], axis=1), self.labels.values[rows]
        if self.labels.classes is None:
            rho = correlation(predicted, ranks(actual, axis=1), axis=1)
            rho[np.ptp(actual, axis=1) == 0] = np.nan  # labels that do not vary have none
            return rho
        n_pos = int(self.labels.values.sum())
        rank_sum = (predicted * actual).sum(1)
        return auc_of_ranks(rank_sum, n_pos, predicted.shape[1] - n_pos)


def interval(value: float, resampled: np.ndarray) -> Score:
    """Make a score of a value and of what resamples give; those that are NaN are left out."""
    known = resampled[~np.isnan(resampled)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Score(float(value), float(low), float(high))


def fitted_predictions(
    values: np.ndarray, labels: Labels, fit: np.ndarray, chooses_penalty: bool = False
) -> np.ndarray:
    """Fit scikit-learn's ridge or logistic regression on the texts of ``fit``, predict all.

    Features are standardised by the mean and standard deviation of the fitted texts.

    Args:
        values: (n, m).
        fit: (n,) bool.
        chooses_penalty: by cross-validation in the fitted texts; otherwise alpha, or C, is 1.

    Returns:
        (n,) predicted numbers, or log-odds of class 1.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # float64: ridge regression in float32 is not the same from one machine to another
    x, y = values.astype(np.float64), labels.values
    model: Any
    if labels.classes is None:
        model = make_pipeline(StandardScaler(), Ridge(alpha=RIDGE_ALPHA))
        grid, by = {"ridge__alpha": RAW_GRID}, "r2"
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=LOGISTIC_C, max_iter=1000))
        grid, by = {"logisticregression__C": 1 / RAW_GRID}, "roc_auc"
    at = np.flatnonzero(fit)
    if chooses_penalty:
        # folds are drawn from texts in an order of their own: where a file is sorted by label, a
        # fold would be a range of labels
        at = at[np.lexsort((x[at, 0], y[at]))]
        smallest = min(np.unique(y[at], return_counts=True)[1]) if labels.classes else len(at)
        kind = StratifiedKFold if labels.classes else KFold
        folds = kind(min(5, int(smallest)), shuffle=True, random_state=0)
        model = GridSearchCV(model, grid, scoring=by, cv=folds)
    model.fit(x[at], y[at])
    # BLAS rounds a row by its place among the others: equal texts are predicted once, and so tie
    distinct, place = np.unique(x, axis=0, return_inverse=True)
    predict = model.predict if labels.classes is None else model.decision_function
    return predict(distinct)[place.reshape(-1)]
