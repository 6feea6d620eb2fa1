"""``sa_gsae``, the Sign-Aware Gated SAE of arXiv 2605.28149.

Details that the paper's abstract leaves open are ours; the stop-gradients are those of the Gated
SAE (arXiv 2404.16014).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from sae_lens import SAE, GatedSAE, GatedSAEConfig, SAEConfig, TrainingSAE, TrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
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
)
from sae_lens_signaware.saes.split import both_sides, make_plain

N_ROWS = {"full": (1, 1, 1), "radii": (2, 1, 2), "none": (2, 2, 2)}
"""Rows P of threshold, r_mag and b_mag by ``polarity_tying``."""


def _check(cfg: "SAGatedSAEConfig | SAGatedTrainingSAEConfig") -> None:
    check_sizes(cfg)
    require(
        cfg.polarity_tying in N_ROWS, "polarity_tying", cfg.polarity_tying, "full, radii or none"
    )
    require(
        cfg.normalize_activations != "covariance_whitening" or cfg.apply_b_dec_to_input,
        "apply_b_dec_to_input",
        cfg.apply_b_dec_to_input,
        "true with covariance_whitening: sa_gsae has no b_enc that could take up its shift",
    )


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
    def to_plain(self) -> GatedSAE:
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

    n_threshold_resets: Tensor
    sparsity_coefficient = "l1"
    closes_latents = ("threshold",)

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        counter = torch.zeros((), dtype=torch.int64, device=self.device)
        self.register_buffer("n_threshold_resets", counter)

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
            self.n_threshold_resets += (dead & (self.threshold != 0).any(0)).sum()
            self.threshold.data.mul_(~dead)
        return step_input

    @override
    def losses(self, step: StepValues) -> Losses:
        cfg, sae_in = self.cfg, step.inputs.sae_in
        v = soft_threshold(step.pre, step.rows["threshold"], cfg.two_sided)
        l1 = (v.abs() * step.rows["norm"]).sum(dtype=torch.promote_types(v.dtype, torch.float32))
        losses = {"l1_loss": step.inputs.coefficients["l1"] * l1 / step.n_tokens}
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
    def metrics(self, step_input: TrainStepInput, acts: Tensor) -> dict[str, Tensor]:
        resets = {"threshold_resets": self.n_threshold_resets.clone()}
        return super().metrics(step_input, acts) | resets
