"""Typed results: per-latent tensors, provenance, and JSON that the same class reads back."""

import dataclasses
import json
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
    """Where a result comes from.

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
        names = ("sae-lens-signaware", "sae-lens", "torch")
        return cls(n_tokens, sae.cfg.to_dict(), {name: version(name) for name in names})


@dataclasses.dataclass(frozen=True)
class Result:
    """Base of all results. Tensors are float64 (indices int64) on the CPU; NaN means "does not apply" and is null in JSON."""

    provenance: Provenance

    @property
    def n_tokens(self) -> int:
        return self.provenance.n_tokens

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: tensors as lists, NaN as null."""
        return {
            field.name: dataclasses.asdict(value)
            if isinstance(value := getattr(self, field.name), Provenance)
            else _to_json(value)
            for field in dataclasses.fields(self)
        }

    def write(self, path: Path) -> None:
        """Write ``to_dict`` as JSON, complete or not at all."""
        write_json(self.to_dict(), path)

    @classmethod
    def read(cls: type[T], path: Path) -> T:
        """Read back what :meth:`write` wrote.

        Raises:
            ValueError: the file is not such a result.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            provenance = Provenance(**values.pop("provenance"))
            fields = {k: _from_json(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(provenance=provenance, **fields)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not a {cls.__name__}: {error}") from None


def _to_json(value: Any) -> Any:
    if isinstance(value, Tensor):
        return [None if v != v else v for v in value.tolist()]
    return value


def _from_json(values: list[float | None]) -> Tensor:
    if values and all(isinstance(v, int) for v in values):
        return torch.tensor(values, dtype=torch.int64)
    numbers = [float("nan") if v is None else v for v in values]
    return torch.tensor(numbers, dtype=torch.float64)
