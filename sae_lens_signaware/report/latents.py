"""Pages of single latents: what the report shows of each, measured on prompts."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from sae_lens import SAE, ActivationsStore
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, one_line, require
from sae_lens_signaware.evaluation import inputs, models
from sae_lens_signaware.evaluation.dial import polarity_dial
from sae_lens_signaware.evaluation.examples import examples_of_prompts
from sae_lens_signaware.evaluation.inputs import latents_of, numbers_of_latents, require_folded
from sae_lens_signaware.evaluation.measures import BipolarCensus, SidePass
from sae_lens_signaware.evaluation.models import HookedRootModule, token_text, tokenizer_of
from sae_lens_signaware.evaluation.results import Provenance, Result, printable
from sae_lens_signaware.report.logits import direct_logits, top_logits

DIAL_PROMPTS, DIAL_POSITIONS = 4, 64
N_BINS = 24
"""Bins of each side of a page's histogram."""


@dataclasses.dataclass(frozen=True, repr=False)
class LatentPages(Result):
    """What the report shows of single latents.

    Attributes:
        name, hook_name: of the SAE, and where it reads.
        pages: one a latent: ``latent``; firing rates, energies and ``min_share`` as in the census;
            gains as in the calibration, None where the side never fires; ``histogram`` of its
            nonzero activations; ``logits_pos`` and ``logits_neg``, pairs of token and logit, empty
            where the model hides its unembedding; ``examples_pos`` and ``examples_neg``; and
            ``dial``, its effect on the difference of two logits, or None likewise.
    """

    name: str
    hook_name: str
    pages: list[dict[str, Any]]

    def table(self, n_rows: int = 10) -> Table:
        """A table for the terminal: the first latents, and what each side promotes most."""
        table = Table("latent", "+ fires on", "− fires on", "+ promotes", "− promotes")
        for page in self.pages[:n_rows]:
            rates = (f"{page[f'firing_rate_{side}']:.2%}" for side in ("pos", "neg"))
            tokens = (
                Text(printable(" ".join(token for token, _ in page[f"logits_{side}"][:2])))
                for side in ("pos", "neg")
            )
            table.add_row(str(page["latent"]), *rates, *tokens)
        return table


def clearest_latents(census: BipolarCensus, n: int) -> list[int]:
    """The ``n`` latents whose weaker side is strongest where it fires (ours).

    A side counts that fires on 0.2% of tokens or more, of a latent that fires on 20% at most, as
    dense latents say little. The others follow by energy; none of them never fires.
    """
    energy = census.energy_pos + census.energy_neg
    strength = torch.minimum(
        census.energy_pos / census.firing_rate_pos, census.energy_neg / census.firing_rate_neg
    ).nan_to_num(0.0)
    rarer = torch.minimum(census.firing_rate_pos, census.firing_rate_neg)
    counts = (rarer >= 0.002) & (census.firing_rate <= 0.2)
    order = np.lexsort((-energy, -strength * counts))
    return order[: min(n, int((energy > 0).sum()))].tolist()


def prompts_of(store: ActivationsStore, n: int) -> Tensor:
    """Up to ``n`` prompts (prompt, position) of SAELens's store, fewer where the text ends."""
    rows: list[Tensor] = []
    while sum(map(len, rows)) < n:
        try:
            rows.append(store.get_batch_tokens(raise_at_epoch_end=True))
        except StopIteration:
            break
    return torch.cat(rows)[:n]


def pages_of_dataset(
    sae: SAE[Any],
    model: HookedRootModule,
    dataset: str,
    name: str,
    n_latents: int,
    n_prompts: int,
) -> LatentPages:
    """Measure the clearest latents of an SAE on prompts that SAELens's store cuts from texts.

    Args:
        dataset: folder or Hub id, as SAELens's ``dataset_path``.
        name: of the SAE, as the report shows it.

    Raises:
        InvalidInputError: no such dataset, or a text too short for a prompt; as
            :func:`latent_pages`.
    """
    size = sae.cfg.metadata.context_size or 128
    sae.cfg.metadata.prepend_bos = sae.cfg.metadata.prepend_bos is not False
    try:
        store = ActivationsStore.from_sae(model, sae, dataset, context_size=size)
        tokens = prompts_of(store, n_prompts)
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"dataset: {dataset}: {one_line(error)}") from None
    return latent_pages(sae, model, tokens, n_latents, name, with_dials=False)


