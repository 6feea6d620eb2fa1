"""Top logits: the tokens that each side of a latent promotes most, through the unembedding."""

import copy
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_signaware.evaluation import inputs
from sae_lens_signaware.evaluation.models import HookedRootModule, token_text, tokenizer_of

HEAD_SPACE = ("hook_q", "hook_k", "hook_v", "hook_z", "q_proj", "k_proj", "v_proj")
"""Last parts of hook names inside of attention, whose activations W_O or the scores are still to
take in. They can be as wide as the residual stream."""


@dataclasses.dataclass(frozen=True)
class TopLogits:
    """Tokens and logits, largest first, where the stream is a latent's direction and nothing else.

    Attributes:
        pos: what ``+W_dec[i]`` promotes most.
        neg: what ``-W_dec[i]`` promotes most.
    """

    pos: tuple[tuple[str, float], ...]
    neg: tuple[tuple[str, float], ...]


@torch.no_grad()
def top_logits(
    model: HookedRootModule, sae: SAE[Any], latents: Sequence[int], k: int = 10
) -> list[TopLogits] | None:
    """Find the k tokens that each side of the latents promotes most, by :func:`direct_logits`.

    Args:
        model: SAELens's hooked model.
        sae: any SAELens SAE.
        latents: which.
        k: tokens of a side at most.

    Returns:
        One for each latent, or None where :func:`direct_logits` has none.

    Raises:
        InvalidInputError: a latent is out of range, or the SAE's estimated scale not folded in.
    """
    inputs.require_folded(sae)
    logits = direct_logits(model, sae, inputs.numbers_of_latents(sae, latents))
    if logits is None:
        return None
    tokenizer = tokenizer_of(model)

    def largest(row: Tensor) -> tuple[tuple[str, float], ...]:
        found = zip(*(t.tolist() for t in row.topk(min(k, len(row)))), strict=True)
        return tuple((token_text(tokenizer, token), value) for value, token in found)

    return [TopLogits(largest(row), largest(-row)) for row in logits]


@torch.no_grad()
def direct_logits(model: HookedRootModule, sae: SAE[Any], latents: list[int]) -> Tensor | None:
    """(n, vocabulary) logits of the stream d_i through the final norm, without its bias.

    They mean something where the SAE reads what the model adds to its residual stream. None where
    it reads heads, or is of another width, or the model hides its unembedding or its final norm.
    """
    found = _norm_and_unembedding(model)
    is_in_head = (sae.cfg.metadata.hook_name or "").endswith(HEAD_SPACE)
    if found is None or is_in_head or found[1].shape[1] != sae.cfg.d_in:
        return None
    norm, unembedding = copy.deepcopy(found[0]).float(), found[1].detach().float()
    # large, so that the norm's epsilon does not count: its output has a scale of 1 all the same
    d = 1e4 * normalize(inputs.decoder_directions(sae)[latents].to(unembedding.device))
    return (norm(d[None]) - norm(-d[None]))[0].float() / 2 @ unembedding.T


def _norm_and_unembedding(model: HookedRootModule) -> tuple[torch.nn.Module, Tensor] | None:
    if (unembedding := getattr(model, "W_U", None)) is not None:
        # SAELens loads with no processing, so a norm of TransformerLens keeps its weight
        return getattr(model, "ln_final", torch.nn.Identity()), unembedding.T
    inner: Any = getattr(model, "model", None)
    if (head := getattr(inner, "get_output_embeddings", lambda: None)()) is None:
        return None
    # models of transformers name their final norm each in its way: the last one outside of a layer
    norms = [
        module
        for name, module in inner.named_modules()
        if "norm" in type(module).__name__.lower() and not re.search(r"\.\d+(\.|$)", name)
    ]
    return (norms[-1], head.weight) if norms else None
