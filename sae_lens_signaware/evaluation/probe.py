"""Sparse probes: how well k latents tell a label of a text, by axis, side and pair.

Halves, folds and resamples are drawn by distinct text, so that a text that is there twice is never
both fitted and reported on.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from rich.table import Table
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs
from sae_lens_signaware.evaluation.audit import find_antipodal_pairs, require_max_cosine
from sae_lens_signaware.evaluation.results import Number, Provenance, Result
from sae_lens_signaware.evaluation.texts import (
    LabelledTexts,
    TextActivations,
    read_labelled_texts,
    text_activations,
)

__all__ = [
    "LabelledTexts",
    "SparseProbes",
    "TextActivations",
    "probe",
    "read_labelled_texts",
    "text_activations",
]

KS = (1, 2, 4, 8, 16)
Form = Literal["axis", "side", "pair", "raw"]
Aggregation = Literal["sum", "mean", "max"]

MIN_TEXTS, MIN_TEXTS_OF_CLASS = 10, 2
"""Distinct texts of each part, and of each class in it, at least."""
RAW_GRID = 10.0 ** np.arange(-3, 5)
"""Ridge penalties that the probe of the raw activations chooses from; C of a class is 1 / penalty.

With as many features as texts the penalty decides the score, so it is chosen by cross-validation.
"""
MIN_TEXTS_ON_SIDE, MIN_SHARE_AT_END, MAX_BY_CHANCE = 6, 2 / 3, 0.025
"""When a side stands for an end of the label: see :class:`EndOfSide`."""
COLUMNS_AT_ONCE, RESAMPLES_AT_ONCE = 1024, 100


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


@dataclasses.dataclass(frozen=True)
class EndOfSide:
    """The distinct reported texts on one side of an axis.

    Attributes:
        end: the end of the label that the side should stand for, by the texts that were fitted:
            "high" or "low", above or below the median label, or the name of a class.
        n_texts: on the side.
        at_end: share of them at ``end``, both ends weighted alike, so that ½ is chance; NaN where
            there are none.
        by_chance: probability that as many or more are at ``end`` where the side has nothing to do
            with the label: Fisher's exact test.
    """

    end: str
    n_texts: int
    at_end: Number
    by_chance: Number

    @property
    def stands_for_end(self) -> bool:
        """Whether six texts are on the side, two thirds of them at the end, and not by chance."""
        is_shown = self.n_texts >= MIN_TEXTS_ON_SIDE and self.by_chance < MAX_BY_CHANCE
        return is_shown and self.at_end >= MIN_SHARE_AT_END


@dataclasses.dataclass(frozen=True)
class Ends:
    """What the two sides of the one chosen feature stand for; of a pair these are its latents."""

    form: Form
    feature: str
    pos: EndOfSide
    neg: EndOfSide

    @property
    def verdict(self) -> Literal["both sides", "+ side alone", "- side alone", "neither side"]:
        """Which of the sides stand for their ends."""
        if self.pos.stands_for_end:
            return "both sides" if self.neg.stands_for_end else "+ side alone"
        return "- side alone" if self.neg.stands_for_end else "neither side"


@dataclasses.dataclass(frozen=True, repr=False)
class SparseProbes(Result):
    """Probes of one SAE on one set of labelled texts.

    Attributes:
        hook_name: where the activations are from.
        metric: of all scores: "rho" is Spearman's, "auc" the area under the ROC curve.
        classes: names of the classes 0 and 1; None where labels are numbers.
        aggregation: of the latents over the tokens of a text.
        n_fit, n_report: texts that were fitted, and others that were reported on.
        n_pairs: pairs of sides with a cosine of at most ``max_cosine``, both active.
        pair_cosine: of the best pair; NaN where there is none.
        probes: by form, then by k.
        ends: of the one feature of k = 1, for each form but "raw".
        n_cut: texts of which only the beginning was read, as they are longer than the context.
    """

    hook_name: str | None
    metric: Literal["rho", "auc"]
    classes: tuple[str, str] | None
    aggregation: Aggregation
    n_fit: int
    n_report: int
    n_pairs: int
    max_cosine: float
    pair_cosine: Number
    probes: tuple[Probe, ...]
    ends: tuple[Ends, ...]
    n_cut: int
    n_resamples: int
    seed: int

    def of(self, form: Form, k: int = 1) -> Probe:
        """The probe of a form with k features; of "raw" the only one. KeyError without it."""
        for probe in self.probes:
            if probe.form == form and (probe.k == k or form == "raw"):
                return probe
        raise KeyError((form, k))

    def _summary(self) -> Mapping[str, object]:
        return {f"{p.form} k={p.k}": p.value for p in self.probes if p.k == 1}

    def table(self) -> Table:
        """A table for the terminal: the score of every probe."""
        title = f"{self.subject}: {self.n_report:,} texts, fitted on {self.n_fit:,} others"
        columns = ("form", "k", self.metric, "95% interval", "fitted", "features")
        table = Table(*columns, title=title, title_justify="left")
        for p in self.probes:
            shown = ", ".join(p.features[:4]) + (", ..." if len(p.features) > 4 else "")
            interval, fitted = f"{p.low:.3f} to {p.high:.3f}", f"{p.fit_value:.3f}"
            table.add_row(p.form, f"{p.k:,}", f"{p.value:.3f}", interval, fitted, shown)
        return table

    def ends_table(self) -> Table:
        """A table for the terminal: the sides of the one chosen feature of each form."""
        columns = (
            "form",
            "feature",
            "side",
            "end",
            "texts",
            "at its end",
            "by chance",
            "stands for it",
        )
        table = Table(*columns, title="The two sides of the one chosen feature")
        for ends in self.ends:
            for sign, side in (("+", ends.pos), ("-", ends.neg)):
                numbers = (f"{side.n_texts:,}", f"{side.at_end:.0%}", f"{side.by_chance:.2g}")
                verdict = "yes" if side.stands_for_end else "no"
                table.add_row(ends.form, ends.feature, sign, side.end, *numbers, verdict)
        return table

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON holds them, with the verdict on the ends."""
        values = super().to_dict()
        for ends, held in zip(self.ends, values["ends"], strict=True):
            held["verdict"] = ends.verdict
        return values


