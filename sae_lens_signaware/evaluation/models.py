"""The language models that SAELens hooks: their hooks, tokenizers, and prompts with activations."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast

import torch
from sae_lens import SAE
from sae_lens.util import extract_stop_at_layer_from_tlens_hook_name, get_special_token_ids
from torch import Tensor
from transformer_lens.HookedTransformer import HookedRootModule  # as SAELens imports it
from transformers import PreTrainedTokenizerBase

from sae_lens_signaware.checks import InvalidInputError, nearest, require
from sae_lens_signaware.evaluation.inputs import MAX_TOKENS, require_finite


class Prompts(NamedTuple):
    """A batch of prompts.

    Attributes:
        tokens: (batch, position) int64.
        activations: (batch, position, d_in).
        keep: (batch, position) bool, False at the tokens that are left out.
    """

    tokens: Tensor
    activations: Tensor
    keep: Tensor


def hook_of(sae: SAE[Any]) -> str:
    """The hook that an SAE reads; InvalidInputError where its metadata name none."""
    name = sae.cfg.metadata.hook_name
    allowed = "the hook that the SAE reads, such as 'blocks.8.hook_mlp_out'"
    require(name is not None, "sae.cfg.metadata.hook_name", name, allowed)
    return name


def require_hook(model: HookedRootModule, hook_name: str) -> str:
    """Return the name that the model has in its ``hook_dict`` for a hook.

    TransformerLens's bridge has HookedTransformer's names as attributes of its modules.

    Raises:
        InvalidInputError: the model lacks it, which names the nearest one; or an SAE is there.
    """
    hooks = list(model.hook_dict)
    if hook_name in hooks:
        return hook_name
    is_taken = hook_name in getattr(model, "acts_to_saes", {})
    require(not is_taken, "hook_name", hook_name, "without an SAE; call reset_saes() first")
    try:
        name = getattr(attrgetter(hook_name)(model), "name", None)
    except AttributeError:
        name = None
    if name in hooks:
        return cast("str", name)
    hint = nearest(hook_name, hooks)
    raise InvalidInputError(f"hook_name: the model has no hook {hook_name!r}{hint}")


def hooked_activations(
    model: HookedRootModule, tokens: Tensor, hooks: Sequence[tuple[str, int | None]]
) -> list[Tensor]:
    """Run ``model`` on token ids (prompt, position), no further than the hooks need.

    Args:
        hooks: name of each, and the head that is taken; None joins the heads.

    Returns:
        (prompt, position, d_in) of each hook.

    Raises:
        InvalidInputError: the model has no such hook; an activation is not finite.
    """
    names = [require_hook(model, name) for name, _ in hooks]
    last = [extract_stop_at_layer_from_tlens_hook_name(name) for name in names]
    known = [layer for layer in last if layer is not None]
    _, cache = model.run_with_cache(
        on_model(model, tokens),
        names_filter=names,
        stop_at_layer=max(known) if len(known) == len(last) else None,
        prepend_bos=False,
    )
    found = []
    for name, (_, head) in zip(names, hooks, strict=True):
        require(name in cache, "hook_name", name, "a hook that this model calls, with a tensor")
        found.append((cache[name] if head is None else cache[name][:, :, head]).flatten(2))
        require_finite(f"activations of {name!r}", found[-1])
    return found


@torch.no_grad()
def prompts_of_tokens(
    model: HookedRootModule, sae: SAE[Any], tokens: Tensor, excluded: Sequence[int] = ()
) -> Iterator[Prompts]:
    """Run token ids (prompt, position) up to the hook that an SAE reads, some prompts at once.

    Args:
        excluded: ids of the tokens that ``keep`` leaves out.

    Raises:
        InvalidInputError: ``tokens`` is not (prompt, position) of whole numbers; the model has no
            such hook, or one of another width; an activation is not finite.
    """
    is_ids = isinstance(tokens, Tensor) and tokens.ndim == 2 and not tokens.is_floating_point()
    require(is_ids, "tokens", getattr(tokens, "shape", tokens), "token ids (prompt, position)")
    hook, d_in = (hook_of(sae), sae.cfg.metadata.hook_head_index), sae.cfg.d_in
    for batch in tokens.split(max(1, MAX_TOKENS // tokens.shape[1])):
        (activations,) = hooked_activations(model, batch, [hook])
        width = activations.shape[-1]
        require(width == d_in, "width of the activations", width, f"{d_in}, the SAE's d_in")
        yield Prompts(*(t.to(sae.device) for t in (batch, activations, is_kept(batch, excluded))))


def is_kept(tokens: Tensor, excluded: Sequence[int]) -> Tensor:
    """Which token ids are none of the excluded ones: bool, of the shape of ``tokens``."""
    return ~torch.isin(tokens, torch.tensor(list(excluded), device=tokens.device))


def on_model(model: HookedRootModule, tokens: Tensor) -> Tensor:
    """Token ids on the device of the model, contiguous as TransformerLens's ``view`` needs them."""
    return tokens.to(next(model.parameters()).device).contiguous()


def tokenizer_of(model: HookedRootModule) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; every model that SAELens loads has one."""
    tokenizer = attrgetter("tokenizer")(model)
    require(tokenizer is not None, "model.tokenizer", tokenizer, "a tokenizer")
    return tokenizer


def excluded_tokens(model: HookedRootModule, exclude: Iterable[int] | bool | None) -> list[int]:
    """The ids that SAELens's ``exclude_special_tokens`` stands for; True are all special tokens."""
    return get_special_token_ids(tokenizer_of(model)) if exclude is True else list(exclude or ())


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The beginning-of-sequence token that SAELens puts before a text, if there is one."""
    bos = cast("int | None", tokenizer.bos_token_id)  # declared as a list of ids, too
    return [] if bos is None else [bos]


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of one text, without special tokens around it."""
    return cast("list[int]", tokenizer.encode(text, add_special_tokens=False))


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """The text of one token, with the space before it."""
    # transformers 4 takes the space before punctuation away where it is not told to leave it
    text = "".join(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    # decoders such as Llama-2's take the space from the start of what they decode
    piece = str(tokenizer.convert_ids_to_tokens(token))
    n_spaces = len(piece) - len(piece.lstrip("▁"))
    return " " * n_spaces + text.lstrip(" ") if n_spaces else text
