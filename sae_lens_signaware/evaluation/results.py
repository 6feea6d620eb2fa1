"""Typed results: per-latent tensors, provenance, and JSON that the same class reads back."""

import dataclasses
import functools
import json
import math
import typing
import unicodedata
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.files import write_json

T = TypeVar("T", bound="Result")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Origin of a result.

    Attributes:
        n_tokens: tokens measured on.
        sae_cfg: the SAE's config, as its ``cfg.json`` holds it.
        versions: of sae-lens-signaware, sae-lens and torch.
    """

    n_tokens: int
    sae_cfg: Mapping[str, Any]
    versions: Mapping[str, str]

    @classmethod
    def of(cls, sae: SAE[Any], n_tokens: int) -> "Provenance":
        """Record an SAE, the tokens, and the versions that are installed."""
        return cls(n_tokens, sae.cfg.to_dict(), versions())


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {name: _version(name) for name in ("sae-lens-signaware", "sae-lens", "torch")}


@functools.cache  # it reads files of the installation, and every result names versions
def _version(package: str) -> str:
    return version(package)


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """Base of all results; a subclass is a dataclass with ``repr=False``.

    Tensors are float64, indices int64, on the CPU. NaN means "does not apply", and is null in JSON.
    """

    provenance: Provenance

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the result was measured on."""
        return self.provenance.n_tokens

    def __repr__(self) -> str:
        """A few lines: which SAE, the numbers that sum the result up, and the tensors' shapes."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float | str)}
        names_of: dict[str, list[str]] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
                names_of.setdefault(kind, []).append(name)
        lines = [f"{type(self).__name__} of {self._subject()}"]
        lines.append(
            ", ".join(f"{k} {_short(v)}" for k, v in {**self._summary(), **numbers}.items())
        )
        lines += [f"{', '.join(names)}: {kind}" for kind, names in names_of.items()]
        return "\n  ".join(line for line in lines if line)

    def _subject(self) -> str:
        cfg = self.provenance.sae_cfg
        width = f" {cfg['d_sae']:,}" if "d_sae" in cfg else ""
        return f"{cfg.get('architecture', 'an SAE')}{width}, {self.n_tokens:,} tokens"

    def _summary(self) -> Mapping[str, object]:
        """Numbers that sum the result up, beside the fields that are numbers."""
        return {}

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON holds them: tensors as lists, NaN as null."""
        return {
            field.name: dataclasses.asdict(value)
            if isinstance(value := getattr(self, field.name), Provenance)
            else _to_json(value)
            for field in dataclasses.fields(self)
        }

    def write(self, path: str | Path) -> None:
        """Write ``to_dict`` as JSON, complete or not at all."""
        write_json(self.to_dict(), path)

    @classmethod
    def read(cls: type[T], path: str | Path) -> T:
        """Read back what :meth:`write` wrote.

        Raises:
            ValueError: the file is not such a result.
        """
        try:
            values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            provenance = Provenance(**values.pop("provenance"))
            return cls(provenance=provenance, **cls._fields_of(values))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not a {cls.__name__}: {error}") from None

    @classmethod
    def _fields_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Make the fields beside the provenance from what ``to_dict`` gives of them."""
        numbers = {name for name, hint in typing.get_type_hints(cls).items() if hint is float}
        return {
            k: _from_json(v) if isinstance(v, list) else nan_for_none(v) if k in numbers else v
            for k, v in values.items()
        }


def printable(token: str) -> str:
    """Make the text of a token fit for a cell of a table: no line breaks, no control characters."""
    token = token.replace("\n", "⏎")
    # ESC and its like would reach the terminal; Unicode has a picture of each below 32
    return "".join(
        (chr(0x2400 + ord(c)) if ord(c) < 32 else "�") if unicodedata.category(c) == "Cc" else c
        for c in token
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def none_for_nan(value: Any) -> Any:
    """None for NaN, which is not JSON; any other value as it is."""
    return None if isinstance(value, float) and math.isnan(value) else value


def nan_for_none(value: Any) -> Any:
    """NaN for None; any other value as it is."""
    return math.nan if value is None else value


def _to_json(value: object) -> object:
    if isinstance(value, Tensor):
        return [none_for_nan(v) for v in value.tolist()]
    return none_for_nan(value)


def _from_json(values: list[float | None]) -> Tensor:
    if values and all(isinstance(v, int) for v in values):
        return torch.tensor(values, dtype=torch.int64, device="cpu")
    return torch.tensor([nan_for_none(v) for v in values], dtype=torch.float64, device="cpu")
