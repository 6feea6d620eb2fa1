"""Results of sparse probes: scores, and what the two sides of a chosen latent stand for."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from sae_lens_signaware.evaluation.probe_ends import EndOfSide, Ends
from sae_lens_signaware.evaluation.probe_features import Aggregation
from sae_lens_signaware.evaluation.probe_scores import Score
from sae_lens_signaware.evaluation.results import Result, nan_for_none, none_for_nan

Form = Literal["axis", "side", "pair", "raw"]


@dataclasses.dataclass(frozen=True)
class Probe(Score):
    """A probe of k features, and its score on the reported texts.

    Attributes:
        form: "axis", "side" or "pair"; "raw" are all raw activations.
        k: number of features.
        features: their names, the strongest first; empty for "raw". ``"12"`` is the signed value
            of latent 12, ``"12+"`` its + side, ``"12+ 40+"`` that side less the other.
        fit_value: the score on the fitted texts.
    """

    form: Form
    k: int
    features: tuple[str, ...]
    fit_value: float


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
        max_cosine: the threshold of the search for pairs.
        pair_cosine: of the best pair; NaN where there is none.
        probes: by form, then by k.
        ends: of the one feature of k = 1, for each form but "raw".
        n_cut: texts of which only the beginning was read, as they are longer than the context.
        n_resamples: of the reported texts, behind each interval.
        seed: of the halves and of the resamples.

    The last three are None where an earlier file lacks them.
    """

    hook_name: str | None
    metric: Literal["rho", "auc"]
    classes: tuple[str, str] | None
    aggregation: Aggregation
    n_fit: int
    n_report: int
    n_pairs: int
    max_cosine: float
    pair_cosine: float
    probes: tuple[Probe, ...]
    ends: tuple[Ends, ...]
    n_cut: int | None = None
    n_resamples: int | None = None
    seed: int | None = None

    def of(self, form: Form, k: int = 1) -> Probe:
        """Return the probe of a form with k features; of "raw" the only one.

        Raises:
            KeyError: there is none.
        """
        for probe in self.probes:
            if probe.form == form and (probe.k == k or form == "raw"):
                return probe
        raise KeyError((form, k))

    def ends_of(self, form: Form) -> Ends:
        """Return what the two sides of the chosen feature of a form stand for.

        Raises:
            KeyError: there is none.
        """
        for ends in self.ends:
            if ends.form == form:
                return ends
        raise KeyError(form)

    def _summary(self) -> Mapping[str, object]:
        return {f"{p.form} k={p.k}": p.value for p in self.probes if p.k == 1}

    def table(self) -> Table:
        """A table for the terminal: the score of every probe."""
        name = {"rho": "Spearman's rho", "auc": "AUC"}[self.metric]
        table = Table(
            title=f"{self._subject()}: {name} on {self.n_report:,} texts, "
            f"chosen and fitted on {self.n_fit:,} others"
            + (f"; of {self.n_cut:,} texts only the beginning was read" if self.n_cut else ""),
            title_justify="left",
        )
        for column in ("form", "k", name, "95% interval", "fitted", "features"):
            table.add_column(column, justify="left" if column in ("form", "features") else "right")
        for p in self.probes:
            shown = ", ".join(p.features[:4]) + (", ..." if p.k > 4 and p.features else "")
            score, fitted = f"{p.value:.3f}", f"{p.fit_value:.3f}"
            limits = f"{p.low:.3f} to {p.high:.3f}"
            table.add_row(p.form, f"{p.k:,}", score, limits, fitted, shown)
        return table

    def ends_table(self) -> Table:
        """A table for the terminal: the sides of the one chosen feature of each form."""
        table = Table(title="The two sides of the one chosen feature", title_justify="left")
        names = ("form", "feature", "side", "end", "texts", "at its end", "mean label")
        for column in (*names, f"{self.metric} within", "stands for it"):
            table.add_column(column)
        for ends in self.ends:
            for sign, side in (("+", ends.pos), ("-", ends.neg)):
                interval = f" ({side.at_end_low:.0%} to {side.at_end_high:.0%})"
                table.add_row(
                    ends.form,
                    ends.feature,
                    sign,
                    Text(side.end),  # of the user's file, and no markup
                    f"{side.share:.1%}",
                    "-" if math.isnan(side.at_end) else f"{side.at_end:.0%}{interval}",
                    *("-" if math.isnan(v) else f"{v:.3f}" for v in (side.mean_label, side.within)),
                    "yes" if side.stands_for_end else "no",
                )
        return table

    def to_dict(self) -> dict[str, object]:
        """Return all fields as JSON holds them, NaN as null, with the verdict on the ends."""
        values = _without_nan(dataclasses.asdict(self))
        for ends, held in zip(self.ends, values["ends"], strict=True):
            held["verdict"] = ends.verdict
        return values

    @classmethod
    def _fields_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {
            **values,
            "classes": values["classes"] and tuple(values["classes"]),
            "probes": tuple(
                Probe(**{**_with_nan(p), "features": tuple(p["features"])})
                for p in values["probes"]
            ),
            "ends": tuple(_ends(held) for held in values["ends"]),
            "pair_cosine": nan_for_none(values["pair_cosine"]),
        }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return none_for_nan(value)


def _with_nan(held: Mapping[str, Any]) -> dict[str, Any]:
    return {name: nan_for_none(value) for name, value in held.items()}


def _ends(held: Mapping[str, Any]) -> Ends:
    pos, neg = (EndOfSide(**_with_nan(held[side])) for side in ("pos", "neg"))
    return Ends(held["form"], held["feature"], pos, neg)
