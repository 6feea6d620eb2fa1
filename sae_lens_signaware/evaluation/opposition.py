"""Opposition: are the two sides of a latent opposites, in the model's own terms? Ours.

    opposition_i = -cos(mean of e_c over + contexts, mean of e_c over - contexts)

where e_c is what latent i does to the next token in a context c in which it is strongest on a side,
and the inner product weighs tokens, as :mod:`sae_lens_signaware.evaluation.effects` has it. 1 means
that the - side does the opposite of the + side where each of them is active; 0, that they have
nothing to do with each other. See docs/measures.md.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_signaware.checks import checked, require
from sae_lens_signaware.evaluation.calibration import require_common_units
from sae_lens_signaware.evaluation.effects import AS_IS, TURNED, mean_prediction, side_effects
from sae_lens_signaware.evaluation.examples import (
    Context,
    TopExamples,
    top_examples,
)
from sae_lens_signaware.evaluation.given_examples import require_found_by, require_found_in
from sae_lens_signaware.evaluation.inputs import (
    numbers_of_latents,
    require_autoencoder,
    require_folded,
)
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    embedding_of,
)
from sae_lens_signaware.evaluation.prompts import require_tokens
from sae_lens_signaware.evaluation.results import Provenance, Result

Z_95 = 1.96
NULL_QUANTILE = 0.95
BLOCK = 256
"""Vectors of the vocabulary's size that are copied at once."""


@dataclasses.dataclass(frozen=True, repr=False)
class SideOpposition(Result):
    """Opposition of each latent, its interval, and what to hold it against.

    Attributes:
        latents: (n,) int64.
        opposition: (n,); NaN where a side has fewer than two contexts.
        low, high: (n,) 95% interval by the jackknife over the contexts of both sides.
        dial: (n,) the opposition of the + side to a dial: z_i is turned to -z_i in the + contexts.
            It is what the opposition would be if both sides were active in the same contexts.
        context_opposition, context_low, context_high: (n,) the same of the contexts: -cos of the
            mean embeddings of the tokens before the peaks, less the mean of all tokens.
        k: contexts of a side at most.
        null: the 95th percentile of the opposition of random pairs of sides of different latents.
        context_null: the same of the contexts.
        n_before: tokens before a peak that stand for a context; None where an earlier
            file lacks it.
    """

    latents: Tensor
    opposition: Tensor
    low: Tensor
    high: Tensor
    dial: Tensor
    context_opposition: Tensor
    context_low: Tensor
    context_high: Tensor
    k: int
    null: float
    context_null: float
    n_before: int | None = None

    @property
    def passes(self) -> Tensor:
        """(n,) bool: the lower end of the interval is above ``null``."""
        return self.low > self.null

    def _summary(self) -> Mapping[str, object]:
        return {
            "passing": int(self.passes.sum()),
            "mean_opposition": self.opposition.nanmean().item(),
            "passing_by_context": int((self.context_low > self.context_null).sum()),
        }

    def table(self, n: int = 10) -> Table:
        """A table for the terminal: the ``n`` latents of the largest lower end, largest first."""
        title = (
            f"{int(self.passes.sum())} of {len(self.latents)} latents above the 95th percentile "
            f"of random pairs of sides, {self.null:.2f}"
        )
        table = Table("latent", "opposition", "dial", "contexts", title=title, title_justify="left")
        order = self.low.nan_to_num(nan=-2.0).sort(descending=True, stable=True).indices[:n]
        for i in order.tolist():
            interval = f"{self.opposition[i]:.2f} ({self.low[i]:.2f} to {self.high[i]:.2f})"
            dial, contexts = f"{self.dial[i]:.2f}", f"{self.context_opposition[i]:.2f}"
            table.add_row(str(int(self.latents[i])), interval, dial, contexts)
        return table


class Interval(NamedTuple):
    """A value with its 95% interval; NaN where it does not apply."""

    value: float
    low: float
    high: float


