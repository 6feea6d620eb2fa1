"""Results that a report shows of single latents: contexts of both sides, calibration, dial."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_lens_signaware.checks import check_fields, require
from sae_lens_signaware.evaluation import PolarityDial
from sae_lens_signaware.evaluation.examples import Context
from sae_lens_signaware.evaluation.histograms import Histogram
from sae_lens_signaware.evaluation.logits import TopLogits
from sae_lens_signaware.evaluation.results import none_for_nan
from sae_lens_signaware.files import write_json

AUDIT = frozenset({"n_pairs", "freed_width", "n_pairs_that_fire_together"})
"""What :attr:`SAELatents.audit` has of each highest cosine."""
AUDIT_TOKENS = 16_384
"""Held-out tokens, the first ones, on which the audit sees whether two latents fire together."""


@dataclasses.dataclass(frozen=True)
class Dial:
    """A :class:`~sae_lens_signaware.evaluation.PolarityDial` without its provenance, as numbers.

    Attributes:
        latents: the latent that each sign writes, (+, -).
        logit_tokens: the two tokens that what is written speaks for and against most, by the final
            norm's weight and the unembedding; the effect is on the difference of their logits.
        coefficients, effect: ascending in c; ``effect`` less the value with nothing added.
        baseline: that value, nats.
        monotone, sign_changing, symmetry: the verdict; symmetry is None without any effect.
        direction_cosine: between what the two signs write.
    """

    latents: tuple[int, int]
    logit_tokens: tuple[str, str]
    coefficients: list[float]
    effect: list[float]
    baseline: float
    monotone: bool
    sign_changing: bool
    symmetry: float | None
    direction_cosine: float

    @classmethod
    def of(cls, dial: PolarityDial, logit_tokens: tuple[str, str]) -> "Dial":
        """Take the numbers of a dial that was measured on ``logit_tokens``."""
        return cls(
            latents=(dial.latent_pos, dial.latent_neg),
            logit_tokens=logit_tokens,
            coefficients=dial.coefficients.tolist(),
            effect=dial.effect.tolist(),
            baseline=dial.baseline,
            monotone=dial.monotone,
            sign_changing=dial.sign_changing,
            symmetry=none_for_nan(dial.symmetry),
            direction_cosine=dial.direction_cosine,
        )


@dataclasses.dataclass(frozen=True)
class LatentPage:
    """Numbers, contexts and dials of one latent.

    Attributes:
        latent: its index.
        firing_rate_pos, firing_rate_neg, energy_pos, energy_neg, min_share: as in the census.
        gain_pos, gain_neg: calibration; None where that side never fires.
        examples_pos, examples_neg: its strongest contexts of each side.
        dial, pair_dial: of this latent, and of the plain SAE's two latents nearest to its two ends,
            each on tokens of its own; None where the model hides its unembedding.
        top_logits: tokens that each side promotes; None as for the dials, and in older files.
        histogram: of its activations on the tokens of the census; None in older files.
    """

    latent: int
    firing_rate_pos: float
    firing_rate_neg: float
    energy_pos: float
    energy_neg: float
    min_share: float
    gain_pos: float | None
    gain_neg: float | None
    examples_pos: tuple[Context, ...]
    examples_neg: tuple[Context, ...]
    dial: Dial | None
    pair_dial: Dial | None
    top_logits: TopLogits | None = None
    histogram: Histogram | None = None


@dataclasses.dataclass(frozen=True)
class SAELatents:
    """The latents of one SAE of one cell.

    Attributes:
        cell, run: which.
        architecture, d_sae, n_tokens, l0, explained_variance, dead_share: of the SAE, measured.
        l0_pos, l0_neg: mean number of active latents of each side.
        bipolar_share: of the alive latents.
        bipolar_share_by_energy_rank: among the k latents of most energy, k = 1 .. number alive.
        gain_pos, gain_neg: (d_sae,) calibration; None where a side never fires.
        plain_run: the plain SAE of the dials and of ``audit``; None without one.
        audit: of the plain SAE: highest cosine of a pair -> how many pairs, the width that merging
            them would free, and how many of them ever fire together.
        pages: the latents shown, of most energy first.
        special_tokens: texts of the tokenizer's special tokens; empty where a file does not say.
        identity: all that they depend on; another identity is computed anew.
    """

    cell: str
    run: str
    architecture: str
    d_sae: int
    n_tokens: int
    l0: float
    explained_variance: float
    dead_share: float
    l0_pos: float
    l0_neg: float
    bipolar_share: float
    bipolar_share_by_energy_rank: list[float]
    gain_pos: list[float | None]
    gain_neg: list[float | None]
    plain_run: str | None
    audit: dict[str, dict[str, int]]
    pages: tuple[LatentPage, ...]
    special_tokens: tuple[str, ...] = ()
    identity: dict[str, object] = dataclasses.field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write as JSON in one line, whole or not at all."""
        write_json(dataclasses.asdict(self), path, indent=None)

    @classmethod
    def read(cls, path: Path) -> "SAELatents":
        """Read what :meth:`write` wrote.

        Raises:
            ValueError: ``path`` is no such file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["pages"] = tuple(_page(page) for page in values["pages"])
            values["special_tokens"] = tuple(values.get("special_tokens", ()))
            check_fields(cls, values)
            require(values["d_sae"] > 0, "d_sae", values["d_sae"], "at least 1")
            for counts in values["audit"].values():
                require(counts.keys() >= AUDIT, "audit", counts, f"with {sorted(AUDIT)}")
            return cls(**values)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not the latents of an SAE: {error}") from None


@dataclasses.dataclass
class PartialLatents:
    """What is done of the pages of an SAE, kept on disk until all are.

    Attributes:
        identity: all that they depend on.
        pages: of all latents shown; the dials of those from ``n_done`` on are still missing.
        n_done: pages that are whole.
    """

    identity: dict[str, object]
    pages: list[LatentPage]
    n_done: int

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(dataclasses.asdict(self), path)

    @classmethod
    def read(
        cls, path: Path, identity: dict[str, object], latents: Sequence[int]
    ) -> "PartialLatents | None":
        """Read what :meth:`write` wrote; None unless it is of ``identity`` and ``latents``."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["identity"] != identity:
                return None
            pages = [_page(page) for page in values["pages"]]
            partial = cls(identity, pages, int(values["n_done"]))
        except (OSError, TypeError, KeyError, ValueError):
            return None
        return partial if [page.latent for page in pages] == list(latents) else None


def _page(values: dict[str, Any]) -> LatentPage:
    for side in ("examples_pos", "examples_neg"):
        values[side] = tuple(map(Context.of, values[side]))
        for context in values[side]:
            check_fields(Context, vars(context))
            n = len(context.tokens)
            require(len(context.activations) == n, "activations", n, "one for each token")
            require(0 <= context.peak < n, "peak", context.peak, f"below {n}, the tokens")
    for name in ("dial", "pair_dial"):
        if values[name] is not None:
            pairs = {key: tuple(values[name][key]) for key in ("latents", "logit_tokens")}
            values[name] = {**values[name], **pairs}
            check_fields(Dial, values[name])
            values[name] = Dial(**values[name])
    if (logits := values.get("top_logits")) is not None:
        sides = {s: tuple((token, value) for token, value in logits[s]) for s in ("pos", "neg")}
        check_fields(TopLogits, sides)
        values["top_logits"] = TopLogits(**sides)
    if (counts := values.get("histogram")) is not None:
        sides = {side: tuple(counts[side]) for side in ("pos", "neg")}
        check_fields(Histogram, {**counts, **sides})
        values["histogram"] = Histogram(counts["width"], **sides)
    check_fields(LatentPage, values)
    return LatentPage(**values)
