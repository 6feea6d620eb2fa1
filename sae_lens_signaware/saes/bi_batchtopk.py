"""``bi_batchtopk``, a two-sided BatchTopK: training config and training SAE.

SAELens's ``batchtopk`` (arXiv 2412.06410) by the size of the pre-activations, signs kept; ours
(docs/architectures.md). It is saved as ``bi_jumprelu``, as ``batchtopk`` is saved as ``jumprelu``.
"""

from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUSAE,
    SAEConfig,
    TrainingSAE,
)
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes.activations import bi_batch_topk
from sae_lens_signaware.saes.bi_jumprelu import BiJumpReLUSAE, BiJumpReLUSAEConfig
from sae_lens_signaware.saes.keeps_largest import KeepsLargestFields, KeepsLargestMixin, encoder_of
from sae_lens_signaware.saes.largest import encode_largest
from sae_lens_signaware.saes.latents import ActiveLatents, Latents

CUTOFF_MARGIN = 0.9
"""Factor of the last batch's cutoff at which the next batch is first looked at."""


@torch.compiler.disable  # a graph cannot hold a tensor of so many values as are active
def _update_threshold(sae: "BiBatchTopKTrainingSAE", coo: Tensor) -> None:
    sae.update_topk_threshold(coo.values())


@dataclass
class BiBatchTopKTrainingSAEConfig(KeepsLargestFields, BatchTopKTrainingSAEConfig):
    """Configuration of the training SAE. Names are those of SAELens's batchtopk.

    Args:
        polarity_tying: "full": both sides of a latent share the one threshold.
        k: mean number of active latents per token. A batch of n tokens has int(k * n) of them.
        topk_threshold_lr: pace at which the running threshold follows the smallest size that a
            batch keeps. It becomes the threshold of the saved ``bi_jumprelu``.
        minus_bias_init: initial bias of the - sides; that of the + sides is 0. Below 0 a latent
            starts as a latent of one side, and takes up the other where that pays. null takes
            -min(2, sqrt(d_in / k) / 2).
        aux_loss_coefficient: weight of a loss by which dead latents learn to reconstruct the error
            of the others (AuxK, arXiv 2406.04093). 0 switches it off.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead. For
            k above 64 it is 64 / k times as many. null counts the runner's dead_feature_window of
            steps instead.
        aux_k: how many dead latents of a token learn so. With more of them each one's share of the
            error is smaller, and may stay below what the batch keeps. null takes half of d_in.
        k_anneal_steps: number of first steps in which k falls linearly, from half of d_in to its
            value. 0 switches it off.
        dead_threshold_decay: share of a b_mag below 0 that a dead latent loses in each step, until
            it is active again. 0 switches it off.
        rescale_acts_by_decoder_norm: whether pre-activations are multiplied by the norms of the
            decoder rows, and the rows divided by them.
        use_sparse_activations: whether steps compute with the active latents alone, where that is
            faster (on a CPU): the same results up to rounding. feature_acts and hidden_pre of such
            a step are sparse COO tensors, as SAELens's topk has them, and have no gradient.
        format_version: format of cfg.json; leave as it is.
    """

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        lr = self.topk_threshold_lr
        require(0 < lr <= 1, "topk_threshold_lr", lr, "a number above 0 and at most 1")

    @classmethod
    @override
    def architecture(cls) -> str:
        return "bi_batchtopk"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        return BiJumpReLUSAEConfig


