"""The signed architectures with their tyings, and SAEs with random parameters."""

import dataclasses
import math
import tempfile
from typing import Any

import pytest
import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.registry import SAE_CLASS_REGISTRY, get_sae_training_class

from benchmarks.faults.small import (
    ARCHITECTURES,
    D_IN,
    D_SAE,
    TRAINING_CONFIGS,
    VARIANTS,
    asking_for,
    fields_of,
    inference_classes,
    make_sae,
    make_training_sae,
    randomise,
    training_config,
)
from sae_lens_signaware.saes import AllLatents, ThresholdTrainingMixin

__all__ = [
    "ARCHITECTURES",
    "D_IN",
    "D_SAE",
    "N_PLANTED",
    "SAVED_AS_THEMSELVES",
    "SAVED_VARIANTS",
    "THRESHOLD_ARCHITECTURES",
    "THRESHOLD_VARIANTS",
    "TRAINING_CONFIGS",
    "VARIANTS",
    "as_saved",
    "asking_for",
    "auxk_field",
    "auxk_names",
    "each_architecture",
    "each_saved_architecture",
    "each_saved_variant",
    "each_threshold_architecture",
    "each_threshold_variant",
    "each_variant",
    "each_variant_one_by_default",
    "fields_of",
    "inference_classes",
    "inference_of",
    "make_sae",
    "make_training_sae",
    "plain_with_pairs",
    "planted",
    "randomise",
    "recipe_of_dead_latents",
    "resetting_every",
    "settle",
    "training_config",
    "training_field",
]

each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
each_variant = pytest.mark.parametrize(
    ("architecture", "tying"), VARIANTS, ids=[f"{a}-{t}" for a, t in VARIANTS]
)
each_variant_one_by_default = pytest.mark.parametrize(
    ("architecture", "tying"),
    [
        pytest.param(a, t, marks=() if dict(VARIANTS)[a] == t else pytest.mark.slow)
        for a, t in VARIANTS
    ],
)
"""One variant of an architecture by default, the others as slow tests."""

# Those that are saved as themselves: what is saved as another one is that one to every tool.
SAVED_AS_THEMSELVES = [a for a in ARCHITECTURES if a in SAE_CLASS_REGISTRY]
SAVED_VARIANTS = [(a, t) for a, t in VARIANTS if a in SAVED_AS_THEMSELVES]
each_saved_architecture = pytest.mark.parametrize("architecture", SAVED_AS_THEMSELVES)
each_saved_variant = pytest.mark.parametrize(("architecture", "tying"), SAVED_VARIANTS)

# Those whose thresholds are parameters, and whose L0 a coefficient decides.
THRESHOLD_ARCHITECTURES = [
    architecture
    for architecture in ARCHITECTURES
    if issubclass(get_sae_training_class(architecture)[0], ThresholdTrainingMixin)
]
THRESHOLD_VARIANTS = [(a, t) for a, t in VARIANTS if a in THRESHOLD_ARCHITECTURES]
each_threshold_architecture = pytest.mark.parametrize("architecture", THRESHOLD_ARCHITECTURES)
each_threshold_variant = pytest.mark.parametrize(
    ("architecture", "tying"), THRESHOLD_VARIANTS, ids=[f"{a}-{t}" for a, t in THRESHOLD_VARIANTS]
)


def inference_of(training: Any) -> Any:
    """The inference SAE of a training SAE, through the files of ``save_inference_model``."""
    with tempfile.TemporaryDirectory() as folder:
        training.save_inference_model(folder)
        return SAE.load_from_disk(folder)


def as_saved(training: Any) -> Any:
    """What computes as the saved SAE does: a training SAE itself, where it is saved as itself."""
    saved_as_itself = training.cfg.architecture() in SAVED_AS_THEMSELVES
    return training if saved_as_itself else training.to_inference()


def settle(training: Any, x: torch.Tensor) -> None:
    """Set a running threshold so that the inference SAE keeps what the batch ``x`` keeps."""
    if not hasattr(training, "topk_threshold"):
        return
    with torch.no_grad():
        _, pre = training.encode_with_hidden_pre(x)
        size = training._ungated(pre, AllLatents.of(pre)).abs()
    size = size.flatten().sort(descending=True).values.double()
    n = int(training.cfg.k * x.shape[:-1].numel())
    training.topk_threshold = (size[n - 1] + size[n]) / 2


