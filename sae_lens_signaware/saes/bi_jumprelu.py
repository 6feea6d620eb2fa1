"""``bi_jumprelu``, a two-sided JumpReLU. Ours, of SAELens's ``jumprelu`` (arXiv 2407.14435)."""

from dataclasses import dataclass
from typing import Literal

import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, SAEConfig, TrainingSAE, TrainingSAEConfig
from torch import Tensor, nn
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes import fast
from sae_lens_signaware.saes.activations import bi_jump_relu, bi_step, either_side, with_size_bias
from sae_lens_signaware.saes.common import (
    Losses,
    Rows,
    SignedSAE,
    SignedTraining,
    StepValues,
    check_sizes,
    check_training,
)
from sae_lens_signaware.saes.split import both_sides, make_plain

N_ROWS = {"full": 1, "none": 2}
"""Rows P of threshold by ``polarity_tying``."""


@dataclass
class BiJumpReLUSAEConfig(SAEConfig):
    """Configuration of the inference SAE.

    Args:
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each.
    """

    polarity_tying: Literal["full", "none"] = "full"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self)
        require(
            self.polarity_tying in N_ROWS, "polarity_tying", self.polarity_tying, "full or none"
        )

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_jumprelu"


class _BiJumpReLU(SignedSAE):
    """Parameters, activation and plain twin of both SAEs.

        h = x_c @ W_enc + b_enc,    u = sign(h) relu(|h| + b_mag)
        z = u (1[h > threshold_+] + 1[h < -threshold_-])

    ``b_mag`` (1, d_sae): b_mag + b_enc and b_mag - b_enc are the biases of the two sides.
    """

    threshold: nn.Parameter
    b_enc: nn.Parameter
    b_mag: nn.Parameter

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.threshold = self.make_rows(N_ROWS[self.cfg.polarity_tying])
        self.b_mag = self.make_rows(1)
        self.b_enc = nn.Parameter(self.make_rows(1).data[0])

    @override
    def rows(self, dtype: torch.dtype) -> Rows:
        threshold = self.threshold.clamp(min=0.0)  # the last step may have left one below 0
        return {"threshold": threshold.to(dtype), "b_mag": self.b_mag.to(dtype)}

    @override
    def activate(self, pre: Tensor, rows: Rows) -> Tensor:
        return with_size_bias(pre, rows["b_mag"]) * either_side(pre, rows["threshold"])

    @override
    def to_plain(self) -> JumpReLUSAE:
        parameters = {
            "b_enc": torch.cat([self.b_enc, -self.b_enc]) + both_sides(self.b_mag),
            # of h here, and of |z| there
            "threshold": both_sides(torch.relu(self.threshold.clamp(min=0.0) + self.b_mag)),
        }
        return make_plain(self, JumpReLUSAE, JumpReLUSAEConfig, parameters)


class BiJumpReLUSAE(_BiJumpReLU, SAE[BiJumpReLUSAEConfig]):
    """Inference SAE. ``encode`` gives signed latents."""


@dataclass(kw_only=True)
class BiJumpReLUTrainingSAEConfig(TrainingSAEConfig):
    """Configuration of the training SAE. Names are those of SAELens's jumprelu.

        L = ||x - x^||^2 + l0_coefficient * L0

    Args:
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each.
        jumprelu_init_threshold: initial threshold of |h|.
        jumprelu_bandwidth: width of the straight-through estimator's window around a threshold, in
            units of the pre-activation. 0.5 trains well on inputs of mean norm sqrt(d_in).
        l0_coefficient: weight of the sparsity loss, after warm-up. With target_l0 it is only the
            starting point.
        l0_warm_up_steps: number of steps over which that weight grows linearly from 0.
        target_l0: mean number of active latents per token; if set, the weight is steered to it.
        auxk_coefficient: weight of AuxK (arXiv 2406.04093), which revives dead latents.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead; null
            counts the runner's dead_feature_window of steps instead, 1,000 by default.
    """

    polarity_tying: Literal["full", "none"] = "full"
    jumprelu_init_threshold: float = 0.1
    jumprelu_bandwidth: float = 0.5
    l0_coefficient: float = 1.0
    l0_warm_up_steps: int = 0
    target_l0: float | None = None
    auxk_coefficient: float = 1.0
    dead_after_tokens: int | None = 25_600

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self)
        check_training(self)
        require(
            self.polarity_tying in N_ROWS, "polarity_tying", self.polarity_tying, "full or none"
        )
        bandwidth, start = self.jumprelu_bandwidth, self.jumprelu_init_threshold
        require(bandwidth > 0, "jumprelu_bandwidth", bandwidth, "a number above 0")
        require(start >= 0, "jumprelu_init_threshold", start, "a number >= 0")

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_jumprelu"


@fast.may_be_fast
class BiJumpReLUTrainingSAE(SignedTraining, _BiJumpReLU, TrainingSAE[BiJumpReLUTrainingSAEConfig]):
    """Training SAE: thresholds learn by straight-through estimators from both losses."""

    sparsity_coefficient = "l0"

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.threshold.data.fill_(self.cfg.jumprelu_init_threshold)

    @override
    def activate(self, pre: Tensor, rows: Rows) -> Tensor:
        return bi_jump_relu(pre, rows["threshold"], rows["b_mag"], self.cfg.jumprelu_bandwidth)

    @override
    def losses(self, step: StepValues) -> Losses:
        l0 = bi_step(step.pre, step.rows["threshold"], self.cfg.jumprelu_bandwidth).sum()
        return {"l0_loss": step.inputs.coefficients["l0"] * l0 / step.n_tokens}

    @override
    def ungated(self, pre: Tensor, rows: Rows) -> Tensor:
        return with_size_bias(pre, rows["b_mag"])

    @override
    def find_active(self, x_c: Tensor) -> fast.Active | None:
        # the estimators' windows count as well, a hair wider against rounding
        at = self.threshold.to(x_c.dtype) - 0.5001 * self.cfg.jumprelu_bandwidth
        return fast.above_threshold(
            x_c,
            self.W_enc,
            self.b_enc.to(x_c.dtype),
            lambda pre, of: either_side(pre, at[:, of]),
        )
