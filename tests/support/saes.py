"""The signed architectures with their tyings, and SAEs with random parameters."""

import dataclasses
from typing import Any

import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

from benchmarks.faults.small import (
    ARCHITECTURES,
    D_IN,
    D_SAE,
    TRAINING_CONFIGS,
    VARIANTS,
    make_sae,
    make_training_sae,
    randomise,
    training_config,
)

__all__ = [
    "ARCHITECTURES",
    "D_IN",
    "D_SAE",
    "TRAINING_CONFIGS",
    "VARIANTS",
    "each_architecture",
    "each_variant",
    "make_sae",
    "make_training_sae",
    "plain_with_pairs",
    "randomise",
    "training_config",
    "training_field",
]

each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
each_variant = pytest.mark.parametrize(
    ("architecture", "tying"), VARIANTS, ids=[f"{a}-{t}" for a, t in VARIANTS]
)


def training_field(architecture: str, *parts: str) -> str:
    """The one field of the training config whose name holds all ``parts``."""
    names = (f.name for f in dataclasses.fields(TRAINING_CONFIGS[architecture]))
    (name,) = (name for name in names if all(part in name for part in parts))
    return name


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
