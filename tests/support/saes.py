"""The signed architectures with their tyings, and SAEs with random parameters."""

import dataclasses
import math
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
    "N_PLANTED",
    "TRAINING_CONFIGS",
    "VARIANTS",
    "each_architecture",
    "each_variant",
    "make_sae",
    "make_training_sae",
    "plain_with_pairs",
    "planted",
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
