"""Small transformers, their tokenizer, and tokens to read."""

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.faults.small import D_IN, HOOK, tiny_model_config, tokens

__all__ = ["HOOK", "tiny_gpt2", "tiny_model_config", "tiny_tokenizer", "tokens"]


def tiny_gpt2() -> GPT2LMHeadModel:
    """A model of transformers, of the same width and vocabulary."""
    config = GPT2Config(n_layer=2, n_embd=D_IN, n_head=2, vocab_size=64, n_positions=32)
    return GPT2LMHeadModel(config)


def tiny_tokenizer() -> Any:
    """Words w0 to w62, and 63 as the one special token."""
    words = {f"w{i}": i for i in range(63)} | {"<eos>": 63}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<eos>",
        eos_token="<eos>",
        pad_token="<eos>",
    )
