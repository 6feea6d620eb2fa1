"""Checks of values from outside: types, ranges, folders to write, and errors of one line."""

import dataclasses
import difflib
import functools
import math
import numbers
import reprlib
import sys
import tempfile
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# SAELens accepts more for these fields than its annotations say.
MORE_VALUES = {"normalize_activations": ("constant_norm_rescale",)}
_OF_TORCH = {
    "dtype": "dtype",
    "device": "device",
    "llm_device": "device",
    "act_store_device": "device",
}
TORCH_TYPES = frozenset(_OF_TORCH.values())
"""Types of torch, which is not imported here, that SAELens takes as well as their names."""

NUMBER_AS_TEXT = "it is a text; write the number without quotes"

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 300
_repr.maxlevel = 3


class InvalidInputError(ValueError):
    """A wrong input, in one line: the field, the value, what is allowed."""


class ConfigError(InvalidInputError):
    """A config, a flag or a file that a command was given is wrong; one line."""


class FailedTraining(RuntimeError):
    """A training has ended without an SAE that is of use; one line."""


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return ``"; did you mean 'x'?"``; where no name is near, ``otherwise`` or all known names."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean {match[0]!r}?"
    return f"; {otherwise or 'known: ' + ', '.join(known)}"


def require(condition: bool, field: str, value: object, allowed: str, why: str = "") -> None:
    """Raise InvalidInputError with one line: the field, its value (shortened), what is allowed."""
    if not condition:
        raise InvalidInputError(
            f"{field} must be {allowed}, got {short(value)}{f': {why}' if why else ''}"
        )


def short(value: object) -> str:
    """Return ``repr(value)`` in one line, cut where it is long or deep: values come from files."""
    # that of an array or a tensor has a line for each row; that of a text has none
    return " ".join(line.strip() for line in _repr.repr(value).splitlines())


def one_line(error: object) -> str:
    """Return an error's text, or another one, without its line breaks."""
    return " ".join(str(error).split())


def check_types(cfg: "DataclassInstance") -> None:
    """Check that each field of a config holds what its annotation says, and only finite numbers.

    A dataclass checks nothing, and a cfg.json may hold anything: a "false" would count as true.
    The values are converted as :func:`converted` says.

    Raises:
        InvalidInputError: the first field that does not.
    """
    for name, hint in field_types(type(cfg)).items():
        value = getattr(cfg, name)
        new = checked(name, value, hint)
        if new is not value:
            setattr(cfg, name, new)


def check_fields(config_class: "type[DataclassInstance]", values: Mapping[str, object]) -> None:
    """Check, before a dataclass is made, that each value is of its field's annotation.

    Raises:
        InvalidInputError: the first that is not.
    """
    for name, hint in field_types(config_class).items():
        if name in values:
            checked(name, values[name], hint)


def checked(field: str, value: object, hint: Any) -> Any:
    """Return ``value``, converted to ``hint``.

    Raises:
        InvalidInputError: the value does not fit.
    """
    if not fits(value, hint):  # the words of the message take longer than the check
        require(False, field, value, describe(hint), _advice(value, hint))
    return converted(value, hint)


@functools.cache
def field_types(config_class: "type[DataclassInstance]") -> dict[str, Any]:
    """Return a dataclass's types by field, with what SAELens accepts beyond its annotations."""
    hints = typing.get_type_hints(config_class)
    return {f.name: _widened(f.name, hints[f.name]) for f in dataclasses.fields(config_class)}


def _widened(name: str, hint: Any) -> Any:
    if name in MORE_VALUES and typing.get_origin(hint) is Literal:
        options = (*typing.get_args(hint), *MORE_VALUES[name])
        return typing.cast(Any, Literal)[options]
    if name in _OF_TORCH:
        import torch

        return hint | getattr(torch, _OF_TORCH[name])
    return hint


def fits(value: Any, hint: Any) -> bool:
    """Tell whether ``value`` is of the type ``hint``, at every depth.

    A list fits a tuple, as YAML and JSON have no tuples. An integer fits a float. A bool is no
    number. NumPy's numbers count as Python's. A number that is not finite fits nothing.
    """
    origin, args = _parts_of(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in args)
    if is_union(hint):
        return any(fits(value, option) for option in args)
    if hint in (int, float):
        return not isinstance(value, bool) and _is_number(value, whole=hint is int)
    if origin is not None and not args:
        return isinstance(value, origin)
    if origin is list:
        return isinstance(value, list) and all(fits(item, args[0]) for item in value)
    if origin is tuple:
        return isinstance(value, list | tuple) and _items_fit(value, args)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, args[0]) and fits(item, args[1]) for key, item in value.items()
        )
    if _is_metadata(hint):
        if not isinstance(value, (dict, hint)):
            return False
        # each key becomes an attribute, by a call with keyword arguments
        taken = {*dir(hint), "self"}
        keys = value.keys()  # SAELens's metadata is no mapping, and does not iterate as its keys
        return all(isinstance(key, str) and key not in taken for key in keys)
    plain = origin or hint
    return not isinstance(plain, type) or isinstance(value, plain)


