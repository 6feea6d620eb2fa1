"""``bi_jumprelu``, a two-sided JumpReLU: configs, inference SAE, training SAE.

After SAELens's ``jumprelu`` (arXiv 2407.14435), made two-sided; the two-sided formulas are ours
(docs/architectures.md) and live in :mod:`sae_lens_signaware.saes.activations`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sae_lens import SAE, SAEConfig, TrainingSAE, TrainingSAEConfig
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput
from torch import Tensor, nn
from typing_extensions import override

from sae_lens_signaware.checks import check_types, require
from sae_lens_signaware.saes.activations import (
    bi_jump_relu_ste,
    bi_jump_step,
    bi_step_ste,
    nearest_threshold_gap,
)
from sae_lens_signaware.saes.base import FORMAT_VERSION, SignedSAEMixin, validate_signed_config
from sae_lens_signaware.saes.sparse import OpenLatents
from sae_lens_signaware.saes.training import (
    SignedTrainingMixin,
    parameter_histograms,
    validate_training_config,
)

# Rows P of threshold by tying.
ROWS = {"full": 1, "none": 2}
SPARSITY_LOSS_MODES = ("step", "tanh", "quadratic")


@dataclass
class BiJumpReLUSAEConfig(SAEConfig):
    """Configuration of the inference SAE.

    Args:
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each. It fixes the shape of the weights.
        format_version: format of cfg.json; leave as it is.
    """

    polarity_tying: Literal["full", "none"] = "full"
    format_version: int = FORMAT_VERSION

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_jumprelu"

    @override
    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        validate_signed_config(self, ROWS)


class _BiJumpReLU(SignedSAEMixin):
    """Parameters and pre-activations of both SAEs. SAELens's base folds b_enc by itself."""

    b_enc: nn.Parameter

    def initialize_weights(self) -> None:
        super().initialize_weights()  # type: ignore[misc]
        cfg: Any = self.cfg
        self.threshold = self._make_rows(ROWS[cfg.polarity_tying])
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae, dtype=self.dtype, device=self.device))

    def _encode_dense(self, x: Tensor, x_c: Tensor) -> tuple[Tensor, Tensor]:
        h = self.hook_sae_acts_pre(self._encoder_product(x, x_c) + self.b_enc)
        return self.hook_sae_acts_post(self._activate(h, self.threshold.to(h.dtype))), h

    def _activate(self, h: Tensor, threshold: Tensor) -> Tensor:
        return bi_jump_step(h, threshold)

    def _open_latents(self, x_c: Tensor) -> tuple[OpenLatents, Tensor] | None:
        return self._open_pre(x_c, 0.0)  # where a latent is open, z is h

    def _open_pre(self, x_c: Tensor, margin: float) -> tuple[OpenLatents, Tensor] | None:
        return self._find_open(x_c, self.threshold.detach(), self.b_enc, True, margin)


class BiJumpReLUSAE(_BiJumpReLU, SAE[BiJumpReLUSAEConfig]):
    """Inference SAE. ``encode`` gives the signed latents of :func:`~sae_lens_signaware.saes.activations.bi_jump_step`."""


