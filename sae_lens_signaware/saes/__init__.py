"""Signed SAEs: the architectures, their parts, the exact split. Importing this registers them."""

from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.bi_batchtopk import (
    BiBatchTopKTrainingSAE,
    BiBatchTopKTrainingSAEConfig,
)
from sae_lens_signaware.saes.bi_jumprelu import (
    BiJumpReLUSAE,
    BiJumpReLUSAEConfig,
    BiJumpReLUTrainingSAE,
    BiJumpReLUTrainingSAEConfig,
)
from sae_lens_signaware.saes.bi_matryoshka_batchtopk import (
    BiMatryoshkaBatchTopKTrainingSAE,
    BiMatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens_signaware.saes.bi_topk import (
    BiTopKSAE,
    BiTopKSAEConfig,
    BiTopKTrainingSAE,
    BiTopKTrainingSAEConfig,
)
from sae_lens_signaware.saes.config import (
    SignedFields,
    SignedSAEConfig,
    SignedTrainingFields,
    SignedTrainingSAEConfig,
    ThresholdTrainingSAEConfig,
)
from sae_lens_signaware.saes.conversion import split_polarities
from sae_lens_signaware.saes.dead_latents import DeadLatentsMixin
from sae_lens_signaware.saes.latents import ActiveLatents, AllLatents, Latents
from sae_lens_signaware.saes.plain import both_sides, make_plain
from sae_lens_signaware.saes.registration import register, register_training
from sae_lens_signaware.saes.sa_gsae import (
    SAGatedSAE,
    SAGatedSAEConfig,
    SAGatedTrainingSAE,
    SAGatedTrainingSAEConfig,
)
from sae_lens_signaware.saes.side_bias import SideBiasMixin
from sae_lens_signaware.saes.sparsity_loss import SparsityLossMixin
from sae_lens_signaware.saes.thresholds import ThresholdTrainingMixin
from sae_lens_signaware.saes.training import SignedTrainingMixin

__all__ = [
    "ActiveLatents",
    "AllLatents",
    "BiBatchTopKTrainingSAE",
    "BiBatchTopKTrainingSAEConfig",
    "BiJumpReLUSAE",
    "BiJumpReLUSAEConfig",
    "BiJumpReLUTrainingSAE",
    "BiJumpReLUTrainingSAEConfig",
    "BiMatryoshkaBatchTopKTrainingSAE",
    "BiMatryoshkaBatchTopKTrainingSAEConfig",
    "BiTopKSAE",
    "BiTopKSAEConfig",
    "BiTopKTrainingSAE",
    "BiTopKTrainingSAEConfig",
    "DeadLatentsMixin",
    "Latents",
    "SAGatedSAE",
    "SAGatedSAEConfig",
    "SAGatedTrainingSAE",
    "SAGatedTrainingSAEConfig",
    "SideBiasMixin",
    "SignedFields",
    "SignedSAEConfig",
    "SignedSAEMixin",
    "SignedTrainingFields",
    "SignedTrainingMixin",
    "SignedTrainingSAEConfig",
    "SparsityLossMixin",
    "ThresholdTrainingMixin",
    "ThresholdTrainingSAEConfig",
    "both_sides",
    "make_plain",
    "register",
    "register_training",
    "split_polarities",
]

register(SAGatedSAE, SAGatedSAEConfig, SAGatedTrainingSAE, SAGatedTrainingSAEConfig)
register(BiJumpReLUSAE, BiJumpReLUSAEConfig, BiJumpReLUTrainingSAE, BiJumpReLUTrainingSAEConfig)
register(BiTopKSAE, BiTopKSAEConfig, BiTopKTrainingSAE, BiTopKTrainingSAEConfig)
register_training(BiBatchTopKTrainingSAE, BiBatchTopKTrainingSAEConfig)
register_training(BiMatryoshkaBatchTopKTrainingSAE, BiMatryoshkaBatchTopKTrainingSAEConfig)
