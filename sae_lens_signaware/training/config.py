"""SAELens's runner config from strict YAML: keys and types are checked before anything is loaded.

SAELens drops unknown keys silently (``filter_valid_dataclass_fields``). Here they are an error that
names the key and the nearest right one. Overrides are SAELens's own flags, parsed by the library
that SAELens parses them with.
"""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, TrainingSAEConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from simple_parsing import ArgumentParser

from sae_lens_signaware.checks import (
    ConfigError,
    InvalidInputError,
    checked,
    field_types,
    nearest,
    one_line,
    short,
)
from sae_lens_signaware.training.strict import read_config
from sae_lens_signaware.training.values import check_counts, check_values

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
SECTIONS = ("sae", "logger")


def training_config_class(architecture: object) -> type[TrainingSAEConfig]:
    """Return the config class that SAELens's registry holds for ``architecture``.

    Raises:
        ConfigError: the architecture is not registered.
    """
    if not isinstance(architecture, str) or architecture not in SAE_TRAINING_CLASS_REGISTRY:
        raise ConfigError(
            f"sae.architecture: unknown value {architecture!r}"
            + nearest(str(architecture), SAE_TRAINING_CLASS_REGISTRY)
            + " One of your own is known once its module is imported (--import MODULE)"
        )
    return SAE_TRAINING_CLASS_REGISTRY[architecture][1]


def load_runner_config(
    path: str | Path, overrides: Sequence[str] = ()
) -> LanguageModelSAERunnerConfig[TrainingSAEConfig]:
    """Read a YAML file into a checked SAELens runner config.

    Args:
        path: YAML with the fields of ``LanguageModelSAERunnerConfig``; ``sae`` has an
            ``architecture`` and the fields of its training config, ``logger`` has the fields of
            ``LoggingConfig``.
        overrides: SAELens's command-line flags, e.g. ``["--lr", "3e-4", "--d_sae", "4096"]``.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value; one line.
    """
    return build_runner_config(read_config(Path(path), "train"), str(path), overrides)


def build_runner_config(
    values: Mapping[str, object], source: str, overrides: Sequence[str] = ()
) -> LanguageModelSAERunnerConfig[TrainingSAEConfig]:
    """Build what :func:`load_runner_config` does, from values that are read already.

    Args:
        source: names the values in errors.
    """
    overrides, architecture = _pop_architecture(overrides)
    sae = dict(_section(values, "sae"))
    if architecture is not None:
        sae["architecture"] = architecture
    sae_class = _pop_sae_class(sae, source)
    flags = parse_overrides(sae_class, overrides)
    sae |= flags.pop("sae", {})
    logger = dict(_section(values, "logger")) | flags.pop("logger", {})
    runner = {k: v for k, v in values.items() if k not in SECTIONS} | flags
    ready = {
        "sae": _build(sae_class, sae, prefix="sae."),
        "logger": _build(LoggingConfig, logger, prefix="logger."),
    }
    try:
        check_counts(runner, logger)
        cfg = _build(LanguageModelSAERunnerConfig, runner, prefix="", ready=ready)
        check_values(cfg)
    except InvalidInputError as error:
        raise ConfigError(str(error)) from None
    return cfg


def build_sae_config(values: Mapping[str, object], source: str) -> TrainingSAEConfig:
    """Build an SAE's section alone, checked as in :func:`build_runner_config`.

    Args:
        values: ``architecture`` and its fields.
        source: names the values in errors.

    Raises:
        ConfigError: unknown key, wrong type or value; one line that starts with "sae.".
    """
    sae = dict(values)
    return _build(_pop_sae_class(sae, source), sae, prefix="sae.")


def _pop_sae_class(sae: dict[str, object], source: str) -> type[TrainingSAEConfig]:
    if "architecture" not in sae:
        raise ConfigError(
            f"sae.architecture: missing in {source}; "
            f"one of {', '.join(SAE_TRAINING_CLASS_REGISTRY)}"
        )
    return training_config_class(sae.pop("architecture"))


def _section(values: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = values.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigError(f"{name}: must be a mapping of fields, got {short(section)}")
    return section


def _pop_architecture(flags: Sequence[str]) -> tuple[list[str], str | None]:
    # The architecture decides which other flags exist, so it is read first.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--architecture", "--sae.architecture", dest="architecture")
    try:
        known, rest = parser.parse_known_args(list(flags))
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}") from None
    return rest, known.architecture


