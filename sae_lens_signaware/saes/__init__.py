"""Signed SAEs: the architectures, their parts, the exact split. Importing this registers them."""

from sae_lens_signaware.saes.bi_jumprelu import (
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    BiJumpReLUTrainingSAE,
    BiJumpReLUTrainingSAEConfig,
)
from sae_lens_signaware.saes.conversion import split_polarities
from sae_lens_signaware.saes.registration import register
from sae_lens_signaware.saes.sa_gsae import (
    SAGatedSAE,
    SAGatedSAEConfig,
    SAGatedTrainingSAE,
    SAGatedTrainingSAEConfig,
)

__all__ = [
    "BiJumpReLUSAE",
    "BiJumpReLUSAEConfig",
    "BiJumpReLUTrainingSAE",
    "BiJumpReLUTrainingSAEConfig",
    "SAGatedSAE",
    "SAGatedSAEConfig",
    "SAGatedTrainingSAE",
    "SAGatedTrainingSAEConfig",
    "register",
    "split_polarities",
]

register(SAGatedSAE, SAGatedSAEConfig, SAGatedTrainingSAE, SAGatedTrainingSAEConfig)
register(BiJumpReLUSAE, BiJumpReLUSAEConfig, BiJumpReLUTrainingSAE, BiJumpReLUTrainingSAEConfig)
