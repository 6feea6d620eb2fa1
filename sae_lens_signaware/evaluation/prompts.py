"""Prompts with their activations, from a store of SAELens or from token ids."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from sae_lens import SAE, ActivationsStore
from sae_lens.util import extract_stop_at_layer_from_tlens_hook_name
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, require
from sae_lens_signaware.evaluation.inputs import require_sae
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    on_model,
    require_head,
    require_hook,
    require_positions,
    vocabulary_of,
)


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
    store: ActivationsStore,
    n_batches: int,
    batch_size_prompts: int | None,
    excluded: list[int],
    distinct: bool = False,
) -> Iterator[Prompts]:
    """Yield the next ``n_batches`` batches of a store, which is endless.

    Args:
        store: where its ``seqpos_slice`` cuts the prompts, so are those given here.
        batch_size_prompts: None takes the store's own.
        excluded: ids of the tokens that ``keep`` leaves out.
        distinct: whether to leave out a prompt that was there before. A store starts its text anew
            where it has come to the end, without a word.
    """
    part = slice(*store.seqpos_slice)
    seen: set[int] = set()
    for _ in range(n_batches):
        tokens = store.get_batch_tokens(batch_size_prompts)
        if distinct:
            tokens = tokens[_new(tokens, seen)]
            if not len(tokens):
                continue
        activations = store.get_activations(tokens)
        yield _prompts(tokens, activations, excluded, part)


def _new(prompts: Tensor, seen: set[int]) -> list[int]:
    """Numbers of the rows (prompt, position) that are not in ``seen``, where they are put."""
    new = []
    for i, prompt in enumerate(prompts.cpu().numpy()):
        key = hash(prompt.tobytes())
        if key not in seen:
            new.append(i)
            seen.add(key)
    return new


def hook_of(sae: SAE[Any]) -> tuple[str, int | None]:
    """The hook that an SAE reads, and the head that it takes; None where it takes all.

    Raises:
        InvalidInputError: the SAE's metadata names no hook, as of an SAE that was trained on
            activations.
    """
    require_sae(sae)
    name = sae.cfg.metadata.hook_name
    allowed = "the hook that the SAE reads, such as 'blocks.8.hook_mlp_out'"
    require(name is not None, "sae.cfg.metadata.hook_name", name, allowed)
    return name, sae.cfg.metadata.hook_head_index


@torch.no_grad()
def prompts_of_tokens(
    model: HookedRootModule,
    sae: SAE[Any],
    tokens: Tensor,
    batch_size_prompts: int,
    excluded: list[int],
    distinct: bool = False,
    part: slice = slice(None),
) -> Iterator[Prompts]:
    """Yield batches of token ids (prompt, position), run through ``model`` up to the SAE's hook.

    Args:
        model: SAELens's hooked model; ``sae.cfg.metadata.hook_name`` says where.
        distinct: whether ``keep`` is to leave out all of a prompt that was there before. The
            prompts keep their numbers.
        part: positions of a prompt; ``keep`` leaves out the others.

    Raises:
        ValueError: ``tokens`` is not (prompt, position), empty, or longer than the model has
            positions; or the SAE names no hook.
    """
    require_tokens(model, tokens)
    hooks, seen = [hook_of(sae)], set[int]()
    for batch in tokens.split(batch_size_prompts):
        (activations,) = hooked_activations(model, batch, hooks)
        require_width_of_sae(activations, sae, hooks[0][0])
        prompts = _prompts(batch, activations, excluded)
        is_of_part = torch.zeros(batch.shape[1], dtype=torch.bool, device=prompts.keep.device)
        is_of_part[part] = True
        prompts = prompts._replace(keep=prompts.keep & is_of_part)
        if distinct:
            is_new = torch.zeros(len(batch), dtype=torch.bool, device="cpu")
            is_new[_new(batch, seen)] = True
            prompts = prompts._replace(keep=prompts.keep & is_new[:, None].to(prompts.keep.device))
        yield prompts


def require_width_of_sae(activations: Tensor, sae: SAE[Any], hook: str | None) -> None:
    """Raise InvalidInputError where activations (..., width) are not of an SAE's width."""
    width, allowed = activations.shape[-1], f"{sae.cfg.d_in}, the SAE's d_in"
    require(width == sae.cfg.d_in, f"width of {hook!r}", width, allowed)


def require_tokens(model: HookedRootModule, tokens: Tensor, shortest: int = 1) -> None:
    """Raise InvalidInputError where ``tokens`` are no token ids (prompt, position) of the model.

    A GPU would answer an id that is not in the vocabulary with an error that ends the process.

    Args:
        shortest: positions at least.
    """
    kind = "a tensor of token ids (prompt, position)"
    require(isinstance(tokens, Tensor), "tokens", type(tokens).__name__, kind)
    fits = tokens.ndim == 2 and len(tokens) > 0 and tokens.shape[1] >= shortest
    allowed = f"(prompt, position) of at least one prompt and at least {shortest} position(s)"
    require(fits, "tokens", tuple(tokens.shape), allowed)
    # an embedding takes no other ones, and uint8 would be a mask
    is_index = tokens.dtype in (torch.int64, torch.int32)
    require(is_index, "tokens", tokens.dtype, "whole numbers of torch.int64 or torch.int32")
    require_positions(model, "tokens: positions", tokens.shape[1])
    n = vocabulary_of(model)
    for value in (tokens.min().item(), tokens.max().item()):
        is_known = value >= 0 and (n is None or value < n)
        why = "are they of another tokenizer?"
        allowed = "token ids from 0" if n is None else f"token ids from 0 to {n - 1}"
        require(is_known, "tokens", value, allowed, why)


def hooked_activations(
    model: HookedRootModule, tokens: Tensor, hooks: Sequence[tuple[str, int | None]]
) -> list[Tensor]:
    """Run ``model`` on token ids (prompt, position), no further than the hooks need.

    Args:
        hooks: name of each, and the head that is taken; None joins the heads.

    Returns:
        (prompt, position, d_in) of each hook.

    Raises:
        InvalidInputError: the model has no such hook.
    """
    hooks = [(require_hook(model, name), head) for name, head in hooks]
    names = [name for name, _ in hooks]
    last = [extract_stop_at_layer_from_tlens_hook_name(name) for name in names]
    known = [layer for layer in last if layer is not None]
    _, cache = model.run_with_cache(
        on_model(model, tokens),
        names_filter=names,
        stop_at_layer=max(known) if len(known) == len(last) else None,
        prepend_bos=False,
    )
    for name in names:
        if name not in cache:
            raise InvalidInputError(
                f"hook_name: the model has no hook {name!r} that gives a tensor"
            )
    for name, head in hooks:
        require_head(name, head, cache[name].shape)
    return [
        (cache[name] if head is None else cache[name][:, :, head]).flatten(2)
        for name, head in hooks
    ]


def _prompts(
    tokens: Tensor, activations: Tensor, excluded: list[int], part: slice = slice(None)
) -> Prompts:
    """One batch; ``part`` of each prompt is what ``activations`` has."""
    tokens = tokens.to(activations.device)
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)[:, part]
    tokens = tokens[:, part]
    keep = ~torch.isin(tokens, torch.tensor(excluded, dtype=tokens.dtype, device=tokens.device))
    return Prompts(tokens, activations, keep, positions)