def override_parser(sae_class: type[TrainingSAEConfig]) -> ArgumentParser:
    """Make a parser of every SAELens flag for this architecture; flags not given stay absent."""
    cli_class = dataclasses.make_dataclass(
        "RunnerFlags", [("sae", sae_class)], bases=(LanguageModelSAERunnerConfig,)
    )
    cli_class.__doc__ = "Fields of SAELens's LanguageModelSAERunnerConfig."  # else its signature
    parser = ArgumentParser(
        argument_default=argparse.SUPPRESS,
        exit_on_error=False,
        allow_abbrev=False,
        add_help=False,
        usage="sae-lens-signaware train CONFIG.yaml [--any-saelens-flag value]",
    )
    # SUPPRESS as the default is simple_parsing's documented way to leave absent flags out of the
    # result; its annotation does not know it.
    suppress: Any = argparse.SUPPRESS
    parser.add_arguments(cli_class, dest="cfg", default=suppress)
    return parser


def parse_overrides(sae_class: type[TrainingSAEConfig], flags: Sequence[str]) -> dict[str, Any]:
    """Parse SAELens flags into a nested dict of just the fields that were given.

    Raises:
        ConfigError: an unknown flag (with the nearest right one) or a value of the wrong type.
    """
    if not flags:
        return {}
    parser = override_parser(sae_class)
    # a name that two of them have, such as dtype, is the runner's, as in SAELens's parser
    classes = {"sae": sae_class, "logger": LoggingConfig, "": LanguageModelSAERunnerConfig}
    section_of = {
        field.name: section for section, cls in classes.items() for field in dataclasses.fields(cls)
    }
    flags, nulls = _pop_nulls(section_of, flags)
    try:
        namespace, unknown = parser.parse_known_args(_joined(flags))
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}") from None
    if unknown:
        known = [f"--{field}" for field in section_of if field not in SECTIONS]
        name = unknown[0].split("=")[0]
        if name.removeprefix("--") in SECTIONS:
            field = next(f for f, section in section_of.items() if f"--{section}" == name)
            raise ConfigError(f"{name}: a section; its fields are flags, as in {name}.{field}")
        listed = "train --list-flags prints all"
        bare = re.sub(r"^--(\w+\.)+", "--", name)  # of --sae.k, which is --k
        raise ConfigError(f"{name}: unknown flag" + nearest(bare, known, listed))
    values = dict(getattr(namespace, "cfg", {}))
    for section, fields in nulls.items():
        held = values.setdefault(section, {}) if section else values
        held |= dict.fromkeys(fields)
    return values


def _pop_nulls(
    section_of: Mapping[str, str], flags: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Take out the flags that have the value null, which SAELens's parser would take for a text.

    Args:
        section_of: name of a field -> the section of the config that it is in, "" for the runner.

    Returns:
        The other flags, and the names of the fields by the section that they are in.
    """
    rest: list[str] = []
    nulls: dict[str, list[str]] = {}
    waiting = [part for flag in flags for part in _split_null(flag)]
    while waiting:
        flag = waiting.pop(0)
        section, _, name = flag.removeprefix("--").rpartition(".")
        if flag.startswith("--") and name in section_of and waiting[:1] in (["null"], ["None"]):
            waiting.pop(0)
            nulls.setdefault(section or section_of[name], []).append(name)
        else:
            rest.append(flag)
    return rest, nulls


def _joined(flags: Sequence[str]) -> list[str]:
    """``--field -1e-3`` as one part: with an exponent argparse takes the number for a flag."""
    joined: list[str] = []
    for flag in flags:
        if joined and re.fullmatch(r"-[\d.]+[eE][-+]?\d+", flag):
            joined[-1] += f"={flag}"
        else:
            joined.append(flag)
    return joined


def _split_null(flag: str) -> list[str]:
    """``--field=null`` as two parts; anything else as it is."""
    name, _, value = flag.partition("=")
    return [name, value] if flag.startswith("--") and value in ("null", "None") else [flag]


def _build(
    cls: type[Config],
    values: Mapping[str, object],
    prefix: str,
    ready: Mapping[str, object] | None = None,
) -> Config:
    """``cls(**values)``, every name and type checked.

    Args:
        prefix: of the field names in errors.
        ready: fields that are built already.
    """
    ready = ready or {}
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for name in values:
        if name not in fields or name in ready:
            raise ConfigError(
                f"{prefix}{name}: unknown field" + nearest(str(name), set(fields) - set(ready))
            )
    for name, field in fields.items():
        no_default = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if no_default and name not in values and name not in ready:
            raise ConfigError(f"{prefix}{name}: missing; it has no default")
    types = field_types(cls)
    try:
        # in the order in which a constructor checks, so that both name the same field
        given = {
            name: checked(name, values[name], types[name]) for name in fields if name in values
        }
        return cls(**given, **ready)
    except (ValueError, AssertionError) as error:
        message = one_line(error)
        raise ConfigError(message if message.startswith(prefix) else prefix + message) from None
