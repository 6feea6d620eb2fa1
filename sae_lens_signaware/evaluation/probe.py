"""Sparse probes: how well k latents tell a label of a text, by axis, side and pair.

A text that is there more than once counts once, with its first label and part, so that none is both
fitted and reported on.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from rich.table import Table
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs
from sae_lens_signaware.evaluation.audit import find_antipodal_pairs, require_max_cosine
from sae_lens_signaware.evaluation.results import Number, Provenance, Result
from sae_lens_signaware.evaluation.texts import TextActivations

KS = (1, 2, 4, 8, 16)
Form = Literal["axis", "side", "pair", "raw"]

MIN_TEXTS, MIN_TEXTS_OF_CLASS = 10, 2
"""Distinct texts of each part, and of each class in it, at least."""
RAW_GRID = 10.0 ** np.arange(-3, 5)
"""Ridge penalties that the probe of the raw activations chooses from; C of a class is 1 / penalty.

With as many features as texts the penalty decides the score, so it is chosen by cross-validation.
"""
COLUMNS_AT_ONCE = 1024
N_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Probe:
    """A probe of k features, and its score on the reported texts.

    Attributes:
        form: "axis", "side" or "pair"; "raw" are all raw activations.
        k: number of features.
        features: their names, the strongest first; empty for "raw". ``"12"`` is the signed value
            of latent 12, ``"12+"`` its + side, ``"12+ 40+"`` that side less the other.
        value: Spearman's rho, or the area under the ROC curve.
        low, high: percentiles 2.5 and 97.5 over resamples of the distinct texts.
        fit_value: the score on the fitted texts.
    """

    form: Form
    k: int
    features: tuple[str, ...]
    value: Number
    low: Number
    high: Number
    fit_value: Number


@dataclasses.dataclass(frozen=True, repr=False)
class SparseProbes(Result):
    """Probes of one SAE on one set of labelled texts.

    Attributes:
        hook_name: where the activations are from.
        metric: of all scores: "rho" is Spearman's, "auc" the area under the ROC curve.
        classes: names of the classes 0 and 1; None where labels are numbers.
        n_fit, n_report: distinct texts that were fitted, and others that were reported on.
        n_pairs: pairs of sides with a cosine of at most ``max_cosine``, both active.
        probes: by form, then by k.
    """

    hook_name: str | None
    metric: Literal["rho", "auc"]
    classes: tuple[str, str] | None
    n_fit: int
    n_report: int
    n_pairs: int
    max_cosine: float
    probes: tuple[Probe, ...]
    seed: int

    def of(self, form: Form, k: int = 1) -> Probe:
        """The probe of a form with k features; of "raw" the only one. KeyError without it."""
        for probe in self.probes:
            if probe.form == form and (probe.k == k or form == "raw"):
                return probe
        known = ", ".join(f"{p.form} k={p.k}" for p in self.probes)
        raise KeyError(f"{form} k={k} is none of {known}")

    def table(self) -> Table:
        """A table for the terminal: the score of every probe."""
        title = f"{self.subject}: {self.n_report:,} texts, fitted on {self.n_fit:,} others"
        table = Table(title=title, title_justify="left")
        for column in ("form", "k", self.metric, "95% interval", "fitted"):
            table.add_column(column, no_wrap=True)
        table.add_column("features")
        for p in self.probes:
            shown = ", ".join(p.features[:4]) + (", ..." if len(p.features) > 4 else "")
            interval, fitted = f"{p.low:.3f} to {p.high:.3f}", f"{p.fit_value:.3f}"
            table.add_row(p.form, f"{p.k:,}", f"{p.value:.3f}", interval, fitted, shown)
        return table


@torch.no_grad()
def probe(
    sae: SAE[Any],
    source: TextActivations,
    labels: Sequence[object],
    *,
    parts: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    max_cosine: float = -0.5,
    seed: int = 0,
    with_raw: bool = True,
) -> SparseProbes:
    """Choose and fit sparse probes on one part of labelled texts, and score them on the other.

    Latents are summed over the tokens of a text. The k features are those that each by itself goes
    best with the label on the fitted texts: by the size of Spearman's rho where labels are numbers,
    by that of AUC - ½ where they are classes. Of equal ones Pearson's correlation decides.
    scikit-learn's ridge or logistic regression is fitted on them, standardised.

    Args:
        sae: any SAELens SAE; one that is never negative has no form "axis".
        source: activations of the texts at the SAE's hook, as
            :func:`~sae_lens_signaware.evaluation.text_activations` gives them.
        labels: of each text: finite numbers, or two classes. Two different numbers are classes.
        parts: "fit" or "report" for each text; None draws halves of the distinct texts by ``seed``.
        ks: numbers of features; a form that has fewer features leaves out larger ones.
        max_cosine: two sides are a pair where their directions have at most this cosine.
        seed: draws the halves and the resamples.
        with_raw: whether the raw activations are probed as well, all of them at once; the penalty
            is then chosen by cross-validation in the fitted texts.

    Raises:
        InvalidInputError: labels are not finite, or have one value; a part has too few texts; the
            activations are not those that the SAE takes.
    """
    inputs.require_folded(sae)
    require_max_cosine(max_cosine)
    width, n_texts = source.activations.shape[1], len(source.n_tokens_of)
    require(width == sae.cfg.d_in, "activations", f"{width} wide", f"{sae.cfg.d_in} wide")
    for name, given in (("labels", labels), ("parts", labels if parts is None else parts)):
        require(len(given) == n_texts, name, len(given), f"{n_texts}, one for each text")
    distinct: list[int] = np.unique(source.distinct_texts(), return_index=True)[1].tolist()
    y, classes = _numbers_of([labels[i] for i in distinct])
    is_class = classes is not None
    chosen_parts = None if parts is None else [parts[i] for i in distinct]
    fit, report = _parts_of(y, is_class, chosen_parts, seed)
    drawn = _resamples(y[report], is_class, seed)
    with inputs.flat_activations(sae):
        pos, neg = _sum_over_texts(source, distinct, lambda x: inputs.latents_of(sae, x))
    numbers = range(sae.cfg.d_sae)
    side = torch.cat([pos, neg], 1), [f"{i}{sign}" for sign in "+-" for i in numbers]
    pairs = _pairs_of(sae, *side, fit, max_cosine)
    forms: dict[Form, tuple[Tensor, list[str]]] = {"side": side, "pair": pairs}
    if (neg > 0).any():
        forms = {"axis": (pos - neg, [str(i) for i in numbers]), **forms}
    probes: list[Probe] = []

    def add(form: Form, chosen: tuple[str, ...], values: np.ndarray) -> None:
        fitted, reported = _predictions(values, y, fit, report, is_class, form == "raw")
        (fit_value,) = _scores(fitted[:, None], y[fit][:, None], is_class)
        value, *resampled = _scores(reported[drawn], y[report][drawn], is_class)
        low, high = np.percentile(resampled, [2.5, 97.5])
        scores = (float(v) for v in (value, low, high, fit_value))
        probes.append(Probe(form, values.shape[1], chosen, *scores))

    for form, (tensor, names) in forms.items():
        values = tensor.numpy()
        order = _strongest_first(values[fit], y[fit], is_class)
        for k in sorted({k for k in ks if k <= len(order)}):
            add(form, tuple(names[i] for i in order[:k]), values[:, order[:k]])
    if with_raw:
        raw_pos, raw_neg = _sum_over_texts(source, distinct, lambda x: x)
        add("raw", (), (raw_pos - raw_neg).numpy())
    return SparseProbes(
        provenance=Provenance.of(sae, len(source.activations)),
        hook_name=source.hook_name,
        metric="auc" if classes else "rho",
        classes=classes,
        n_fit=len(fit),
        n_report=len(report),
        n_pairs=len(pairs[1]),
        max_cosine=max_cosine,
        probes=tuple(probes),
        seed=seed,
    )


def _numbers_of(labels: Sequence[object]) -> tuple[np.ndarray, tuple[str, str] | None]:
    """Labels as (n,) float64, and the names of the classes 0 and 1 where there are two values.

    Class 1 is the higher number, or of names the second in alphabetical order.
    """
    given: Any = np.array([str(label).strip() for label in labels])
    with contextlib.suppress(ValueError):
        given = given.astype(float)
    are_numbers = given.dtype.kind == "f"
    require(not are_numbers or bool(np.isfinite(given).all()), "labels", "NaN or inf", "finite")
    values, codes = np.unique(given, return_inverse=True)
    if len(values) == 2:
        # repr, for numbers that differ in a late digit are two names
        low, high = (repr(float(v)).removesuffix(".0") if are_numbers else str(v) for v in values)
        return codes.astype(float), (low, high)
    is_ok = len(values) > 1 and are_numbers
    require(is_ok, "labels", f"{len(values)} of them", "numbers, or have two different values")
    return given, None


def _parts_of(
    y: np.ndarray, is_class: bool, parts: Sequence[str] | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the texts that are fitted on and reported on, ascending."""
    from sklearn.model_selection import train_test_split

    if parts is None:
        is_stratified = is_class and np.bincount(y.astype(int)).min() >= 2 * MIN_TEXTS_OF_CLASS
        strata = y if is_stratified else None
        draw = train_test_split(range(len(y)), test_size=0.5, random_state=seed, stratify=strata)
        fit, report = (np.sort(rows) for rows in draw)
    else:
        require({*parts} <= {"fit", "report"}, "parts", sorted({*parts}), "'fit' or 'report'")
        fit, report = (np.flatnonzero(np.array(parts) == name) for name in ("fit", "report"))
    for name, rows in (("fit", fit), ("report", report)):
        n = len(rows)
        require(n >= MIN_TEXTS, f"distinct texts of part {name!r}", n, f"at least {MIN_TEXTS}")
        n_of = [int((y[rows] == c).sum()) for c in (0, 1)] if is_class else [n]
        is_ok = min(n_of) >= MIN_TEXTS_OF_CLASS and np.ptp(y[rows]) > 0
        require(is_ok, f"labels of part {name!r}", n_of, "two of each class, or of two values")
    return fit, report


