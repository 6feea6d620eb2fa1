"""A small transformer, its tokenizer, and tokens to read."""

from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens import HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

from tests.support.saes import D_IN

HOOK = "blocks.0.hook_mlp_out"


def tiny_model_config(d_model: int = D_IN) -> HookedTransformerConfig:
    return HookedTransformerConfig(
        n_layers=2,
        d_model=d_model,
        n_ctx=32,
        d_head=8,
        n_heads=2,
        d_vocab=64,
        act_fn="relu",
        seed=0,
    )


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


def tokens(n: int = 400) -> Dataset:
    g = torch.Generator().manual_seed(5)
    return Dataset.from_dict({"tokens": torch.randint(0, 64, (n, 16), generator=g).tolist()})
