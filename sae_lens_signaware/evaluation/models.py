"""The language models that SAELens hooks: their type, and their tokenizer."""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, cast

import torch
from sae_lens.load_model import HookedProxyLM
from sae_lens.util import get_special_token_ids
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sae_lens_signaware.checks import (
    ConfigError,
    InvalidInputError,
    nearest,
    require,
    require_64_bits,
)

if TYPE_CHECKING:  # transformer-lens 2 has it in another module
    from transformer_lens.HookedRootModule import HookedRootModule
else:  # where SAELens imports it from, in every version
    from transformer_lens.HookedTransformer import HookedRootModule

__all__ = [
    "HookedRootModule",
    "bos_ids",
    "embedding_of",
    "excluded_tokens",
    "logits_after",
    "on_model",
    "require_called",
    "require_head",
    "require_hook",
    "require_positions",
    "require_unicode",
    "required_tokenizer",
    "token_ids",
    "token_text",
    "tokenizer_of",
    "vocabulary_of",
]

_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def tokenizer_of(model: HookedRootModule) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model; every model that SAELens loads has one."""
    # a type checker takes an attribute that torch's modules do not declare for a tensor
    return attrgetter("tokenizer")(model)


def required_tokenizer(model: HookedRootModule) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model that a user has made, and that may have none.

    Raises:
        InvalidInputError: it has none.
    """
    tokenizer = tokenizer_of(model)
    require(tokenizer is not None, "model.tokenizer", tokenizer, "a tokenizer")
    return tokenizer


def require_positions(model: HookedRootModule, field: str, n_tokens: int) -> None:
    """Raise InvalidInputError where a context is longer than the model has positions.

    A model, of TransformerLens or of transformers, may say no number: then any length is taken.
    """
    config = getattr(model, "cfg", None) or getattr(getattr(model, "model", None), "config", None)
    names = ("n_ctx", "max_position_embeddings")
    found = (n for name in names if isinstance(n := getattr(config, name, None), int))
    n_positions = next(found, None)
    allowed = f"at most {n_positions}, the positions of the model"
    require(n_positions is None or n_tokens <= n_positions, field, n_tokens, allowed)


def on_model(model: HookedRootModule, tokens: Tensor) -> Tensor:
    """Token ids on the device of the model; SAELens's ``HookedProxyLM`` does not move them.

    They are contiguous, as TransformerLens's ``view`` needs them.
    """
    return tokens.to(next(model.parameters()).device).contiguous()


def vocabulary_of(model: HookedRootModule) -> int | None:
    """Return how many token ids a model has an embedding of; None where it hides them."""
    embedding = _input_embeddings(model)
    return None if embedding is None else len(embedding)


def embedding_of(model: HookedRootModule) -> Tensor:
    """Return (vocabulary, d_model) the input embeddings of a model, in float32.

    Raises:
        InvalidInputError: the model hides them.
    """
    embedding = _input_embeddings(model)
    if embedding is None:
        raise InvalidInputError(
            f"model must be one with input embeddings, got {type(model).__name__!r}"
        )
    return embedding.detach().float().cpu()


def _input_embeddings(model: HookedRootModule) -> Tensor | None:
    """(vocabulary, d_model) of a model of TransformerLens or of transformers; None if hidden."""
    embedding = getattr(model, "W_E", None)
    if embedding is None:
        inner = getattr(model, "model", None)
        of_tokens = getattr(inner, "get_input_embeddings", lambda: None)()
        embedding = getattr(of_tokens, "weight", None)
    return embedding if isinstance(embedding, Tensor) else None


def logits_after(
    model: HookedRootModule,
    tokens: Tensor,
    at: Tensor,
    fwd_hooks: Sequence[tuple[str, Callable[..., Tensor]]],
) -> Tensor:
    """Return (n, vocabulary) logits of the token after position ``at[i]`` of row i.

    Args:
        tokens: (n, position).
        at: (n,) int64.
        fwd_hooks: as ``run_with_hooks`` takes them.
    """
    each, tokens = torch.arange(len(tokens), device="cpu"), on_model(model, tokens)
    if isinstance(model, HookedProxyLM) and _keeps_logits(model.model):
        # of a small model with a large vocabulary most of the time goes into logits
        positions, which = at.unique(return_inverse=True)
        with model.hooks(fwd_hooks=list(fwd_hooks)):
            return model.model(tokens, logits_to_keep=positions).logits[each, which]
    logits = model.run_with_hooks(
        tokens, return_type="logits", prepend_bos=False, fwd_hooks=list(fwd_hooks)
    )
    return logits[each, at]


