"""SAELens's runner config from YAML: every key and type is checked before anything is loaded.

SAELens drops unknown keys silently. Here they are an error that names the nearest right one.
Overrides are SAELens's own flags, parsed by the library that SAELens parses them with.
"""

import argparse
import dataclasses
import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, TrainingSAEConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from simple_parsing import ArgumentParser

import sae_lens_signaware.saes  # noqa: F401 - registers the architectures
from sae_lens_signaware.checks import InvalidInputError, nearest, one_line

Config = TypeVar("Config")
RunnerConfig = LanguageModelSAERunnerConfig[TrainingSAEConfig]
SECTIONS = ("sae", "logger")
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the floats of YAML 1.2: YAML 1.1 reads 1e-3 as a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read safe YAML with a mapping at its top.

    Raises:
        InvalidInputError: unreadable, not YAML, or no mapping.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {one_line(error)}") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date such as 2024-13-01
        raise InvalidInputError(f"{path}: not valid YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path}: must hold a mapping of fields, got {values!r}")
    return values


def load_runner_config(path: str | Path, overrides: Sequence[str] = ()) -> RunnerConfig:
    """Read a YAML file into SAELens's runner config.

    Args:
        path: YAML with its fields; ``sae`` has an ``architecture`` and its fields.
        overrides: SAELens's command-line flags, e.g. ``["--lr", "3e-4", "--d_sae", "4096"]``.

    Raises:
        InvalidInputError: unreadable file, unknown key, wrong type or value; one line.
    """
    return build_runner_config(read_yaml(path), str(path), overrides)


def build_runner_config(
    values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()
) -> RunnerConfig:
    """Do what :func:`load_runner_config` does, with values that are read; ``source`` names them."""
    overrides, architecture = _split_architecture(overrides)
    sae, logger = (dict(_section(values, name)) for name in SECTIONS)
    sae_class = training_config_class(architecture or sae.get("architecture"), source)
    sae.pop("architecture", None)
    flags = parse_overrides(sae_class, overrides) if overrides else {}
    runner = {name: value for name, value in values.items() if name not in SECTIONS}
    for target, section in ((sae, "sae"), (logger, "logger")):
        target |= flags.pop(section, {})
    ready = {
        "sae": _build(sae_class, sae, "sae."),
        "logger": _build(LoggingConfig, logger, "logger."),
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


def _split_architecture(flags: Sequence[str]) -> tuple[list[str], str | None]:
    # the architecture decides which other flags exist, so it is read first
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--architecture", "--sae.architecture", dest="architecture")
    known, rest = parser.parse_known_args(list(flags))
    return rest, known.architecture


def _parser(sae_class: type[TrainingSAEConfig]) -> ArgumentParser:
    # every SAELens flag for this architecture; flags not given stay absent
    flags_class = dataclasses.make_dataclass(
        "RunnerFlags", [("sae", sae_class)], bases=(LanguageModelSAERunnerConfig,)
    )
    parser = ArgumentParser(
        argument_default=argparse.SUPPRESS,
        exit_on_error=False,
        allow_abbrev=False,
        add_help=False,
    )
    # simple_parsing's documented way to leave absent flags out, which its annotation does not know
    suppress: Any = argparse.SUPPRESS
    parser.add_arguments(flags_class, dest="cfg", default=suppress)
    return parser


def parse_overrides(sae_class: type[TrainingSAEConfig], flags: Sequence[str]) -> dict[str, Any]:
    """Parse SAELens's flags into a nested dict of the fields that were given; "null" is None.

    Raises:
        InvalidInputError: an unknown flag, or a value of the wrong type.
    """
    try:
        namespace, unknown = _parser(sae_class).parse_known_args(list(flags))
    except (argparse.ArgumentError, ValueError) as error:
        raise InvalidInputError(one_line(error)) from None
    if unknown:
        classes = (sae_class, LoggingConfig, LanguageModelSAERunnerConfig)
        known = [f"--{field.name}" for cls in classes for field in dataclasses.fields(cls)]
        name = unknown[0].split("=")[0]
        raise InvalidInputError(f"{name}: unknown flag{nearest(name, known)}")
    return _with_none(getattr(namespace, "cfg", {}))


def _with_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_none(item) for name, item in value.items()}
    return None if isinstance(value, str) and value in ("null", "None") else value


def _build(
    cls: type[Config],
    values: Mapping[str, Any],
    prefix: str,
    ready: Mapping[str, Any] | None = None,
) -> Config:
    """``cls(**values)``, every name and type checked; ``prefix`` is of the names in errors."""
    ready = ready or {}
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
