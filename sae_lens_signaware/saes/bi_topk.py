"""``bi_topk``, a two-sided TopK with a bias for each side: configs, inference SAE, training SAE.

TopK (arXiv 2406.04093) by the size of the pre-activations, signs kept, as SAELens's ``abstopk``
(arXiv 2510.00404) has it. The bias for each side is ours (docs/architectures.md).
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sae_lens import TopKSAE, TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor, nn
from typing_extensions import override

from sae_lens_signaware.saes.activations import bi_topk, shifted
from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.config import SignedSAEConfig, require_k
from sae_lens_signaware.saes.keeps_largest import (
    KeepsLargestFields,
    KeepsLargestMixin,
    encoder_of,
    fold_choice_norm,
)
from sae_lens_signaware.saes.largest import encode_largest_of_tokens
from sae_lens_signaware.saes.latents import ActiveLatents, Latents
from sae_lens_signaware.saes.plain import both_sides, make_plain


@dataclass
class BiTopKSAEConfig(SignedSAEConfig, TopKSAEConfig):
    """Configuration of the inference SAE. Names are those of SAELens's topk.

    Args:
        polarity_tying: "full": both sides of a latent share the one decoder row.
        k: number of active latents of each token.
        rescale_acts_by_decoder_norm: whether pre-activations are multiplied by the norms of the
            decoder rows, and the rows divided by them.
        format_version: format of cfg.json; leave as it is.
    """

    polarity_tying: Literal["full"] = "full"
    format_version: int = 2

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_k(self)

    @classmethod
    @override
    def architecture(cls) -> str:
        return "bi_topk"


class _BiTopK(SignedSAEMixin):
    """Parameters and plain twin of both SAEs.

        h = x_c @ W_enc + b_enc,    u = sign(h) relu(|h| + b_mag),    b_mag <= 0
        z = u of the k largest |u| of each token

    ``b_mag`` (1, d_sae): b_mag + b_enc and b_mag - b_enc are what the sides of the plain twin have
    as b_enc. It is at most 0, so that one side of a latent alone can be above 0 there.
    """

    b_enc: nn.Parameter
    b_mag: nn.Parameter
    _scales_with_pre_activation = ("b_mag",)

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.b_mag = self._make_rows(1)

    @property
    def _k(self) -> float:
        return self.cfg.k

    def get_activation_fn(self):  # in place of SAELens's TopK, by which tools know its kind
        k = int(self.cfg.k)  # self in the function, which it keeps, would keep it from being freed
        return lambda pre: bi_topk(pre, k)

    @property
    @override
    def _size_bias(self) -> Tensor:
        # A training clamps b_mag before each step, so this takes no gradient away. torch's clamp
        # does so at the bound, from 2.15 on. super()'s property cannot be compiled.
        b_mag = self.b_mag.to(self.W_enc.dtype)
        return torch.where(b_mag > 0, 0.0, b_mag)

    @override
    def _latent_scale(self) -> Tensor | None:
        return self.get_W_dec_norm() if self.cfg.rescale_acts_by_decoder_norm else None

    @override
    def _activate(self, pre: Tensor, latents: Latents) -> Tensor:
        u = shifted(pre, self._scaled(latents.rows_of(self._size_bias), latents))
        # active latents are the k of each token already
        return u if isinstance(latents, ActiveLatents) else bi_topk(u, int(self._k))

    @override
    def _density(self) -> float:
        return self._k / self.cfg.d_sae

    @override
    def _find_active(self, x_c: Tensor, margin: float) -> tuple[ActiveLatents, Tensor] | None:
        del margin
        x = x_c.reshape(-1, x_c.shape[-1])
        return encode_largest_of_tokens(x, encoder_of(self), int(self._k))

    @override
    def to_plain(self) -> TopKSAE:
        sae, rescales = self, self.cfg.rescale_acts_by_decoder_norm
        if rescales and bool((self.W_dec.norm(dim=-1) < self.get_W_dec_norm()).any()):
            # SAELens's TopK would divide by a norm of 0, so the norms go into the weights
            sae, rescales = copy.deepcopy(self), False
            fold_choice_norm(sae)
        size_bias = both_sides(sae.b_mag.clamp(max=0.0))
        parameters = {"b_enc": torch.cat([sae.b_enc, -sae.b_enc]) + size_bias}
        fields = {"k": self.cfg.k, "rescale_acts_by_decoder_norm": rescales}
        return make_plain(sae, TopKSAE, TopKSAEConfig, parameters, fields=fields)


class BiTopKSAE(_BiTopK, TopKSAE):
    """Inference SAE. ``encode`` gives signed latents, at most ``k`` of a token.

    The activation is :func:`~sae_lens_signaware.saes.activations.bi_topk`.
    """

    # narrowed as SAELens narrows it
    cfg: BiTopKSAEConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @override
    @torch.no_grad()
    def fold_W_dec_norm(self) -> None:
        """SAELens's: only where ``rescale_acts_by_decoder_norm`` is on, else it changes the choice.

        Raises:
            NotImplementedError: it is off.
        """
        fold_choice_norm(self)


@dataclass
class BiTopKTrainingSAEConfig(KeepsLargestFields, TopKTrainingSAEConfig):
    """Configuration of the training SAE. Names are those of SAELens's topk.

    Args:
        polarity_tying: "full": both sides of a latent share the one decoder row.
        k: number of active latents of each token.
        minus_bias_init: initial bias of the - sides; that of the + sides is 0. Below 0 a latent
            starts as a latent of one side, and takes up the other where that pays. null takes
            -min(2, sqrt(d_in / k) / 2).
        aux_loss_coefficient: weight of a loss by which dead latents learn to reconstruct the error
            of the others (AuxK, arXiv 2406.04093). 0 switches it off.
        dead_after_tokens: a latent that has not been active for so many tokens counts as dead. For
            k above 64 it is 64 / k times as many. null counts the runner's dead_feature_window of
            steps instead.
        aux_k: how many dead latents of a token learn so. With more of them each one's share of the
            error is smaller, and may stay below what a token keeps. null takes half of d_in.
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

    @classmethod
    @override
    def architecture(cls) -> str:
        return "bi_topk"

    @override
    def get_inference_config_class(self) -> type[BiTopKSAEConfig]:
        return BiTopKSAEConfig


class BiTopKTrainingSAE(KeepsLargestMixin, _BiTopK, TopKTrainingSAE):
    """Training SAE that keeps the k latents of each token that are largest in size.

    Adds ``b_mag`` (1, d_sae) to the parameters of SAELens's ``topk``; with ``b_enc`` it makes a
    bias for each side. Feature activations are in units of unit decoder rows, as SAELens's ``topk``
    has them, where ``rescale_acts_by_decoder_norm`` is on.
    """

    # narrowed as SAELens narrows it
    cfg: BiTopKTrainingSAEConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @override
    def _start_step(self, step_input: TrainStepInput) -> TrainStepInput:
        # in place on .data: a clamp in the graph would hold a bias that is above 0 there for good
        self.b_mag.data.clamp_(max=0.0)
        return super()._start_step(step_input)

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Bring ``b_mag`` to 0 where the last step has left it above, after what the bases do."""
        super().process_state_dict_for_saving_inference(state_dict)
        state_dict["b_mag"] = state_dict["b_mag"].clamp(max=0.0)
