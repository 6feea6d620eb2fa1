"""Small transformers, their tokenizer, and tokens to read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens import HookedTransformer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.faults.small import D_IN, HOOK, tiny_model_config, tokens

__all__ = [
    "EOS",
    "HOOK",
    "booted_bridge",
    "hooked_transformer",
    "prompt_ids",
    "tiny_gpt2",
    "tiny_model_config",
    "tiny_tokenizer",
    "tokens",
]

EOS = 63
"""The one special token of :func:`tiny_tokenizer`."""


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


def hooked_transformer() -> HookedTransformer:
    """A tiny model with its tokenizer."""
    model = HookedTransformer(tiny_model_config())
    model.tokenizer = tiny_tokenizer()
    return model


def booted_bridge(folder: Path) -> Any:
    """SAELens's bridge to a small model, which is saved in ``folder`` first."""
    pytest.importorskip("transformer_lens.model_bridge", reason="needs transformer-lens 3")
    # sae-lens exports it only beside transformer-lens 3
    from sae_lens import SAETransformerBridge  # type: ignore[attr-defined]

    tiny_gpt2().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return SAETransformerBridge.boot_transformers(str(folder))


def prompt_ids(n: int) -> torch.Tensor:
    """(n, 16) token ids, each prompt from EOS on."""
    ids = torch.randint(0, 63, (n, 16), generator=torch.Generator().manual_seed(3))
    ids[:, 0] = EOS
    return ids