@dataclass(kw_only=True)
class BiJumpReLUTrainingSAEConfig(TrainingSAEConfig):
    """Configuration of the training SAE. Names and modes are those of SAELens's jumprelu.

    Args:
        polarity_tying: "full": both sides of a latent share one threshold; "none": one each.
        jumprelu_init_threshold: initial threshold, and the value that resets restore.
        jumprelu_bandwidth: width of the straight-through estimator's window around each threshold, in units of the pre-activation. 0.5 trains well on inputs of mean norm sqrt(d_in).
        jumprelu_sparsity_loss_mode: "step" penalises L0, "tanh" penalises tanh of |z| times the decoder norm, "quadratic" penalises the squared distance of L0 from target_l0.
        jumprelu_tanh_scale: scale inside the tanh; only for that mode.
        jumprelu_ste_to_input: whether the straight-through estimator also reaches the encoder.
        l0_coefficient: weight of the sparsity loss after warm-up. With target_l0 in "step" or "tanh" mode it is only the starting point.
        l0_warm_up_steps: number of steps over which that weight grows linearly from 0.
        target_l0: mean number of open latents per token to settle at. Required by "quadratic"; in "step" and "tanh" mode, if set, the weight is steered during training to reach it.
        target_l0_rate: pace of that steering: L0 settles in about 1 / target_l0_rate steps, and the weight stays within 1/100 and 100 times l0_coefficient. Thresholds move by at most the learning rate a step, so for a learning rate far below 1e-3 take one of its order.
        pre_act_loss_coefficient: weight of a loss that pulls |h| of dead latents to the nearer threshold. None switches it off.
        auxk_coefficient: weight of a loss by which dead latents learn to reconstruct the error of the others (AuxK, arXiv 2406.04093). 0 switches it off. Latents count as dead by the runner's dead_feature_window.
        dead_threshold_reset: whether the thresholds of dead latents are reset to jumprelu_init_threshold at every threshold_reset_interval. Off as in SAELens's jumprelu: a reset opens a latent on nearly every token, and where a quarter of them was dead R2 was lower by up to 0.07 and target_l0 was missed.
        threshold_reset_interval: number of training steps between resets. Latents count as dead by the runner's dead_feature_window.
        use_sparse_activations: whether steps with few open latents compute with those alone, where that is faster (on a CPU): the same results up to rounding. feature_acts and hidden_pre of such a step are sparse COO tensors, as SAELens's topk has them.
        format_version: format of cfg.json; leave as it is.
    """

    polarity_tying: Literal["full", "none"] = "full"
    jumprelu_init_threshold: float = 0.1
    jumprelu_bandwidth: float = 0.5
    jumprelu_sparsity_loss_mode: Literal["step", "tanh", "quadratic"] = "step"
    jumprelu_tanh_scale: float = 4.0
    jumprelu_ste_to_input: bool = False
    l0_coefficient: float = 1.0
    l0_warm_up_steps: int = 0
    target_l0: float | None = None
    target_l0_rate: float = 0.02
    pre_act_loss_coefficient: float | None = None
    auxk_coefficient: float = 0.0
    # The design has it on. Measured, docs/reproduction.md: it brings few latents back, and costs R2 where many are dead.
    dead_threshold_reset: bool = False
    threshold_reset_interval: int = 500
    use_sparse_activations: bool = True
    format_version: int = FORMAT_VERSION

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bi_jumprelu"

    @override
    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        validate_signed_config(self, ROWS)
        validate_training_config(self)
        mode = self.jumprelu_sparsity_loss_mode
        require(
            mode in SPARSITY_LOSS_MODES,
            "jumprelu_sparsity_loss_mode",
            mode,
            f"one of {', '.join(SPARSITY_LOSS_MODES)}",
        )
        require(
            mode != "quadratic" or self.target_l0 is not None,
            "target_l0",
            self.target_l0,
            "set where jumprelu_sparsity_loss_mode is 'quadratic'",
        )
        require(
            self.jumprelu_bandwidth > 0,
            "jumprelu_bandwidth",
            self.jumprelu_bandwidth,
            "a number above 0",
        )
        for field in ("jumprelu_init_threshold", "l0_coefficient", "l0_warm_up_steps"):
            value = getattr(self, field)
            require(value >= 0, field, value, "a number >= 0")


