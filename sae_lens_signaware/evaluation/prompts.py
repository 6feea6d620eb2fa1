"""Prompts with their activations, from a store of SAELens or from token ids."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from sae_lens import SAE, ActivationsStore
from sae_lens.util import extract_stop_at_layer_from_tlens_hook_name
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation.models import HookedRootModule


class Prompts(NamedTuple):
    """A batch of prompts, or of a slice of each.

    Attributes:
        tokens: (batch, position) int64.
        activations: (batch, position, d_in).
        keep: (batch, position) bool, False at the excluded tokens.
        positions: (batch, position) int64, of each token in its whole prompt.
    """

    tokens: Tensor
    activations: Tensor
    keep: Tensor
    positions: Tensor


@torch.no_grad()
def prompts_of_store(
    store: ActivationsStore, n_batches: int, batch_size_prompts: int | None, excluded: list[int]
) -> Iterator[Prompts]:
    """Yield the next ``n_batches`` batches of a store, which is endless.

    Args:
        store: where its ``seqpos_slice`` cuts the prompts, so are those given here.
        batch_size_prompts: None takes the store's own.
        excluded: ids of the tokens that ``keep`` leaves out.
    """
    part = slice(*store.seqpos_slice)
    for _ in range(n_batches):
        tokens = store.get_batch_tokens(batch_size_prompts)
        activations = store.get_activations(tokens)
        yield _prompts(tokens, activations, excluded, part)


@torch.no_grad()
def prompts_of_tokens(
    model: HookedRootModule,
    sae: SAE[Any],
    tokens: Tensor,
    batch_size_prompts: int,
    excluded: list[int],
) -> Iterator[Prompts]:
    """Yield batches of token ids (prompt, position), run through ``model`` up to the SAE's hook.

    Args:
        model: SAELens's hooked model; ``sae.cfg.metadata.hook_name`` says where.

    Raises:
        ValueError: ``tokens`` is not (prompt, position), or empty.
    """
    require(
        tokens.ndim == 2 and tokens.numel() > 0,
        "tokens",
        tuple(tokens.shape),
        "(prompt, position) with at least one of each",
    )
    metadata = sae.cfg.metadata
    for batch in tokens.split(batch_size_prompts):
        _, cache = model.run_with_cache(
            batch,
            names_filter=[metadata.hook_name],
            stop_at_layer=extract_stop_at_layer_from_tlens_hook_name(metadata.hook_name),
            prepend_bos=False,
        )
        activations = cache[metadata.hook_name]
        if metadata.hook_head_index is not None:
            activations = activations[:, :, metadata.hook_head_index]
        yield _prompts(batch, activations.flatten(2), excluded)


def _prompts(
    tokens: Tensor, activations: Tensor, excluded: list[int], part: slice = slice(None)
) -> Prompts:
    """One batch; ``part`` of each prompt is what ``activations`` has."""
    tokens = tokens.to(activations.device)
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)[:, part]
    tokens = tokens[:, part]
    keep = ~torch.isin(tokens, torch.tensor(excluded, dtype=tokens.dtype, device=tokens.device))
    return Prompts(tokens, activations, keep, positions)