@torch.no_grad()
def latent_pages(
    sae: SAE[Any],
    model: HookedRootModule,
    tokens: Tensor,
    latents: Sequence[int] | int,
    name: str,
    n_contexts: int = 5,
    with_dials: bool = True,
) -> LatentPages:
    """Measure some latents on prompts for the report; one pass of the model, and the dials.

    Args:
        sae: any SAELens SAE.
        model: SAELens's hooked model.
        tokens: (prompt, position). Special tokens are left out, and what the SAE's metadata say.
        latents: which; a number takes as many of the clearest.
        name: of the SAE, as the report shows it.
        n_contexts: contexts of a side at most.
        with_dials: whether to dial each latent, which takes seconds of the whole model.

    Raises:
        InvalidInputError: as :func:`top_examples`.
    """
    require_folded(sae)
    excluded = models.excluded_tokens(model, True) + models.excluded_tokens(
        model, sae.cfg.metadata.exclude_special_tokens
    )
    prompts = list(models.prompts_of_tokens(model, sae, tokens, excluded))
    kept = [p.activations[p.keep] for p in prompts]
    sides = SidePass(sae, kept, with_alignment=True)
    census, gains = sides.census(), sides.calibration()
    if isinstance(latents, int):
        latents = clearest_latents(census, latents)
    numbers = numbers_of_latents(sae, latents)
    require(len(numbers) > 0, "latents", "none", "some that fire on these prompts")
    examples = examples_of_prompts(model, sae, prompts, numbers, n_contexts)
    with inputs.flat_activations(sae):
        values = torch.cat([latents_of(sae, x)[:, numbers].float().cpu() for x in kept]).numpy()
    logits = top_logits(model, sae, numbers)
    energy = (census.energy_pos + census.energy_neg)[numbers]
    fires = energy > 0
    # of a latent that fires on every tenth token
    typical = (10 * energy[fires].median()).sqrt().item()
    votes = direct_logits(model, sae, numbers)
    pages = []
    for i, latent in enumerate(numbers):
        both = examples.of(latent)
        page: dict[str, Any] = {"latent": latent}
        for field in ("firing_rate_pos", "firing_rate_neg", "energy_pos", "energy_neg"):
            page[field] = getattr(census, field)[latent].item()
        page["min_share"] = census.min_share.nan_to_num(0.0)[latent].item()
        for field in ("gain_pos", "gain_neg"):
            gain = math.nan if gains is None else getattr(gains, field)[latent].item()
            page[field] = None if math.isnan(gain) else gain
        page["histogram"] = _histogram(values[:, i], census.one_sided)
        for side in ("pos", "neg"):
            page[f"logits_{side}"] = [list(p) for p in getattr(logits[i], side)] if logits else []
            page[f"examples_{side}"] = [
                {"tokens": list(c.tokens), "acts": list(c.activations), "peak": c.peak}
                for c in getattr(both, side)
            ]
        page["dial"] = None
        if with_dials and votes is not None and fires[i]:
            page["dial"] = _dial(model, sae, latent, tokens, typical, votes[i])
        pages.append(page)
    return LatentPages(Provenance.of(sae, sides.n_tokens), name, models.hook_of(sae), pages)


def _histogram(values: np.ndarray, one_sided: bool) -> dict[str, list[float]]:
    """Bin the nonzero ones of (n,) values; 0 is an edge."""
    most = float(np.abs(values).max()) or 1.0
    low, n_bins = (0.0, N_BINS) if one_sided else (-most, 2 * N_BINS)
    edges = np.linspace(low, most, n_bins + 1)
    counts, _ = np.histogram(values[values != 0], edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _dial(
    model: HookedRootModule,
    sae: SAE[Any],
    latent: int,
    tokens: Tensor,
    typical: float,
    votes: Tensor,
) -> dict[str, Any]:
    """Dial a latent on the two tokens that its axis speaks for and against most.

    Args:
        typical: size of what a latent writes; it is dialled at a half to four times that.
        votes: (vocabulary,) logits of its direction.
    """
    pair = (int(votes.argmax()), int(votes.argmin()))
    sizes = [typical * factor for factor in (0.5, 1.0, 2.0, 4.0)]
    prompts = tokens[:DIAL_PROMPTS, :DIAL_POSITIONS]
    dial = polarity_dial(model, sae, latent, prompts, sizes, pair)
    for_, against = (token_text(tokenizer_of(model), i) for i in pair)
    name = f"logit of {for_!r} less that of {against!r}"
    return {"c": dial.coefficients.tolist(), "metric": dial.effect.tolist(), "name": name}