def probe(
    sae: SAE[Any],
    source: TextActivations,
    labels: Sequence[object],
    *,
    parts: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    aggregation: Aggregation = "sum",
    max_cosine: float = -0.5,
    n_resamples: int = 1000,
    seed: int = 0,
    with_raw: bool = True,
) -> SparseProbes:
    """Choose and fit sparse probes on one part of labelled texts, and score them on the other.

    The k features are those that each by itself goes best with the label on the fitted texts: by
    the size of Spearman's rho where labels are numbers, by that of AUC - ½ where they are classes.
    Of equal ones Pearson's correlation decides. scikit-learn's ridge or logistic regression is
    fitted on them, standardised.

    Args:
        sae: any SAELens SAE; one that is never negative has no form "axis".
        source: activations of the texts at the SAE's hook, as :func:`text_activations` gives them.
        labels: of each text: finite numbers, or two classes. Two different numbers are classes.
        parts: "fit" or "report" for each text; None draws halves of the distinct texts by ``seed``.
            A text of the part "report" that is fitted as well is left out.
        ks: numbers of features; a form that has fewer features leaves out larger ones.
        aggregation: of each side of a latent over the tokens of a text. By "max" the signed value
            of a latent is the larger of its two sides.
        max_cosine: two sides are a pair where their directions have at most this cosine.
        n_resamples: of the distinct reported texts, for the intervals.
        seed: draws the halves and the resamples.
        with_raw: whether the raw activations are probed as well, all of them at once; the penalty
            is then chosen by cross-validation in the fitted texts.

    Raises:
        InvalidInputError: labels are not finite, or have one value; a part has too few texts; the
            activations are not those that the SAE takes.
    """
    inputs.require_folded(sae)
    require_max_cosine(max_cosine)
    width, group = source.activations.shape[1], np.array(source.distinct_texts())
    require(width == sae.cfg.d_in, "activations", f"{width} wide", f"{sae.cfg.d_in} wide")
    require(len(labels) == len(group), "labels", len(labels), f"{len(group)}, one for each text")
    texts = _texts_of(labels, group)
    fit, report = _parts_of(texts, parts, seed)
    fitted, reported = texts.of(fit), texts.of(report)
    with inputs.flat_activations(sae):
        sides = _sum_over_texts(source, lambda x: inputs.latents_of(sae, x), aggregation)
    names = [f"{i}{sign}" for sign in "+-" for i in range(sae.cfg.d_sae)]
    side = torch.cat(sides, 1), names
    pairs, cosines = _pairs_of(sae, *side, aggregation, torch.from_numpy(fit), max_cosine)
    forms: dict[Form, tuple[Tensor, list[str]]] = {"side": side, "pair": pairs}
    if (sides[1] > 0).any():
        axes = _opposed(*sides, aggregation), [str(i) for i in range(sae.cfg.d_sae)]
        forms = {"axis": axes, **forms}
    weights = _resamples(reported, n_resamples, seed)
    probes: list[Probe] = []

    def add(form: Form, chosen: tuple[str, ...], values: np.ndarray, is_raw: bool = False) -> None:
        predicted = _predictions(values, texts, fit, is_raw)
        of_fit, value = (
            _scores(predicted[m], t)[0] for m, t in ((fit, fitted), (report, reported))
        )
        low, high = _interval(_scores(predicted[report], reported, weights))
        probes.append(Probe(form, values.shape[1], chosen, float(value), low, high, float(of_fit)))

    ends: list[Ends] = []
    for form, (tensor, names) in forms.items():
        values = tensor.numpy()
        order = _strongest_first(values[fit], fitted)
        for k in sorted({k for k in ks if k <= len(order)}):
            add(form, tuple(names[i] for i in order[:k]), values[:, order[:k]])
        if order:
            best = values[:, order[0]]
            rises = _association(best[fit][:, None], fitted)[0] >= 0
            ends.append(_ends_of(form, names[order[0]], best[report], rises, reported))
    if with_raw:
        raw = _opposed(*_sum_over_texts(source, lambda x: x, aggregation), aggregation)
        add("raw", (), raw.numpy(), is_raw=True)
    best_pair = [pairs[1].index(e.feature) for e in ends if e.form == "pair"]
    return SparseProbes(
        provenance=Provenance.of(sae, len(source.activations)),
        hook_name=source.hook_name,
        metric="auc" if texts.classes else "rho",
        classes=texts.classes,
        aggregation=aggregation,
        n_fit=int(fit.sum()),
        n_report=int(report.sum()),
        n_pairs=len(cosines),
        max_cosine=max_cosine,
        pair_cosine=cosines[best_pair[0]] if best_pair else math.nan,
        probes=tuple(probes),
        ends=tuple(ends),
        n_cut=source.n_cut,
        n_resamples=n_resamples,
        seed=seed,
    )


