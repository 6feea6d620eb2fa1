"""``bi_jumprelu``, a two-sided JumpReLU. Ours, of SAELens's ``jumprelu`` (arXiv 2407.14435)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, SAEConfig, TrainingSAE, TrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor, nn
from typing_extensions import override

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
    l0_of,
)
from sae_lens_signaware.saes.split import both_sides, make_plain

N_ROWS = {"full": 1, "none": 2}
"""Rows P of threshold by ``polarity_tying``."""


@dataclass
class BiJumpReLUSAEConfig(SAEConfig):
    """Configuration of the inference SAE.

    Args:
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each.
        two_sided: False keeps the - sides closed: a plain JumpReLU.
    """

    polarity_tying: Literal["full", "none"] = "full"
    two_sided: bool = True

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, N_ROWS)

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
        two_sided = self.cfg.two_sided
        is_active = either_side(pre, rows["threshold"], two_sided)
        return with_size_bias(pre, rows["b_mag"], two_sided) * is_active

    @override
    def to_plain(self) -> SAE[Any]:
        n_sides = 2 if self.cfg.two_sided else 1
        b_enc, threshold = torch.stack([self.b_enc, -self.b_enc]), self.threshold.clamp(min=0.0)
        parameters = {
            "b_enc": both_sides(b_enc + self.b_mag, n_sides),
            # of h here, and of |z| there
            "threshold": both_sides(torch.relu(threshold + self.b_mag), n_sides),
        }
        return make_plain(self, JumpReLUSAE, JumpReLUSAEConfig, parameters, n_sides)


class BiJumpReLUSAE(_BiJumpReLU, SAE[BiJumpReLUSAEConfig]):
    """Inference SAE. ``encode`` gives signed latents."""


BANDWIDTH = 0.3
"""Width of the straight-through estimator's window, in units of ``threshold_scale`` (ours)."""

SPARSITY = 0.5
"""Weight of the sparsity loss, in mean squares of what a latent writes at its threshold (ours)."""

RATE = 0.1
"""Pace at which the scale of the thresholds follows log(L0 / target_l0) (ours)."""


@dataclass(kw_only=True)
class BiJumpReLUTrainingSAEConfig(TrainingSAEConfig):
    """Configuration of the training SAE.

        L = ||x - x^||^2 + 0.5 mean_i((threshold_i ||W_dec_i||)^2) * L0

    Args:
        target_l0: mean number of active latents per token.
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each.
        two_sided: False keeps the - sides closed: the plain SAE of the same recipe.
        auxk_coefficient: weight of AuxK (arXiv 2406.04093), which revives dead latents.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead; null
            counts the runner's dead_feature_window of steps instead, 1,000 by default.
    """

    target_l0: float = 64.0
    polarity_tying: Literal["full", "none"] = "full"
    two_sided: bool = True
    auxk_coefficient: float = 1.0
    dead_after_tokens: int | None = 25_600

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, N_ROWS)
        check_training(self)

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_jumprelu"


@fast.may_be_fast
class BiJumpReLUTrainingSAE(SignedTraining, _BiJumpReLU, TrainingSAE[BiJumpReLUTrainingSAEConfig]):
    """Training SAE: thresholds learn by straight-through estimators from both losses.

    A threshold is ``threshold`` (P, d_sae), which learns and has the mean 1, times
    ``threshold_scale`` (), which each step moves until L0 is ``target_l0``, as the running
    threshold of a BatchTopK. So a step of the optimiser is a share of a threshold, and L0 needs no
    coefficient.
    """

    threshold_scale: Tensor
    in_units_of_input = ("b_dec", "b_enc", "b_mag", "threshold_scale")

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.threshold.data.fill_(1.0)
        self.make_state("threshold_scale")

    @property
    def unit(self) -> Tensor:
        """() what a threshold of 1 is of the pre-activations; 1 before the first step."""
        return torch.where(self.threshold_scale > 0, self.threshold_scale, 1.0)

    @override
    def start(self, sae_in: Tensor) -> None:
        """Also the scale of the thresholds that gives ``target_l0`` now."""
        super().start(sae_in)
        if self.threshold_scale == 0:
            size = SignedSAE.hidden_pre(self, sae_in[:512]).flatten().float()
            size = size.abs() if self.cfg.two_sided else size.relu()
            n = int(self.cfg.target_l0 * len(size) / self.cfg.d_sae)
            self.threshold_scale = size.topk(max(n, 1)).values[-1]

    @override
    def before_step(self, step_input: TrainStepInput) -> TrainStepInput:
        step_input = super().before_step(step_input)
        if self.training:
            mean = self.threshold.mean().clamp(min=1e-6)
            self.threshold.data.div_(mean)
            self.threshold_scale = self.unit * mean
        return step_input

    @override
    def rows(self, dtype: torch.dtype) -> Rows:
        rows = super().rows(dtype)
        return rows | {"threshold": rows["threshold"] * self.unit.to(dtype)}

    @override
    def activate(self, pre: Tensor, rows: Rows) -> Tensor:
        width, two_sided = BANDWIDTH * self.unit, self.cfg.two_sided
        return bi_jump_relu(pre, rows["threshold"], rows["b_mag"], width, two_sided)

    @override
    def losses(self, step: StepValues) -> Losses:
        width, two_sided = BANDWIDTH * self.unit, self.cfg.two_sided
        n_active = bi_step(step.pre, step.rows["threshold"], width, two_sided).sum()
        written = self.rows(step.pre.dtype)["threshold"] * self.W_dec.norm(dim=1) * self.scale
        weight = SPARSITY * written.detach().square().mean() / len(step.inputs.sae_in)
        return {"l0_loss": weight * n_active}

    @override
    def after_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        super().after_step(step_input, output)
        if self.training:
            l0 = l0_of(output.feature_acts).clamp(min=1e-2)
            error = torch.log(l0 / self.cfg.target_l0).clamp(-1.0, 1.0)
            # a new tensor: the backward pass of this step reads the old one
            self.threshold_scale = self.unit * torch.exp(RATE * error)

    @override
    def ungated(self, pre: Tensor, rows: Rows) -> Tensor:
        return with_size_bias(pre, rows["b_mag"], self.cfg.two_sided)

    @override
    def find_active(self, x_c: Tensor) -> fast.Active | None:
        # the estimators' windows count as well, a hair wider against rounding
        width = 1.0002 * BANDWIDTH * self.unit
        at = (self.rows(x_c.dtype)["threshold"] - width / 2).to(x_c.dtype)
        return fast.above_threshold(
            x_c,
            self.W_enc,
            self.b_enc.to(x_c.dtype),
            lambda pre, of: either_side(pre, at[:, of], self.cfg.two_sided),
        )

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """The thresholds of the pre-activations."""
        state_dict["threshold"] = state_dict["threshold"] * self.unit
        super().process_state_dict_for_saving_inference(state_dict)