def _keeps_logits(model: nn.Module) -> bool:
    """Whether a model of transformers can compute the logits of some positions alone."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def require_hook(model: HookedRootModule, hook_name: str) -> str:
    """Return the name that the model has in its ``hook_dict`` for a hook.

    TransformerLens's bridge has HookedTransformer's names as attributes of its modules.

    Raises:
        ConfigError: the model lacks it, which names the nearest one; or an SAE is attached there.
    """
    hooks = list(getattr(model, "hook_dict", {}))
    if hook_name in hooks:
        return hook_name
    if hook_name in getattr(model, "acts_to_saes", {}):
        raise ConfigError(
            f"hook_name: an SAE is attached to the model at {hook_name!r}; call reset_saes() first"
        )
    try:
        name = getattr(attrgetter(hook_name)(model), "name", None)
    except AttributeError:
        name = None
    if name in hooks:
        return cast("str", name)
    raise ConfigError(f"hook_name: the model has no hook {hook_name!r}" + nearest(hook_name, hooks))


def require_called(hook_name: str, was_called: bool) -> None:
    """Raise InvalidInputError where a pass of the model went by a hook.

    Some hooks of TransformerLens are off by default. SAELens's bridge calls no hook at a place any
    more that an SAE was attached to.
    """
    allowed = "a hook that this model calls in its pass, with a tensor"
    why = "hooks that an SAE was attached to may be lost; load the model anew"
    require(was_called, "hook_name", hook_name, allowed, why)


def require_head(hook_name: str, head: int | None, shape: Sequence[int]) -> None:
    """Raise InvalidInputError where activations (batch, position, ...) have no head ``head``.

    Args:
        head: may count from the end; None takes all heads.
    """
    if head is not None:
        allowed = f"null: {hook_name!r} has no heads"
        require(len(shape) > 3, "hook_head_index", head, allowed)
        require(head in range(-shape[2], shape[2]), "hook_head_index", head, f"below {shape[2]}")


def excluded_tokens(model: HookedRootModule, exclude: Iterable[int] | bool | None) -> list[int]:
    """Return the ids that SAELens's ``exclude_special_tokens`` stands for.

    Args:
        exclude: ids; or True, for all special tokens of the model's tokenizer.

    Raises:
        InvalidInputError: an id has more than 64 bits.
    """
    if exclude is True:
        return get_special_token_ids(tokenizer_of(model))
    ids = list(exclude or ())
    for i in ids:
        require_64_bits("exclude_special_tokens", i)
    return ids


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the beginning-of-sequence token that SAELens puts before a text, if there is one."""
    bos = cast("int | None", tokenizer.bos_token_id)  # declared as a list of ids, too
    return [] if bos is None else [bos]


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of one text, without special tokens around it."""
    # a tokenizer declares that it may give texts; of a text it gives ids
    return cast("list[int]", tokenizer.encode(text, add_special_tokens=False))


def require_unicode(field: str, text: str) -> None:
    """Raise InvalidInputError for half a surrogate pair, as of a cut JSON text: no token has it."""
    is_whole = _HALF_A_PAIR.search(text) is None
    require(is_whole, field, text, "Unicode", "half of a surrogate pair is no character")


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Return the text of one token, with the space before it."""
    # a tokenizer declares that it may give a list of texts; for one sequence it gives one text
    # transformers 4 takes the space before punctuation away where it is not told to leave it
    text = "".join(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    # decoders such as Llama-2's take the space from the start of what they decode
    piece = str(tokenizer.convert_ids_to_tokens(token))
    n_spaces = len(piece) - len(piece.lstrip("▁"))
    return " " * n_spaces + text.lstrip(" ") if n_spaces else text
