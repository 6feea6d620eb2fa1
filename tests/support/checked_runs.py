"""Runners over small hooked models, of transformer-lens and of transformers."""

from pathlib import Path
from typing import Any

import torch
from sae_lens.load_model import HookedProxyLM
from transformers import GPT2Config, GPT2LMHeadModel

from sae_lens_signaware.training.runner import SignawareTrainingRunner
from tests.support.models import tiny_tokenizer, tokens
from tests.support.runners import runner_config
from tests.support.saes import D_IN, training_config


def proxy_model() -> HookedProxyLM:
    """A transformers model as SAELens hooks it, with dropout on: it draws random numbers."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=D_IN, n_head=2, vocab_size=64, n_positions=32)
    gpt2 = GPT2LMHeadModel(config).train()
    return HookedProxyLM(gpt2, tiny_tokenizer(), ["transformer.h.0.mlp"])


def make_runner(
    folder: Path, model: Any, dataset: Any = None, d_in: int = D_IN, sae: Any = None, **kwargs: Any
) -> SignawareTrainingRunner:
    sae = sae or training_config("sa_gsae", d_in=d_in, target_l0=6.0)
    cfg = runner_config(sae, folder, **kwargs)
    return SignawareTrainingRunner(
        cfg, override_model=model, override_dataset=tokens() if dataset is None else dataset
    )
