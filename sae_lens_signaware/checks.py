"""What is asked of values from outside: types, ranges, and errors of one line."""

import dataclasses
import difflib
import functools
import math
import numbers
import reprlib
import sys
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from sae_lens.saes.sae import SAEMetadata

# SAELens reads these itself, in more forms than their annotation says (a torch.device, a torch.dtype).
_READ_BY_SAELENS = ("dtype", "device")
# Understood by SAELens, though its annotation leaves it out.
MORE_VALUES = {"normalize_activations": ("constant_norm_rescale",)}

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 300
_repr.maxlevel = 3


class InvalidInputError(ValueError):
    """A wrong input, in one line: the field, the value, what is allowed."""


class ConfigError(InvalidInputError):
    """A config, a flag or a file that a command was given is wrong; one line."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or the known names where none is near."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(known)}"


def require(condition: bool, field: str, value: object, allowed: str, why: str = "") -> None:
    """Raise InvalidInputError with one line: the field, its value (shortened), what is allowed."""
    if not condition:
        raise InvalidInputError(
            f"{field} must be {allowed}, got {short(value)}{f': {why}' if why else ''}"
        )


def short(value: object) -> str:
    """``repr(value)``, cut where it is long or deep: values come from files."""
    return _repr.repr(value)


def check_types(cfg: Any) -> None:
    """Every field of a SAE config holds what its annotation says, and every number is finite.

    A dataclass checks nothing, and a cfg.json may hold anything: a "false" would count as true. NumPy's
    numbers become Python's.

    Raises:
        InvalidInputError: the first field that does not.
    """
    for name, hint in _hints(type(cfg)).items():
        value = getattr(cfg, name)
        fits = _fits(value, hint) or _is_one_of(value, MORE_VALUES.get(name, ()))
        require(fits, name, value, describe(hint))
        if isinstance(value, numbers.Number) and type(value).__module__ == "numpy":
            setattr(cfg, name, typing.cast(Any, value).item())  # cfg.json holds Python's numbers


@functools.cache
def _hints(config_class: type) -> dict[str, Any]:
    hints = typing.get_type_hints(config_class)
    names = (field.name for field in dataclasses.fields(config_class))
    return {name: hints[name] for name in names if name not in _READ_BY_SAELENS}


def _is_one_of(value: object, options: tuple[object, ...]) -> bool:
    return any(type(value) is type(option) and value == option for option in options)


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _is_one_of(value, typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if hint is SAEMetadata:
        # SAELens's from_dict hands the mapping over first; each key becomes an attribute
        keys = value if isinstance(value, dict) else getattr(value, "__dict__", None)
        return keys is not None and not set(keys) & set(dir(SAEMetadata))
    if hint in (int, float):
        return not isinstance(value, bool) and _is_number(value, whole=hint is int)
    return isinstance(value, hint)


def _is_number(value: Any, whole: bool) -> bool:
    # numpy's count as well; an integer that no float holds does not
    if isinstance(value, numbers.Integral):
        return abs(int(value)) <= sys.float_info.max
    return not whole and isinstance(value, numbers.Real) and math.isfinite(value)


def describe(hint: Any) -> str:
    """A type in words that a user of the YAML knows."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in typing.get_args(hint))
    if hint is type(None):
        return "null"
    if hint is SAEMetadata:
        return "a mapping, without the names of its own methods"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, str(hint).removeprefix("typing."))
