"""Sign-aware sparse autoencoders for SAELens. Importing this package registers both architectures."""

from sae_lens_signaware._registration import register
from sae_lens_signaware.bi_jumprelu import (
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    BiJumpReLUTrainingSAE,
    BiJumpReLUTrainingSAEConfig,
)
from sae_lens_signaware.conversion import split_polarities
from sae_lens_signaware.sa_gsae import (
    SAGatedSAE,
    SAGatedSAEConfig,
    SAGatedTrainingSAE,
    SAGatedTrainingSAEConfig,
)

__version__ = "0.1.0"

__all__ = [
    "BiJumpReLUSAE",
    "BiJumpReLUSAEConfig",
    "BiJumpReLUTrainingSAE",
    "BiJumpReLUTrainingSAEConfig",
    "SAGatedSAE",
    "SAGatedSAEConfig",
    "SAGatedTrainingSAE",
    "SAGatedTrainingSAEConfig",
    "split_polarities",
]

register(SAGatedSAE, SAGatedSAEConfig, SAGatedTrainingSAE, SAGatedTrainingSAEConfig)
register(
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    BiJumpReLUTrainingSAE,
    BiJumpReLUTrainingSAEConfig,
)
