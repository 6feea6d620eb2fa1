"""The language models that SAELens hooks: their type, and their tokenizer."""

from operator import attrgetter
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

if TYPE_CHECKING:  # transformer-lens 2 has it in another module
    from transformer_lens.HookedRootModule import HookedRootModule
else:  # where SAELens imports it from, in every version
    from transformer_lens.HookedTransformer import HookedRootModule

__all__ = ["HookedRootModule", "token_text", "tokenizer_of"]


def tokenizer_of(model: HookedRootModule) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model; every model that SAELens loads has one."""
    # a type checker takes an attribute that torch's modules do not declare for a tensor
    return attrgetter("tokenizer")(model)


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Return the text of one token."""
    # a tokenizer declares that it may give a list of texts; for one sequence it gives one text
    return "".join(tokenizer.decode([token]))