class BiJumpReLUTrainingSAE(
    SignedTrainingMixin, _BiJumpReLU, TrainingSAE[BiJumpReLUTrainingSAEConfig]
):
    """Training SAE: the reconstruction and the sparsity loss both reach the thresholds, by straight-through estimators."""

    _sparsity_coefficient = "l0"

    @override
    def _activate(self, h: Tensor, threshold: Tensor) -> Tensor:
        cfg = self.cfg
        return bi_jump_relu_ste(h, threshold, cfg.jumprelu_bandwidth, cfg.jumprelu_ste_to_input)

    @override
    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Tensor,
        hidden_pre: Tensor,
        sae_out: Tensor,
    ) -> dict[str, Tensor]:
        """Sparsity loss of the mode in force, and the pre-activation loss where it is on; means over the batch."""
        cfg = self.cfg
        threshold = self.threshold.to(hidden_pre.dtype)
        W_dec_norm = self.W_dec.norm(dim=1)  # its gradient is on, as in SAELens's jumprelu
        per_latent = self._sparsity(hidden_pre, feature_acts, threshold, W_dec_norm)
        losses = self._sparsity_loss(step_input, per_latent.sum(-1))
        dead = step_input.dead_neuron_mask
        if cfg.pre_act_loss_coefficient is not None and dead is not None:
            gap = nearest_threshold_gap(hidden_pre, threshold) * (dead * W_dec_norm)
            losses["pre_act_loss"] = cfg.pre_act_loss_coefficient * gap.sum(-1).mean()
        return losses | self._auxk_losses(step_input, sae_out, lambda of: hidden_pre[..., of])

    @override
    def _ungated(self, pre: Tensor, columns: Tensor | slice) -> Tensor:
        del columns
        return pre

    @override
    def _pre_of(self, x_c: Tensor, columns: Tensor | slice) -> Tensor:
        return x_c @ self.W_enc[:, columns] + self.b_enc[columns]

    @override
    def _open_step(
        self, step_input: TrainStepInput, x_c: Tensor
    ) -> tuple[OpenLatents, Tensor, Tensor, dict[str, Tensor]] | None:
        cfg = self.cfg
        if cfg.pre_act_loss_coefficient is not None and step_input.dead_neuron_mask is not None:
            return None  # that loss is about shut latents
        # the estimators' windows count as well, a hair wider against rounding
        found = self._open_pre(x_c, 0.5001 * cfg.jumprelu_bandwidth)
        if found is None:
            return None
        opened, values = found
        h = self._open_hidden_pre(values, x_c, self.b_enc, opened)
        threshold = opened.rows_of(self.threshold.to(h.dtype))
        z = self._activate(h, threshold)
        norm = self.W_dec.norm(dim=1).index_select(0, opened.latent)
        per_latent = self._sparsity(h, z, threshold, norm)
        per_item = h.new_zeros(opened.n_tokens).index_add(0, opened.token, per_latent)
        return opened, h, z, self._sparsity_loss(step_input, per_item)

    def _sparsity(self, h: Tensor, z: Tensor, threshold: Tensor, W_dec_norm: Tensor) -> Tensor:
        # what each latent adds to its token's sparsity; the arguments of one shape or (d_sae,) rows
        cfg = self.cfg
        if cfg.jumprelu_sparsity_loss_mode == "tanh":
            # not abs(z): its slope at 0 is 0, and would drop the half of the window that is shut
            magnitude = torch.where(h > 0, z, -z)
            return torch.tanh(cfg.jumprelu_tanh_scale * magnitude * W_dec_norm)
        return bi_step_ste(h, threshold, cfg.jumprelu_bandwidth, cfg.jumprelu_ste_to_input)

    def _sparsity_loss(self, step_input: TrainStepInput, per_item: Tensor) -> dict[str, Tensor]:
        if self.cfg.jumprelu_sparsity_loss_mode == "quadratic":
            assert self.cfg.target_l0 is not None  # by the config's own check
            per_item = 2 / self.cfg.target_l0 * (per_item - self.cfg.target_l0) ** 2
        return {"l0_loss": step_input.coefficients["l0"] * per_item.mean()}

    @override
    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        return {
            "l0": TrainCoefficientConfig(
                value=self.cfg.l0_coefficient, warm_up_steps=self.cfg.l0_warm_up_steps
            )
        }

    @override
    def log_histograms(self) -> dict[str, Any]:
        return super().log_histograms() | parameter_histograms(self, ("threshold", "b_enc"))

    @override
    def _steers_l0(self) -> bool:
        # "quadratic" holds L0 by its own loss
        return self.cfg.jumprelu_sparsity_loss_mode != "quadratic"

    @override
    def _threshold_init(self) -> float:
        return self.cfg.jumprelu_init_threshold

    @override
    def _warm_up_steps(self) -> int:
        return self.cfg.l0_warm_up_steps
