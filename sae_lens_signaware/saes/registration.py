"""Registration with SAELens, harmless on a second import and on a reload."""

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sae_lens import (
    SAE,
    SAEConfig,
    TrainingSAE,
    TrainingSAEConfig,
    register_sae_class,
    register_sae_training_class,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

from sae_lens_signaware.checks import InvalidInputError, require
from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.dead_latents import DeadLatentsMixin
from sae_lens_signaware.saes.sparsity_loss import SparsityLossMixin
from sae_lens_signaware.saes.state import declare_training_state, names_of_bases


def register(
    sae_class: type[SAE[Any]],
    config_class: type[SAEConfig],
    training_class: type[TrainingSAE[Any]],
    training_config_class: type[TrainingSAEConfig],
) -> None:
    """Register one architecture in both of SAELens's registries, by the name that configs give.

    An entry that is this very class is replaced, also where it is that of an earlier load of the
    module.

    Args:
        sae_class, config_class: of inference.
        training_class, training_config_class: of training.

    Raises:
        InvalidInputError: something is missing that a mixin of ours reads.
        ValueError: another class holds the name; SAELens refuses a name twice.
    """
    register_training(training_class, training_config_class)  # first, since it checks
    name = config_class.architecture()
    _check_class(sae_class, config_class)
    _make_way(SAE_CLASS_REGISTRY, name, sae_class)
    register_sae_class(name, sae_class, config_class)


def register_training(
    training_class: type[TrainingSAE[Any]], training_config_class: type[TrainingSAEConfig]
) -> None:
    """Register an architecture that is saved as another one, as SAELens does with ``batchtopk``.

    Such a name is in the registry of training SAEs alone. Its config's
    ``get_inference_config_class`` says what it is saved as. Arguments and errors are those of
    :func:`register`.
    """
    name = training_config_class.architecture()
    _check_training(training_class, training_config_class)
    declare_training_state(getattr(training_class, "_training_state", ()))
    _make_way(SAE_TRAINING_CLASS_REGISTRY, name, training_class)
    register_sae_training_class(name, training_class, training_config_class)


def _check_training(
    training_class: type[TrainingSAE[Any]], config_class: type[TrainingSAEConfig]
) -> None:
    """Raise InvalidInputError for what would stop a training at its first step, or later."""
    missing = sorted(getattr(training_class, "__abstractmethods__", ()))
    require(not missing, training_class.__name__, missing, "with these methods written")
    _check_class(training_class, config_class)
    needed = names_of_bases(training_class, "_reads")
    if issubclass(training_class, DeadLatentsMixin):
        needed.append(training_class._auxk_names[0])
    if issubclass(training_class, SparsityLossMixin):
        name = getattr(training_class, "_sparsity_coefficient", None)
        allowed = "the NAME of its field NAME_coefficient"
        require(name is not None, f"{training_class.__name__}._sparsity_coefficient", name, allowed)
        needed += [f"{name}_coefficient", f"{name}_warm_up_steps"]
    held = {f.name for f in dataclasses.fields(config_class)}
    absent = sorted({*needed} - held)
    if absent:
        raise InvalidInputError(
            f"{config_class.__name__} lacks {', '.join(absent)}, "
            f"which the mixins of {training_class.__name__} read"
        )


def _check_class(sae_class: type[SAE[Any]], config_class: type[SAEConfig]) -> None:
    """Raise InvalidInputError for a missing activation, or a tying that says nothing of its values.

    A class that is not signed may be registered as well.
    """
    if not issubclass(sae_class, SignedSAEMixin):
        return
    redefined = {"encode", "encode_with_hidden_pre"} & sae_class._redefined
    is_written = sae_class._activate is not SignedSAEMixin._activate or bool(redefined)
    require(is_written, sae_class.__name__, "none", "a class with _activate")
    tying = get_type_hints(config_class).get("polarity_tying")
    require(
        get_origin(tying) is Literal and "full" in get_args(tying),
        f"{config_class.__name__}.polarity_tying",
        tying,
        "a Literal of the values that the architecture knows, 'full' among them",
    )


def _make_way(registry: dict[str, Any], name: str, ours: type) -> None:
    held = registry[name][0] if name in registry else None
    if held and (held.__module__, held.__qualname__) == (ours.__module__, ours.__qualname__):
        del registry[name]
