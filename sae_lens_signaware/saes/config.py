"""What the configs of all signed SAEs have in common: fields and checks, each once."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import SAEConfig, TrainingSAEConfig
from typing_extensions import Self

from sae_lens_signaware.checks import check_types, require

FORMAT_VERSION = 2
"""Newest format of ``cfg.json`` that this version reads: 2 has ``b_mag`` in ``bi_jumprelu``."""

MAX_SIZE = 2**28
"""Largest d_in and d_sae: torch cannot count the bytes of a matrix of more by more."""

MAX_FLOAT32 = torch.finfo(torch.float32).max
"""Thresholds are kept in 32 bits."""

MINUS_BIAS_INIT = -2.0
"""Initial bias of the - sides. Measured: docs/log.md, "A bias for each side"."""

MINUS_BIAS_OF_SIZE = 0.5
"""Its largest share of the size of an active latent. Measured: docs/log.md, as above."""

BEFORE_DEAD_AFTER_TOKENS = {
    "dead_after_tokens": None,
    "dead_threshold_decay": 0.0,
    "minus_bias_init": 0.0,
}
"""What a training did whose saved config has no such fields yet (version 0.1.0)."""


@dataclass
class SignedFields:
    """Fields of every signed SAE's config.

    Args:
        polarity_tying: which parameters the two sides of a latent share. An architecture
            narrows the type to the values that it knows, "full" among them.
        format_version: format of cfg.json; leave as it is.
    """

    polarity_tying: Any = "full"
    format_version: int = 1


@dataclass
class SignedSAEConfig(SignedFields, SAEConfig):
    """Base of the configs of inference SAEs. It checks every field's type and the sizes."""

    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        check_sizes(self)


@dataclass
class SignedTrainingFields(SignedFields):
    """Fields and checks of every training SAE's config, before a config of SAELens's as a base.

    Args:
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead. null
            counts the runner's dead_feature_window of steps instead.
        use_sparse_activations: whether steps with few active latents compute with those alone,
            where that is faster (on a CPU): the same results up to rounding. feature_acts and
            hidden_pre of such a step are sparse COO tensors, as SAELens's topk has them, and have
            no gradient.
    """

    dead_after_tokens: int | None = 25_600
    use_sparse_activations: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()  # pyright: ignore[reportAttributeAccessIssue]  # SAELens's
        check_sizes(self)
        require_null_or_positive(self, "dead_after_tokens")
        auxk = ("auxk_coefficient", "aux_loss_coefficient")  # ours, and that of SAELens's topk
        require_not_negative(self, *(name for name in auxk if hasattr(self, name)))
        if hasattr(self, "k"):
            require_k(self)


@dataclass(kw_only=True)
class SignedTrainingSAEConfig(SignedTrainingFields, TrainingSAEConfig):
    """Base of the configs of training SAEs that a loss keeps sparse.

    Args:
        target_l0: mean number of active latents per token to settle at. If set, the weight of
            the sparsity loss is steered during training to reach it. None leaves that weight
            as it is.
        target_l0_rate: pace of that steering: L0 settles in about 1 / target_l0_rate steps.
        auxk_coefficient: weight of a loss by which dead latents learn to reconstruct the error
            of the others (AuxK, arXiv 2406.04093). 0 switches it off.
    """

    target_l0: float | None = None
    target_l0_rate: float = 0.02
    auxk_coefficient: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_l0 is not None:
            require(
                0 < self.target_l0 <= self.d_sae,
                "target_l0",
                self.target_l0,
                f"null or a number above 0 and at most d_sae = {self.d_sae}",
            )
        require(self.target_l0_rate > 0, "target_l0_rate", self.target_l0_rate, "a number above 0")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> Self:
        """SAELens's; a saved training goes on as it began, whatever the defaults are by now."""
        # every saved config has metadata; one that was saved for inference has no
        # auxk_coefficient: its training is a new one
        is_saved = {"metadata", "auxk_coefficient"} <= config_dict.keys()
        if is_saved and "dead_after_tokens" not in config_dict:
            config_dict = BEFORE_DEAD_AFTER_TOKENS | config_dict
        return super().from_dict(config_dict)


