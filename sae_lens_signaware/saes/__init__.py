"""Signed SAEs: the architectures, their parts, the exact split. Importing this registers them."""

from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.bi_jumprelu import (
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    BiJumpReLUTrainingSAE,
    BiJumpReLUTrainingSAEConfig,
)
from sae_lens_signaware.saes.config import (
    SignedFields,
    SignedSAEConfig,
    SignedTrainingSAEConfig,
    ThresholdTrainingSAEConfig,
)
from sae_lens_signaware.saes.conversion import split_polarities
from sae_lens_signaware.saes.latents import ActiveLatents, AllLatents, Latents
from sae_lens_signaware.saes.plain import both_sides, make_plain
from sae_lens_signaware.saes.registration import register
from sae_lens_signaware.saes.sa_gsae import (
    SAGatedSAE,
    SAGatedSAEConfig,
    SAGatedTrainingSAE,
    SAGatedTrainingSAEConfig,
)
from sae_lens_signaware.saes.thresholds import ThresholdTrainingMixin
from sae_lens_signaware.saes.training import SignedTrainingMixin

__all__ = [
    "ActiveLatents",
    "AllLatents",
    "BiJumpReLUSAE",
    "BiJumpReLUSAEConfig",
    "BiJumpReLUTrainingSAE",
    "BiJumpReLUTrainingSAEConfig",
    "Latents",
    "SAGatedSAE",
    "SAGatedSAEConfig",
    "SAGatedTrainingSAE",
    "SAGatedTrainingSAEConfig",
    "SignedFields",
    "SignedSAEConfig",
    "SignedSAEMixin",
    "SignedTrainingMixin",
    "SignedTrainingSAEConfig",
    "ThresholdTrainingMixin",
    "ThresholdTrainingSAEConfig",
    "both_sides",
    "make_plain",
    "register",
    "split_polarities",
]

register(SAGatedSAE, SAGatedSAEConfig, SAGatedTrainingSAE, SAGatedTrainingSAEConfig)
register(BiJumpReLUSAE, BiJumpReLUSAEConfig, BiJumpReLUTrainingSAE, BiJumpReLUTrainingSAEConfig)
