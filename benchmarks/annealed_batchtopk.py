"""SAELens's BatchTopK with the annealed k of ``bi_batchtopk``: what annealing gives without a sign.

    PYTHONPATH=benchmarks sae-lens-signaware --import annealed_batchtopk sweep \\
        benchmarks/annealed_batchtopk.yaml --out sweep_out/k_anneal_gemma3_plain
"""

from dataclasses import dataclass
from typing import Any

from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, register_sae_training_class
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from typing_extensions import override

from sae_lens_signaware.saes.keeps_largest import k_of_step


@dataclass
class AnnealedBatchTopKTrainingSAEConfig(BatchTopKTrainingSAEConfig):
    """SAELens's, and ``k_anneal_steps`` as in ``bi_batchtopk``."""

    k_anneal_steps: int = 0

    @override
    @classmethod
    def architecture(cls) -> str:
        return "annealed_batchtopk"


class AnnealedBatchTopKTrainingSAE(BatchTopKTrainingSAE):
    """SAELens's, which keeps the k * n largest latents of its step's k."""

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        activation: Any = self.activation_fn
        activation.k = k_of_step(self.cfg, step_input.n_training_steps)
        try:
            return super().training_forward_pass(step_input)
        finally:
            activation.k = self.cfg.k


register_sae_training_class(
    "annealed_batchtopk", AnnealedBatchTopKTrainingSAE, AnnealedBatchTopKTrainingSAEConfig
)