@dataclass(kw_only=True)
class ThresholdTrainingSAEConfig(SignedTrainingSAEConfig):
    """Base of the configs of training SAEs whose thresholds are parameters.

    Args:
        dead_threshold_reset: whether the thresholds of dead latents are reset to their initial
            value at every threshold_reset_interval.
        threshold_reset_interval: number of training steps between resets.
        dead_threshold_decay: share of its threshold that a dead latent loses in each step, until it
            is active again. 0 switches it off.
    """

    dead_threshold_reset: bool = False
    threshold_reset_interval: int = 500
    dead_threshold_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        interval = self.threshold_reset_interval
        require(interval >= 1, "threshold_reset_interval", interval, "an integer >= 1")
        require_share(self, "dead_threshold_decay")


def require_null_or_positive(cfg: object, field: str) -> None:
    """Raise InvalidInputError where a field that counts is neither None nor at least 1."""
    value = getattr(cfg, field)
    require(value is None or value >= 1, field, value, "null or an integer >= 1")


def require_k(cfg: Any) -> None:
    """Raise InvalidInputError where ``k`` is no number of latents that the SAE has."""
    allowed = f"a number above 0 and at most d_sae = {cfg.d_sae}"
    require(0 < cfg.k <= cfg.d_sae, "k", cfg.k, allowed)


def require_share(cfg: object, field: str) -> None:
    """Raise InvalidInputError where a field is no number from 0 to below 1."""
    value = getattr(cfg, field)
    require(0 <= value < 1, field, value, "a number from 0 to below 1")


def require_bias(cfg: Any) -> None:
    """Raise InvalidInputError where ``minus_bias_init`` is above 0, or no number of 32 bits."""
    value = cfg.minus_bias_init
    allowed = value is None or -MAX_FLOAT32 <= value <= 0
    require(allowed, "minus_bias_init", value, "null or a number <= 0")


def minus_bias_init_of(cfg: Any) -> float:
    """Return the initial bias of the - sides: ``minus_bias_init``, or where it is None

        -min(2, sqrt(d_in / L0) / 2)

    L0 orthogonal latents of one size a that make up an input of norm sqrt(d_in) have
    a = sqrt(d_in / L0). L0 is the one that is asked for; where none is, the bias is -2.
    """
    if cfg.minus_bias_init is not None:
        return cfg.minus_bias_init
    l0 = cfg.k if hasattr(cfg, "k") else getattr(cfg, "target_l0", None)
    if l0 is None:
        return MINUS_BIAS_INIT
    return max(MINUS_BIAS_INIT, -MINUS_BIAS_OF_SIZE * math.sqrt(cfg.d_in / l0))


def require_not_negative(cfg: object, *fields: str) -> None:
    """Raise InvalidInputError, one line, for the first of these fields that is below 0."""
    for field in fields:
        require(getattr(cfg, field) >= 0, field, getattr(cfg, field), "a number >= 0")


def require_threshold(cfg: object, field: str) -> None:
    """Raise InvalidInputError where an initial threshold is below 0, or no number of 32 bits."""
    require_not_negative(cfg, field)
    value = getattr(cfg, field)
    require(value <= MAX_FLOAT32, field, value, f"at most {MAX_FLOAT32:.3g}")


def require_whitening_folds(cfg: Any, has_b_enc: bool) -> None:
    """Raise InvalidInputError where SAELens would fold a whitening and change the output."""
    require(
        cfg.normalize_activations != "covariance_whitening"
        or cfg.apply_b_dec_to_input
        or has_b_enc,
        "apply_b_dec_to_input",
        cfg.apply_b_dec_to_input,
        "true with normalize_activations='covariance_whitening'",
        f"folding the whitening shifts pi, and {cfg.architecture()} has no encoder bias to absorb "
        "that",
    )


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


def check_sizes(cfg: Any) -> None:
    """Raise InvalidInputError for a later format, or a width that is not possible."""
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