def converted(value: Any, hint: Any) -> Any:
    """Convert ``value`` to ``hint``: lists become tuples, integers floats, mappings metadata.

    A torch.dtype and a torch.device become their names, which a cfg.json can hold. What does not
    fit stays as it is.
    """
    origin, args = _parts_of(hint)
    if is_union(hint):
        option = next((option for option in args if fits(value, option)), Any)
        return converted(value, option)
    if type(value).__module__ == "torch" and type(value).__name__ in TORCH_TYPES:
        return str(value).removeprefix("torch.")
    if hint in (int, float) and fits(value, hint):
        return hint(value)
    if _is_metadata(hint) and isinstance(value, dict) and fits(value, hint):
        return hint(**value)
    if not args:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        hints = (args[0],) * len(value) if _is_homogeneous(args) else args
        if len(hints) == len(value):
            return tuple(converted(item, of) for item, of in zip(value, hints, strict=True))
    if origin is list and isinstance(value, list):
        return [converted(item, args[0]) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: converted(item, args[1]) for key, item in value.items()}
    return value


@functools.cache  # results have thousands of values of a few types
def _parts_of(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(hint), typing.get_args(hint)


def is_union(hint: object) -> bool:
    """Tell whether a type is ``X | Y``, in either spelling."""
    return _parts_of(hint)[0] in (Union, types.UnionType)


def _is_metadata(hint: object) -> bool:
    # not imported: this module must load in milliseconds
    return getattr(hint, "__qualname__", None) == "SAEMetadata"


def _is_homogeneous(args: tuple[object, ...]) -> bool:
    return len(args) == 2 and args[1] is Ellipsis


def _items_fit(items: Sequence[object], args: tuple[object, ...]) -> bool:
    if _is_homogeneous(args):
        return all(fits(item, args[0]) for item in items)
    return len(items) == len(args) and all(map(fits, items, args))


def _is_number(value: object, whole: bool) -> bool:
    # an integer that no float holds does not count
    if isinstance(value, numbers.Integral):
        return abs(int(value)) <= sys.float_info.max
    return not whole and isinstance(value, numbers.Real) and math.isfinite(value)


def _advice(value: object, hint: Any) -> str:
    """How to write what was probably meant, or nothing."""
    if is_number_as_text(value) and (fits(0, hint) or fits(0.5, hint)):
        return NUMBER_AS_TEXT
    if isinstance(value, float) and value.is_integer() and fits(0, hint):
        return f"write {int(value)}"
    return ""


def is_number_as_text(value: object) -> bool:
    """Tell whether ``value`` is a text that reads as a number, such as ``"16"``."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def require_64_bits(field: str, value: int) -> None:
    """Raise InvalidInputError for an integer that torch does not take."""
    require(-(2**63) <= value < 2**63, field, value, "64 bits, which torch takes")


def describe(hint: Any) -> str:
    """Describe a type in words that a user of the YAML knows."""
    origin, args = _parts_of(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if is_union(hint):
        return " or ".join(describe(arg) for arg in args)
    if origin is list or (origin is tuple and _is_homogeneous(args)):
        return f"a list, each item {describe(args[0])}"
    if origin is tuple:
        return f"a list of {len(args)}: {', '.join(map(describe, args))}"
    if origin is dict or hint is dict:
        return "a mapping with texts as keys" if args[:1] == (str,) else "a mapping"
    if _is_metadata(hint):
        return "a mapping, without the names of its own methods"
    names = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
    }
    if hint in names:
        return names[hint]
    return f"a {hint.__module__}.{hint.__qualname__}" if isinstance(hint, type) else str(hint)


def require_writable(field: str, path: str | Path) -> None:
    """Raise ConfigError where no folder can be made at ``path``, or no file in it.

    Nothing is left on the disk.
    """
    try:
        folder = Path(path).resolve()
        place = next(place for place in (folder, *folder.parents) if _is_there(place))
        if place.is_dir():
            tempfile.NamedTemporaryFile(dir=place).close()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        raise ConfigError(
            f"{field} must be a folder that can be written, got {str(path)!r}: {error}"
        ) from None
    if not place.is_dir():
        raise ConfigError(f"{field} must be a folder, got {str(path)!r}: {place} is a file")


def _is_there(path: Path) -> bool:
    """Whether something is at ``path``; unlike ``Path.exists``, raise where that is not known."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
