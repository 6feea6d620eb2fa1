"""The stop of a training whose loss is NaN or inf, without a wait for the device in every step."""

import torch
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

NON_FINITE_MESSAGE = (
    "the training loss is not finite: this batch, or a weight, holds NaN or inf. Training stopped; "
    "checkpoints written earlier are intact"
)

CHECK_INTERVAL = 100
"""Steps between two looks at whether a loss was not finite, where a look waits for the device."""


def _is_on_host(tensor: Tensor) -> bool:
    """Whether its values can be read without a wait for a device."""
    return tensor.device.type == "cpu"


class FiniteLossMixin:
    """Part of every signed training SAE: remembers whether its losses were finite."""

    _is_finite: Tensor | None = None  # (), whether every loss since the last good look was finite

    def _note_loss(self, step_input: TrainStepInput, loss: Tensor) -> None:
        """Stop where a loss is not finite: at once on a CPU, else at the next look."""
        is_finite = torch.isfinite(loss.detach())
        if _is_on_host(loss):
            # Private in torch, and what raises at once in a compiled graph too.
            torch._assert_async(  # pyright: ignore[reportPrivateImportUsage]
                is_finite, NON_FINITE_MESSAGE
            )
            return
        # On CUDA that assertion would break every later run of the process, so look at times.
        earlier = self._is_finite
        self._is_finite = is_finite if earlier is None else earlier.to(loss.device) & is_finite
        due = (step_input.n_training_steps + 1) % CHECK_INTERVAL == 0
        if due or step_input.is_logging_step:
            self.require_finite_losses()

    def require_finite_losses(self) -> None:
        """Raise RuntimeError where a loss was not finite, then and ever after.

        This waits for the device.
        """
        if self._is_finite is not None and not self._is_finite.item():
            raise RuntimeError(NON_FINITE_MESSAGE)
        self._is_finite = None