@torch.no_grad()
def side_opposition(
    model: HookedRootModule,
    sae: SAE[Any],
    tokens: Tensor,
    latents: Sequence[int],
    k: int = 8,
    n_before: int = 16,
    examples: TopExamples | None = None,
) -> SideOpposition:
    """Measure for each latent whether its - side does the opposite of its + side.

    Args:
        model: SAELens's hooked model of a causal language model, with its tokenizer.
        sae: any SAELens SAE with latents of either sign, as saved, without a per-token
            normalisation.
        tokens: (prompt, position) token ids; the contexts are searched for in all of them.
        latents: which.
        k: contexts of a side at most, each of another prompt.
        n_before: tokens before the peak that stand for a context.
        examples: the contexts of the latents, as :func:`~sae_lens_signaware.top_examples` found
            them in ``tokens``; None searches. Of each side the first ``k`` count.

    Raises:
        InvalidInputError: there are fewer than two latents, one of them twice, or none that is
            negative in ``tokens`` where one is positive; ``k`` is below 2, or ``n_before`` below 1;
            the SAE normalises each token, or reads one head alone; ``examples`` lacks one of the
            latents, has fewer contexts than ``k``, or is of other tokens or of another SAE; or what
            :func:`~sae_lens_signaware.top_examples` refuses.
    """
    require_autoencoder(sae)
    latents = numbers_of_latents(sae, latents)
    require(len(latents) >= 2, "latents", latents, "at least two, for pairs of other ones")
    k = checked("k", k, int)
    require(k >= 2, "k", k, "at least 2")
    n_before = checked("n_before", n_before, int)
    require(n_before >= 1, "n_before", n_before, "at least 1")
    require(len(set(latents)) == len(latents), "latents", latents, "all different")
    require_common_units(sae, "side_opposition")  # what a latent writes is added to activations
    head = sae.cfg.metadata.hook_head_index
    require(head is None, "hook_head_index", head, "null, for an SAE of all heads")
    require_tokens(model, tokens)
    require_folded(sae)
    is_found = examples is None or isinstance(examples, TopExamples)
    require(is_found, "examples", type(examples).__name__, "TopExamples, or None")
    found = examples or top_examples(model, sae, tokens, latents, k=k, window=(n_before, 0))
    held = {of.latent: of for of in found.latents}
    for i in latents:
        require(i in held, "latents", i, "one of the examples")
    # before the work, of which nothing would come: as of a plain SAE
    is_one_sided = any(held[i].pos for i in latents) and not any(held[i].neg for i in latents)
    allowed = "at least one that is negative in these tokens"
    require(not is_one_sided, "latents", latents, allowed)
    if examples is not None:
        require(k <= examples.k, "k", k, f"at most {examples.k}, that of the examples")
        require_found_in(model, tokens, [held[i] for i in latents])
        require_found_by(model, sae, tokens, [held[i] for i in latents])
    q, embed = mean_prediction(model, tokens), _embedder(model, tokens, n_before)
    by_effect, by_context, dials = _Sides(), _Sides(), []
    for i in latents:
        pos, neg = held[i].pos[:k], held[i].neg[:k]
        plus, dialled = side_effects(model, sae, tokens, i, pos, q, (AS_IS, TURNED))
        (minus,) = side_effects(model, sae, tokens, i, neg, q, (AS_IS,))
        by_effect.add(plus, minus)
        by_context.add(embed(pos), embed(neg))
        dials.append(minus_cosine(plus.sum(0), dialled.sum(0)))
    effects, contexts = by_effect.opposition(), by_context.opposition()
    return SideOpposition(
        Provenance.of(sae, found.n_tokens),
        torch.tensor(latents, device="cpu"),
        *effects,
        torch.tensor(dials, dtype=torch.float64, device="cpu"),
        *contexts,
        k,
        by_effect.null(),
        by_context.null(),
        n_before,
    )


