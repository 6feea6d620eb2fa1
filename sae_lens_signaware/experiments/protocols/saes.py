"""The SAEs of a protocol: one rule of sparsity for all, and the trainings that it asks for."""

import dataclasses
from collections.abc import Mapping

from sae_lens import TrainingSAEConfig

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.swept import swept_fields
from sae_lens_signaware.training.config import build_sae_config, training_config_class

SET_BY_THE_PROTOCOL = ("d_in", "normalize_activations", "device", "dtype", "reshape_activations")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One training of an SAE.

    Attributes:
        sparsity: what sets its sparsity, in words such as "l1_coefficient 2".
        cfg: its config, checked.
    """

    sparsity: str
    cfg: TrainingSAEConfig


def candidates_of(
    saes: Mapping[str, Mapping[str, object]],
    target_l0: float,
    d_in: int,
    source: str = "the config",
) -> dict[str, list[Candidate]]:
    """List every training of every SAE; the one whose L0 is nearest to the target counts.

    Raises:
        ConfigError: an SAE's fields are wrong; one line that starts with "saes.NAME".
    """
    candidates: dict[str, list[Candidate]] = {}
    for name, fields in saes.items():
        try:
            candidates[name] = _candidates(fields, target_l0, d_in, source)
        except ConfigError as error:
            raise ConfigError(f"saes.{name}" + str(error).removeprefix("sae")) from None
    return candidates


def l0_field(cls: type[TrainingSAEConfig]) -> str | None:
    """Name the field by which an architecture is asked for an L0; None where it has none.

    That is ``k`` of the TopK family, and ``target_l0`` where training steers to it. SAELens's
    jumprelu has a ``target_l0`` that only one of its modes reads.
    """
    names = {field.name for field in dataclasses.fields(cls)}
    if "k" in names:
        return "k"
    return "target_l0" if {"target_l0", "target_l0_rate"} <= names else None


def _candidates(
    fields: Mapping[str, object], target_l0: float, d_in: int, source: str
) -> list[Candidate]:
    for name in SET_BY_THE_PROTOCOL:
        if name in fields:
            raise ConfigError(f"sae.{name}: is set by the protocol, leave it out")
    if "architecture" not in fields:
        raise ConfigError(f"sae.architecture: missing in {source}")
    field, values = _sparsity(fields, target_l0)
    shared = {"d_in": d_in, "normalize_activations": "expected_average_only_in"}
    return [
        Candidate(
            f"{field} {value:g}" if isinstance(value, float) else f"{field} {value}",
            build_sae_config({**fields, **shared, field: value}, source),
        )
        for value in values
    ]


def _sparsity(fields: Mapping[str, object], target_l0: float) -> tuple[str, list[object]]:
    """The field that sets the sparsity, and the values to train."""
    swept = swept_fields(fields)
    asked = l0_field(training_config_class(fields["architecture"]))
    if asked is not None:
        if asked in fields:
            raise ConfigError(f"sae.{asked}: is set by the protocol's target_l0, leave it out")
        if swept:
            name, values = next(iter(swept.items()))
            raise ConfigError(
                f"sae.{name}: must be one value, got {values}: target_l0 sets the sparsity"
            )
        # a protocol's L0 is a float, and k an integer
        return asked, [int(target_l0) if float(target_l0).is_integer() else target_l0]
    if len(swept) != 1 or not all(swept.values()):
        raise ConfigError(
            "sae: exactly one field must hold a list of values, of which the one whose L0 is "
            f"nearest to target_l0 counts, got {list(swept) or 'none'}"
        )
    return next(iter(swept.items()))
