"""``bi_matryoshka_batchtopk``, a two-sided Matryoshka BatchTopK: training config, training SAE.

SAELens's ``matryoshka_batchtopk`` (arXiv 2503.17547), by the size of the pre-activations as in
:mod:`~sae_lens_signaware.saes.bi_batchtopk`; ours. It is saved as ``bi_jumprelu``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from sae_lens import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor
from typing_extensions import override

from sae_lens_signaware.checks import require
from sae_lens_signaware.saes.auxk import dead_columns
from sae_lens_signaware.saes.bi_batchtopk import (
    BiBatchTopKTrainingSAE,
    BiBatchTopKTrainingSAEConfig,
)
from sae_lens_signaware.saes.latents import Latents
from sae_lens_signaware.saes.training import Losses, Reconstruction


def require_widths(field: str, widths: Sequence[int], d_sae: int) -> None:
    """Raise InvalidInputError unless an SAE of ``d_sae`` latents can be nested at these widths."""
    ascends = all(a < b for a, b in pairwise([0, *widths]))
    is_right = len(widths) > 0 and ascends and widths[-1] <= d_sae
    allowed = f"at least one ascending integer from 1 to d_sae = {d_sae}"
    require(is_right, field, widths, allowed)


@dataclass
class BiMatryoshkaBatchTopKTrainingSAEConfig(
    BiBatchTopKTrainingSAEConfig, MatryoshkaBatchTopKTrainingSAEConfig
):
    """Configuration of the training SAE: that of ``bi_batchtopk``, and SAELens's two fields.

    Args:
        matryoshka_widths: ascending widths. The first w latents of each learn to reconstruct the
            input alone. Where the last is not d_sae, SAELens adds d_sae.
        use_matryoshka_aux_loss: whether dead latents learn to reconstruct the error of the
            reconstruction that their own width ends, instead of that of all.
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
        aux_k: how many dead latents of a token learn so, of each width where
            use_matryoshka_aux_loss is on. With more of them each one's share of the error is
            smaller, and may stay below what the batch keeps. null takes half of d_in.
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
        require_widths("matryoshka_widths", self.matryoshka_widths, self.d_sae)

    @classmethod
    @override
    def architecture(cls) -> str:
        return "bi_matryoshka_batchtopk"


class BiMatryoshkaBatchTopKTrainingSAE(BiBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAE):
    """Training SAE of nested widths: a reconstruction loss for each.

        L = sum over widths w of ||x - x^_w||^2 + AuxK,    x^_w = z[:w] @ W_dec[:w] + b_dec

    where ``rescale_acts_by_decoder_norm`` divides z by the norms of the rows of W_dec. The last
    width is d_sae, so its term is the reconstruction loss of ``bi_batchtopk``.
    """

    # narrowed as SAELens narrows it
    cfg: BiMatryoshkaBatchTopKTrainingSAEConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @override
    def _losses(
        self, step_input: TrainStepInput, pre: Tensor, z: Tensor, latents: Latents
    ) -> Losses:
        widths, sae_in = self.cfg.matryoshka_widths[:-1], step_input.sae_in
        inner = self._inner_reconstructions(sae_in, z, latents)
        return {
            f"inner_mse_loss_{width}": self._reconstruction_loss(out, sae_in)
            for width, out in zip(widths, inner, strict=True)
        }

    def _inner_reconstructions(self, sae_in: Tensor, z: Tensor, latents: Latents) -> list[Tensor]:
        """x^_w of every width but the last, in the space of ``sae_in``."""
        widths = self.cfg.matryoshka_widths[:-1]
        products = latents.decode_nested(self._unscaled(z, latents), self.W_dec, widths)
        return [self._normalised_out(sae_in, product + self.b_dec) for product in products]

    @override
    def _auxk_parts(
        self, recons: Reconstruction, dead: Tensor
    ) -> Iterable[tuple[Tensor, Tensor | slice]]:
        if not self.cfg.use_matryoshka_aux_loss:
            return super()._auxk_parts(recons, dead)
        with torch.no_grad():
            inner = self._inner_reconstructions(recons.sae_in, recons.z, recons.latents)
        bounds = pairwise([0, *self.cfg.matryoshka_widths])
        return [
            (out, dead_columns(dead, slice(*bound)))
            for out, bound in zip([*inner, recons.sae_out], bounds, strict=True)
        ]