class _Texts(NamedTuple):
    """Labels of texts as numbers, of two classes 0 and 1; and which texts are the same.

    Attributes:
        y: (n,) float64.
        group: (n,) numbers of the distinct texts.
        classes: the names of the classes 0 and 1; None where the labels are numbers.
    """

    y: np.ndarray
    group: np.ndarray
    classes: tuple[str, str] | None

    def of(self, mask: np.ndarray) -> "_Texts":
        return _Texts(self.y[mask], self.group[mask], self.classes)

    def strata(self) -> Iterator[np.ndarray]:
        """Yield the distinct texts of each class, by the label of their first; or all of them."""
        distinct, first = np.unique(self.group, return_index=True)
        y = self.y[first] if self.classes else np.zeros(len(distinct))
        yield from (distinct[y == value] for value in np.unique(y))

    def dealt(self, n_parts: int, seed: int) -> np.ndarray:
        """(n,) part of each text: distinct texts are dealt out at random, class by class."""
        generator = np.random.default_rng(seed)
        part = np.zeros(self.group.max() + 1, dtype=int)
        for members in self.strata():
            part[generator.permutation(members)] = np.arange(len(members)) % n_parts
        return part[self.group]


def _texts_of(labels: Sequence[object], group: np.ndarray) -> _Texts:
    """Take labels for two classes where they have two different values, else for numbers.

    Class 1 is the higher number, or of names the second in alphabetical order.
    """
    given: Any = np.array([str(label).strip() for label in labels])
    with contextlib.suppress(ValueError):
        given = given.astype(float)
    are_numbers = given.dtype.kind == "f"
    is_finite = not are_numbers or bool(np.isfinite(given).all())
    require(is_finite, "labels", "NaN or inf", "finite")
    values, codes = np.unique(given, return_inverse=True)
    if len(values) == 2:
        # repr, for numbers that differ in a late digit are two names
        low, high = (repr(float(v)).removesuffix(".0") if are_numbers else str(v) for v in values)
        return _Texts(codes.astype(float), group, (low, high))
    is_ok = len(values) > 1 and are_numbers
    require(is_ok, "labels", f"{len(values)} of them", "numbers, or have two different values")
    return _Texts(given, group, None)


