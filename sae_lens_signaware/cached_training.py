"""Training on cached activations with SAELens's own trainer; an interrupted one goes on where it was."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAETrainer, TrainingSAE, TrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.activation_cache import ShuffledEpochs, write_json_atomically

DONE_FILENAME = "checkpoint_complete.json"


class InterruptedTraining(KeyboardInterrupt):
    """Ctrl-C during training; ``checkpoint`` holds all that a resume needs."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(f"checkpoint: {checkpoint}")
        self.checkpoint = checkpoint


def train_on_cache(
    sae_cfg: TrainingSAEConfig,
    trainer_cfg: SAETrainerConfig,
    activations: Tensor,
    seed: int,
    checkpoint: Path,
) -> tuple[TrainingSAE[Any], int]:
    """Train one SAE for several epochs of cached activations.

    The decoder bias starts at the mean of the (scaled) activations. The batches depend on ``seed``
    and the step alone, so every SAE of a comparison sees the same tokens in the same order.

    Args:
        sae_cfg: any SAELens architecture.
        trainer_cfg: SAELens's; its ``checkpoint_path`` is not used.
        activations: (n, d_in), raw. Where ``sae_cfg.normalize_activations`` is
            "expected_average_only_in", the trainer scales them and folds the factor in at the end.
        checkpoint: folder that an interruption writes, and that a whole earlier one of this very
            training is resumed from; one of another config is left aside.

    Returns:
        The trained SAE and the number of steps that this call ran.

    Raises:
        InterruptedTraining: Ctrl-C, after the checkpoint is on disk.
    """
    torch.manual_seed(seed)
    sae: Any = TrainingSAE.from_dict(sae_cfg.to_dict())
    mean = activations.mean(0)
    if sae_cfg.normalize_activations == "expected_average_only_in":
        mean = mean * sae_cfg.d_in**0.5 / activations.norm(dim=-1).mean()
    sae.b_dec.data.copy_(mean)
    data = ShuffledEpochs(activations, trainer_cfg.train_batch_size_samples, seed)
    trainer: SAETrainer[Any, Any] = SAETrainer(trainer_cfg, sae, data)
    identity = {
        "sae": sae_cfg.to_dict(),
        "trainer": dataclasses.asdict(trainer_cfg),
        "seed": seed,
        "n_tokens": activations.shape[0],
    }
    if _is_of(checkpoint / DONE_FILENAME, identity):
        trainer.load_trainer_state(checkpoint)
        sae.load_weights_from_checkpoint(checkpoint)
        # A fresh run estimates the scale on the first batches, then trains on the following ones.
        scaler = trainer.activation_scaler
        scaled = scaler.scaling_factor is not None or scaler.whitening is not None
        data.skip(
            trainer.n_training_steps + (trainer_cfg.n_batches_for_norm_estimate if scaled else 0)
        )
    first_step = trainer.n_training_steps
    try:
        trainer.fit()
    except KeyboardInterrupt:
        (checkpoint / DONE_FILENAME).unlink(missing_ok=True)
        trainer.save_checkpoint(checkpoint.name, base_path=checkpoint.parent)
        write_json_atomically(
            {"n_training_steps": trainer.n_training_steps, "of": identity},
            checkpoint / DONE_FILENAME,
        )
        raise InterruptedTraining(checkpoint) from None
    return sae, trainer.n_training_steps - first_step


def _is_of(marker: Path, identity: dict[str, Any]) -> bool:
    """Whether a whole checkpoint of this very training is there."""
    if not marker.exists():
        return False
    return json.loads(marker.read_text())["of"] == json.loads(json.dumps(identity))
