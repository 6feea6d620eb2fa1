"""``sa_gsae``, the Sign-Aware Gated SAE of arXiv 2605.28149.

Details that the paper's abstract leaves open are ours; the stop-gradients are those of the Gated
SAE (arXiv 2404.16014).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import sae_lens
import torch
from sae_lens import SAE, GatedSAE, GatedSAEConfig, SAEConfig, TrainingSAE, TrainingSAEConfig
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput, TrainStepOutput
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes import fast
from sae_lens_signaware.saes.activations import either_side, signed_gate, soft_threshold
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

N_ROWS = {"full": (1, 1, 1), "radii": (2, 1, 2), "none": (2, 2, 2)}
"""Rows P of threshold, r_mag and b_mag by ``polarity_tying``."""


def _check(cfg: "SAGatedSAEConfig | SAGatedTrainingSAEConfig") -> None:
    check_sizes(cfg, N_ROWS)
    subtracts = cfg.apply_b_dec_to_input
    is_right = cfg.normalize_activations != "covariance_whitening" or subtracts
    allowed = "true with covariance_whitening: sa_gsae has no b_enc that could take up its shift"
    require(is_right, "apply_b_dec_to_input", subtracts, allowed)


@dataclass
class SAGatedSAEConfig(SAEConfig):
    """Configuration of the inference SAE.

    Args:
        polarity_tying: which parameters the + and the - side of a latent share: "full" (threshold,
            r_mag, b_mag), "radii" (r_mag alone) or "none".
        two_sided: False keeps the gate of the - side closed: a plain Gated SAE.
    """

    polarity_tying: Literal["full", "radii", "none"] = "full"
    two_sided: bool = True

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)

    @override
    @classmethod
    def architecture(cls) -> str:
        return "sa_gsae"


class _SAGated(SignedSAE):
    """Parameters, activation and plain twin of both SAEs; there is no b_enc."""

    threshold: nn.Parameter
    r_mag: nn.Parameter
    b_mag: nn.Parameter

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        n_threshold, n_r_mag, n_b_mag = N_ROWS[self.cfg.polarity_tying]
        self.threshold = self.make_rows(n_threshold)
        self.r_mag = self.make_rows(n_r_mag)
        self.b_mag = self.make_rows(n_b_mag)

    @override
    def rows(self, dtype: torch.dtype) -> Rows:
        rows = {name: getattr(self, name).to(dtype) for name in ("r_mag", "b_mag")}
        # the last step may have left one below 0
        return rows | {"threshold": self.threshold.clamp(min=0.0).to(dtype)}

    @override
    def activate(self, pre: Tensor, rows: Rows) -> Tensor:
        threshold, r_mag, b_mag = rows["threshold"].detach(), rows["r_mag"], rows["b_mag"]
        return signed_gate(pre, threshold, r_mag, b_mag, self.cfg.two_sided)

    @override
    def to_plain(self) -> SAE[Any]:
        n_sides = 2 if self.cfg.two_sided else 1
        parameters = {
            "b_gate": -both_sides(self.threshold.clamp(min=0.0), n_sides),
            "r_mag": both_sides(self.r_mag, n_sides),
            "b_mag": both_sides(self.b_mag, n_sides),
        }
        return make_plain(self, GatedSAE, GatedSAEConfig, parameters, n_sides)


class SAGatedSAE(_SAGated, SAE[SAGatedSAEConfig]):
    """Inference SAE: z of :func:`~sae_lens_signaware.saes.activations.signed_gate`."""


@dataclass(kw_only=True)
class SAGatedTrainingSAEConfig(TrainingSAEConfig):
    """Configuration of the training SAE.

        L = ||x - x^||^2 + l1 * sum_i |v_i| ||W_dec_i|| + aux_coefficient * ||x - x^_aux||^2

    with v of :func:`~sae_lens_signaware.saes.activations.soft_threshold`, and x^_aux its
    reconstruction by a frozen decoder.

    Args:
        polarity_tying: which parameters the + and the - side of a latent share: "full" (threshold,
            r_mag, b_mag; the paper's recommendation), "radii" (r_mag alone) or "none".
        two_sided: False keeps the gate of the - side closed: a Gated SAE as its paper trains it.
        l1_coefficient: weight of the L1 of the gate path, after warm-up. With target_l0 it is only
            the starting point.
        l1_warm_up_steps: number of steps over which that weight grows linearly from 0.
        target_l0: mean number of active latents per token; if set, the weight is steered to it.
        aux_coefficient: weight of the auxiliary reconstruction, which keeps the gate alive. The
            paper's is 1, with which more latents die (measured: docs/log.md).
        auxk_coefficient: weight of AuxK (arXiv 2406.04093), which revives dead latents.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead; null
            counts the runner's dead_feature_window of steps instead, 1,000 by default.
        dead_threshold_reset: whether thresholds of dead latents go back to 0 at every
            threshold_reset_interval, as in the paper.
        threshold_reset_interval: number of training steps between resets.
    """

    polarity_tying: Literal["full", "radii", "none"] = "full"
    two_sided: bool = True
    l1_coefficient: float = 1.0
    l1_warm_up_steps: int = 0
    target_l0: float | None = None
    aux_coefficient: float = 0.25
    auxk_coefficient: float = 1.0
    dead_after_tokens: int | None = 25_600
    dead_threshold_reset: bool = False
    threshold_reset_interval: int = 500

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)
        check_training(self)
        interval = self.threshold_reset_interval
        require(interval >= 1, "threshold_reset_interval", interval, "an integer >= 1")

    @override
    @classmethod
    def architecture(cls) -> str:
        return "sa_gsae"


@fast.may_be_fast
class SAGatedTrainingSAE(SignedTraining, _SAGated, TrainingSAE[SAGatedTrainingSAEConfig]):
    """Training SAE: L1 and the auxiliary loss train the gate path v, the reconstruction z."""

    l0_control: Tensor
    closes_latents = ("threshold",)

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.make_state("l0_control", 2)

    @override
    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        return {"l1": TrainCoefficientConfig(self.cfg.l1_coefficient, self.cfg.l1_warm_up_steps)}

    @override
    def rows(self, dtype: torch.dtype) -> Rows:
        # a constant: with its gradient L1 shrinks W_dec while exp(r_mag) grows (docs/log.md)
        norm = self.W_dec.detach().norm(dim=1)[None]
        return super().rows(dtype) | {"norm": norm.to(dtype)}

    @override
    def before_step(self, step_input: TrainStepInput) -> TrainStepInput:
        step_input = super().before_step(step_input)
        step, dead = step_input.n_training_steps, step_input.dead_neuron_mask
        due = step > 0 and step % self.cfg.threshold_reset_interval == 0
        if self.cfg.dead_threshold_reset and self.training and due and dead is not None:
            self.threshold.data.mul_(~dead)
        if self.cfg.target_l0 is None:
            return step_input
        in_force = step_input.coefficients["l1"] * self.l0_control[0].exp()
        return replace(step_input, coefficients={"l1": in_force})

    @override
    def after_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        super().after_step(step_input, output)
        if self.training and (target := self.cfg.target_l0) is not None:
            warms_up = step_input.n_training_steps < self.cfg.l1_warm_up_steps
            l0 = l0_of(output.feature_acts)
            self.l0_control.copy_(update_l0_control(self.l0_control, l0, target, warms_up))
        if step_input.is_logging_step:
            output.metrics["l1_in_force"] = torch.as_tensor(step_input.coefficients["l1"])

    @override
    def losses(self, step: StepValues) -> Losses:
        cfg, sae_in = self.cfg, step.inputs.sae_in
        v = soft_threshold(step.pre, step.rows["threshold"], cfg.two_sided)
        l1 = (v.abs() * step.rows["norm"]).sum(dtype=torch.promote_types(v.dtype, torch.float32))
        coefficient = step.inputs.coefficients["l1"] * self.scale**2
        losses = {"l1_loss": coefficient * l1 / len(step.inputs.sae_in)}
        if cfg.aux_coefficient:
            product = step.decode(v, self.W_dec.detach(), slice(None)) + self.b_dec.detach()
            recons = self.in_input_space(sae_in, product)
            error = mse_loss(recons, sae_in) * recons.shape[-1]
            losses["auxiliary_reconstruction_loss"] = cfg.aux_coefficient * error
        return losses

    @override
    def ungated(self, pre: Tensor, rows: Rows) -> Tensor:
        no_threshold = torch.zeros_like(rows["threshold"])
        return signed_gate(pre, no_threshold, rows["r_mag"], rows["b_mag"], self.cfg.two_sided)

    @override
    def find_active(self, x_c: Tensor) -> fast.Active | None:
        threshold, two_sided = self.threshold.to(x_c.dtype), self.cfg.two_sided
        return fast.above_threshold(
            x_c, self.W_enc, None, lambda pre, of: either_side(pre, threshold[:, of], two_sided)
        )

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """As every signed SAE's; warns where L0 is a tenth off, whoever trained it."""
        super().process_state_dict_for_saving_inference(state_dict)
        target, l0 = self.cfg.target_l0, self.l0_control[1].item()
        if target is not None and l0 > 0 and abs(l0 / target - 1) > 0.1:
            sae_lens.logger.warning(
                f"target_l0: {target:g} was asked for, L0 is {l0:.1f}; train longer"
            )


RATE = 0.02
"""Pace: L0 settles in about 1 / RATE steps."""

EMA_DECAY = 0.9
"""Decay a step of the running L0 that the controller reads."""

MAX_LOG_MULTIPLIER = math.log(100.0)
"""Thresholds move by at most the learning rate a step. Where L0 is slow for that reason, more
pressure only crowds the reconstruction out of the clipped gradient (measured on SmolLM2-135M)."""

MIN_LOG_MULTIPLIER = math.log(1e-4)
"""The residual stream of Gemma 3 270M takes about 1/1,000 at L0 128 (measured)."""


def update_l0_control(
    control: Tensor, batch_l0: Tensor, target_l0: float, warms_up: bool
) -> Tensor:
    """One step of an integral controller with damping, of the log of the coefficient.

        l0 <- EMA_DECAY * l0 + (1 - EMA_DECAY) * batch_l0,    e = log(l0 / target_l0)
        log_multiplier <- log_multiplier + RATE * clip(e, -1, 1) + (e - e_before)

    The damping e - e_before lets the coefficient rest while L0 closes its gap at that pace; a bare
    integral overshoots and kills latents. While the schedule of the coefficient warms up, L0 is
    high for another reason: only an L0 below the target counts, and without the damping.

    Args:
        control: (2,) float32, [log_multiplier, running L0]; the latter is 0 before the first step.
        batch_l0: () mean number of active latents a token.

    Returns:
        The new (2,) control. The coefficient in force is exp(log_multiplier) times the scheduled
        one. Nothing waits for the device.
    """
    log_multiplier, before = control[0], control[1]
    before = torch.where(before > 0, before, batch_l0)
    l0 = EMA_DECAY * before + (1 - EMA_DECAY) * batch_l0
    # at L0 = 0 the pull back is strong but finite
    error, error_before = (torch.log(v.clamp(min=1e-2) / target_l0) for v in (l0, before))
    if warms_up:
        change = RATE * error.clamp(-1.0, 0.0)
    else:
        change = RATE * error.clamp(-1.0, 1.0) + (error - error_before)
    log_multiplier = (log_multiplier + change).clamp(MIN_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER)
    return torch.stack([log_multiplier, l0])