def training_field(architecture: str, *parts: str) -> str:
    """The one field of the training config whose name holds all ``parts``."""
    names = (f.name for f in dataclasses.fields(TRAINING_CONFIGS[architecture]))
    (name,) = (name for name in names if all(part in name for part in parts))
    return name


def auxk_names(architecture: str) -> tuple[str, str]:
    """The field of the training config that weighs AuxK, and the loss's name in the logs."""
    return get_sae_training_class(architecture)[0]._auxk_names  # type: ignore[attr-defined]


def auxk_field(architecture: str) -> str:
    """The field of the training config that weighs AuxK."""
    return auxk_names(architecture)[0]


def resetting_every(architecture: str, n_steps: int) -> dict[str, Any]:
    """Fields that reset the thresholds of dead latents; none where no threshold is trained."""
    if architecture not in THRESHOLD_ARCHITECTURES:
        return {}
    return {"dead_threshold_reset": True, "threshold_reset_interval": n_steps}


def recipe_of_dead_latents(architecture: str, n_tokens: int) -> dict[str, Any]:
    """The defaults against dead latents, with a window of ``n_tokens``."""
    decay = {"dead_threshold_decay": 0.01} if architecture in THRESHOLD_ARCHITECTURES else {}
    return {auxk_field(architecture): 1.0, "dead_after_tokens": n_tokens, **decay}


def plain_with_pairs() -> tuple[Any, torch.Tensor]:
    """A plain SAE of orthogonal directions with latents (0, 6), (1, 7) and (2, 8) antipodal.

    Latents 0 and 6 have a threshold that keeps them apart; the biases of 2 and 8 keep both
    active on every token; 9 repeats the direction of 8, so (2, 9) is a pair too.
    """
    directions = torch.eye(D_IN)[:10].clone()
    directions[6:9] = -directions[:3]
    directions[9] = directions[8]
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=10))
    with torch.no_grad():
        sae.W_dec.copy_(directions * torch.arange(1.0, 11.0)[:, None])  # norms do not matter
        sae.W_enc.copy_(directions.T)
        sae.b_enc.zero_()
        sae.threshold.fill_(0.5)
        sae.b_enc[[2, 8]] = 100.0
    return sae, torch.randn(4000, D_IN, generator=torch.Generator().manual_seed(2))


N_PLANTED, H = 20_000, 12


def planted(gain_neg: float = 1.0) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """An orthonormal signed SAE of width 12, data of known rates, and the magnitudes (n, 12).

    Latents 0 to 3 fire on both sides, 4 to 7 on + alone, 8 and 9 on - alone, 10 and 11 never. The
    SAE reproduces all but the - side of latents 0 and 1: it scales their magnitudes by
    ``gain_neg``.
    """
    g = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(D_IN, H, generator=g))[0].T
    rate = torch.tensor([0.2] * 10 + [0.0, 0.0])
    share_pos = torch.tensor([0.5, 0.5, 0.25, 0.9] + [1.0] * 4 + [0.0] * 4)
    fires = torch.rand(N_PLANTED, H, generator=g) < rate
    sign = torch.where(torch.rand(N_PLANTED, H, generator=g) < share_pos, 1.0, -1.0)
    z = fires * sign * (1 + torch.rand(N_PLANTED, H, generator=g))
    sae = make_sae("sa_gsae", "none", d_sae=H)
    with torch.no_grad():
        sae.W_enc.copy_(directions.T)
        sae.W_dec.copy_(directions)
        for p in (sae.b_dec, sae.r_mag, sae.b_mag):
            p.zero_()
        sae.threshold.fill_(0.5)
        sae.r_mag[1, :2] = math.log(gain_neg)
    return sae, z @ directions, z


def x_batch(n: int = 32, d_in: int = D_IN, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(n, d_in), the same at each call."""
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(1), dtype=dtype)
