"""Registration with SAELens, harmless on a second import and on a reload."""

from typing import Any

from sae_lens import (
    SAE,
    SAEConfig,
    TrainingSAE,
    TrainingSAEConfig,
    register_sae_class,
    register_sae_training_class,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY


def _is_ours(registered: type, ours: type) -> bool:
    return (registered.__module__, registered.__qualname__) == (
        ours.__module__,
        ours.__qualname__,
    )


def register(
    sae_class: type[SAE[Any]],
    config_class: type[SAEConfig],
    training_class: type[TrainingSAE[Any]],
    training_config_class: type[TrainingSAEConfig],
) -> None:
    """Register one architecture in both of SAELens's registries.

    SAELens refuses a name twice. An entry that is this very class is replaced, also where it is
    that of an earlier load of the module. Any other holder of the name stays, and SAELens's error
    says so.
    """
    name = config_class.architecture()
    for registry, ours in (
        (SAE_CLASS_REGISTRY, sae_class),
        (SAE_TRAINING_CLASS_REGISTRY, training_class),
    ):
        if name in registry and _is_ours(registry[name][0], ours):
            del registry[name]
    register_sae_class(name, sae_class, config_class)
    register_sae_training_class(name, training_class, training_config_class)
