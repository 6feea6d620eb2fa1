"""``bi_jumprelu``, a two-sided JumpReLU: configs, inference SAE, training SAE.

After SAELens's ``jumprelu`` (arXiv 2407.14435), made two-sided; the two-sided formulas are ours
(docs/architectures.md) and live in :mod:`sae_lens_signaware.saes.activations`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor, nn
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes.activations import (
    bi_jump_relu_ste,
    bi_jump_step,
    bi_step_ste,
    nearest_threshold_gap,
)
from sae_lens_signaware.saes.activations.tiles import JumpTiles
from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.config import (
    SignedFields,
    SignedSAEConfig,
    ThresholdTrainingSAEConfig,
    minus_bias_init_of,
    require_bias,
    require_not_negative,
    require_steerable,
    require_threshold,
)
from sae_lens_signaware.saes.latents import Latents
from sae_lens_signaware.saes.plain import both_sides, make_plain
from sae_lens_signaware.saes.side_bias import SideBiasMixin
from sae_lens_signaware.saes.thresholds import ThresholdTrainingMixin
from sae_lens_signaware.saes.tiled import TiledStep, TiledStepMixin
from sae_lens_signaware.saes.training import Losses

# Rows P of threshold by tying.
ROWS = {"full": 1, "none": 2}


@dataclass
class _BiJumpReLUFields(SignedFields):
    polarity_tying: Literal["full", "none"] = "full"
    format_version: int = 2

    @classmethod
    def architecture(cls) -> str:
        return "bi_jumprelu"


@dataclass
class BiJumpReLUSAEConfig(_BiJumpReLUFields, SignedSAEConfig):
    """Configuration of the inference SAE.

    Args:
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each. It
            fixes the shape of the weights.
        format_version: format of cfg.json; leave as it is.
    """


class _BiJumpReLU(SignedSAEMixin):
    """Parameters and plain twin of both SAEs. SAELens's base folds b_enc by itself.

        h = x_c @ W_enc + b_enc,    u = sign(h) relu(|h| + b_mag)
        z = u * (1[h > threshold_+] + 1[h < -threshold_-])

    ``b_mag`` (1, d_sae): b_mag + b_enc and b_mag - b_enc are what the sides of the plain twin have
    as b_enc. Ours, as the two-sided formulas are.
    """

    b_enc: nn.Parameter
    b_mag: nn.Parameter
    _scales_with_pre_activation = ("threshold", "b_mag")
    _zero_in_format_1 = ("b_mag",)

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.threshold = self._make_rows(ROWS[self.cfg.polarity_tying])
        self.b_mag = self._make_rows(1)  # with b_enc, a bias for each side
        self.b_enc = nn.Parameter(torch.zeros(self.cfg.d_sae, dtype=self.dtype, device=self.device))

    @override
    def _activate(self, pre: Tensor, latents: Latents) -> Tensor:
        threshold, b_mag = self.threshold.to(pre.dtype), self._size_bias
        return bi_jump_step(pre, latents.rows_of(threshold), latents.rows_of(b_mag))

    @override
    def to_plain(self) -> JumpReLUSAE:
        parameters = {
            "b_enc": torch.cat([self.b_enc, -self.b_enc]) + both_sides(self.b_mag),
            # of h here, and of |z| there
            "threshold": both_sides(torch.relu(self.threshold.clamp(min=0.0) + self.b_mag)),
        }
        return make_plain(self, JumpReLUSAE, JumpReLUSAEConfig, parameters)


class BiJumpReLUSAE(_BiJumpReLU, SAE[BiJumpReLUSAEConfig]):
    """Inference SAE. ``encode`` gives signed latents.

    The activation is :func:`~sae_lens_signaware.saes.activations.bi_jump_step`.
    """


@dataclass(kw_only=True)
class BiJumpReLUTrainingSAEConfig(_BiJumpReLUFields, ThresholdTrainingSAEConfig):
    """Configuration of the training SAE. Names and modes are those of SAELens's jumprelu.

    Args:
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each.
        jumprelu_init_threshold: initial size of z where a latent becomes active, and the one that
            resets restore. The threshold of |h| is that less b_mag.
        minus_bias_init: initial bias of the - sides; that of the + sides is 0. Below 0 a latent
            starts as a latent of one side, and takes up the other where that pays. null takes
            -min(2, sqrt(d_in / target_l0) / 2); -2 without target_l0.
        jumprelu_bandwidth: width of the straight-through estimator's window around each threshold,
            in units of the pre-activation. 0.5 trains well on inputs of mean norm sqrt(d_in).
        jumprelu_sparsity_loss_mode: "step" penalises L0, "tanh" penalises tanh of |z| times the
            decoder norm, "quadratic" penalises the squared distance of L0 from target_l0.
        jumprelu_tanh_scale: scale inside the tanh; only for that mode.
        jumprelu_ste_to_input: whether the straight-through estimator also reaches the encoder.
        l0_coefficient: weight of the sparsity loss after warm-up. With target_l0 in "step" or
            "tanh" mode it is only the starting point, and must be above 0.
        l0_warm_up_steps: number of steps over which that weight grows linearly from 0.
        target_l0: mean number of active latents per token to settle at. Required by "quadratic";
            in "step" and "tanh" mode, if set, the weight is steered during training to reach it.
        target_l0_rate: pace of that steering: L0 settles in about 1 / target_l0_rate steps, and
            the weight stays within 1/10,000 and 100 times l0_coefficient. Thresholds move by at
            most the learning rate a step: for a learning rate of 1e-3 or less, take three times it.
        pre_act_loss_coefficient: weight of a loss that pulls |h| of dead latents to the nearer
            threshold. None switches it off.
        auxk_coefficient: weight of a loss by which dead latents learn to reconstruct the error of
            the others (AuxK, arXiv 2406.04093). 0 switches it off.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead. null
            counts the runner's dead_feature_window of steps instead.
        dead_threshold_reset: whether the thresholds of dead latents are reset to
            jumprelu_init_threshold at every threshold_reset_interval. Off as in SAELens's
            jumprelu: a reset makes a latent active on nearly every token, and where a quarter of
            them was dead R2 was lower by up to 0.07 and target_l0 was missed.
        threshold_reset_interval: number of training steps between resets.
        dead_threshold_decay: share of its threshold, and of a b_mag below 0, that a dead latent
            loses in each step, until it is active again. 0 switches it off.
        use_sparse_activations: whether steps with few active latents compute with those alone,
            where that is faster (on a CPU): the same results up to rounding. feature_acts and
            hidden_pre of such a step are sparse COO tensors, as SAELens's topk has them, and have
            no gradient.
        format_version: format of cfg.json; leave as it is.
    """

    jumprelu_init_threshold: float = 0.1
    minus_bias_init: float | None = None
    jumprelu_bandwidth: float = 0.5
    jumprelu_sparsity_loss_mode: Literal["step", "tanh", "quadratic"] = "step"
    jumprelu_tanh_scale: float = 4.0
    jumprelu_ste_to_input: bool = False
    l0_coefficient: float = 1.0
    l0_warm_up_steps: int = 0
    pre_act_loss_coefficient: float | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.jumprelu_sparsity_loss_mode != "quadratic" or self.target_l0 is not None,
            "target_l0",
            self.target_l0,
            "set where jumprelu_sparsity_loss_mode is 'quadratic'",
        )
        bandwidth = self.jumprelu_bandwidth
        require(bandwidth > 0, "jumprelu_bandwidth", bandwidth, "a number above 0")
        require_threshold(self, "jumprelu_init_threshold")
        require_not_negative(self, "l0_coefficient", "l0_warm_up_steps")
        require_bias(self)
        if self.jumprelu_sparsity_loss_mode != "quadratic":
            require_steerable(self, "l0_coefficient")


class BiJumpReLUTrainingSAE(
    TiledStepMixin,
    SideBiasMixin,
    ThresholdTrainingMixin,
    _BiJumpReLU,
    TrainingSAE[BiJumpReLUTrainingSAEConfig],
):
    """Training SAE whose thresholds learn by straight-through estimators.

    Both the reconstruction and the sparsity loss reach them.
    """

    _sparsity_coefficient = "l0"

    @override
    def _activate(self, pre: Tensor, latents: Latents) -> Tensor:
        threshold = latents.rows_of(self.threshold.to(pre.dtype))
        return bi_jump_relu_ste(pre, threshold, latents.rows_of(self._size_bias), *self._estimator)

    @property
    def _estimator(self) -> tuple[float, bool]:
        """Bandwidth of the straight-through estimator, and whether it reaches the encoder."""
        return self.cfg.jumprelu_bandwidth, self.cfg.jumprelu_ste_to_input

    @override
    def _active_margin(self) -> float:
        # the estimators' windows count as well, a hair wider against rounding
        return 0.5001 * self.cfg.jumprelu_bandwidth

    @override
    def _needs_all_latents(self, step_input: TrainStepInput) -> bool:
        has_dead = step_input.dead_neuron_mask is not None
        return self.cfg.pre_act_loss_coefficient is not None and has_dead

    @override
    def _losses(
        self, step_input: TrainStepInput, pre: Tensor, z: Tensor, latents: Latents
    ) -> Losses:
        threshold = latents.rows_of(self.threshold.to(pre.dtype))
        W_dec_norm = latents.columns_of(self.W_dec.norm(dim=1))  # not a constant, as in SAELens
        if self.cfg.jumprelu_sparsity_loss_mode == "tanh":
            b_mag = latents.rows_of(self._size_bias)
            sparsity = self._tanh_of_sides(pre, threshold, b_mag, W_dec_norm)
        else:
            sparsity = bi_step_ste(pre, threshold, *self._estimator)
        per_token = latents.sum_by_token(sparsity)
        return self._losses_of(step_input, pre, per_token)

    def _losses_of(self, step_input: TrainStepInput, pre: Tensor, per_token: Tensor) -> Losses:
        # of each token's sparsity, (n_tokens,)
        cfg = self.cfg
        if cfg.jumprelu_sparsity_loss_mode == "quadratic":
            assert cfg.target_l0 is not None  # by the config's own check
            per_token = 2 / cfg.target_l0 * (per_token - cfg.target_l0) ** 2
        losses = {"l0_loss": step_input.coefficients["l0"] * per_token.mean()}
        dead = step_input.dead_neuron_mask
        if cfg.pre_act_loss_coefficient is not None and dead is not None:
            # of all latents, by _needs_all_latents
            gap = nearest_threshold_gap(pre, self.threshold.to(pre.dtype))
            gap = gap * (dead * self.W_dec.norm(dim=1))
            losses["pre_act_loss"] = cfg.pre_act_loss_coefficient * gap.sum(-1).mean()
        return losses

    @override
    def _tile_formulas(self) -> JumpTiles | None:
        cfg = self.cfg
        if cfg.jumprelu_sparsity_loss_mode == "tanh" or type(self) is not BiJumpReLUTrainingSAE:
            return None
        return JumpTiles(*self._estimator)

    @override
    def _tile_params(self) -> list[Tensor]:
        return [self.threshold.to(self.W_enc.dtype), self._size_bias]

    @override
    def _tiled_losses(self, step_input: TrainStepInput, step: TiledStep) -> Losses:
        return self._losses_of(step_input, step.pre, step.summed)

    def _tanh_of_sides(
        self, h: Tensor, threshold: Tensor, b_mag: Tensor, W_dec_norm: Tensor
    ) -> Tensor:
        """tanh(c |z| ||W_dec||), each side by itself, as two latents of SAELens's have it.

        The slope of |z| at 0 is 0, and would drop the inactive half of a window. Nor does the sign
        of h tell the side: near 0 the window of a side reaches past 0.
        """
        if h.dtype == torch.float16:  # no number of it is above every |h|, and can be divided
            h, threshold, b_mag = h.float(), threshold.float(), b_mag.float()
        closed = torch.full_like(threshold[:1], torch.finfo(h.dtype).max ** 0.5)
        total = torch.zeros_like(h)
        for sign, rows in ((1, [threshold[:1], closed]), (-1, [closed, threshold[-1:]])):
            z = bi_jump_relu_ste(h, torch.cat(rows), b_mag, *self._estimator)
            total = total + torch.tanh(self.cfg.jumprelu_tanh_scale * sign * z * W_dec_norm)
        return total

    @override
    def _steers_l0(self) -> bool:
        # "quadratic" holds L0 by its own loss
        return super()._steers_l0() and self.cfg.jumprelu_sparsity_loss_mode != "quadratic"

    @override
    def _threshold_init(self) -> float:
        return self.cfg.jumprelu_init_threshold - minus_bias_init_of(self.cfg) / 2

    @override
    def _reset_value(self) -> Tensor:
        # of |h|: so that z becomes active at jumprelu_init_threshold, whatever b_mag is by now
        return (self.cfg.jumprelu_init_threshold - self.b_mag.detach().float()).clamp(min=0.0)
