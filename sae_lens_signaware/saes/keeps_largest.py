"""What training SAEs share that keep the pre-activations of largest size: k, its start, AuxK. Ours.

They keep signs and sizes of :func:`~sae_lens_signaware.saes.activations.shifted`. Which of them are
the largest, those of a batch or of a token, is what an architecture says.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor
from typing_extensions import override

from sae_lens_signaware.saes.base import SignedSAEMixin
from sae_lens_signaware.saes.config import (
    SignedTrainingFields,
    require_bias,
    require_not_negative,
    require_null_or_positive,
    require_share,
)
from sae_lens_signaware.saes.largest import Encoder
from sae_lens_signaware.saes.side_bias import SideBiasMixin

WINDOW_SHRINKS_ABOVE = 64
"""``k`` above which a latent counts as dead sooner than after ``dead_after_tokens``."""


def annealed_k(k: float, start: float, n_steps: int, step: int) -> float:
    """k of a training step: it falls linearly from ``start`` to ``k`` in the first ``n_steps``.

        k + (start - k) * max(1 - step / n_steps, 0)

    Source: ``k_anneal_steps`` of the dictionary_learning library, whose start is d_in. Where
    ``start`` is below ``k`` there is nothing to anneal.

    Args:
        step: number of steps that are done.
    """
    if step >= n_steps:
        return k
    return k + max(start - k, 0.0) * (1 - step / n_steps)


def k_of_step(cfg: Any, step: int) -> float:
    """:func:`annealed_k` of a config with ``k_anneal_steps``: from half of d_in, or all latents."""
    return annealed_k(cfg.k, min(cfg.d_in // 2, cfg.d_sae), cfg.k_anneal_steps, step)


def encoder_of(sae: SignedSAEMixin) -> Encoder:
    """The parameters of a signed SAE with ``b_mag`` by which its latents are ranked; constants."""
    b_enc, b_mag, scale = sae._encoder_bias, sae._size_bias.detach()[0], sae._latent_scale()
    scale = torch.ones_like(b_mag) if scale is None else scale
    return Encoder(sae.W_enc.detach(), None if b_enc is None else b_enc.detach(), scale, b_mag)


@torch.no_grad()
def fold_choice_norm(sae: SignedSAEMixin) -> None:
    """Fold the decoder norm of an SAE of SAELens's TopK family, with ``b_mag``.

    Raises:
        NotImplementedError: ``rescale_acts_by_decoder_norm`` is off, so it would change the choice.
    """
    norm = sae.get_W_dec_norm()
    super(SignedSAEMixin, sae).fold_W_dec_norm()  # SAELens's, past ours, which folds in any case
    sae.b_mag.data.mul_(norm)


@dataclass
class KeepsLargestFields(SignedTrainingFields):
    """Fields and checks beyond those of SAELens's ``topk`` and ``batchtopk``, one of which follows.

    Args:
        minus_bias_init: initial bias of the - sides; that of the + sides is 0. null takes
            -min(2, sqrt(d_in / k) / 2).
        dead_threshold_decay: share of a b_mag below 0 that a dead latent loses in each step.
        aux_k: how many dead latents of a token AuxK teaches. null takes half of d_in.
        k_anneal_steps: number of first steps in which k falls linearly to its value.
    """

    polarity_tying: Literal["full"] = "full"
    format_version: int = 2
    minus_bias_init: float | None = None
    dead_threshold_decay: float = 0.01
    aux_k: int | None = None
    k_anneal_steps: int = 0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "k_anneal_steps")
        require_null_or_positive(self, "aux_k")
        require_share(self, "dead_threshold_decay")
        require_bias(self)


class KeepsLargestMixin(SideBiasMixin):
    """A signed training SAE before SAELens's ``TopKTrainingSAE``, or a subclass of it."""

    _reads = ("k", "k_anneal_steps", "aux_k", "rescale_acts_by_decoder_norm")
    _auxk_names = ("aux_loss_coefficient", "auxiliary_reconstruction_loss")

    _annealed: float | None = None  # k while a step runs
    _norm: Tensor | None = None  # norms of the decoder rows while a step runs; for speed

    @property
    def _k(self) -> float:
        """k of the step that runs, and that of the config outside of one."""
        return self.cfg.k if self._annealed is None else self._annealed

    @override
    def _aux_k(self) -> int | None:
        return self.cfg.aux_k

    @override
    def _dead_after(self) -> float | None:
        # The more latents a token has, the more often each is active. Measured at k 8, 32 and 128:
        # docs/log.md, "A shorter window for BatchTopK".
        window = self.cfg.dead_after_tokens
        return None if window is None else window * min(1.0, WINDOW_SHRINKS_ABOVE / self.cfg.k)

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        # a step uses the norms four times, and each time would read the whole decoder
        self._norm = self._latent_scale()
        self._annealed = k_of_step(self.cfg, step_input.n_training_steps)
        try:
            return super().training_forward_pass(step_input)
        finally:
            self._norm = self._annealed = None

    @override
    def _latent_scale(self) -> Tensor | None:
        if not self.cfg.rescale_acts_by_decoder_norm:
            return None
        return self.get_W_dec_norm() if self._norm is None else self._norm

    @override
    @torch.no_grad()
    def fold_W_dec_norm(self) -> None:
        """SAELens's: only where ``rescale_acts_by_decoder_norm`` is on, else it changes the choice.

        Raises:
            NotImplementedError: it is off.
        """
        fold_choice_norm(self)

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Fold the decoder norm where it rescales."""
        super().process_state_dict_for_saving_inference(state_dict)
        scale = self._latent_scale()
        if scale is not None:
            state_dict["b_mag"] = state_dict["b_mag"] * scale
