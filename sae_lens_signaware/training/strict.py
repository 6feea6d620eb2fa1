"""Strict reading of config files: YAML with numbers as users write them, and strict models."""

import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from sae_lens_signaware.checks import (
    NUMBER_AS_TEXT,
    ConfigError,
    converted,
    is_number_as_text,
    is_union,
    nearest,
    one_line,
    short,
)

Model = TypeVar("Model", bound=BaseModel)

Count = Annotated[int, Field(gt=0, lt=2**31)]
"""A number of things above 0; from some number on torch raises an error of its own."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which follows YAML 1.1, with the floats of YAML 1.2 as well.

    A key that comes twice is an error. PyYAML takes the last one.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # here, before << has brought in keys that a mapping may override
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"{key.value!r} comes twice, again in line {line}")
                seen.add(key.value)
        return node


# YAML 1.1 asks for a dot and a sign, and reads 1e-3 as a text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, object]:
    """Read safe YAML with a mapping at its top.

    Raises:
        ConfigError: unreadable, not YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        values = yaml.load(text, _Loader)
    # ValueError: a date such as 2024-13-01; RecursionError: nested too deeply
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold a mapping of fields, got {type(values).__name__}")
    return values


OF_COMMAND = {"protocol": "protocol", "sweep": "cells", "train": "model_name"}
"""A command -> a field that is at the top of its config files, and of no other command's."""


def read_config(path: Path, command: str) -> dict[str, object]:
    """Read the config file of a command.

    Raises:
        ConfigError: as :func:`read_yaml`; or the file is for another command.
    """
    values = read_yaml(path)
    if OF_COMMAND[command] not in values:
        for other, field in OF_COMMAND.items():
            if field in values:
                line = f"{path}: with {field!r} at its top it is for {other}, and not for {command}"
                raise ConfigError(line)
    return values


class StrictModel(BaseModel):
    """A section of a config file that takes no unknown field, and no value of another type.

    An integer is taken for a float, and a list for a tuple: YAML has no tuples.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _take_lists_for_tuples(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None  # pydantic has one for a field's validator
        return converted(value, cls.model_fields[info.field_name].annotation)


def validated(model: type[Model], values: Mapping[str, object]) -> Model:
    """Check ``values``, and return them as a ``model``.

    Raises:
        ConfigError: the first thing that is wrong, in one line that names the field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, model)) from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """Text for the first error: the field, what is wrong, and the value or the nearest name."""
    first = error.errors()[0]
    *parents, name = first["loc"]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{field}: missing; it has no default"
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return f"{field}: unknown field" + nearest(str(name), _fields_at(model, parents))
    value = first["input"]
    advice = first["type"] in ("int_type", "float_type") and is_number_as_text(value)
    return f"{field}: {first['msg']}, got {short(value)}" + (
        f": {NUMBER_AS_TEXT}" if advice else ""
    )


def _fields_at(model: type[BaseModel], path: list[int | str]) -> list[str]:
    """Names of the fields of the model that is at ``path`` inside ``model``."""
    section: Any = model
    for step in path:
        section = _without_none(_inside(section, step))
    return list(section.model_fields)


def _inside(hint: Any, step: int | str) -> Any:
    """The type at one step of a path: a model's field, or the item of a mapping or a list."""
    args = typing.get_args(hint)
    if not args:
        return hint.model_fields[step].annotation
    return args[1] if typing.get_origin(hint) is dict else args[0]


def _without_none(hint: Any) -> Any:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    return options[0] if is_union(hint) else hint
