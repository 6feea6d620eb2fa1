"""Training on cached activations with SAELens's own trainer, resumed where it was interrupted."""

import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sae_lens import SAETrainer, TrainingSAE, TrainingSAEConfig, logger
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError, one_line, require
from sae_lens_signaware.evaluation.inputs import ESTIMATED
from sae_lens_signaware.files import require_writable, write_json
from sae_lens_signaware.saes.common import SignedTraining
from sae_lens_signaware.training.cache import ShuffledEpochs
from sae_lens_signaware.training.interruption import (
    BetweenSteps,
    Trainer,
    ready_to_go_on,
    stopping_between_steps,
)

DONE_FILENAME = "checkpoint_complete.json"
BLOCK = 65_536
"""Rows of a cache that are widened at once."""


class InterruptedTraining(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training; ``checkpoint`` holds all that a resume needs."""

    def __init__(self, checkpoint: Path | None) -> None:
        super().__init__(f"checkpoint: {checkpoint}")
        self.checkpoint = checkpoint


class TimedTraining(NamedTuple):
    """A trained SAE, the seconds from the first step on, and the steps that this call ran."""

    sae: TrainingSAE[Any]
    seconds: float
    n_steps: int


def train_on_cache(
    sae_cfg: TrainingSAEConfig,
    trainer_cfg: SAETrainerConfig,
    activations: Tensor,
    seed: int,
    checkpoint: str | Path | None = None,
) -> TrainingSAE[Any]:
    """Train one SAE for several epochs of cached activations, with SAELens's own ``SAETrainer``.

    The decoder bias starts at the mean of the activations as the SAE sees them. The batches depend
    on ``seed`` and the step alone, so all SAEs of a comparison see the same tokens in one order.

    Args:
        trainer_cfg: SAELens's; its own checkpoints are left out.
        activations: (n, d_in) floating-point; batches have the wider dtype of it and of the SAE.
        checkpoint: a folder that an interruption writes, and that the same call goes on from, to
            the same weights bit for bit. A checkpoint of another training is replaced.

    Raises:
        InvalidInputError: wrong width, values that are not finite, or ``checkpoint`` is no place
            for one.
        InterruptedTraining: Ctrl-C or SIGTERM, after the checkpoint is on disk.
        RuntimeError: the loss is not finite.
    """
    return train_timed(sae_cfg, trainer_cfg, activations, seed, checkpoint).sae


def train_timed(
    sae_cfg: TrainingSAEConfig,
    trainer_cfg: SAETrainerConfig,
    activations: Tensor,
    seed: int,
    checkpoint: str | Path | None = None,
) -> TimedTraining:
    """Do what :func:`train_on_cache` does, and say how long the steps took."""
    folder = None if checkpoint is None else Path(checkpoint).resolve()
    _require_inputs(activations, sae_cfg.d_in, folder)
    lr_end = trainer_cfg.lr / 10 if trainer_cfg.lr_end is None else trainer_cfg.lr_end
    without: dict[str, Any] = {"checkpoint_path": None, "n_checkpoints": 0}
    trainer_cfg = dataclasses.replace(
        trainer_cfg, lr_end=lr_end, save_final_checkpoint=False, **without
    )
    torch.manual_seed(seed)
    sae = TrainingSAE.from_dict(sae_cfg.to_dict())
    sae.to(trainer_cfg.device)  # before a checkpoint's state of the optimiser is put beside it
    sae.b_dec.data.copy_(_mean_of_input(sae, activations))
    dtype = torch.promote_types(activations.dtype, sae.dtype)
    data = ShuffledEpochs(activations, trainer_cfg.train_batch_size_samples, seed, dtype)
    trainer: Trainer = SAETrainer(trainer_cfg, sae, data)
    training = {"sae": sae_cfg.to_dict(), "trainer": dataclasses.asdict(trainer_cfg), "seed": seed}
    del training["trainer"]["logger"]  # no weight depends on it
    if folder is not None and (folder / DONE_FILENAME).exists():
        _resume(trainer, folder, {**training, "activations": fingerprint(activations)})
    scaler = trainer.activation_scaler
    is_known = scaler.scaling_factor is not None or scaler.whitening is not None
    if is_known or sae_cfg.normalize_activations not in ESTIMATED:
        # a fresh run that estimates its scale takes the first batches for that; every run trains
        # on the following ones, so that all SAEs of a comparison see the same
        data.n_served = trainer.n_training_steps + trainer_cfg.n_batches_for_norm_estimate
    with stopping_between_steps(trainer) as steps:
        try:
            trainer.fit()
        except BetweenSteps:
            if folder is not None:
                identity = {**training, "activations": fingerprint(activations)}
                _save(trainer, folder, identity)
            raise InterruptedTraining(folder) from None
        seconds = 0.0 if steps.started is None else time.perf_counter() - steps.started
    if steps.stop_asked:  # in the last step: there is nothing left to go on from
        raise KeyboardInterrupt
    if isinstance(sae, SignedTraining):
        sae.require_finite_loss()  # on a GPU nothing has looked since the last logging step
        sae.fold_input_scale()
    return TimedTraining(sae, seconds, steps.n)


def _require_inputs(activations: Tensor, d_in: int, folder: Path | None) -> None:
    is_right = activations.ndim == 2 and activations.shape[1] == d_in and len(activations) > 0
    got = f"{tuple(activations.shape)} of {activations.dtype}"
    allowed = f"a floating-point tensor (n, {d_in})"
    require(is_right and activations.is_floating_point(), "activations", got, allowed)
    if folder is not None:
        require_writable("checkpoint", folder)
        held = list(folder.iterdir()) if folder.is_dir() else []
        is_ours = not held or folder / DONE_FILENAME in held
        require(is_ours, "checkpoint", str(folder), "new, or a checkpoint of a training on a cache")


@torch.no_grad()
def _mean_of_input(sae: TrainingSAE[Any], activations: Tensor) -> Tensor:
    """(d_in,) mean of what the SAE will see, from which ``b_dec`` is subtracted."""
    normalisation = sae.cfg.normalize_activations
    dtype = torch.promote_types(activations.dtype, sae.dtype)
    normalise = sae.run_time_activation_norm_fn_in
    total, norm = 0.0, 0.0
    for block in activations.split(BLOCK):
        x = block.to(dtype)
        total = total + (x if normalisation in ESTIMATED else normalise(x)).sum(0)
        norm = norm + x.norm(dim=-1).sum()
    mean = torch.as_tensor(total) / len(activations)
    if normalisation == "expected_average_only_in":
        mean = mean * sae.cfg.d_in**0.5 * len(activations) / norm
    require(bool(mean.isfinite().all()), "activations", "NaN, inf or 0 throughout", "finite values")
    return torch.zeros_like(mean) if normalisation == "covariance_whitening" else mean


def fingerprint(activations: Tensor) -> str:
    """Digest of the shape and of all rows; about a second for a gigabyte."""
    digest = hashlib.sha256(f"{tuple(activations.shape)} {activations.dtype}".encode())
    for block in activations.split(BLOCK):
        digest.update(block.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _save(trainer: Trainer, folder: Path, identity: dict[str, Any]) -> None:
    """Write beside ``folder``, then take its place: a full disk leaves the earlier checkpoint."""
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    trainer.save_checkpoint(staging.name, base_path=staging.parent)
    write_json(identity, staging / DONE_FILENAME)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)


def _resume(trainer: Trainer, folder: Path, identity: dict[str, Any]) -> None:
    """Load the checkpoint in ``folder`` if it is of this very training."""
    try:
        held = json.loads((folder / DONE_FILENAME).read_text())
        if held != json.loads(json.dumps(identity)):
            logger.warning(f"checkpoint: {folder} is of another training, which is left aside")
            return
        trainer.load_trainer_state(folder)
        trainer.sae.load_weights_from_checkpoint(folder)
    except Exception as error:  # whatever a broken file makes torch, json or safetensors raise
        raise InvalidInputError(f"checkpoint: {folder} is broken: {one_line(error)}") from None
    ready_to_go_on(trainer)
