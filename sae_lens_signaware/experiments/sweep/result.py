"""The result of one run of a sweep, as its file holds it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_lens_signaware.checks import check_fields
from sae_lens_signaware.evaluation.quality import SAEQuality, target_l0_of

TARGET_FIELDS = ("target_l0", "k")
"""The fields of an SAE's config that ask for an L0."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One finished run, as its result file holds it.

    Attributes:
        cell, seed, sae, field, value: which run.
        quality: measured on the held-out activations.
        l0_pos, l0_neg: mean number of active latents of each side.
        seconds_per_step: of training; None where it was resumed.
        identity: all that the result depends on; another identity is another run.
    """

    cell: str
    seed: int
    sae: str
    field: str
    value: float
    quality: SAEQuality
    l0_pos: float
    l0_neg: float
    seconds_per_step: float | None
    identity: dict[str, Any]

    @property
    def target_l0(self) -> float | None:
        """The L0 that the run was asked for; None where a coefficient sets its sparsity.

        A result that was read from ``sweep.json`` has no identity. It knows its target where the
        target is what was swept.
        """
        if self.field in TARGET_FIELDS:
            return float(self.value)
        return target_l0_of(self.identity.get("sae", {}))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "RunResult":
        """Make it of the mapping that a file holds.

        Raises:
            TypeError, KeyError: other fields than these.
            ValueError: a field of another type.
        """
        made = {**values, "quality": SAEQuality.of(values["quality"])}
        check_fields(cls, made)
        return cls(**made)

    @classmethod
    def read(cls, path: Path) -> "RunResult":
        """Read the file of a finished run.

        Raises:
            ValueError: ``path`` is no such file.
        """
        try:
            return cls.of(json.loads(path.read_text()))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: not a result of a run: {error}") from None
