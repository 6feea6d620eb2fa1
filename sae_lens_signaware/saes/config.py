"""What the configs of all signed SAEs have in common: fields and checks, each once."""

from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import SAEConfig, TrainingSAEConfig

from sae_lens_signaware.checks import check_types, require

FORMAT_VERSION = 1
"""Format of ``cfg.json`` that this version writes, and the newest that it reads."""

MAX_SIZE = 2**28
"""Largest d_in and d_sae: torch cannot count the bytes of a matrix of more by more."""

MAX_FLOAT32 = torch.finfo(torch.float32).max
"""Thresholds are kept in 32 bits."""


@dataclass
class SignedFields:
    """Fields of every signed SAE's config.

    Args:
        polarity_tying: which parameters the two sides of a latent share. An architecture
            narrows the type to the values that it knows, "full" among them.
        format_version: format of cfg.json; leave as it is.
    """

    polarity_tying: Any = "full"
    format_version: int = FORMAT_VERSION


@dataclass
class SignedSAEConfig(SignedFields, SAEConfig):
    """Base of the configs of inference SAEs. It checks every field's type and the sizes."""

    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        _check_sizes(self)


@dataclass(kw_only=True)
class SignedTrainingSAEConfig(SignedFields, TrainingSAEConfig):
    """Base of the configs of training SAEs.

    Args:
        target_l0: mean number of active latents per token to settle at. If set, the weight of
            the sparsity loss is steered during training to reach it. None leaves that weight
            as it is.
        target_l0_rate: pace of that steering: L0 settles in about 1 / target_l0_rate steps.
        auxk_coefficient: weight of a loss by which dead latents learn to reconstruct the error
            of the others (AuxK, arXiv 2406.04093). 0 switches it off. Latents count as dead by
            the runner's dead_feature_window.
        use_sparse_activations: whether steps with few active latents compute with those alone,
            where that is faster (on a CPU): the same results up to rounding. feature_acts and
            hidden_pre of such a step are sparse COO tensors, as SAELens's topk has them.
    """

    target_l0: float | None = None
    target_l0_rate: float = 0.02
    auxk_coefficient: float = 0.0
    use_sparse_activations: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        _check_sizes(self)
        if self.target_l0 is not None:
            require(
                0 < self.target_l0 <= self.d_sae,
                "target_l0",
                self.target_l0,
                f"null or a number above 0 and at most d_sae = {self.d_sae}",
            )
        require(self.target_l0_rate > 0, "target_l0_rate", self.target_l0_rate, "a number above 0")
        require_not_negative(self, "auxk_coefficient")


@dataclass(kw_only=True)
class ThresholdTrainingSAEConfig(SignedTrainingSAEConfig):
    """Base of the configs of training SAEs whose thresholds are parameters.

    Args:
        dead_threshold_reset: whether the thresholds of dead latents are reset to their initial
            value at every threshold_reset_interval.
        threshold_reset_interval: number of training steps between resets. Latents count as dead
            by the runner's dead_feature_window.
    """

    dead_threshold_reset: bool = False
    threshold_reset_interval: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        interval = self.threshold_reset_interval
        require(interval >= 1, "threshold_reset_interval", interval, "an integer >= 1")


def require_not_negative(cfg: object, *fields: str) -> None:
    """Raise InvalidInputError, one line, for the first of these fields that is below 0."""
    for field in fields:
        require(getattr(cfg, field) >= 0, field, getattr(cfg, field), "a number >= 0")


def require_threshold(cfg: object, field: str) -> None:
    """Raise InvalidInputError where an initial threshold is below 0, or no number of 32 bits."""
    require_not_negative(cfg, field)
    value = getattr(cfg, field)
    require(value <= MAX_FLOAT32, field, value, f"at most {MAX_FLOAT32:.3g}")


def require_steerable(cfg: SignedTrainingSAEConfig, coefficient: str) -> None:
    """Raise InvalidInputError where ``target_l0`` is set and its coefficient is 0."""
    value = getattr(cfg, coefficient)
    require(
        cfg.target_l0 is None or value > 0,
        coefficient,
        value,
        "a number above 0 where target_l0 is set",
        "target_l0 steers it by a factor",
    )


def _check_sizes(cfg: Any) -> None:
    require(
        1 <= cfg.format_version <= FORMAT_VERSION,
        "format_version",
        cfg.format_version,
        f"an integer from 1 to {FORMAT_VERSION}",
        "a later sae_lens_signaware wrote this cfg.json; upgrade the package to load it",
    )
    for field in ("d_in", "d_sae"):
        value = getattr(cfg, field)
        allowed = 0 < value <= MAX_SIZE
        require(allowed, field, value, "a positive integer", f"at most {MAX_SIZE}")
