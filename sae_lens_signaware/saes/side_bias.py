"""Training of ``b_mag``, which with ``b_enc`` makes a bias for each side of a latent. Ours.

The formula is :func:`~sae_lens_signaware.saes.activations.shifted`.
"""

from typing import Any

import torch
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor, nn

from sae_lens_signaware.saes.activations import shifted
from sae_lens_signaware.saes.config import minus_bias_init_of
from sae_lens_signaware.saes.dead_latents import DeadLatentsMixin
from sae_lens_signaware.saes.latents import Latents

SIDE_BIASES = ("b_enc", "b_mag")
"""Kept in float32, as thresholds are: they start near 1, where bfloat16 rounds a step of Adam away.
"""


class SideBiasMixin(DeadLatentsMixin):
    """A signed training SAE with ``b_mag`` (1, d_sae), for which its config has two fields.

    ``minus_bias_init`` is the initial bias b_mag - b_enc of the - sides; that of the + sides,
    b_mag + b_enc, is 0. ``dead_threshold_decay`` is the share of a ``b_mag`` below 0, which keeps a
    latent inactive, that a dead latent loses in each step.
    """

    b_enc: nn.Parameter
    b_mag: nn.Parameter

    _reads = ("minus_bias_init", "dead_threshold_decay")
    _kept_in_own_dtype = SIDE_BIASES

    def initialize_weights(self) -> None:
        super().initialize_weights()
        half = minus_bias_init_of(self.cfg) / 2
        dtype = torch.promote_types(self.dtype, torch.float32)
        self.b_mag = self._make_rows(1, half, dtype)
        self.b_enc = nn.Parameter(self._make_rows(1, -half, dtype).data[0])

    def _start_step(self, step_input: TrainStepInput) -> TrainStepInput:
        step_input = super()._start_step(step_input)
        decay, dead = self.cfg.dead_threshold_decay, step_input.dead_neuron_mask
        if self.training and decay and dead is not None:
            self.b_mag.data.mul_(1 - decay * (dead & (self.b_mag < 0)))
        return step_input

    def _ungated(self, pre: Tensor, latents: Latents) -> Tensor:
        return shifted(pre, self._scaled(latents.rows_of(self._size_bias), latents))

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Bring the biases to the dtype of the SAE."""
        super().process_state_dict_for_saving_inference(state_dict)
        for name in SIDE_BIASES:
            state_dict[name] = state_dict[name].to(self.dtype)
