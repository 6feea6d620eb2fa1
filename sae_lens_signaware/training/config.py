"""SAELens's runner config from YAML: every key and type is checked before anything is loaded.

SAELens drops unknown keys silently. Here they are an error that names the nearest right one.
Overrides are SAELens's own flags, parsed by the library that SAELens parses them with.
"""

import argparse
import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, TrainingSAEConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from simple_parsing import ArgumentParser

import sae_lens_signaware.saes  # noqa: F401 - registers the architectures
from sae_lens_signaware.checks import InvalidInputError, nearest, one_line

Config = TypeVar("Config")
RunnerConfig = LanguageModelSAERunnerConfig[TrainingSAEConfig]
SECTIONS = ("sae", "logger")
PARSER: dict[str, Any] = {
    "argument_default": argparse.SUPPRESS,
    "exit_on_error": False,
    "allow_abbrev": False,
    "add_help": False,
}
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def build_runner_config(
    values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()
) -> RunnerConfig:
    """Build SAELens's runner config.

    Args:
        values: its fields, as YAML has them; ``sae`` has an ``architecture`` and its fields.
        source: where they are from, for errors.
        overrides: SAELens's command-line flags, e.g. ``["--lr", "3e-4", "--d_sae", "4096"]``.

    Raises:
        InvalidInputError: unknown key, wrong type or value; one line.
    """
    sae, logger = (dict(_section(values, name)) for name in SECTIONS)
    # the architecture decides which other flags there are, so it is read first
    parser = argparse.ArgumentParser(**PARSER)
    parser.add_argument("--architecture", default=sae.pop("architecture", None))
    found, overrides = _parse(parser, overrides)
    sae_class = training_config_class(found.architecture, source)
    flags = parse_overrides(sae_class, overrides) if overrides else {}
    runner = {name: value for name, value in values.items() if name not in SECTIONS}
    for target, section in ((sae, "sae"), (logger, "logger")):
        target |= flags.pop(section, {})
    ready = {
        "sae": _build(sae_class, sae, "sae.", {}),
        "logger": _build(LoggingConfig, logger, "logger.", {}),
    }
    return _build(LanguageModelSAERunnerConfig, runner | flags, "", ready)


def training_config_class(architecture: Any, source: str = "") -> type[TrainingSAEConfig]:
    """The config class that SAELens's registry holds; InvalidInputError where it holds none."""
    known = SAE_TRAINING_CLASS_REGISTRY
    if architecture is None:
        raise InvalidInputError(f"sae.architecture: missing in {source}; one of {', '.join(known)}")
    if architecture not in known:
        near = nearest(str(architecture), known)
        raise InvalidInputError(f"sae.architecture: {architecture!r} is not registered{near}")
    return known[architecture][1]


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name) or {}
    if not isinstance(section, dict):
        raise InvalidInputError(f"{name}: must be a mapping of fields, got {section!r}")
    return section


def parse_overrides(sae_class: type[TrainingSAEConfig], flags: Sequence[str]) -> dict[str, Any]:
    """Parse SAELens's flags into a nested dict of the fields that were given; "null" is None.

    Raises:
        InvalidInputError: an unknown flag, or a value of the wrong type.
    """
    runner_class = dataclasses.make_dataclass(
        "RunnerFlags", [("sae", sae_class)], bases=(LanguageModelSAERunnerConfig,)
    )
    parser = ArgumentParser(**PARSER)
    # simple_parsing's documented way to leave absent flags out, which its annotation does not know
    suppress: Any = argparse.SUPPRESS
    parser.add_arguments(runner_class, dest="cfg", default=suppress)
    found, unknown = _parse(parser, flags)
    if unknown:
        classes = (sae_class, LoggingConfig, LanguageModelSAERunnerConfig)
        known = [f"--{field.name}" for cls in classes for field in dataclasses.fields(cls)]
        name = unknown[0].split("=")[0]
        raise InvalidInputError(f"{name}: unknown flag{nearest(name, known)}")
    return _with_none(getattr(found, "cfg", {}))


def _parse(
    parser: argparse.ArgumentParser, flags: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    try:
        return parser.parse_known_args(list(flags))
    except (argparse.ArgumentError, ValueError) as error:
        raise InvalidInputError(one_line(error)) from None


def _with_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_none(item) for name, item in value.items()}
    return None if isinstance(value, str) and value in ("null", "None") else value


def _build(cls: type[Config], values: dict[str, Any], prefix: str, ready: dict[str, Any]) -> Config:
    """``cls(**values)``, every name and type checked; ``prefix`` is of the names in errors."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise InvalidInputError(f"{prefix}{name}: unknown field{nearest(str(name), fields)}")
    for name, field in fields.items():
        has_default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if not has_default and name not in values and name not in ready:
            raise InvalidInputError(f"{prefix}{name}: missing; it has no default")
    given = {name: _checked(prefix + name, value, hints[name]) for name, value in values.items()}
    try:
        return cls(**given, **ready)
    except (ValueError, AssertionError) as error:
        message = one_line(error)
        raise InvalidInputError(
            message if message.startswith(prefix) else prefix + message
        ) from None


def _checked(field: str, value: Any, hint: Any) -> Any:
    """``value`` as pydantic's strict JSON has it: an integer is a float, a list a tuple."""
    try:
        return TypeAdapter(hint, config=STRICT).validate_json(json.dumps(value))
    except ValidationError as error:
        raise InvalidInputError(f"{field}: {error.errors()[0]['msg']}, got {value!r}") from None
    except TypeError:  # a date, say
        raise InvalidInputError(f"{field}: {value!r} is no value of a config") from None
