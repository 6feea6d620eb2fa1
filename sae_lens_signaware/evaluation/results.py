"""Results of the measures: tensors and numbers, their provenance, and JSON that reads back."""

import dataclasses
import math
import unicodedata
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BeforeValidator, PlainValidator, TypeAdapter, ValidationError
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, one_line
from sae_lens_signaware.files import write_json

T = TypeVar("T")


def _nan_for_none(value: Any) -> Any:
    return math.nan if value is None else value


def _values(held: list[float | None]) -> Tensor:
    return torch.tensor([_nan_for_none(v) for v in held], dtype=torch.float64, device="cpu")


def _indices(held: list[int]) -> Tensor:
    return torch.tensor(held, dtype=torch.int64, device="cpu")


Number = Annotated[float, BeforeValidator(_nan_for_none)]
"""A float, of which NaN means "does not apply" and is null in JSON."""
Values = Annotated[Tensor, PlainValidator(_values)]
"""(n,) float64 on the CPU, NaN likewise."""
Indices = Annotated[Tensor, PlainValidator(_indices)]
"""(n,) int64 on the CPU."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Origin of a result: number of tokens, the SAE's config, and versions of the packages."""

    n_tokens: int
    sae_cfg: Mapping[str, Any]
    versions: Mapping[str, str]

    @classmethod
    def of(cls, sae: SAE[Any], n_tokens: int) -> "Provenance":
        """Record an SAE, the number of tokens, and the versions that are installed."""
        packages = ("sae-lens-signaware", "sae-lens", "torch")
        return cls(n_tokens, sae.cfg.to_dict(), {name: version(name) for name in packages})


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """Base of all results; a subclass is a dataclass with ``repr=False``."""

    provenance: Provenance

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the result was measured on."""
        return self.provenance.n_tokens

    def __repr__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float | str)}
        shown = {**self._summary(), **numbers}
        pairs = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()]
        return f"{type(self).__name__} of {self.subject}: {', '.join(pairs)}"

    @property
    def subject(self) -> str:
        """Which SAE was measured, on how many tokens."""
        cfg = self.provenance.sae_cfg
        return f"{cfg['architecture']} {cfg['d_sae']:,}, {self.n_tokens:,} tokens"

    def _summary(self) -> Mapping[str, object]:
        """Numbers that sum the result up, beside the fields that are numbers."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them: tensors as lists, NaN as null."""
        return to_json(self)

    def write(self, path: str | Path) -> None:
        """Write ``to_dict`` as JSON, complete or not at all."""
        write_json(self.to_dict(), path)

    @classmethod
    def read(cls: type[T], path: str | Path) -> T:
        """Read back what :meth:`write` wrote; InvalidInputError where that is something else."""
        return read_json(cls, path)


def to_json(value: Any) -> Any:
    """Any field of a result as JSON holds it."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_json(kind: type[T], path: str | Path) -> T:
    """Read a dataclass from a JSON file; InvalidInputError where that holds something else."""
    try:
        return TypeAdapter(kind).validate_json(Path(path).read_bytes())
    except (ValidationError, TypeError) as error:
        message = f"{path}: not a {kind.__name__}: {one_line(error)}"
        raise InvalidInputError(message) from None


def printable(token: str) -> str:
    """The text of a token for a cell of a table: no line breaks, no control characters."""
    token = token.replace("\n", "⏎")
    return "".join("�" if unicodedata.category(c) == "Cc" else c for c in token)
