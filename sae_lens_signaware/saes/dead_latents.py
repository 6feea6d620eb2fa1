"""Which latents are dead, counted in tokens by the training SAE itself. Ours.

SAELens's trainer counts training steps (``dead_feature_window``), 1,000 unless told otherwise. With
its batches of 4,096 tokens that is four million tokens: too late for what brings latents back.
"""

import dataclasses

import torch
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from sae_lens_signaware.saes.metrics import fires
from sae_lens_signaware.saes.training import SignedTrainingMixin


class DeadLatentsMixin(SignedTrainingMixin):
    """A signed training SAE that counts as dead what ``dead_after_tokens`` of its config says.

    Adds a buffer that checkpoints carry: ``tokens_since_active`` (d_sae,) int64.
    """

    tokens_since_active: Tensor

    _reads = ("dead_after_tokens", "use_sparse_activations")
    """Fields of the config; each mixin names its own, and ``register`` asks for all."""

    def initialize_weights(self) -> None:
        super().initialize_weights()
        zeros = torch.zeros(self.cfg.d_sae, dtype=torch.int64, device=self.device)
        self.register_buffer("tokens_since_active", zeros)

    def _dead_after(self) -> float | None:
        """Tokens without activity after which a latent is dead; None leaves it to the runner."""
        return self.cfg.dead_after_tokens

    def _start_step(self, step_input: TrainStepInput) -> TrainStepInput:
        """The step's input, with the latents that are dead by the SAE's own count."""
        window = self._dead_after()
        if window is not None:
            dead = self.tokens_since_active >= window
            step_input = dataclasses.replace(step_input, dead_neuron_mask=dead)
        return super()._start_step(step_input)

    def _end_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        super()._end_step(step_input, output)
        if self.training and self._dead_after() is not None:
            acts = output.feature_acts
            self.tokens_since_active += acts.shape[:-1].numel()
            self.tokens_since_active.masked_fill_(fires(acts), 0)
