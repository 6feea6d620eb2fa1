"""Top logits: the tokens that each side of a latent promotes most, through the unembedding."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.evaluation.models import HookedRootModule, token_text, tokenizer_of
from sae_lens_signaware.evaluation.streaming import decoder_directions

TokenLogit = tuple[str, float]
"""A token, and what one unit of the latent adds to its logit."""


@dataclasses.dataclass(frozen=True)
class TopLogits:
    """Tokens of the largest logits of a latent's direction, and of the opposite direction.

    A logit here leaves out the final norm's scale, which differs from token to token.

    Attributes:
        pos: tokens that ``+W_dec[i]`` promotes most, largest logit first.
        neg: those that ``-W_dec[i]`` promotes most.
    """

    pos: tuple[TokenLogit, ...]
    neg: tuple[TokenLogit, ...]


def unembedding_of(model: HookedRootModule, d_in: int) -> Tensor | None:
    """Return (vocabulary, d_in) from the stream to logits, with the final norm's weight in it.

    None where the model hides its unembedding, or where the stream is not ``d_in`` wide.
    """
    unembedding = _unembedding(model)
    return None if unembedding is None or unembedding.shape[1] != d_in else unembedding


def _unembedding(model: HookedRootModule) -> Tensor | None:
    unembedding = getattr(model, "W_U", None)
    if unembedding is not None:  # TransformerLens folds the final norm's weight
        return unembedding.detach().float().T
    inner = getattr(model, "model", None)
    head = getattr(inner, "get_output_embeddings", lambda: None)()
    if head is None:
        return None
    norm = getattr(getattr(inner, "model", None), "norm", None)
    weight = head.weight.detach().float()
    return weight if norm is None else weight * norm.weight.detach().float()


@torch.no_grad()
def top_logits(
    model: HookedRootModule, sae: SAE[Any], latents: Sequence[int], k: int = 10
) -> list[TopLogits] | None:
    """Find the k tokens that each side of the latents promotes most.

    The logits are ``unembedding @ W_dec[i]`` for the + side and ``unembedding @ -W_dec[i]`` for
    the - side. They mean something where the SAE reads what the model adds to its residual stream.

    Args:
        model: SAELens's hooked model.
        sae: any SAELens SAE.
        latents: which.
        k: tokens of a side at most.

    Returns:
        One for each latent, or None where :func:`unembedding_of` is None.
    """
    unembedding = unembedding_of(model, sae.cfg.d_in)
    if unembedding is None:
        return None
    directions = decoder_directions(sae).to(unembedding.device)
    tokenizer, found = tokenizer_of(model), []
    for latent in latents:
        logits = unembedding @ directions[latent]
        sides: list[tuple[TokenLogit, ...]] = []
        for signed in (logits, -logits):
            top = signed.topk(min(k, len(signed)))
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            sides.append(tuple((token_text(tokenizer, i), value) for i, value in pairs))
        found.append(TopLogits(*sides))
    return found
