"""Small SAEs of every architecture and tying, with random parameters that are not 0."""

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

import sae_lens_signaware.saes  # noqa: F401  # registers the architectures

D_IN, D_SAE, BATCH = 8, 64, 64

KEEPS = {"k": 3}
NESTED = {"matryoshka_widths": [16, 40, D_SAE]}
TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "sa_gsae-full": ("sa_gsae", {}),
    "sa_gsae-radii": ("sa_gsae", {"polarity_tying": "radii"}),
    "sa_gsae-none": ("sa_gsae", {"polarity_tying": "none"}),
    "sa_gsae-one_sided": ("sa_gsae", {"two_sided": False}),
    "bi_jumprelu-full": ("bi_jumprelu", {}),
    "bi_jumprelu-none": ("bi_jumprelu", {"polarity_tying": "none"}),
    "bi_jumprelu-one_sided": ("bi_jumprelu", {"two_sided": False}),
    "bi_topk": ("bi_topk", KEEPS),
    "bi_topk-one_sided": ("bi_topk", KEEPS | {"two_sided": False}),
    "bi_topk-unscaled": ("bi_topk", KEEPS | {"rescale_acts_by_decoder_norm": False}),
    "bi_batchtopk": ("bi_batchtopk", KEEPS),
    "bi_batchtopk-one_sided": ("bi_batchtopk", KEEPS | {"two_sided": False}),
    "bi_matryoshka_batchtopk": ("bi_matryoshka_batchtopk", KEEPS | NESTED),
}
"""Variant -> its architecture, and the fields that make it so."""

VARIANTS = tuple(TABLE)
ARCHITECTURES = ("sa_gsae", "bi_jumprelu", "bi_topk", "bi_batchtopk", "bi_matryoshka_batchtopk")
WITH_THRESHOLD = tuple(name for name in VARIANTS if name.startswith(("sa_gsae", "bi_jumprelu")))

each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_threshold_variant = pytest.mark.parametrize("variant", WITH_THRESHOLD)
# an architecture's name is that of its first variant
ONE_EACH = tuple(next(v for v in VARIANTS if v.startswith(a)) for a in ARCHITECTURES)
each_architecture = pytest.mark.parametrize("variant", ONE_EACH)


def config(variant: str, **fields: Any) -> Any:
    """The training config of a variant; ``fields`` go before those of the table."""
    architecture, own = TABLE[variant]
    values = {"d_in": D_IN, "d_sae": D_SAE, **own, **fields}
    if architecture == "bi_jumprelu":
        values.setdefault("target_l0", 1.0)
    if "matryoshka_widths" in own and "matryoshka_widths" not in fields:
        values["matryoshka_widths"] = sorted({*own["matryoshka_widths"], values["d_sae"]})
        values["matryoshka_widths"] = [
            w for w in values["matryoshka_widths"] if w <= values["d_sae"]
        ]
    return get_sae_training_class(architecture)[1](**values)


def randomise(sae: Any, threshold: float, seed: int = 5) -> None:
    """Random parameters, the same for a seed; thresholds from ``threshold`` on upwards."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if name == "threshold":
            noise = threshold * (1 + 0.2 * noise.abs())
        elif name == "b_mag" and sae.cfg.architecture() == "bi_topk":
            noise = -0.2 * noise.abs()  # above 0 it counts as 0
        else:
            noise = (0.3 if name.startswith("W_") else 0.2) * noise
        parameter.data.copy_(noise.to(parameter.dtype))


def in_units_of_1(sae: Any) -> None:
    """As if the first batch had a spread of 1, so that all parameters are in units of the input."""
    sae.input_scale.fill_(1.0)
    if hasattr(sae, "threshold_scale"):
        sae.threshold_scale.fill_(1.0)


def training_sae(variant: str, threshold: float = 2.0, seed: int = 5, **fields: Any) -> Any:
    """A training SAE; with the default ``threshold`` about L0 3 of :func:`inputs` are active."""
    sae_class = get_sae_training_class(TABLE[variant][0])[0]
    sae = sae_class(config(variant, **fields))
    randomise(sae, threshold, seed)
    in_units_of_1(sae)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(threshold / 4)
    return sae


def saved(sae: Any) -> Any:
    """What ``save_inference_model`` saves, loaded."""
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        return SAE.load_from_disk(folder)


def inference_sae(variant: str, threshold: float = 0.3, seed: int = 5, **fields: Any) -> Any:
    """An inference SAE, as a training saves it; many latents of both signs are active."""
    return saved(training_sae(variant, threshold, seed, **fields))


def inputs(n: int = BATCH, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n, D_IN) normal numbers, the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D_IN, generator=generator, dtype=torch.float64).to(dtype)


def batches(seed: int = 7) -> Iterator[Tensor]:
    """Batches (BATCH, D_IN) without end: sparse signed sums of 12 directions, about a mean."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(12, D_IN, generator=torch.Generator().manual_seed(9))
    while True:
        amounts = torch.randn(BATCH, 12, generator=generator)
        is_on = torch.rand(BATCH, 12, generator=generator) < 0.2
        yield (amounts * is_on) @ directions + 0.3


def step_input(x: Tensor, step: int = 0, dead: Tensor | None = None, log: bool = False) -> Any:
    """What SAELens's trainer hands to a training step."""
    return TrainStepInput(x, {"l1": 0.7}, dead, step, log)


def run_step(sae: Any, x: Tensor, **kwargs: Any) -> Any:
    """One training step, without its backward."""
    return sae.training_forward_pass(step_input(x, **kwargs))


def trainer_config(n_steps: int, **fields: Any) -> SAETrainerConfig:
    """Of SAELens's trainer, for batches of BATCH tokens."""
    values: dict[str, Any] = {
        "total_training_samples": n_steps * BATCH,
        "train_batch_size_samples": BATCH,
        "lr": 1e-3,
        "lr_end": 1e-3,
        "dead_feature_window": 5,
        "n_checkpoints": 0,
        "checkpoint_path": None,
        "logger": LoggingConfig(log_to_wandb=False),
        **fields,
    }
    return SAETrainerConfig(**values)


def dense(acts: Tensor) -> Tensor:
    """Latents of a step, which may be sparse, as a matrix."""
    return acts.to_dense() if acts.is_sparse else acts


def gradients(sae: Any) -> dict[str, Tensor]:
    """Gradient of each parameter, zeros where it has none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in sae.named_parameters()
    }
