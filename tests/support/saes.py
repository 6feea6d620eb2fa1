"""The signed architectures with their tyings, and SAEs with random parameters."""

import dataclasses
from typing import Any, get_args, get_type_hints

import pytest
import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, TrainingSAE, TrainingSAEConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, get_sae_class

from sae_lens_signaware.saes.training import SignedTrainingMixin

D_IN, D_SAE = 16, 24

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
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
each_variant = pytest.mark.parametrize(
    ("architecture", "tying"), VARIANTS, ids=[f"{a}-{t}" for a, t in VARIANTS]
)


def training_config(architecture: str, tying: str = "full", **kwargs: Any) -> Any:
    kwargs = {"d_in": D_IN, "d_sae": D_SAE, **kwargs}
    return TRAINING_CONFIGS[architecture](polarity_tying=tying, **kwargs)  # type: ignore[call-arg]


def training_field(architecture: str, *parts: str) -> str:
    """The one field of the training config whose name holds all ``parts``."""
    names = (f.name for f in dataclasses.fields(TRAINING_CONFIGS[architecture]))
    (name,) = (name for name in names if all(part in name for part in parts))
    return name


def randomise(sae: Any, threshold_scale: float = 0.3) -> None:
    """Give the parameters random values at which latents of both signs are active; thresholds >= 0."""
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
    sae_class, config_class = get_sae_class(architecture)
    sae: SAE[Any] = sae_class(config_class(polarity_tying=tying, **kwargs))  # type: ignore[call-arg]
    randomise(sae)
    return sae


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
