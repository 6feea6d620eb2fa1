"""Thresholds that are parameters: kept >= 0 and in float32, and reset where a latent is dead."""

from typing import Any

import torch
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from sae_lens_signaware.saes.sparsity_loss import SparsityLossMixin


class ThresholdTrainingMixin(SparsityLossMixin):
    """A signed training SAE whose ``threshold`` (P, d_sae) is trained.

    Adds a buffer that checkpoints carry: ``n_threshold_resets`` () int64.
    """

    n_threshold_resets: Tensor

    _reads = ("dead_threshold_decay", "dead_threshold_reset", "threshold_reset_interval")
    _kept_in_own_dtype = ("threshold",)

    def _threshold_init(self) -> float:
        """Initial threshold; 0 if nothing else is said."""
        return 0.0

    def _reset_value(self) -> Tensor:
        """What a reset sets a threshold to, of a shape that broadcasts to (P, d_sae)."""
        return self.threshold.new_full((), self._threshold_init())

    def initialize_weights(self) -> None:
        super().initialize_weights()
        counter = torch.zeros((), dtype=torch.int64, device=self.device)
        self.register_buffer("n_threshold_resets", counter)
        n_rows = self.threshold.shape[0]
        self.threshold = self._make_rows(n_rows, self._threshold_init(), torch.float32)

    def _start_step(self, step_input: TrainStepInput) -> TrainStepInput:
        # In place on .data, not in the graph: a clamp in the graph has gradient zero below the
        # bound and would pin a latent there for good.
        self.threshold.data.clamp_(min=0.0)
        step_input = super()._start_step(step_input)
        if not self.training:
            return step_input
        step, dead = step_input.n_training_steps, step_input.dead_neuron_mask
        due = step > 0 and step % self.cfg.threshold_reset_interval == 0
        if self.cfg.dead_threshold_reset and due and dead is not None:
            value = self._reset_value()
            moved = dead & (self.threshold != value).any(0)
            self.n_threshold_resets += moved.sum()
            self.threshold.data.copy_(torch.where(dead, value, self.threshold))
        if self.cfg.dead_threshold_decay and dead is not None:
            kept = 1 - self.cfg.dead_threshold_decay * dead
            self.threshold.data.mul_(kept)
        return step_input

    def _metrics(self, step_input: TrainStepInput, acts: Tensor) -> dict[str, Any]:
        return super()._metrics(step_input, acts) | {
            "mean_threshold": self.threshold.mean(),
            "threshold_resets": self.n_threshold_resets.clone(),
        }

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Bring thresholds to the dtype of the SAE, and to 0 where they are below."""
        super().process_state_dict_for_saving_inference(state_dict)
        # Optimiser steps after the last clamp can leave a threshold a step below 0.
        state_dict["threshold"] = state_dict["threshold"].clamp(min=0.0).to(self.dtype)