class BiBatchTopKTrainingSAE(KeepsLargestMixin, BatchTopKTrainingSAE):
    """Training SAE that keeps the k * n latents of n tokens that are largest in size.

        h = x_c @ W_enc + b_enc,    u = sign(h) relu(|h| + b_mag),    z = u of the k * n largest |u|

    Adds ``b_mag`` (1, d_sae) to the parameters of SAELens's ``batchtopk``; with ``b_enc`` it makes
    a bias for each side. Feature activations are in units of unit decoder rows, as SAELens's
    ``topk`` has them, where ``rescale_acts_by_decoder_norm`` is on. ``topk_threshold`` () float64
    is SAELens's buffer.
    """

    # narrowed as SAELens narrows it
    cfg: BiBatchTopKTrainingSAEConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    _kept_in_own_dtype = ("topk_threshold",)
    _cutoff: float | None = None  # about the smallest size that the last batch kept; for speed

    @override
    def get_activation_fn(self):
        k = self.cfg.k  # self in the function, which it keeps, would keep it from being freed
        return lambda pre: bi_batch_topk(pre, int(k * pre.shape[:-1].numel()))

    def _n_largest(self, n_tokens: int) -> int:
        return int(self._k * n_tokens)  # rounded as SAELens's BatchTopK does

    @override
    def _activate(self, pre: Tensor, latents: Latents) -> Tensor:
        return bi_batch_topk(self._ungated(pre, latents), self._n_largest(latents.n_tokens))

    @override
    def _density(self) -> float:
        return self._k / self.cfg.d_sae

    @override
    def _find_active(self, x_c: Tensor, margin: float) -> tuple[ActiveLatents, Tensor] | None:
        del margin
        x = x_c.reshape(-1, x_c.shape[-1])
        largest = encode_largest(x, encoder_of(self), self._n_largest(len(x)), self._cutoff)
        if largest is None:
            return None
        latents, pre, smallest = largest
        # of a step alone: one of other inputs may let every pre-activation of the next step pass,
        # and so would 0 of an empty batch
        if smallest > 0 and self._annealed is not None:
            self._cutoff = CUTOFF_MARGIN * smallest
        return latents, pre

    @override
    def _dense_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        # past what SAELens's BatchTopK adds: its threshold knows the + side alone
        return TrainingSAE.training_forward_pass(self, step_input)

    @override
    def _end_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        super()._end_step(step_input, output)
        acts = output.feature_acts
        if self.training and acts.is_sparse:
            # torch types what its decorator gives as the decorator itself
            _update_threshold(self, acts)  # pyright: ignore[reportCallIssue]
        elif self.training:
            self.update_topk_threshold(acts)
        output.metrics["topk_threshold"] = self.topk_threshold

    @override
    @torch.no_grad()
    def update_topk_threshold(self, acts_topk: Tensor) -> None:
        """Move the running threshold towards the smallest size among the active latents.

        Args:
            acts_topk: any shape, signed; 0 where inactive.
        """
        if not acts_topk.numel():
            return
        size = acts_topk.detach().abs()
        smallest = torch.where(size > 0, size, torch.inf).min().to(self.topk_threshold.dtype)
        lr = self.cfg.topk_threshold_lr
        moved = (1 - lr) * self.topk_threshold + lr * smallest
        # chosen without a wait for the device; inf where no latent is active
        self.topk_threshold = torch.where(smallest.isfinite(), moved, self.topk_threshold)

    @override
    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """SAELens's, and the running threshold where it is in units of the decoder norm."""
        # past SAELens's batchtopk, which folds its threshold in any unit
        super(BatchTopKTrainingSAE, self).fold_activation_norm_scaling_factor(scaling_factor)
        if self.cfg.rescale_acts_by_decoder_norm:
            self.topk_threshold = self.topk_threshold / scaling_factor

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Write the thresholds of h, (1, d_sae), after what the bases do.

        The running threshold is one of |z|, so it is less b_mag one of |h|.
        """
        super().process_state_dict_for_saving_inference(state_dict)
        threshold = torch.relu(state_dict["threshold"] - state_dict["b_mag"])
        state_dict["threshold"] = threshold.to(self.dtype)

    def to_inference(self) -> BiJumpReLUSAE:
        """The ``bi_jumprelu`` of the same width that ``save_inference_model`` saves, a copy."""
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        self.process_state_dict_for_saving_inference(state)
        cfg = BiJumpReLUSAEConfig.from_dict(self.cfg.get_inference_sae_cfg_dict())
        sae = BiJumpReLUSAE(cfg)
        sae.load_state_dict(state)
        return sae.to(self.device)

    @override
    def to_plain(self) -> JumpReLUSAE:
        return self.to_inference().to_plain()
