"""``sa_gsae``, the Sign-Aware Gated SAE of arXiv 2605.28149: configs, inference SAE, training SAE.

The formulas are in :mod:`sae_lens_signaware.saes.activations`. The details that the paper's
abstract does not fix are ours (docs/architectures.md).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from sae_lens import SAE, GatedSAE, GatedSAEConfig, TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes.activations import log_sum, signed_gate, soft_threshold
from sae_lens_signaware.saes.activations.tiles import GatedTiles
from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.config import (
    SignedFields,
    SignedSAEConfig,
    ThresholdTrainingSAEConfig,
    require_not_negative,
    require_steerable,
    require_threshold,
    require_whitening_folds,
)
from sae_lens_signaware.saes.latents import Latents
from sae_lens_signaware.saes.plain import both_sides, make_plain
from sae_lens_signaware.saes.thresholds import ThresholdTrainingMixin
from sae_lens_signaware.saes.tiled import TiledStep, TiledStepMixin
from sae_lens_signaware.saes.training import Losses

PolarityTying = Literal["full", "radii", "none"]

# Rows P of (threshold, r_mag, b_mag) by tying.
ROWS = {"full": (1, 1, 1), "radii": (2, 1, 2), "none": (2, 2, 2)}


@dataclass
class _SAGatedFields(SignedFields):
    polarity_tying: PolarityTying = "full"
    two_sided: bool = True

    @classmethod
    def architecture(cls) -> str:
        return "sa_gsae"


def _check(cfg: "SAGatedSAEConfig | SAGatedTrainingSAEConfig") -> None:
    require(
        cfg.two_sided or cfg.polarity_tying == "full",
        "polarity_tying",
        cfg.polarity_tying,
        "'full' where two_sided is false",
        "the - side is never active, so it has no parameters to untie",
    )
    require_whitening_folds(cfg, has_b_enc=False)


@dataclass
class SAGatedSAEConfig(_SAGatedFields, SignedSAEConfig):
    """Configuration of the inference SAE.

    Args:
        polarity_tying: which parameters the + and the - side of a latent share: "full"
            (threshold, r_mag and b_mag), "radii" (r_mag alone) or "none". It fixes the shapes of
            the weights.
        two_sided: False keeps the gate of the - side closed. This is then a plain Gated SAE.
        format_version: format of cfg.json; leave as it is.
    """

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)


class _SAGated(SignedSAEMixin):
    """Parameters, activation and plain twin of both SAEs."""

    r_mag: nn.Parameter
    b_mag: nn.Parameter
    _scales_with_pre_activation = ("threshold", "b_mag")

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        n_threshold, n_r_mag, n_b_mag = ROWS[self.cfg.polarity_tying]
        self.threshold = self._make_rows(n_threshold)
        self.r_mag = self._make_rows(n_r_mag)
        self.b_mag = self._make_rows(n_b_mag)

    @property
    @override
    def _two_sided(self) -> bool:
        return self.cfg.two_sided

    @override
    def _activate(self, pre: Tensor, latents: Latents) -> Tensor:
        # the gate passes no gradient to the threshold
        threshold = latents.rows_of(self.threshold.detach().to(pre.dtype))
        r_mag, b_mag = latents.rows_of(self.r_mag), latents.rows_of(self.b_mag)
        return signed_gate(pre, threshold, r_mag, b_mag, self._two_sided)

    @override
    def to_plain(self) -> GatedSAE:
        n_sides = 2 if self._two_sided else 1
        parameters = {
            "b_gate": -both_sides(self.threshold.clamp(min=0.0), n_sides),
            "r_mag": both_sides(self.r_mag, n_sides),
            "b_mag": both_sides(self.b_mag, n_sides),
        }
        return make_plain(self, GatedSAE, GatedSAEConfig, parameters, n_sides)


class SAGatedSAE(_SAGated, SAE[SAGatedSAEConfig]):
    """Inference SAE. ``encode`` gives signed latents, at most one side of a latent active.

    The activation is :func:`~sae_lens_signaware.saes.activations.signed_gate`.
    """


@dataclass(kw_only=True)
class SAGatedTrainingSAEConfig(_SAGatedFields, ThresholdTrainingSAEConfig):
    """Configuration of the training SAE.

        L = ||x - x^||^2 + l1 * sum_i |v_i| ||W_dec_i|| + aux_coefficient * ||x - x^_aux||^2

    Args:
        polarity_tying: which parameters the + and the - side of a latent share: "full"
            (threshold, r_mag and b_mag), "radii" (r_mag alone) or "none".
        two_sided: False keeps the gate of the - side closed: a Gated SAE trained as its paper says.
        sparsity_penalty: what keeps the gate path sparse: "l1", as the paper has it, or "log_sum",
            which hardly shrinks large latents and learns faster. Both have the slope
            l1_coefficient at 0.
        l1_coefficient: weight of the sparsity penalty on the gate path, after warm-up. With
            target_l0 it is only the starting point, and must be above 0.
        l1_warm_up_steps: number of steps over which that weight grows linearly from 0.
        target_l0: mean number of active latents per token to settle at. If set, the penalty's
            weight is steered during training to reach it. None keeps it at l1_coefficient.
        target_l0_rate: pace of that steering: L0 settles in about 1 / target_l0_rate steps, and
            the weight stays within 1/10,000 and 100 times l1_coefficient.
        aux_coefficient: weight of the auxiliary reconstruction from the gate path, which keeps the
            gate alive. 0 switches it off. The paper's is 1, with which more latents die.
        auxk_coefficient: weight of a loss by which dead latents learn to reconstruct the error of
            the others (AuxK, arXiv 2406.04093). 0 switches it off.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead. null
            counts the runner's dead_feature_window of steps instead.
        detach_decoder: whether the auxiliary reconstruction uses a frozen copy of the decoder, as
            the Gated SAE's paper does.
        detach_norm: whether the decoder norm in the sparsity penalty is a constant. False lets the
            penalty shrink the decoder.
        threshold_init: initial threshold of the gate, and the value that resets restore. Small
            values (0 or 0.01) train well.
        dead_threshold_reset: whether the thresholds of dead latents are reset to threshold_init at
            every threshold_reset_interval. In arXiv 2605.28149 they are.
        threshold_reset_interval: number of training steps between resets.
        dead_threshold_decay: share of its threshold that a dead latent loses in each step, until it
            is active again. 0 switches it off.
        use_sparse_activations: whether steps with few active latents compute with those alone,
            where that is faster (on a CPU): the same results up to rounding. feature_acts and
            hidden_pre of such a step are sparse COO tensors, as SAELens's topk has them, and have
            no gradient.
        format_version: format of cfg.json; leave as it is.
    """

    sparsity_penalty: Literal["l1", "log_sum"] = "l1"
    l1_coefficient: float = 1.0
    l1_warm_up_steps: int = 0
    aux_coefficient: float = 0.25
    detach_decoder: bool = True
    detach_norm: bool = True
    threshold_init: float = 0.0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)
        require_threshold(self, "threshold_init")
        require_not_negative(self, "l1_coefficient", "l1_warm_up_steps", "aux_coefficient")
        require_steerable(self, "l1_coefficient")


class SAGatedTrainingSAE(
    TiledStepMixin, ThresholdTrainingMixin, _SAGated, TrainingSAE[SAGatedTrainingSAEConfig]
):
    """Training SAE with two paths.

    The gate path v is trained by the sparsity penalty and the auxiliary loss, the signed magnitude
    path z by the reconstruction.
    """

    _sparsity_coefficient = "l1"

    @override
    def _losses(
        self, step_input: TrainStepInput, pre: Tensor, z: Tensor, latents: Latents
    ) -> Losses:
        cfg, threshold = self.cfg, latents.rows_of(self.threshold.to(pre.dtype))
        norm = latents.columns_of(self._norm()).to(pre.dtype)
        v, l1 = soft_threshold(pre, threshold, norm, cfg.two_sided)
        wide = torch.promote_types(l1.dtype, torch.float32)  # half of a batch's sum is inf
        penalty = log_sum(v, norm) if cfg.sparsity_penalty == "log_sum" else l1.sum(dtype=wide)
        product = None
        if cfg.aux_coefficient != 0:
            W_dec = self.W_dec.detach() if cfg.detach_decoder else self.W_dec
            product = latents.decode(v, W_dec)
        return self._gate_losses(step_input, penalty / latents.n_tokens, product)

    def _norm(self) -> Tensor:
        # norms of the decoder rows, (d_sae,)
        norm = self.W_dec.norm(dim=1)
        return norm.detach() if self.cfg.detach_norm else norm

    def _gate_losses(
        self, step_input: TrainStepInput, penalty: Tensor, product: Tensor | None
    ) -> Losses:
        # of the gate path's mean penalty, and of v @ W_dec
        cfg = self.cfg
        name = f"{cfg.sparsity_penalty}_loss"
        losses = {name: step_input.coefficients["l1"] * penalty}
        if product is not None:
            b_dec = self.b_dec.detach() if cfg.detach_decoder else self.b_dec
            recons = self._normalised_out(step_input.sae_in, product + b_dec)
            # _reconstruction_loss but for rounding, by which every training would change
            error = mse_loss(recons, step_input.sae_in) * recons.shape[-1]
            losses["auxiliary_reconstruction_loss"] = cfg.aux_coefficient * error
        return losses

    @override
    def _tile_formulas(self) -> GatedTiles | None:
        cfg = self.cfg
        by_tiles = (
            type(self) is SAGatedTrainingSAE,
            cfg.sparsity_penalty == "l1",
            cfg.aux_coefficient != 0,
            cfg.detach_decoder,
            cfg.detach_norm,
        )
        return GatedTiles(cfg.two_sided) if all(by_tiles) else None

    @override
    def _tile_params(self) -> list[Tensor]:
        threshold, norm = self.threshold.to(self.W_enc.dtype), self._norm()[None]
        return [threshold, self.r_mag, self.b_mag, norm]

    @override
    def _tiled_losses(self, step_input: TrainStepInput, step: TiledStep) -> Losses:
        return self._gate_losses(step_input, step.summed.mean(), step.products[1])

    @override
    def _ungated(self, pre: Tensor, latents: Latents) -> Tensor:
        r_mag, b_mag = latents.rows_of(self.r_mag), latents.rows_of(self.b_mag)
        return signed_gate(pre, torch.zeros_like(b_mag), r_mag, b_mag, self._two_sided)

    @override
    def _threshold_init(self) -> float:
        return self.cfg.threshold_init
