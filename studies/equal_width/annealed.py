"""SAELens's BatchTopK with the annealed k of ``bi_batchtopk``: what annealing gives without a sign.

Importing this module registers ``annealed_batchtopk``.
"""

from dataclasses import dataclass
from typing import Any

from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, register_sae_training_class
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput


@dataclass
class AnnealedBatchTopKTrainingSAEConfig(BatchTopKTrainingSAEConfig):
    """SAELens's, and ``k_anneal_steps`` in which k falls linearly from half of d_in."""

    k_anneal_steps: int = 0

    @classmethod
    def architecture(cls) -> str:
        """The name that it is registered by."""
        return "annealed_batchtopk"


class AnnealedBatchTopKTrainingSAE(BatchTopKTrainingSAE):
    """SAELens's, which keeps the k · n largest latents of its step's k."""

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """One step by the k of the step."""
        cfg: Any = self.cfg
        left = max(0.0, 1 - step_input.n_training_steps / max(1, cfg.k_anneal_steps))
        start = max(cfg.k, min(cfg.d_in // 2, cfg.d_sae))
        activation: Any = self.activation_fn
        activation.k = cfg.k + left * (start - cfg.k) if cfg.k_anneal_steps else cfg.k
        try:
            return super().training_forward_pass(step_input)
        finally:
            activation.k = cfg.k


register_sae_training_class(
    "annealed_batchtopk", AnnealedBatchTopKTrainingSAE, AnnealedBatchTopKTrainingSAEConfig
)
