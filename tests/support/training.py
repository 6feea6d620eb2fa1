"""A training step and a training on small batches; SAEs in float64 for exact comparisons."""

from typing import Any
from unittest import mock

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput

from sae_lens_signaware.saes import base, training
from sae_lens_signaware.training.cache import ShuffledEpochs
from tests.support.saes import ARCHITECTURES, D_IN, make_training_sae

TOLERANCE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


# The names by which SAELens hands each architecture the coefficients of its losses.
COEFFICIENTS = [
    name
    for architecture in ARCHITECTURES
    for name in make_training_sae(architecture).get_coefficients()
]


def step_input(x: torch.Tensor, **kwargs: Any) -> TrainStepInput:
    values: dict[str, Any] = {
        "sae_in": x,
        "coefficients": dict.fromkeys(COEFFICIENTS, 0.7),
        "dead_neuron_mask": None,
        "n_training_steps": 0,
        "is_logging_step": False,
        **kwargs,
    }
    return TrainStepInput(**values)


def path(sparse: bool) -> Any:
    """Within: every product with latents takes the sparse path, or none does."""
    return mock.patch.object(base, "MAX_DENSITY", 1.0 if sparse else -1.0)


def computes_with_all_latents() -> Any:
    """Within: AuxK takes the way of a GPU, which does not count the dead latents."""
    return mock.patch.object(training, "dead_columns", return_value=slice(None))


def batches(seed: int = 0, batch_size: int = 64) -> Any:
    g = torch.Generator().manual_seed(seed)
    basis = torch.randn(40, D_IN, generator=torch.Generator().manual_seed(99))
    while True:
        keep = torch.rand(batch_size, 40, generator=g) < 0.1
        yield (
            (keep * torch.randn(batch_size, 40, generator=g)) @ basis / 2
        )  # mean norm near sqrt(d)


def trainer_config(n_steps: int, **kwargs: Any) -> SAETrainerConfig:
    values: dict[str, Any] = {
        "total_training_samples": n_steps * 64,
        "train_batch_size_samples": 64,
        "lr": 3e-3,
        "lr_end": 3e-3,
        "dead_feature_window": 5,
        **kwargs,
    }
    return SAETrainerConfig(**values)


def float64_sae(architecture: str, tying: str, **kwargs: Any) -> Any:
    sae = make_training_sae(architecture, tying, dtype="float64", **kwargs)
    # thresholds are float32 by design; compare on values that both precisions hold
    if hasattr(sae, "threshold"):
        sae.threshold.data = sae.threshold.data.double()
    return sae


def leaves(sae: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone().requires_grad_() for n, p in sae.named_parameters()}


class StopsAfter(ShuffledEpochs):
    """Ctrl-C in the place of a batch."""

    left = 9

    def __next__(self) -> torch.Tensor:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().__next__()