def _sum_over_texts(
    source: TextActivations, chosen: list[int], values_of: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Sum both signs of what ``values_of`` makes of tokens over each of the chosen texts.

    Returns:
        (n_chosen, width) magnitudes of the + sides, and of the - sides; at least 0.
    """
    sums: list[Tensor] = []
    for x, text in source.batches(inputs.MAX_TOKENS):
        values = values_of(x).float().cpu()
        sums = sums or [torch.zeros(len(source.n_tokens_of), values.shape[1]) for _ in "+-"]
        for total, magnitudes in zip(sums, (values.relu(), (-values).relu()), strict=True):
            total.index_add_(0, text, magnitudes)
    return sums[0][chosen], sums[1][chosen]


def _pairs_of(
    sae: SAE[Any], values: Tensor, names: list[str], fit: np.ndarray, max_cosine: float
) -> tuple[Tensor, list[str]]:
    """The difference of every two sides that write nearly opposite directions.

    A side counts with the norm of what it writes, so that both are in units of the activations.
    Both are active in some text of ``fit``.
    """
    used = (values[fit] > 0).any(0).nonzero().flatten()
    rows = inputs.decoder_directions(sae).cpu()
    directions = torch.cat([rows, -rows])[used]
    magnitudes = values[:, used] * directions.norm(dim=1)
    a, b, _ = find_antipodal_pairs(directions, max_cosine)
    i, j = used[a].tolist(), used[b].tolist()
    pairs = [f"{names[m]} {names[n]}" for m, n in zip(i, j, strict=True)]
    return magnitudes[:, a] - magnitudes[:, b], pairs


def _scores(values: np.ndarray, y: np.ndarray, is_class: bool) -> np.ndarray:
    """(m,) AUC or rho of the columns of (n, m) against those of y, (n, 1) or (n, m).

    scikit-learn's and scipy's take one column at a time, which is too slow for all latents.
    """
    from scipy.stats import rankdata

    # newer scipy ranks float32 in float32, whose sums are then off in the seventh digit
    ranks = rankdata(values.astype(np.float64), axis=0)
    if not is_class:
        return _correlation(ranks, rankdata(y, axis=0))
    n_pos = y.sum(0)
    return ((ranks * y).sum(0) - n_pos * (n_pos + 1) / 2) / (n_pos * (len(y) - n_pos))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of columns, of ranks Spearman's; 0 where one does not vary."""
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return np.divide((a * b).sum(0), size, out=np.zeros_like(size), where=size > 1e-9)


def _strongest_first(values: np.ndarray, y: np.ndarray, is_class: bool) -> list[int]:
    """Order the columns of (n, m) by the size of their association with the labels.

    Ranks tie where the label is easy, as several columns then order it without a fault. Of equal
    ones Pearson's correlation decides, and then the earlier column.
    """
    strength, linear = np.zeros((2, values.shape[1]))
    for start in range(0, values.shape[1], COLUMNS_AT_ONCE):
        at = slice(start, start + COLUMNS_AT_ONCE)
        strength[at] = np.abs(_scores(values[:, at], y[:, None], is_class) - 0.5 * is_class)
        linear[at] = np.abs(_correlation(values[:, at].astype(np.float64), y[:, None]))
    # rounded: 0.55 - 0.5 is not 0.5 - 0.45
    return np.lexsort((-linear.round(9), -strength.round(12))).tolist()


def _predictions(
    values: np.ndarray,
    y: np.ndarray,
    fit: np.ndarray,
    report: np.ndarray,
    is_class: bool,
    chooses_penalty: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit scikit-learn's ridge or logistic regression on the rows of ``fit``, predict both parts.

    Features (n, m) are standardised on the fitted texts. The penalty is 1, or chosen by
    cross-validation in these. Predicted are numbers, or log-odds of class 1.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    # float64: ridge regression in float32 is not the same from one machine to another
    x = values.astype(np.float64)
    x = StandardScaler().fit(x[fit]).transform(x)
    model: Any = LogisticRegression(max_iter=1000) if is_class else Ridge()
    if chooses_penalty:
        grid = {"C": 1 / RAW_GRID} if is_class else {"alpha": RAW_GRID}
        n_folds = min(5, *np.unique(y[fit], return_counts=True)[1]) if is_class else 5
        folds = (StratifiedKFold if is_class else KFold)(n_folds, shuffle=True, random_state=0)
        model = GridSearchCV(model, grid, scoring="roc_auc" if is_class else "r2", cv=folds)
    model.fit(x[fit], y[fit])
    # BLAS rounds a row by its place among the others: equal rows are predicted once, and so tie
    distinct, place = np.unique(x, axis=0, return_inverse=True)
    predict = model.decision_function if is_class else model.predict
    predicted = predict(distinct)[place.reshape(-1)]
    return predicted[fit], predicted[report]


def _resamples(y: np.ndarray, is_class: bool, seed: int) -> np.ndarray:
    """(n, 1 + N_RESAMPLES) texts: all of them first, then drawn, class by class: none is empty."""
    generator = np.random.default_rng(seed)
    strata = [np.flatnonzero(y == c) for c in (0, 1)] if is_class else [np.arange(len(y))]
    drawn = [generator.choice(rows, (len(rows), N_RESAMPLES)) for rows in strata]
    return np.column_stack([np.concatenate(strata), np.concatenate(drawn)])
