"""Training on cached activations with SAELens's own trainer, resumed where it was interrupted."""

import dataclasses
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAETrainer, TrainingSAE, TrainingSAEConfig, logger
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.checks import one_line, require, require_writable
from sae_lens_signaware.evaluation.inputs import ESTIMATED
from sae_lens_signaware.files import as_json, write_json
from sae_lens_signaware.saes.finite_losses import FiniteLossMixin
from sae_lens_signaware.training.cache import ShuffledEpochs, StepClock
from sae_lens_signaware.training.interruption import (
    SignalCount,
    Trainer,
    counting_signals,
    restart_firing_window,
    stop_on_signal,
)
from sae_lens_signaware.training.values import (
    check_gated_dtype,
    check_sae_dtype,
    check_sae_values,
    require_json,
)

DONE_FILENAME = "checkpoint_complete.json"
BLOCK = 65_536
"""Rows of a cache that are widened at once."""


class InterruptedTraining(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training; ``checkpoint`` holds all that a resume needs."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(f"checkpoint: {checkpoint}")
        self.checkpoint = checkpoint


@dataclasses.dataclass(frozen=True)
class CachedTraining:
    """A training on a cache that has ended.

    Attributes:
        sae: the trained SAE.
        n_steps: steps that this call ran.
        seconds: that they took, without what comes before the first.
    """

    sae: TrainingSAE[TrainingSAEConfig]
    n_steps: int
    seconds: float


def train_on_cache(
    sae_cfg: TrainingSAEConfig,
    trainer_cfg: SAETrainerConfig,
    activations: Tensor,
    seed: int,
    checkpoint: str | Path,
) -> tuple[TrainingSAE[TrainingSAEConfig], int]:
    """Train one SAE for several epochs of cached activations.

    The decoder bias starts at the mean of the activations as the SAE sees them. The batches depend
    on ``seed`` and the step alone, so all SAEs of a comparison see the same tokens in one order.

    Args:
        sae_cfg: any SAELens architecture.
        trainer_cfg: SAELens's; what it says of checkpoints is not used.
        activations: (n, d_in), raw. Where their dtype is narrower than the SAE's, each batch is
            widened, and never the whole. Where ``sae_cfg.normalize_activations`` is
            "expected_average_only_in", the trainer scales them and folds the factor in at the end.
        checkpoint: folder that an interruption writes. It is new, or empty, or a checkpoint that
            this function wrote. One of this very training is resumed from. One of another training
            is not read, and an interruption replaces it. One that cannot be read is passed over
            with a warning.

    Returns:
        The trained SAE and the number of steps that this call ran. Its metadata names no model and
        no hook; what reads text asks for ``sae.cfg.metadata.hook_name``.

    Raises:
        InvalidInputError: ``activations`` are of another shape or type, not finite, or all 0 where
            their scale is estimated; ``checkpoint`` holds something else, which an interruption
            would remove, or cannot be written; ``sae_cfg.dtype`` is one that Adam cannot train in;
            a config holds what its checkpoint cannot, such as a ``torch.device``, or a value
            that SAELens stops at later; or there are
            fewer activations than ``trainer_cfg.train_batch_size_samples``.
        RuntimeError: a loss of a signed architecture is not finite. SAELens's own look for none.
        InterruptedTraining: Ctrl-C or SIGTERM, between two steps, after the checkpoint is on disk.
        KeyboardInterrupt: in the last step, or once more while the checkpoint is written.
    """
    trained = train_timed(sae_cfg, trainer_cfg, activations, seed, checkpoint)
    return trained.sae, trained.n_steps


def train_timed(
    sae_cfg: TrainingSAEConfig,
    trainer_cfg: SAETrainerConfig,
    activations: Tensor,
    seed: int,
    checkpoint: str | Path,
) -> CachedTraining:
    """Do what :func:`train_on_cache` does, and say how long the steps took."""
    check_sae_dtype(sae_cfg)
    check_sae_values(sae_cfg)
    n, name = trainer_cfg.train_batch_size_samples, "trainer_cfg.train_batch_size_samples"
    require(n >= 1, name, n, "at least 1")
    _require_activations(activations, sae_cfg.d_in)
    check_gated_dtype(sae_cfg, activations.dtype, trainer_cfg.autocast)
    # an interruption renames a folder, and not a link to it
    checkpoint = Path(checkpoint).resolve()
    trainer_cfg = _on_cache(trainer_cfg)
    seed = int(seed)  # of numpy, maybe
    settings = {"sae": sae_cfg.to_dict(), "trainer": dataclasses.asdict(trainer_cfg)}
    for name, values in settings.items():  # before the training, and not at its checkpoint
        require_json(f"{name}_cfg", values)
    _require_place(checkpoint)
    _clear_staging(checkpoint)
    _require_own(checkpoint)

    @functools.cache
    def identity() -> dict[str, object]:  # where a checkpoint is read or written
        return {**settings, "seed": seed, "activations": fingerprint(activations)}

    def start() -> tuple[Trainer, ShuffledEpochs, StepClock]:
        torch.manual_seed(seed)
        sae = TrainingSAE.from_dict(sae_cfg.to_dict())
        sae.to(trainer_cfg.device)  # before a checkpoint's state of the optimiser is put beside it
        sae.b_dec.data.copy_(_mean_of_input(sae, activations))
        batch_size, dtype = trainer_cfg.train_batch_size_samples, _widened(sae, activations)
        data = ShuffledEpochs(activations, batch_size, seed, dtype)
        clock = StepClock(data)
        return SAETrainer(trainer_cfg, sae, stop_on_signal(signals, clock)), data, clock

    signals = SignalCount()
    trainer, data, clock = start()
    if not _resume(trainer, checkpoint, identity):
        trainer, data, clock = start()
    scaler = trainer.activation_scaler
    is_estimated = scaler.scaling_factor is not None or scaler.whitening is not None
    if is_estimated or sae_cfg.normalize_activations not in ESTIMATED:
        # A fresh run that estimates its scale takes the first batches for that. Every run trains
        # on the following ones, so that all SAEs of a comparison see the same.
        data.skip(trainer.n_training_steps + trainer_cfg.n_batches_for_norm_estimate)
    else:
        clock.n_before = trainer_cfg.n_batches_for_norm_estimate
    first_step = trainer.n_training_steps
    with signals.told_on_error():
        try:
            with counting_signals(signals):
                trainer.fit()
        except KeyboardInterrupt:
            if signals.count > 1:
                raise  # in the middle of a step, which no checkpoint can hold
            _save_whole(trainer, identity(), checkpoint)
            raise InterruptedTraining(checkpoint) from None
        seconds = 0.0 if clock.start is None else time.perf_counter() - clock.start
        if isinstance(trainer.sae, FiniteLossMixin):
            trainer.sae.require_finite_losses()  # of the steps since the last look
    signals.pass_on()  # of the last step: the SAE is folded, and there is no checkpoint any more
    return CachedTraining(trainer.sae, trainer.n_training_steps - first_step, seconds)


def _on_cache(cfg: SAETrainerConfig) -> SAETrainerConfig:
    """Without SAELens's checkpoints, which cannot be resumed here, and with an ``lr_end``."""
    lr_end = cfg.lr / 10 if cfg.lr_end is None else cfg.lr_end  # as SAELens's runner has it
    none = {"checkpoint_path": None, "n_checkpoints": 0, "save_final_checkpoint": False}
    return dataclasses.replace(cfg, lr_end=lr_end, **none)


def _require_place(checkpoint: Path) -> None:
    """Raise where an interruption could not put a folder, before the training."""
    allowed = "a folder that can be renamed"
    require(not checkpoint.is_mount(), "checkpoint", str(checkpoint), allowed, "it is mounted")
    require_writable("checkpoint's folder", checkpoint.parent)


def _require_activations(activations: object, d_in: int) -> None:
    if isinstance(activations, Tensor):
        fits = activations.ndim == 2 and activations.shape[1] == d_in
        is_right = fits and len(activations) > 0 and activations.is_floating_point()
        got = f"{tuple(activations.shape)} of {activations.dtype}"
    else:
        is_right, got = False, type(activations).__name__
    require(is_right, "activations", got, f"a floating-point tensor (n, {d_in})")


def _widened(sae: TrainingSAE[TrainingSAEConfig], activations: Tensor) -> torch.dtype:
    """Dtype in which activations are read: a cache may be in half precision."""
    return torch.promote_types(activations.dtype, sae.dtype)


@torch.no_grad()
def _mean_of_input(sae: TrainingSAE[TrainingSAEConfig], activations: Tensor) -> Tensor:
    """(d_in,) mean of what the SAE will see, and ``b_dec`` be subtracted from."""
    normalisation, dtype = sae.cfg.normalize_activations, _widened(sae, activations)
    blocks = (block.to(dtype) for block in activations.split(BLOCK))
    if normalisation == "expected_average_only_in":
        sums = [(x.sum(0), x.norm(dim=-1).sum()) for x in blocks]
        mean, norm = (torch.stack(s).sum(0) / len(activations) for s in zip(*sums, strict=True))
        require(bool(norm != 0), "activations", "0 throughout", f"not 0, for {normalisation!r}")
        mean = mean * sae.cfg.d_in**0.5 / norm
    else:
        totals = [sae.run_time_activation_norm_fn_in(x).sum(0) for x in blocks]
        mean = torch.stack(totals).sum(0) / len(activations)
    # one row is enough for a NaN or an inf; not all SAEs look at their loss
    allowed = f"finite where normalize_activations is {normalisation!r}"
    require(bool(mean.isfinite().all()), "activations", "NaN or inf", allowed)
    # whitening centres
    return torch.zeros_like(mean) if normalisation == "covariance_whitening" else mean


def fingerprint(activations: Tensor) -> str:
    """Hash the shape and all rows, about a second for a gigabyte."""
    digest = hashlib.sha256(f"{tuple(activations.shape)} {activations.dtype}".encode())
    for block in activations.split(BLOCK):
        digest.update(block.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _save_whole(trainer: Trainer, identity: Mapping[str, object], checkpoint: Path) -> None:
    """Write beside ``checkpoint``, then take its place: a full disk leaves the earlier one."""
    staging = _staging(checkpoint)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        trainer.save_checkpoint(staging.name, base_path=staging.parent)
        write_json(
            {"n_training_steps": trainer.n_training_steps, "of": identity},
            staging / DONE_FILENAME,
        )
        # whatever comes from here on, one of the two is whole, and the other is not taken for it
        (checkpoint / DONE_FILENAME).unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)
        staging.rename(checkpoint)
    finally:
        if not (staging / DONE_FILENAME).exists():
            shutil.rmtree(staging, ignore_errors=True)


def _staging(checkpoint: Path) -> Path:
    return checkpoint.with_name(f".{checkpoint.name}.partial")


def _clear_staging(checkpoint: Path) -> None:
    """Take what a kill -9 left of a checkpoint where it is whole and the only one, or remove it."""
    staging = _staging(checkpoint)
    if (staging / DONE_FILENAME).exists() and not (checkpoint / DONE_FILENAME).exists():
        if not _is_rest_of(checkpoint, staging):
            _require_own(checkpoint)  # raises, and both stay
        shutil.rmtree(checkpoint, ignore_errors=True)
        staging.rename(checkpoint)
    shutil.rmtree(staging, ignore_errors=True)


def _is_rest_of(folder: Path, whole: Path) -> bool:
    """Whether a removal that was cut off may have left ``folder`` of what is in ``whole``."""
    if not folder.exists():
        return True
    ours = {path.name for path in whole.iterdir()}
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= ours


def _require_own(checkpoint: Path) -> None:
    """Raise where the folder holds what no call of this module wrote."""
    is_empty = not checkpoint.exists() or (checkpoint.is_dir() and not any(checkpoint.iterdir()))
    require(
        is_empty or (checkpoint / DONE_FILENAME).is_file(),
        "checkpoint",
        str(checkpoint),
        f"a folder that is new, empty or has a {DONE_FILENAME}",
        "an interruption replaces the whole folder",
    )


def _resume(
    trainer: Trainer, checkpoint: Path, identity: Callable[[], Mapping[str, object]]
) -> bool:
    """Load the checkpoint of this very training, if there is one.

    Returns:
        Whether the trainer can be used. False where files of a checkpoint cannot be read: it may
        have loaded some of them.
    """
    marker = checkpoint / DONE_FILENAME
    if not marker.exists():
        return True
    try:
        if _is_of(json.loads(marker.read_text()), identity()):
            trainer.load_trainer_state(checkpoint)
            trainer.sae.load_weights_from_checkpoint(checkpoint)
            restart_firing_window(trainer)
    except Exception as error:  # a crash of the machine can leave any of its files cut
        why = f"{type(error).__name__}: {one_line(error)}"
        logger.warning(f"checkpoint: {checkpoint} cannot be read ({why}); training starts anew")
        return False
    return True


def _is_of(held: Any, identity: Mapping[str, object]) -> bool:
    """Whether what a checkpoint holds of its training is this very training."""
    ofs = held["of"], as_json(identity)
    for of in ofs:
        of["trainer"].pop("logger", None)  # no weight depends on it; it may name the run
    return ofs[0] == ofs[1]
