"""Frozen results of every architecture: `python -m tests.golden` writes them, a test compares.

Each variant has a fixed start, the output, latents, losses and gradients of one training step, and
the weights after 30 steps of SAELens's trainer.
"""

from pathlib import Path
from typing import Any

import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from tests.architectures import in_units_of_1

FILE = Path(__file__).parent / "golden.safetensors"
D_IN, D_SAE, BATCH, N_STEPS = 8, 16, 64, 30

GATED = {"target_l0": 3.0, "l1_warm_up_steps": 5, "dead_after_tokens": 256}
JUMP = {"target_l0": 3.0, "dead_after_tokens": 256}
BATCHTOPK = {"k": 3, "dead_after_tokens": 256, "k_anneal_steps": 10}
VARIANTS: dict[str, dict[str, Any]] = {
    "sa_gsae-full": {"architecture": "sa_gsae", **GATED},
    "sa_gsae-radii": {"architecture": "sa_gsae", "polarity_tying": "radii", **GATED},
    "sa_gsae-none": {"architecture": "sa_gsae", "polarity_tying": "none", **GATED},
    "sa_gsae-one_sided": {"architecture": "sa_gsae", "two_sided": False, **GATED},
    "bi_jumprelu-full": {"architecture": "bi_jumprelu", **JUMP},
    "bi_jumprelu-none": {"architecture": "bi_jumprelu", "polarity_tying": "none", **JUMP},
    "bi_batchtopk": {"architecture": "bi_batchtopk", **BATCHTOPK},
    "bi_batchtopk-unscaled": {
        "architecture": "bi_batchtopk", **BATCHTOPK, "rescale_acts_by_decoder_norm": False,
    },
    "bi_matryoshka_batchtopk": {
        "architecture": "bi_matryoshka_batchtopk", "matryoshka_widths": [6, 16], **BATCHTOPK,
    },
    "bi_topk": {"architecture": "bi_topk", **BATCHTOPK},
}  # fmt: skip


def activations() -> Tensor:
    """(BATCH * N_STEPS, D_IN): sparse signed sums of 12 directions, about a mean."""
    generator = torch.Generator().manual_seed(7)
    directions = torch.randn(12, D_IN, generator=generator)
    amounts = torch.randn(BATCH * N_STEPS, 12, generator=generator)
    is_on = torch.rand(BATCH * N_STEPS, 12, generator=generator) < 0.2
    return (amounts * is_on) @ directions + 0.3 * torch.randn(D_IN, generator=generator)


def make(variant: str) -> Any:
    """The training SAE of a variant, with weights and biases that are not 0."""
    fields = dict(VARIANTS[variant])
    sae_class, config_class = get_sae_training_class(fields.pop("architecture"))
    torch.manual_seed(3)
    sae = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, **fields))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "threshold":
                parameter.copy_(0.3 + 0.2 * noise.abs())
            elif name == "b_mag":
                parameter.copy_(-0.1 * noise.abs())  # bi_topk keeps it below 0
            else:
                parameter.add_(0.1 * noise)
    in_units_of_1(sae)
    return sae


def trained(sae: Any) -> Any:
    """The SAE after N_STEPS of SAELens's trainer."""
    config = SAETrainerConfig(
        n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False,
        total_training_samples=BATCH * N_STEPS, device="cpu", autocast=False, lr=1e-3, lr_end=1e-4,
        lr_scheduler_name="constant", lr_warm_up_steps=0, lr_decay_steps=0, n_restart_cycles=1,
        adam_beta1=0.9, adam_beta2=0.999, train_batch_size_samples=BATCH, dead_feature_window=4,
        feature_sampling_window=1000, logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    SAETrainer(config, sae, iter(activations().split(BATCH))).fit()
    return sae


def record(variant: str) -> dict[str, Tensor]:
    """All tensors of a variant, by name."""
    sae, x = make(variant), activations()[:BATCH]
    dead = torch.arange(D_SAE) % 4 == 3
    if hasattr(sae, "tokens_since_active"):
        sae.tokens_since_active[dead] = 10_000
    step = sae.training_forward_pass(TrainStepInput(x, {"l1": 0.5}, dead, 20, False))
    step.loss.backward()
    acts = step.feature_acts.to_dense() if step.feature_acts.is_sparse else step.feature_acts
    tensors = {"sae_out": step.sae_out, "feature_acts": acts}
    tensors |= {f"losses.{name}": torch.as_tensor(value) for name, value in step.losses.items()}
    tensors |= {f"grad.{name}": p.grad for name, p in sae.named_parameters() if p.grad is not None}
    after = trained(make(variant)).state_dict()
    tensors |= {f"after.{name}": tensor for name, tensor in after.items()}
    return {f"{variant}/{name}": t.detach().double().clone() for name, t in tensors.items()}