def _parts_of(
    texts: _Texts, parts: Sequence[str] | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which texts are fitted on and which are reported on, (n,) bool each."""
    if parts is None:
        fit = texts.dealt(2, seed) == 1
    else:
        is_ok = len(parts) == len(texts.y) and set(parts) <= {"fit", "report"}
        require(is_ok, "parts", sorted(set(parts)), "'fit' or 'report' for each text")
        fit = np.array(parts) == "fit"
    report = ~fit & ~np.isin(texts.group, texts.group[fit])
    for name, part in (("fit", texts.of(fit)), ("report", texts.of(report))):
        n = len(np.unique(part.group))
        require(n >= MIN_TEXTS, f"distinct texts of part {name!r}", n, f"at least {MIN_TEXTS}")
        n_of = [len(np.unique(part.group[part.y == c])) for c in (0, 1)] if texts.classes else [n]
        is_ok = min(n_of) >= MIN_TEXTS_OF_CLASS and np.ptp(part.y) > 0
        require(is_ok, f"labels of part {name!r}", n_of, "two of each class, or of two values")
    return fit, report


def _sum_over_texts(
    source: TextActivations, values_of: Callable[[Tensor], Tensor], aggregation: Aggregation
) -> tuple[Tensor, Tensor]:
    """Aggregate both signs of what ``values_of`` makes of tokens over each text.

    Returns:
        (n_texts, width) magnitudes of the + sides, and of the - sides; at least 0.
    """
    sums: list[Tensor] = []
    for x, text in source.batches(inputs.MAX_TOKENS):
        values = values_of(x).float().cpu()
        sums = sums or [torch.zeros(len(source.n_tokens_of), values.shape[1]) for _ in "+-"]
        for total, magnitudes in zip(sums, (values.relu(), (-values).relu()), strict=True):
            if aggregation == "max":
                total.scatter_reduce_(0, text[:, None].expand_as(values), magnitudes, "amax")
            else:
                total.index_add_(0, text, magnitudes)
    pos, neg = sums
    n = source.n_tokens_of[:, None]
    return (pos / n, neg / n) if aggregation == "mean" else (pos, neg)


def _opposed(pos: Tensor, neg: Tensor, aggregation: Aggregation) -> Tensor:
    """One signed value of two magnitudes: their difference, or the larger with its sign."""
    return torch.where(pos >= neg, pos, -neg) if aggregation == "max" else pos - neg


def _pairs_of(
    sae: SAE[Any],
    values: Tensor,
    names: list[str],
    aggregation: Aggregation,
    fit: Tensor,
    max_cosine: float,
) -> tuple[tuple[Tensor, list[str]], list[float]]:
    """The difference of every two sides that write nearly opposite directions, and their cosines.

    A side counts with the norm of what it writes, so that both are in units of the activations.
    Both are active in some text of ``fit``.
    """
    used = (values[fit] > 0).any(0).nonzero().flatten()
    rows = inputs.decoder_directions(sae).cpu()
    directions = torch.cat([rows, -rows])[used]
    magnitudes = values[:, used] * directions.norm(dim=1)
    a, b, cosine = find_antipodal_pairs(directions, max_cosine)
    i, j = used[a].tolist(), used[b].tolist()
    pairs = [f"{names[m]} {names[n]}" for m, n in zip(i, j, strict=True)]
    return (_opposed(magnitudes[:, a], magnitudes[:, b], aggregation), pairs), cosine.tolist()


def _association(values: np.ndarray, texts: _Texts) -> np.ndarray:
    """(m,) rho, or AUC less ½, of the columns of (n, m); 0 where a column does not vary."""
    from scipy.stats import rankdata

    # newer scipy ranks float32 in float32, whose sums are then off in the seventh digit
    ranks, y = rankdata(values.astype(np.float64), axis=0), texts.y
    if texts.classes is None:
        return _correlation(ranks, rankdata(y)[:, None])
    return (ranks[y == 1].mean(0) - ranks[y == 0].mean(0)) / len(y)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of columns, of ranks Spearman's; 0 where one does not vary."""
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return np.divide((a * b).sum(0), size, out=np.zeros_like(size), where=size > 1e-9)


def _strongest_first(values: np.ndarray, texts: _Texts) -> list[int]:
    """Order the columns of (n, m) by the size of their association with the labels.

    Ranks tie where the label is easy, as several columns then order it without a fault. Of equal
    ones Pearson's correlation decides, and then the earlier column.
    """
    strength, linear = np.zeros((2, values.shape[1]))
    for start in range(0, values.shape[1], COLUMNS_AT_ONCE):
        at = slice(start, start + COLUMNS_AT_ONCE)
        strength[at] = np.abs(_association(values[:, at], texts))
        linear[at] = np.abs(_correlation(values[:, at].astype(np.float64), texts.y[:, None]))
    # rounded: 0.55 - 0.5 is not 0.5 - 0.45
    return np.lexsort((-linear.round(9), -strength.round(12))).tolist()


def _predictions(
    values: np.ndarray, texts: _Texts, fit: np.ndarray, chooses_penalty: bool
) -> np.ndarray:
    """Fit scikit-learn's ridge or logistic regression on the texts of ``fit``, predict all.

    Features (n, m) are standardised on the fitted texts. The penalty is 1, or chosen by
    cross-validation in these. (n,) predicted numbers, or log-odds of class 1.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # float64: ridge regression in float32 is not the same from one machine to another
    x, is_class = values.astype(np.float64), texts.classes is not None
    last = LogisticRegression(max_iter=1000) if is_class else Ridge()
    model: Any = make_pipeline(StandardScaler(), last)
    if chooses_penalty:
        grid = {"logisticregression__C": 1 / RAW_GRID} if is_class else {"ridge__alpha": RAW_GRID}
        fitted = texts.of(fit)
        n_folds = min(5, *(len(members) for members in fitted.strata()))
        folds = PredefinedSplit(fitted.dealt(n_folds, seed=0))
        model = GridSearchCV(model, grid, scoring="roc_auc" if is_class else "r2", cv=folds)
    model.fit(x[fit], texts.y[fit])
    # BLAS rounds a row by its place among the others: equal texts are predicted once, and so tie
    distinct, place = np.unique(x, axis=0, return_inverse=True)
    predict = model.decision_function if is_class else model.predict
    return predict(distinct)[place.reshape(-1)]


def _resamples(texts: _Texts, n_resamples: int, seed: int) -> np.ndarray:
    """(n_resamples, n) how often each text is drawn, class by class, so that none is empty."""
    generator = np.random.default_rng(seed)
    times = np.zeros((n_resamples, texts.group.max() + 1))
    for members in texts.strata():
        n = len(members)
        times[:, members] = generator.multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return times[:, texts.group]


def _scores(predicted: np.ndarray, texts: _Texts, weights: np.ndarray | None = None) -> np.ndarray:
    """(b,) rho or AUC of (n,) predictions where text i is there ``weights[:, i]`` times, (b, n)."""
    if weights is None:
        weights = np.ones((1, len(predicted)))
    if len(weights) > RESAMPLES_AT_ONCE:
        steps = np.array_split(weights, math.ceil(len(weights) / RESAMPLES_AT_ONCE))
        return np.concatenate([_scores(predicted, texts, part) for part in steps])
    ranks, y, n = _weighted_ranks(predicted, weights), texts.y, weights.sum(1)
    if texts.classes:
        n_pos = (weights * y).sum(1)
        n_below = (weights * ranks * y).sum(1) - n_pos * (n_pos + 1) / 2
        return n_below / (n_pos * (n - n_pos))
    a, b = (r - (n + 1)[:, None] / 2 for r in (ranks, _weighted_ranks(y, weights)))
    size_a, size_b = (weights * a * a).sum(1), (weights * b * b).sum(1)
    size = np.sqrt(size_a * size_b)
    rho = np.divide((weights * a * b).sum(1), size, out=np.zeros_like(size), where=size > 1e-9)
    return np.where(size_b > 1e-9, rho, np.nan)  # labels that do not vary have none


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(b, n) ranks from 1 of (n,) values; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    of_value = np.add.reduceat(weights[:, np.argsort(values, kind="stable")], starts, axis=1)
    return (of_value.cumsum(1) - (of_value - 1) / 2)[:, place.reshape(-1)]


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    known = resampled[~np.isnan(resampled)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _ends_of(form: Form, feature: str, values: np.ndarray, rises: bool, texts: _Texts) -> Ends:
    """Measure both sides of a feature, (n,) signed values, on the distinct reported texts.

    Args:
        rises: whether the feature rises with the label on the fitted texts.
    """
    _, first = np.unique(texts.group, return_index=True)
    values, y = values[first], texts.y[first]
    middle = 0.5 if texts.classes else np.median(y)
    low, high = y < middle, y > middle
    # half of the texts or more have the lowest label, or the highest: they are an end, and not none
    low, high = (low if low.any() else y == middle), (high if high.any() else y == middle)
    ends = [(low, high), (high, low)] if rises else [(high, low), (low, high)]
    names = texts.classes or ("low", "high")
    names = names if rises else names[::-1]
    neg, pos = (
        _end_of_side(sign * values > 0, *both, name)
        for sign, both, name in zip((-1, 1), ends, names, strict=True)
    )
    return Ends(form, feature, pos, neg)


def _end_of_side(
    on_side: np.ndarray, at_end: np.ndarray, at_other: np.ndarray, end: str
) -> EndOfSide:
    from scipy.stats import hypergeom

    n_at, n_other = (on_side & at_end).sum(), (on_side & at_other).sum()
    of_end, of_other = n_at / at_end.sum(), n_other / at_other.sum()
    share = float(of_end / (of_end + of_other)) if n_at + n_other else math.nan
    n_ends = at_end.sum() + at_other.sum()
    by_chance = float(hypergeom.sf(n_at - 1, n_ends, at_end.sum(), n_at + n_other))
    return EndOfSide(end, int(on_side.sum()), share, by_chance)
