"""Training with a sparsity loss: its coefficient, SAELens's warm-up of it, and ``target_l0``."""

import dataclasses
from typing import Any

import torch
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput, TrainStepOutput
from torch import Tensor

from sae_lens_signaware.saes.config import require_not_negative, require_steerable
from sae_lens_signaware.saes.dead_latents import DeadLatentsMixin
from sae_lens_signaware.saes.l0_control import update_l0_control
from sae_lens_signaware.saes.metrics import n_active


class SparsityLossMixin(DeadLatentsMixin):
    """A signed training SAE that a loss keeps sparse.

    Adds a buffer that checkpoints carry and inference SAEs do not: ``l0_control`` (2,) float32,
    [log multiplier on the sparsity coefficient, running L0].

    An architecture names its sparsity coefficient NAME. Its config is a
    :class:`~sae_lens_signaware.saes.config.SignedTrainingSAEConfig` with ``NAME_coefficient`` and
    ``NAME_warm_up_steps``.
    """

    l0_control: Tensor

    _sparsity_coefficient: str
    """Key of the sparsity coefficient in SAELens's coefficient schedulers."""

    _reads = ("target_l0", "target_l0_rate")
    _kept_in_own_dtype = ("l0_control",)

    def initialize_weights(self) -> None:
        super().initialize_weights()
        name = self._sparsity_coefficient
        require_not_negative(self.cfg, f"{name}_coefficient", f"{name}_warm_up_steps")
        if self._steers_l0():
            require_steerable(self.cfg, f"{name}_coefficient")
        start = torch.zeros(2, dtype=torch.float32, device=self.device)
        self.register_buffer("l0_control", start)

    def _steers_l0(self) -> bool:
        """Whether the sparsity coefficient is steered to ``target_l0``."""
        return self.cfg.target_l0 is not None

    def _warm_up_steps(self) -> int:
        """Steps over which SAELens's scheduler raises the sparsity coefficient."""
        return getattr(self.cfg, f"{self._sparsity_coefficient}_warm_up_steps")

    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        """The sparsity coefficient NAME, of ``NAME_coefficient`` and ``NAME_warm_up_steps``."""
        name = self._sparsity_coefficient
        value = getattr(self.cfg, f"{name}_coefficient")
        return {name: TrainCoefficientConfig(value, self._warm_up_steps())}

    def _start_step(self, step_input: TrainStepInput) -> TrainStepInput:
        """The step's input, with the coefficient that is in force."""
        step_input = super()._start_step(step_input)
        if not self._steers_l0():
            return step_input
        coefficients: dict[str, Any] = dict(step_input.coefficients)
        coefficients[self._sparsity_coefficient] = (
            coefficients[self._sparsity_coefficient] * self.l0_control[0].exp()
        )
        return dataclasses.replace(step_input, coefficients=coefficients)

    def _end_step(self, step_input: TrainStepInput, output: TrainStepOutput) -> None:
        super()._end_step(step_input, output)
        if not self.training or not self._steers_l0():
            return
        acts = output.feature_acts
        self.l0_control.copy_(
            update_l0_control(
                self.l0_control,
                n_active(acts) / acts.shape[:-1].numel(),
                self.cfg.target_l0,
                self.cfg.target_l0_rate,
                warms_up=step_input.n_training_steps < self._warm_up_steps(),
            )
        )

    def _metrics(self, step_input: TrainStepInput, acts: Tensor) -> dict[str, Any]:
        name = self._sparsity_coefficient
        in_force = torch.as_tensor(step_input.coefficients[name])
        return super()._metrics(step_input, acts) | {f"{name}_in_force": in_force}
