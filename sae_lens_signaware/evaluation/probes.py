"""Sparse probes: how well k latents tell a label of a text, by axis, side and pair."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import checked, require
from sae_lens_signaware.evaluation.activations_of_texts import TextActivations
from sae_lens_signaware.evaluation.audit import checked_max_cosine
from sae_lens_signaware.evaluation.labelled_texts import Labels, fit_mask, labels_of
from sae_lens_signaware.evaluation.probe_ends import Ends, ends_of
from sae_lens_signaware.evaluation.probe_features import (
    AGGREGATIONS,
    Aggregation,
    Features,
    axis_features,
    pair_features,
    raw_features,
    side_features,
    side_values,
)
from sae_lens_signaware.evaluation.probe_results import Form, Probe, SparseProbes
from sae_lens_signaware.evaluation.probe_scores import (
    Scorer,
    association,
    fitted_predictions,
    require_scikit_learn,
    strongest_first,
)
from sae_lens_signaware.evaluation.results import Provenance

KS = (1, 2, 4, 8, 16)


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
        source: activations of the texts at the SAE's hook, as
            :func:`~sae_lens_signaware.text_activations` gives them.
        labels: of each text: finite numbers, or two classes. Two different numbers are classes.
        parts: "fit" or "report" for each text; None draws halves by ``seed``.
        ks: numbers of features; a form that has fewer features leaves out larger ones.
        aggregation: of each side of a latent over the tokens of a text. By "max" the signed value
            of a latent is the larger of its two sides.
        max_cosine: two sides are a pair where their directions have at most this cosine.
        n_resamples: of the reported texts, for the intervals.
        seed: draws the halves and the resamples.
        with_raw: whether the raw activations are probed as well, all of them at once; the penalty
            is then chosen by cross-validation in the fitted texts.

    Raises:
        ConfigError: scikit-learn is not installed (extra ``probe``).
        ValueError: labels are not finite, or have one value; a part has too few texts; an argument
            is out of range; the activations are not those that the SAE takes.
    """
    require_scikit_learn()
    several = "text_activations gives one for each hook" if isinstance(source, list) else ""
    is_source = isinstance(source, TextActivations)
    require(is_source, "source", type(source).__name__, "TextActivations", several)
    labels = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    n_texts = len(source.n_tokens_of)
    require(len(labels) == n_texts, "labels", len(labels), f"one for each of the {n_texts} texts")
    require(aggregation in AGGREGATIONS, "aggregation", aggregation, ", ".join(AGGREGATIONS))
    # Python's own numbers, which JSON holds
    ks, max_cosine = check_search(ks, max_cosine)
    n_resamples, seed = checked("n_resamples", n_resamples, int), checked("seed", seed, int)
    require(n_resamples >= 1, "n_resamples", n_resamples, "at least 1")
    require(seed >= 0, "seed", seed, "at least 0")
    prober = _Prober(labels_of(labels), parts, n_resamples, seed)
    sides = side_values(sae, source, aggregation)
    side, fit = side_features(sides), torch.from_numpy(prober.fit)
    pairs, cosines = pair_features(sae, side, aggregation, fit, max_cosine)
    forms: dict[Form, Features] = {"axis": axis_features(sides)} if sides.has_negative else {}
    forms |= {"side": side, "pair": pairs}
    for form, features in forms.items():
        prober.add(form, features, ks)
    if with_raw:
        prober.add_raw(raw_features(source, aggregation))
    best_pair = [pairs.names.index(e.feature) for e in prober.ends if e.form == "pair"]
    return SparseProbes(
        provenance=Provenance.of(sae, len(source.activations)),
        hook_name=source.hook_name,
        metric=prober.labels.metric,
        classes=prober.labels.classes,
        aggregation=aggregation,
        n_fit=int(prober.fit.sum()),
        n_report=int((~prober.fit).sum()),
        n_pairs=len(cosines),
        max_cosine=max_cosine,
        pair_cosine=cosines[best_pair[0]] if best_pair else math.nan,
        probes=tuple(prober.probes),
        ends=tuple(prober.ends),
        n_cut=source.n_cut,
        n_resamples=n_resamples,
        seed=seed,
    )


def check_search(ks: Iterable[int], max_cosine: float) -> tuple[list[int], float]:
    """Check what :func:`probe` searches with, which a caller may do before the model runs.

    Returns:
        both as Python's own numbers, which JSON holds.

    Raises:
        InvalidInputError: one is out of range.
    """
    numbers = checked("ks", list(ks) if isinstance(ks, Iterable) else ks, list[int])
    require(bool(numbers) and min(numbers) >= 1, "ks", numbers, "numbers of at least 1")
    return numbers, checked_max_cosine(max_cosine)


class _Prober:
    """Probes of the same texts: those that are fitted, and the scorer of those reported on."""

    def __init__(
        self, labels: Labels, parts: Sequence[str] | None, n_resamples: int, seed: int
    ) -> None:
        self.labels = labels
        self.fit = fit_mask(labels, parts, seed)
        self.fitted = labels._replace(values=labels.values[self.fit])
        self.scorer = Scorer(labels._replace(values=labels.values[~self.fit]), n_resamples, seed)
        self.probes: list[Probe] = []
        self.ends: list[Ends] = []

    def add(self, form: Form, features: Features, ks: Sequence[int]) -> None:
        """Probe with the k strongest features for each k, and look at both sides of the best."""
        values, names = features.values.numpy(), features.names
        if not names:
            return
        order = strongest_first(values[self.fit], self.fitted)
        for k in sorted({k for k in ks if k <= len(order)}):
            predicted = fitted_predictions(values[:, order[:k]], self.labels, self.fit)
            self._add_probe(form, k, tuple(names[i] for i in order[:k]), predicted)
        best = values[:, order[0]]
        self.ends.append(ends_of(form, names[order[0]], best, self.labels, self.fit, self.scorer))

    def add_raw(self, features: Features) -> None:
        """Probe with all raw activations."""
        values = features.values.numpy()
        predicted = fitted_predictions(values, self.labels, self.fit, chooses_penalty=True)
        self._add_probe("raw", values.shape[1], (), predicted)

    def _add_probe(
        self, form: Form, k: int, features: tuple[str, ...], predicted: np.ndarray
    ) -> None:
        score = self.scorer.score(predicted[~self.fit])
        fitted = association(predicted[self.fit][:, None], self.fitted)[0]
        self.probes.append(
            Probe(
                value=score.value,
                low=score.low,
                high=score.high,
                form=form,
                k=k,
                features=features,
                fit_value=float(fitted if self.labels.classes is None else fitted + 0.5),
            )
        )
