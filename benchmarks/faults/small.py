"""Small SAEs, a small transformer and a small run, for the faults here and for the tests."""

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from datasets import Dataset
from sae_lens import (
    SAE,
    LanguageModelSAERunnerConfig,
    LoggingConfig,
    SAEConfig,
    TrainingSAE,
    TrainingSAEConfig,
)
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, get_sae_class
from transformer_lens import HookedTransformerConfig

from sae_lens_signaware.saes.training import SignedTrainingMixin

D_IN, D_SAE = 16, 24
HOOK = "blocks.0.hook_mlp_out"

# Every signed architecture that is registered, and every tying that its config allows.
TRAINING_CONFIGS: dict[str, type[TrainingSAEConfig]] = {
    architecture: config_class
    for architecture, (sae_class, config_class) in SAE_TRAINING_CLASS_REGISTRY.items()
    if issubclass(sae_class, SignedTrainingMixin)
}
ARCHITECTURES = tuple(TRAINING_CONFIGS)
VARIANTS = [
    (architecture, tying)
    for architecture, config_class in TRAINING_CONFIGS.items()
    for tying in get_args(get_type_hints(config_class)["polarity_tying"])
]


def fields_of(architecture: str) -> set[str]:
    """Names of the fields of its training config."""
    return {f.name for f in dataclasses.fields(TRAINING_CONFIGS[architecture])}


def training_config(architecture: str, tying: str = "full", **kwargs: Any) -> Any:
    kwargs = {"d_in": D_IN, "d_sae": D_SAE, **kwargs}
    d_sae = kwargs["d_sae"]
    # fields that have no default, or one that is too large for these SAEs
    widths = sorted({max(1, d_sae // 4), max(1, d_sae * 7 // 12), d_sae})
    small: dict[str, Any] = {"k": _k(architecture, min(4.0, d_sae)), "matryoshka_widths": widths}
    # dead are those that a step is told, and nothing changes them but what a test switches on
    small |= {"dead_after_tokens": None, "dead_threshold_decay": 0.0}
    small |= {"auxk_coefficient": 0.0, "aux_coefficient": 1.0}
    kwargs = {k: v for k, v in small.items() if k in fields_of(architecture)} | kwargs
    return TRAINING_CONFIGS[architecture](polarity_tying=tying, **kwargs)  # type: ignore[call-arg]


def asking_for(architecture: str, l0: float) -> dict[str, float]:
    """The field of a training config that asks for a mean L0, with this value; {} without any."""
    if "k" in fields_of(architecture):
        return {"k": _k(architecture, l0)}
    return {"target_l0": l0} if "target_l0" in fields_of(architecture) else {}


def _k(architecture: str, k: float) -> float:
    # a TopK's is a whole number, a BatchTopK's a mean
    return int(k) if get_type_hints(TRAINING_CONFIGS[architecture]).get("k") is int else k


def inference_classes(architecture: str) -> tuple[type[SAE[Any]], type[SAEConfig]]:
    """The SAE that a training of this architecture is saved as, and its config."""
    return get_sae_class(training_config(architecture).get_inference_config_class().architecture())


def randomise(sae: Any, threshold_scale: float = 0.3) -> None:
    """Give random values at which latents of both signs are active; thresholds are >= 0."""
    generator = torch.Generator().manual_seed(7)
    for name, param in sae.named_parameters():
        noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        if name.startswith("threshold"):
            param.data.copy_((noise.abs() * threshold_scale).to(param.dtype))
        else:
            scale = 0.3 if name.startswith("W_") else 0.2
            param.data.copy_((noise * scale).to(param.dtype))


def make_training_sae(architecture: str, tying: str = "full", **kwargs: Any) -> Any:
    sae = TrainingSAE.from_dict(training_config(architecture, tying, **kwargs).to_dict())
    randomise(sae)
    return sae


def make_sae(architecture: str, tying: str = "full", **kwargs: Any) -> Any:
    kwargs = {"d_in": D_IN, "d_sae": D_SAE, **kwargs}
    sae_class, config_class = inference_classes(architecture)
    if "k" in {f.name for f in dataclasses.fields(config_class)}:  # as training_config has it
        kwargs = {"k": _k(architecture, min(4.0, kwargs["d_sae"])), **kwargs}
    sae: SAE[Any] = sae_class(config_class(polarity_tying=tying, **kwargs))  # type: ignore[call-arg]
    randomise(sae)
    return sae


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


def tokens(n: int = 400) -> Dataset:
    g = torch.Generator().manual_seed(5)
    return Dataset.from_dict({"tokens": torch.randint(0, 64, (n, 16), generator=g).tolist()})


def runner_config(sae: Any, folder: Path, **kwargs: Any) -> LanguageModelSAERunnerConfig[Any]:
    values: dict[str, Any] = {
        "sae": sae,
        "model_name": "tiny",
        "hook_name": HOOK,
        "dataset_path": "tiny",
        "context_size": 16,
        "training_tokens": 64 * 20,
        "train_batch_size_tokens": 64,
        "store_batch_size_prompts": 4,
        "n_batches_in_buffer": 8,
        "lr": 1e-3,
        "logger": LoggingConfig(log_to_wandb=False),
        "n_batches_for_norm_estimate": 4,
        "output_path": str(folder / "out"),
        "checkpoint_path": str(folder / "checkpoints"),
        "verbose": False,
        **kwargs,
    }
    return LanguageModelSAERunnerConfig(**values)
