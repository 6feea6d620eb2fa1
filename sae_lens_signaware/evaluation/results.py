"""Results of the measures: tensors and numbers, their provenance, and JSON that reads back."""

import dataclasses
import json
import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import sae_lens
import torch
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from sae_lens import SAE
from torch import Tensor

import sae_lens_signaware
from sae_lens_signaware.checks import InvalidInputError, one_line
from sae_lens_signaware.files import write_json

T = TypeVar("T")


def _read_as(dtype: type[np.generic]) -> PlainValidator:
    return PlainValidator(lambda held: torch.from_numpy(np.array(held, dtype)))  # None is NaN


Number = Annotated[float, BeforeValidator(lambda held: math.nan if held is None else held)]
"""A float, of which NaN means "does not apply" and is null in JSON."""
Values = Annotated[Tensor, _read_as(np.float64), PlainSerializer(Tensor.tolist, list[float])]
"""(n,) float64 on the CPU, NaN likewise."""
Indices = Annotated[Tensor, _read_as(np.int64), PlainSerializer(Tensor.tolist, list[int])]
"""(n,) int64 on the CPU."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Origin of a result: number of tokens, the SAE's config, and versions of the packages."""

    n_tokens: int
    sae_cfg: Mapping[str, Any]
    versions: Mapping[str, str]

    @classmethod
    def of(cls, sae: SAE[Any], n_tokens: int) -> "Provenance":
        """Record an SAE, the number of tokens, and the versions in use."""
        modules = (sae_lens_signaware, sae_lens, torch)
        versions = {module.__name__: str(module.__version__) for module in modules}
        return cls(n_tokens, sae.cfg.to_dict(), versions)


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """Base of all results; a subclass is a dataclass with ``repr=False``."""

    provenance: Provenance

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the result was measured on."""
        return self.provenance.n_tokens

    @property
    def subject(self) -> str:
        """Which SAE was measured, on how many tokens."""
        cfg = self.provenance.sae_cfg
        tokens = f", {self.n_tokens:,} tokens" if self.n_tokens else ""
        return f"{cfg['architecture']} {cfg['d_sae']:,}{tokens}"

    def __repr__(self) -> str:
        """The numbers among its fields and properties."""
        kind = type(self)
        names = [name for name in dir(kind) if isinstance(getattr(kind, name), property)]
        values = {**vars(self), **{name: getattr(self, name) for name in names}}
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        pairs = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items()]
        return f"{kind.__name__} of {self.subject}: {', '.join(pairs)}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them: tensors as lists, NaN as null."""
        return json.loads(TypeAdapter(type(self)).dump_json(self))

    def write(self, path: str | Path) -> None:
        """Write ``to_dict`` as JSON, complete or not at all."""
        write_json(self.to_dict(), path)

    @classmethod
    def read(cls: type[T], path: str | Path) -> T:
        """Read back what :meth:`write` wrote; InvalidInputError where that is something else."""
        return read_json(cls, path)


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
