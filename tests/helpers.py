"""Configs, SAEs with random parameters, and small models that several test files use."""

from typing import Any
from unittest import mock

import pytest
import torch
from sae_lens import SAE, TrainingSAE, TrainingSAEConfig
from sae_lens.registry import get_sae_class
from sae_lens.saes.sae import TrainStepInput
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens import HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

import sae_lens_signaware as signaware
from sae_lens_signaware.saes import base, training

D_IN, D_SAE = 16, 24

# Every architecture with every tying. A third architecture is one line here.
VARIANTS = [
    ("sa_gsae", "full"),
    ("sa_gsae", "radii"),
    ("sa_gsae", "none"),
    ("bi_jumprelu", "full"),
    ("bi_jumprelu", "none"),
]
TRAINING_CONFIGS: dict[str, type[TrainingSAEConfig]] = {
    "sa_gsae": signaware.SAGatedTrainingSAEConfig,
    "bi_jumprelu": signaware.BiJumpReLUTrainingSAEConfig,
}
each_variant = pytest.mark.parametrize(
    ("architecture", "tying"), VARIANTS, ids=[f"{a}-{t}" for a, t in VARIANTS]
)


def training_config(architecture: str, tying: str = "full", **kwargs: Any) -> Any:
    kwargs = {"d_in": D_IN, "d_sae": D_SAE, **kwargs}
    return TRAINING_CONFIGS[architecture](polarity_tying=tying, **kwargs)  # type: ignore[call-arg]


def randomise(sae: Any, threshold_scale: float = 0.3) -> None:
    """Random parameters of a size at which both sides open and shut; thresholds >= 0."""
    generator = torch.Generator().manual_seed(7)
    for name, param in sae.named_parameters():
        noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        if name == "threshold":
            param.data.copy_((noise.abs() * threshold_scale).to(param.dtype))
        else:
            scale = 0.3 if name in ("W_enc", "W_dec") else 0.2
            param.data.copy_((noise * scale).to(param.dtype))


def make_training_sae(architecture: str, tying: str = "full", **kwargs: Any) -> Any:
    sae = TrainingSAE.from_dict(training_config(architecture, tying, **kwargs).to_dict())
    randomise(sae)
    return sae


def make_sae(architecture: str, tying: str = "full", **kwargs: Any) -> Any:
    kwargs = {"d_in": D_IN, "d_sae": D_SAE, **kwargs}
    sae_class, config_class = get_sae_class(architecture)
    sae: SAE[Any] = sae_class(config_class(polarity_tying=tying, **kwargs))  # type: ignore[call-arg]
    randomise(sae)
    return sae


def step_input(x: torch.Tensor, **kwargs: Any) -> TrainStepInput:
    values: dict[str, Any] = {
        "sae_in": x,
        "coefficients": {"l1": 0.7, "l0": 0.7},
        "dead_neuron_mask": None,
        "n_training_steps": 0,
        "is_logging_step": False,
        **kwargs,
    }
    return TrainStepInput(**values)


def path(sparse: bool) -> Any:
    """Within: every product with latents takes the sparse path, or none does."""
    return mock.patch.object(base, "MAX_DENSITY", 1.0 if sparse else -1.0)


def computes_with_all_latents() -> Any:
    """Within: AuxK takes the way of a GPU, which does not count the dead latents."""
    return mock.patch.object(training, "dead_columns", return_value=slice(None))


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