class _Sides:
    """Vectors of the contexts of both sides, latent after latent."""

    def __init__(self) -> None:
        self.found: list[Interval] = []
        self.directions: list[Tensor] = []  # unit vectors of the means
        self.latents: list[int] = []  # number of the latent of each of them

    def add(self, plus: Tensor, minus: Tensor) -> None:
        """Take the (n, dim) vectors of the two sides of the next latent."""
        for mean in (rows.mean(0) for rows in (plus, minus) if len(rows)):
            if mean.any():  # one of 0 has no direction
                self.directions.append(normalize(mean, dim=0))
                self.latents.append(len(self.found))
        self.found.append(opposition_of(plus, minus))

    def opposition(self) -> tuple[Tensor, Tensor, Tensor]:
        """(n,) values, and both ends of their intervals."""
        values = torch.tensor(self.found, dtype=torch.float64, device="cpu")
        return values[:, 0], values[:, 1], values[:, 2]

    def null(self) -> float:
        """The quantile over pairs of sides of different latents."""
        if not self.directions:
            return float("nan")
        latent = torch.tensor(self.latents, device="cpu")
        of_pairs = -_products(self.directions)[latent[:, None] < latent[None]]
        # numpy's: torch's takes 2^24 numbers at most
        return float(np.quantile(of_pairs, NULL_QUANTILE)) if len(of_pairs) else float("nan")


def _products(rows: Sequence[Tensor]) -> Tensor:
    """(n, n) products of n vectors, of which no more than two blocks are copied at once."""
    blocks = [list(rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)]
    products = [[_stacked(a) @ _stacked(b).T for b in blocks] for a in blocks]
    return torch.cat([torch.cat(row, dim=1) for row in products])


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """Rows in float64, whose products autocast leaves as they are."""
    return torch.stack(list(rows)).double()


def opposition_of(plus: Tensor, minus: Tensor) -> Interval:
    """-cos of the two means, with a 95% interval by the jackknife over the rows of both.

    A bootstrap of this cosine is off to one side: a mean of resampled rows is longer than the mean.

    Args:
        plus, minus: (n, dim) and (m, dim).

    Returns:
        NaN where either has fewer than two rows, or a mean of 0.
    """
    unknown = Interval(*[float("nan")] * 3)
    if min(len(plus), len(minus)) < 2:
        return unknown
    plus, minus = plus.double(), minus.double()
    value = minus_cosine(plus.sum(0), minus.sum(0))
    if math.isnan(value):
        return unknown
    variance = 0.0
    for rows, other in ((plus, minus), (minus, plus)):
        n = len(rows)
        without = normalize(rows.sum(0) - rows, dim=1)  # one row left out, of each in turn
        values = -(without @ normalize(other.sum(0), dim=0))
        variance += (n - 1) * values.var(correction=0).item()
    reach = Z_95 * variance**0.5
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))


def minus_cosine(a: Tensor, b: Tensor) -> float:
    """-cos of two vectors; NaN where one is 0."""
    norms = a.double().norm() * b.double().norm()
    return float("nan") if norms == 0 else (-(a.double() @ b.double()) / norms).item()


def _embedder(
    model: HookedRootModule, tokens: Tensor, n_before: int
) -> Callable[[Sequence[Context]], Tensor]:
    """Contexts -> (n, d_model) mean embeddings of the tokens before their peaks, centred."""
    embedding = embedding_of(model)
    tokens = tokens.cpu()
    times = torch.bincount(tokens.flatten(), minlength=len(embedding)).to(embedding)
    centre = times @ embedding / tokens.numel()

    def embed(contexts: Sequence[Context]) -> Tensor:
        rows = [
            embedding[tokens[c.prompt, max(0, c.position - n_before) : c.position]].mean(0)
            for c in contexts
            if c.position > 0
        ]
        return torch.stack(rows) - centre if rows else centre.new_zeros(0, len(centre))

    return embed
