"""``sa_gsae``, the Sign-Aware Gated SAE of arXiv 2605.28149: configs, inference SAE, training SAE.

The formulas are in :mod:`sae_lens_signaware.saes.activations`; the details that the paper's abstract
does not fix are ours (docs/architectures.md).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sae_lens import SAE, SAEConfig, TrainingSAE, TrainingSAEConfig
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput
from torch import Tensor, nn
from typing_extensions import override

from sae_lens_signaware.checks import check_types, require
from sae_lens_signaware.saes.activations import bi_jump_relu, log_sum, soft_threshold
from sae_lens_signaware.saes.base import (
    FORMAT_VERSION,
    PolarityTying,
    SignedSAEMixin,
    validate_signed_config,
)
from sae_lens_signaware.saes.sparse import OpenLatents, decode_open
from sae_lens_signaware.saes.training import (
    SignedTrainingMixin,
    parameter_histograms,
    validate_training_config,
)

SparsityPenalty = Literal["l1", "log_sum"]

# Rows P of (threshold, r_mag, b_mag) by tying.
ROWS = {"full": (1, 1, 1), "radii": (2, 1, 2), "none": (2, 2, 2)}


def _validate(cfg: Any) -> None:
    validate_signed_config(cfg, ROWS)
    require(
        cfg.two_sided or cfg.polarity_tying == "full",
        "polarity_tying",
        cfg.polarity_tying,
        "'full' where two_sided is false",
        "the - side never opens, so it has no parameters to untie",
    )
    require(
        cfg.normalize_activations != "covariance_whitening" or cfg.apply_b_dec_to_input,
        "apply_b_dec_to_input",
        cfg.apply_b_dec_to_input,
        "true with normalize_activations='covariance_whitening'",
        "folding the whitening shifts pi, and sa_gsae has no encoder bias to absorb that",
    )


@dataclass
class SAGatedSAEConfig(SAEConfig):
    """Configuration of the inference SAE.

    Args:
        polarity_tying: which parameters the + and the - side of a latent share: "full" (threshold, r_mag and b_mag), "radii" (r_mag alone) or "none". It fixes the shapes of the weights.
        two_sided: False keeps the - side of every latent shut, which makes this a plain Gated SAE.
        format_version: format of cfg.json; leave as it is.
    """

    polarity_tying: PolarityTying = "full"
    two_sided: bool = True
    format_version: int = FORMAT_VERSION

    @override
    @classmethod
    def architecture(cls) -> str:
        return "sa_gsae"

    @override
    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        _validate(self)


class _SAGated(SignedSAEMixin):
    """Parameters and encoder of both SAEs."""

    r_mag: nn.Parameter
    b_mag: nn.Parameter
    _scales_with_pre_activation = ("threshold", "b_mag")

    def initialize_weights(self) -> None:
        super().initialize_weights()  # type: ignore[misc]
        cfg: Any = self.cfg
        n_threshold, n_r_mag, n_b_mag = ROWS[cfg.polarity_tying]
        self.threshold = self._make_rows(n_threshold)
        self.r_mag = self._make_rows(n_r_mag)
        self.b_mag = self._make_rows(n_b_mag)

    def _encode_dense(self, x: Tensor, x_c: Tensor) -> tuple[Tensor, Tensor]:
        pi = self.hook_sae_acts_pre(self._encoder_product(x, x_c))
        rows = (self.threshold.to(pi.dtype), self.r_mag, self.b_mag)
        return self.hook_sae_acts_post(bi_jump_relu(pi, *rows, self.cfg.two_sided)), pi

    def _open_rows(self, opened: OpenLatents) -> tuple[Tensor, Tensor, Tensor]:
        # (P, n_open) each, in the dtype of the encoder as the dense path has them
        rows = (self.threshold.to(self.W_enc.dtype), self.r_mag, self.b_mag)
        threshold, r_mag, b_mag = (opened.rows_of(row) for row in rows)
        return threshold, r_mag, b_mag

    def _open_latents(self, x_c: Tensor) -> tuple[OpenLatents, Tensor] | None:
        found = self._open_pre(x_c)
        if found is None:
            return None
        opened, pi = found
        return opened, bi_jump_relu(pi, *self._open_rows(opened), self.cfg.two_sided)

    def _open_pre(self, x_c: Tensor) -> tuple[OpenLatents, Tensor] | None:
        return self._find_open(x_c, self.threshold.detach(), None, self.cfg.two_sided, 0.0)


class SAGatedSAE(_SAGated, SAE[SAGatedSAEConfig]):
    """Inference SAE. ``encode`` gives the signed latents of :func:`~sae_lens_signaware.saes.activations.bi_jump_relu`;
    at most one side of a latent is open."""


@dataclass(kw_only=True)
class SAGatedTrainingSAEConfig(TrainingSAEConfig):
    """Configuration of the training SAE. L = ||x - x^||^2 + l1 * sum_i |v_i| ||W_dec_i|| + aux_coefficient * ||x - x^_aux||^2.

    Args:
        polarity_tying: which parameters the + and the - side of a latent share: "full" (threshold, r_mag and b_mag), "radii" (r_mag alone) or "none".
        two_sided: False keeps the - side of every latent shut: a Gated SAE trained as its paper says.
        sparsity_penalty: what keeps the gate path sparse: "l1", as the paper has it, or "log_sum", which hardly shrinks large latents and learns faster. Both have the slope l1_coefficient at 0.
        l1_coefficient: weight of the sparsity penalty on the gate path, after warm-up. With target_l0 it is only the starting point.
        l1_warm_up_steps: number of steps over which that weight grows linearly from 0.
        target_l0: mean number of open latents per token to settle at. If set, the penalty's weight is steered during training to reach it. None keeps the weight at l1_coefficient.
        target_l0_rate: pace of that steering: L0 settles in about 1 / target_l0_rate steps, and the weight stays within 1/100 and 100 times l1_coefficient.
        aux_coefficient: weight of the auxiliary reconstruction from the gate path, which keeps the gate alive. 0 switches it off.
        auxk_coefficient: weight of a loss by which dead latents learn to reconstruct the error of the others (AuxK, arXiv 2406.04093). 0 switches it off. Latents count as dead by the runner's dead_feature_window.
        detach_decoder: whether the auxiliary reconstruction uses a frozen copy of the decoder, as the Gated SAE's paper does.
        detach_norm: whether the decoder norm in the sparsity penalty is a constant. False lets it shrink the decoder.
        threshold_init: initial threshold of the gate, and the value that resets restore. Small values (0 or 0.01) train well.
        dead_threshold_reset: whether the thresholds of dead latents are reset to threshold_init at every threshold_reset_interval.
        threshold_reset_interval: number of training steps between resets. Latents count as dead by the runner's dead_feature_window.
        use_sparse_activations: whether steps with few open latents compute with those alone, where that is faster (on a CPU): the same results up to rounding. feature_acts and hidden_pre of such a step are sparse COO tensors, as SAELens's topk has them.
        format_version: format of cfg.json; leave as it is.
    """

    polarity_tying: PolarityTying = "full"
    two_sided: bool = True
    sparsity_penalty: SparsityPenalty = "l1"
    l1_coefficient: float = 1.0
    l1_warm_up_steps: int = 0
    target_l0: float | None = None
    target_l0_rate: float = 0.02
    aux_coefficient: float = 1.0
    auxk_coefficient: float = 0.0
    detach_decoder: bool = True
    detach_norm: bool = True
    threshold_init: float = 0.0
    dead_threshold_reset: bool = True
    threshold_reset_interval: int = 500
    use_sparse_activations: bool = True
    format_version: int = FORMAT_VERSION

    @override
    @classmethod
    def architecture(cls) -> str:
        return "sa_gsae"

    @override
    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        _validate(self)
        validate_training_config(self)
        for field in (
            "threshold_init",
            "l1_coefficient",
            "l1_warm_up_steps",
            "aux_coefficient",
        ):
            value = getattr(self, field)
            require(value >= 0, field, value, "a number >= 0")


class SAGatedTrainingSAE(SignedTrainingMixin, _SAGated, TrainingSAE[SAGatedTrainingSAEConfig]):
    """Training SAE: a gate path v trained by L1 and the auxiliary loss, a signed magnitude path z by the reconstruction."""

    _sparsity_coefficient = "l1"

    @override
    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Tensor,
        hidden_pre: Tensor,
        sae_out: Tensor,
    ) -> dict[str, Tensor]:
        """Sparsity penalty on the gate path and the auxiliary reconstruction from it (docs/architectures.md), means over the batch."""
        del feature_acts
        threshold = self.threshold.to(hidden_pre.dtype)
        norm = self._l1_norm().to(hidden_pre.dtype)
        v, l1 = soft_threshold(hidden_pre, threshold, norm, self.cfg.two_sided)
        losses = self._sparsity_loss(step_input, v, norm, l1.mean(), l1.numel())
        if self.cfg.aux_coefficient != 0:
            product = v @ self._auxiliary_decoder()
            losses |= self._auxiliary_loss(step_input.sae_in, product)
        return losses | self._auxk_losses(step_input, sae_out, lambda of: hidden_pre[..., of])

    @override
    def _ungated(self, pre: Tensor, columns: Tensor | slice) -> Tensor:
        r_mag, b_mag = self.r_mag[:, columns], self.b_mag[:, columns]
        return bi_jump_relu(pre, torch.zeros_like(b_mag), r_mag, b_mag, self.cfg.two_sided)

    @override
    def _pre_of(self, x_c: Tensor, columns: Tensor | slice) -> Tensor:
        return x_c @ self.W_enc[:, columns]

    @override
    def _open_step(
        self, step_input: TrainStepInput, x_c: Tensor
    ) -> tuple[OpenLatents, Tensor, Tensor, dict[str, Tensor]] | None:
        found = self._open_pre(x_c)
        if found is None:
            return None
        opened, values = found
        pi = self._open_hidden_pre(values, x_c, None, opened)
        rows = self._open_rows(opened)
        z = bi_jump_relu(pi, *rows, self.cfg.two_sided)
        norm = self._l1_norm().index_select(0, opened.latent)
        v, l1 = soft_threshold(pi, rows[0], norm, self.cfg.two_sided)
        losses = self._sparsity_loss(step_input, v, norm, l1 / opened.n_tokens, opened.n_tokens)
        if self.cfg.aux_coefficient != 0:
            product = decode_open(v, self._auxiliary_decoder(), opened)
            losses |= self._auxiliary_loss(step_input.sae_in, product)
        return opened, pi, z, losses

    def _sparsity_loss(
        self, step_input: TrainStepInput, v: Tensor, norm: Tensor, l1: Tensor, n_tokens: int
    ) -> dict[str, Tensor]:
        penalty = self.cfg.sparsity_penalty
        mean = log_sum(v, norm) / n_tokens if penalty == "log_sum" else l1
        return {f"{penalty}_loss": step_input.coefficients["l1"] * mean}

    def _l1_norm(self) -> Tensor:
        norm = self.W_dec.norm(dim=1)
        return norm.detach() if self.cfg.detach_norm else norm

    def _auxiliary_decoder(self) -> Tensor:
        return self.W_dec.detach() if self.cfg.detach_decoder else self.W_dec

    def _auxiliary_loss(self, sae_in: Tensor, product: Tensor) -> dict[str, Tensor]:
        b_dec = self.b_dec.detach() if self.cfg.detach_decoder else self.b_dec
        recons = self._normalised_out(sae_in, product + b_dec)
        error = (recons - sae_in).pow(2).sum(-1).mean()
        return {"auxiliary_reconstruction_loss": self.cfg.aux_coefficient * error}

    @override
    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        return {
            "l1": TrainCoefficientConfig(
                value=self.cfg.l1_coefficient, warm_up_steps=self.cfg.l1_warm_up_steps
            )
        }

    @override
    def log_histograms(self) -> dict[str, Any]:
        return super().log_histograms() | parameter_histograms(
            self, ("threshold", "r_mag", "b_mag")
        )

    @override
    def _threshold_init(self) -> float:
        return self.cfg.threshold_init

    @override
    def _warm_up_steps(self) -> int:
        return self.cfg.l1_warm_up_steps
