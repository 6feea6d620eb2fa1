"""The pages that a report shows of single latents: contexts of both sides, calibration, dials."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE, LanguageModelSAERunnerConfig
from sae_lens.util import get_special_token_ids
from torch import Tensor

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation import (
    Analysis,
    antipodal_audit,
    nearest_antipodal_pair,
    polarity_dial,
    top_examples,
)
from sae_lens_signaware.evaluation.dial import dialled_directions
from sae_lens_signaware.evaluation.histograms import activation_histograms
from sae_lens_signaware.evaluation.logits import top_logits, unembedding_for
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    excluded_tokens,
    token_text,
    tokenizer_of,
)
from sae_lens_signaware.evaluation.results import none_for_nan
from sae_lens_signaware.experiments.sweep.cache import d_ins_of, make_store
from sae_lens_signaware.experiments.sweep.config import LatentsConfig, Run
from sae_lens_signaware.experiments.sweep.latent_results import Dial, LatentPage

AUDIT_COSINES = (-0.9, -0.7, -0.5)
DIAL_PROMPTS, DIAL_POSITIONS = 4, 64


def chosen_latents(analysis: Analysis, n: int) -> list[int]:
    """Choose the ``n`` alive latents of most energy, or fewer, most energy first."""
    census = analysis.census
    energy = census.energy_pos + census.energy_neg
    return energy.topk(min(n, int(census.alive.sum()))).indices.tolist()


def pages_without_dials(
    model: HookedRootModule,
    sae: SAE[Any],
    analysis: Analysis,
    latents: Sequence[int],
    heldout: Tensor,
    tokens: Tensor,
    n_contexts: int,
    cfg: LanguageModelSAERunnerConfig[Any],
) -> list[LatentPage]:
    """Make a page for each latent, in one pass over ``heldout`` and one over ``tokens``.

    Args:
        heldout: (n, d_in) activations, whose values the histograms count.
        tokens: (prompt, position), searched for contexts.
        cfg: of the run, whose tokens alone can be peaks.
    """
    census, calibration = analysis.census, analysis.calibration
    # a special token is no text, also where the run has read it
    special = excluded_tokens(model, True)
    left_out = special + excluded_tokens(model, cfg.exclude_special_tokens)
    examples = top_examples(
        model,
        sae,
        tokens,
        latents,
        k=n_contexts,
        exclude_special_tokens=left_out,
        seqpos_slice=cfg.seqpos_slice,
    )
    histograms = activation_histograms(sae, heldout, latents)
    logits = top_logits(model, sae, latents) or [None] * len(latents)
    gain_pos, gain_neg = map(numbers, (calibration.gain_pos, calibration.gain_neg))
    return [
        LatentPage(
            latent=latent,
            firing_rate_pos=census.firing_rate_pos[latent].item(),
            firing_rate_neg=census.firing_rate_neg[latent].item(),
            energy_pos=census.energy_pos[latent].item(),
            energy_neg=census.energy_neg[latent].item(),
            min_share=census.min_share[latent].item(),
            gain_pos=gain_pos[latent],
            gain_neg=gain_neg[latent],
            examples_pos=(both := examples.of(latent)).pos,
            examples_neg=both.neg,
            dial=None,
            pair_dial=None,
            top_logits=logits[i],
            histogram=histograms[i],
        )
        for i, latent in enumerate(latents)
    ]


class Dialler:
    """Dials of an SAE's latents, all on the same prompts and of the same sizes.

    Args:
        plain: a plain SAE, of which the pair nearest to a latent's two ends is dialled as well.
        pages: of all latents; their energies set the sizes.
        tokens: (prompt, position).
    """

    def __init__(
        self,
        model: HookedRootModule,
        sae: SAE[Any],
        plain: SAE[Any] | None,
        pages: Sequence[LatentPage],
        tokens: Tensor,
    ) -> None:
        self.model, self.sae, self.plain = model, sae, plain
        self.read_out = unembedding_for(model, sae)
        energy = torch.tensor([p.energy_pos + p.energy_neg for p in pages], dtype=torch.float64)
        self.sizes = _dial_sizes(energy)
        self.prompts = tokens[:DIAL_PROMPTS, :DIAL_POSITIONS]

    def with_dials(self, page: LatentPage) -> LatentPage:
        """Return the page with its dials; without them where the model hides its unembedding."""
        if self.read_out is None:
            return page
        dial, pair_dial = self._dial(self.sae, page.latent, self.read_out), None
        if self.plain is not None:
            pair = nearest_antipodal_pair(self.plain, self.sae.W_dec[page.latent])
            pair_dial = self._dial(self.plain, pair, self.read_out)
        return dataclasses.replace(page, dial=dial, pair_dial=pair_dial)

    def _dial(self, sae: SAE[Any], latent: int | tuple[int, int], read_out: Tensor) -> Dial | None:
        """Dial the latent; None where the logits overflow, as they can in half precision."""
        # on the two tokens that this axis, or this pair's, speaks for and against most
        plus, minus = dialled_directions(sae, latent)
        votes = read_out @ (plus - minus)
        ids = (int(votes.argmax()), int(votes.argmin()))
        tokenizer = tokenizer_of(self.model)
        dial = polarity_dial(self.model, sae, latent, self.prompts, self.sizes, ids)
        if not (dial.effect.isfinite().all() and math.isfinite(dial.baseline)):
            return None
        return Dial.of(dial, (token_text(tokenizer, ids[0]), token_text(tokenizer, ids[1])))


def prompts_of(model: HookedRootModule, run: Run, dataset: str, shown: LatentsConfig) -> Tensor:
    """Read the first prompts of ``dataset``, (prompt, position), to search for contexts."""
    store = make_store(model, run.cfg, dataset, d_ins_of([run]))
    rows: list[Tensor] = []
    with contextlib.suppress(StopIteration):  # fewer prompts than asked for will do
        while sum(map(len, rows)) < shown.n_prompts:
            rows.append(store.get_batch_tokens(raise_at_epoch_end=True))
    if not rows:
        raise ConfigError(
            f"runner.store_batch_size_prompts: {run.cfg.store_batch_size_prompts} is more prompts "
            f"than {dataset} holds"
        )
    return torch.cat(rows)[: shown.n_prompts]


def special_tokens_of(model: HookedRootModule) -> tuple[str, ...]:
    """Return the texts of the tokenizer's special tokens."""
    tokenizer = tokenizer_of(model)
    return tuple(token_text(tokenizer, i) for i in sorted(get_special_token_ids(tokenizer)))


def numbers(values: Tensor) -> list[float | None]:
    """Return the values of a tensor, None for NaN."""
    return [none_for_nan(v) for v in values.tolist()]


def audit_pairs(plain: SAE[Any], activations: Tensor) -> dict[str, dict[str, int]]:
    """Return highest cosine of a pair -> what merging such pairs of the plain SAE would free."""
    by_cosine = {}
    for cosine in AUDIT_COSINES:
        audit = antipodal_audit(plain, activations, cosine)
        by_cosine[f"{cosine:g}"] = {
            "n_pairs": audit.n_pairs,
            "freed_width": audit.freed_width,
            "n_pairs_that_fire_together": int((audit.co_firing_rate > 0).sum()),
        }
    return by_cosine


def _dial_sizes(energy: Tensor) -> tuple[float, ...]:
    # in the units of the activations: a half to four times what a latent shown writes on average
    # where it fires on every tenth token
    typical = (10 * energy.median()).sqrt().item()
    return tuple(typical * factor for factor in (0.5, 1.0, 2.0, 4.0))
