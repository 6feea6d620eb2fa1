"""Top logits: the tokens that each side of a latent promotes most, through the unembedding."""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor, nn

from sae_lens_signaware.evaluation.inputs import (
    decoder_directions,
    numbers_of_latents,
    require_folded,
)
from sae_lens_signaware.evaluation.models import HookedRootModule, token_text, tokenizer_of

# Where models of transformers keep their final norm: Llama, Gemma and most others; models that also
# read images; GPT-NeoX and Pythia; GPT-2, Falcon, Bloom; OPT; Phi; MPT; Mamba.
FINAL_NORMS = (
    "model.norm",
    "model.language_model.norm",
    "gpt_neox.final_layer_norm",
    "transformer.ln_f",
    "model.decoder.final_layer_norm",
    "model.final_layernorm",
    "transformer.norm_f",
    "backbone.norm_f",
)

HEAD_SPACE = ("hook_q", "hook_k", "hook_v", "hook_z", "q_proj", "k_proj", "v_proj")
"""Last parts of hook names inside of attention, whose activations W_O or the scores are still to
take in. They can be as wide as the residual stream."""

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


@torch.no_grad()
def top_logits(
    model: HookedRootModule,
    sae: SAE[Any],
    latents: Sequence[int],
    k: int = 10,
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
        One for each latent, or None where the model hides its unembedding, or the SAE does not
        write into the stream.

    Raises:
        InvalidInputError: a latent is out of range, or the SAE's estimated scale not folded in.
    """
    require_folded(sae)
    numbers = numbers_of_latents(sae, latents)
    unembedding = unembedding_for(model, sae)
    if unembedding is None:
        return None
    directions = decoder_directions(sae).to(unembedding.device)
    tokenizer, found = tokenizer_of(model), []
    for latent in numbers:
        logits = unembedding @ directions[latent]
        sides: list[tuple[TokenLogit, ...]] = []
        for signed in (logits, -logits):
            top = signed.topk(min(k, len(signed)))
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            sides.append(tuple((token_text(tokenizer, i), value) for i, value in pairs))
        found.append(TopLogits(*sides))
    return found


def unembedding_for(model: HookedRootModule, sae: SAE[Any]) -> Tensor | None:
    """(vocabulary, d_in) from what an SAE writes to logits, with the final norm's weight in it.

    None where that is not the stream, or the model hides its unembedding or its final norm.
    """
    if (sae.cfg.metadata.hook_name or "").endswith(HEAD_SPACE):
        return None
    found = _unembedding_and_norm(model)
    if found is None or found[0].shape[1] != sae.cfg.d_in:
        return None
    return through_norm(*found)


def _unembedding_and_norm(model: HookedRootModule) -> tuple[Tensor, nn.Module] | None:
    unembedding = getattr(model, "W_U", None)
    if unembedding is not None:
        # SAELens loads with no processing, so a norm of TransformerLens keeps its weight
        return unembedding.detach().float().T, getattr(model, "ln_final", nn.Identity())
    inner = getattr(model, "model", None)
    head = getattr(inner, "get_output_embeddings", lambda: None)()
    if head is None:
        return None
    for path in FINAL_NORMS:
        norm = functools.reduce(
            lambda module, name: getattr(module, name, None), path.split("."), inner
        )
        if isinstance(norm, nn.Module):
            return head.weight.detach().float(), norm
    return None


@torch.no_grad()
def through_norm(unembedding: Tensor, norm: nn.Module) -> Tensor:
    """(vocabulary, d) the logits of a direction that a norm takes in at a scale of 1.

    The weight is read from what the norm does, since a norm may hold it as it is, or less 1.

    Args:
        unembedding: (vocabulary, d), float32.
        norm: takes (batch, position, d); scales by the root mean square or the standard deviation.
    """
    if isinstance(norm, nn.Identity):
        return unembedding
    d = unembedding.shape[1]
    norm = copy.deepcopy(norm).to(device=unembedding.device, dtype=torch.float32)
    odd = torch.arange(d, dtype=torch.float32, device=unembedding.device) % 2
    mixed = 1.0 - 2.0 * odd  # 1, -1, 1, ...
    mixed = mixed - mixed.mean()  # so that a norm that subtracts the mean takes it in as it is
    mixed = mixed / mixed.square().mean().sqrt()
    # large, so that the norm's epsilon does not count; its output has the scale of 1 all the same
    inputs = 1e3 * torch.stack([mixed, torch.ones_like(mixed)])
    # a bias is in both halves alike
    on_mixed, on_ones = (norm(inputs[None]) - norm(-inputs[None]))[0].float() / 2
    weighted = unembedding * (on_mixed / mixed)
    subtracts_mean = on_ones.abs().max() < 1e-3 * on_mixed.abs().max()
    return weighted - weighted.mean(1, keepdim=True) if subtracts_mean else weighted
