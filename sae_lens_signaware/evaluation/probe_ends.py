"""Whether the two sides of an axis stand for the two ends of a label."""

import dataclasses
from typing import Literal

import numpy as np

from sae_lens_signaware.evaluation.labelled_texts import Labels
from sae_lens_signaware.evaluation.probe_scores import Scorer, association, interval

MIN_SHARE_AT_END = 2 / 3
"""Share of a side's texts that lie at its end, from which the side stands for that end."""
MIN_TEXTS = 6
"""Texts on a side, from which it can stand for an end.

The bootstrap of fewer texts that all lie at one end has no width, so it says nothing of chance. Six
texts of a side that has no end lie all at the one that it is held to with a chance of 1 in 64,
which is below 2.5%.
"""

MAX_BY_CHANCE = 0.025
"""One side of a 95% interval."""

Verdict = Literal["both sides", "+ side alone", "- side alone", "neither side"]


@dataclasses.dataclass(frozen=True)
class EndOfSide:
    """The reported texts on one side of an axis.

    Attributes:
        end: the end of the label that the side should stand for, by the texts that were fitted:
            "high" or "low", or the name of a class.
        n_texts: on the side.
        share: ``n_texts`` over all reported texts.
        mean_label: of the texts on the side; the share of class 1 where there are classes.
        within: rho, or AUC, of the signed value and the label among the texts on the side alone.
        at_end: share of the side's texts that are at ``end``, both ends weighted alike, so that ½
            is chance. High and low are above and below the median label. Where no label is above
            it, or none below, the texts at the median are that end.
        at_end_low, at_end_high: its 95% interval.
        by_chance: probability that as many of the side's texts or more are at ``end`` where the
            side has nothing to do with the label. Fisher's exact test: where one end is rare, the
            bootstrap of a side without a text of it has no width. NaN in files without it.

    NaN where the side has no text, or the score is not defined.
    """

    end: str
    n_texts: int
    share: float
    mean_label: float
    within: float
    at_end: float
    at_end_low: float
    at_end_high: float
    by_chance: float = np.nan

    @property
    def stands_for_end(self) -> bool:
        """Whether there are six texts, two thirds at the end, and neither test says chance."""
        is_shown = self.n_texts >= MIN_TEXTS and self.at_end_low > 0.5
        is_chance = self.by_chance >= MAX_BY_CHANCE
        return is_shown and not is_chance and self.at_end >= MIN_SHARE_AT_END


@dataclasses.dataclass(frozen=True)
class Ends:
    """What the two sides of the one chosen feature stand for.

    Attributes:
        form, feature: which feature; a feature of the form "side" has no - side.
        pos, neg: its two sides. Of a pair these are its two latents.
    """

    form: str
    feature: str
    pos: EndOfSide
    neg: EndOfSide

    @property
    def verdict(self) -> Verdict:
        """Which of the sides stand for their ends."""
        if self.pos.stands_for_end and self.neg.stands_for_end:
            return "both sides"
        if self.pos.stands_for_end:
            return "+ side alone"
        return "- side alone" if self.neg.stands_for_end else "neither side"


def ends_of(
    form: str, feature: str, values: np.ndarray, labels: Labels, fit: np.ndarray, scorer: Scorer
) -> Ends:
    """Measure both sides of a feature on the reported texts.

    Args:
        values: (n,) signed values of all texts.
        fit: (n,) bool, texts that say which side should stand for which end.
        scorer: of the reported texts.
    """
    rises = association(values[fit][:, None], labels._replace(values=labels.values[fit]))[0] >= 0
    reported = values[~fit]
    sides = [_end_of_side(sign * reported, rises == (sign > 0), sign, scorer) for sign in (1, -1)]
    return Ends(form, feature, *sides)


def _end_of_side(values: np.ndarray, is_upper: bool, sign: int, scorer: Scorer) -> EndOfSide:
    """Measure the side whose texts have a value above 0."""
    labels = scorer.labels
    low_name, high_name = labels.classes or ("low", "high")
    on_side = values > 0
    low, high = _low_and_high(labels)
    at_end, at_other = (high, low) if is_upper else (low, high)
    rows = np.arange(len(values))[None]
    share = _share_at_end(on_side, at_end, at_other, rows)[0]
    score = interval(share, _share_at_end(on_side, at_end, at_other, scorer.resamples))
    n = int(on_side.sum())
    return EndOfSide(
        end=high_name if is_upper else low_name,
        n_texts=n,
        share=n / len(values),
        mean_label=float(labels.values[on_side].mean()) if n else np.nan,
        within=_within(sign * values[on_side], labels._replace(values=labels.values[on_side])),
        at_end=score.value,
        at_end_low=score.low,
        at_end_high=score.high,
        by_chance=_by_chance(on_side, at_end, at_other),
    )


def _low_and_high(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Which of (n,) texts are at the low end of the label, and which at the high one."""
    middle = 0.5 if labels.classes else np.median(labels.values)
    low, high = labels.values < middle, labels.values > middle
    # half of the texts or more have the lowest label, or the highest: they are an end, and not none
    if not low.any():
        low = labels.values == middle
    elif not high.any():
        high = labels.values == middle
    return low, high


def _by_chance(on_side: np.ndarray, at_end: np.ndarray, at_other: np.ndarray) -> float:
    """Fisher's exact test, one-sided: P(as many of the end or more) at the side's number."""
    from scipy.stats import hypergeom  # scikit-learn brings it

    n_at, n_drawn = (on_side & at_end).sum(), (on_side & (at_end | at_other)).sum()
    n_of_ends = (at_end | at_other).sum()
    return float(hypergeom.sf(n_at - 1, n_of_ends, at_end.sum(), n_drawn))


def _share_at_end(
    on_side: np.ndarray, at_end: np.ndarray, at_other: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """(b,) shares of (b, n) numbers of texts; both ends weighted alike, whatever their numbers."""
    side, end, other = on_side[rows], at_end[rows], at_other[rows]
    with np.errstate(invalid="ignore"):
        of_end = (side & end).sum(1) / end.sum(1)
        of_other = (side & other).sum(1) / other.sum(1)
        return of_end / (of_end + of_other)


def _within(values: np.ndarray, labels: Labels) -> float:
    """Rho or AUC among some texts; NaN where the values or the labels do not differ."""
    if len(values) < 2 or values.min() == values.max() or np.ptp(labels.values) == 0:
        return np.nan
    score = association(values[:, None], labels)[0]
    return float(score if labels.classes is None else score + 0.5)
