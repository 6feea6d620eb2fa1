"""Signed SAEs, one file an architecture. Importing this registers them with SAELens."""

from typing import Any

from sae_lens import SAE, register_sae_class, register_sae_training_class
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

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
from sae_lens_signaware.saes.common import SignedSAE
from sae_lens_signaware.saes.sa_gsae import (
    SAGatedSAE,
    SAGatedSAEConfig,
    SAGatedTrainingSAE,
    SAGatedTrainingSAEConfig,
)
from sae_lens_signaware.saes.split import split_polarities as split_polarities


def is_signed(sae: SAE[Any]) -> bool:
    """Whether an SAE is one of this package, whose latents have two signs."""
    return isinstance(sae, SignedSAE)


# SAELens refuses a name twice; a reload of this module brings the same ones
for _sae_class, _config_class in (
    (SAGatedSAE, SAGatedSAEConfig),
    (BiJumpReLUSAE, BiJumpReLUSAEConfig),
    (BiTopKSAE, BiTopKSAEConfig),
):
    SAE_CLASS_REGISTRY.pop(_config_class.architecture(), None)
    register_sae_class(_config_class.architecture(), _sae_class, _config_class)
for _sae_class, _config_class in (
    (SAGatedTrainingSAE, SAGatedTrainingSAEConfig),
    (BiJumpReLUTrainingSAE, BiJumpReLUTrainingSAEConfig),
    (BiTopKTrainingSAE, BiTopKTrainingSAEConfig),
    (BiBatchTopKTrainingSAE, BiBatchTopKTrainingSAEConfig),
    (BiMatryoshkaBatchTopKTrainingSAE, BiMatryoshkaBatchTopKTrainingSAEConfig),
):
    SAE_TRAINING_CLASS_REGISTRY.pop(_config_class.architecture(), None)
    register_sae_training_class(_config_class.architecture(), _sae_class, _config_class)
