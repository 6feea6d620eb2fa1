"""SAELens's own runner, with early checks, whole checkpoints and an output that is never lost."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sae_lens import (
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    TrainingSAE,
    TrainingSAEConfig,
    logger,
)
from sae_lens.constants import RUNNER_CFG_FILENAME
from sae_lens.training.prefetch import PrefetchingIterator
from torch import Tensor
from typing_extensions import override

from sae_lens_signaware.checks import (
    InvalidInputError,
    check_types,
    one_line,
    require,
    require_writable,
)
from sae_lens_signaware.evaluation.models import require_hook
from sae_lens_signaware.training.checkpoints import CHECKPOINT_FILES as CHECKPOINT_FILES
from sae_lens_signaware.training.checkpoints import find_checkpoint
from sae_lens_signaware.training.continued import require_loadable, with_settings_of
from sae_lens_signaware.training.heldout import TextPosition
from sae_lens_signaware.training.hooks import (
    naming_what_is_missing,
    naming_what_is_wrong_in_text,
    require_width,
)
from sae_lens_signaware.training.interruption import (
    InterruptedException,
    SignalCount,
    Trainer,
    counting_signals,
    restart_firing_window,
    restoring_handlers,
    stop_on_signal,
)
from sae_lens_signaware.training.output import (
    keep_trained,
    move_into,
    staging_folder,
)
from sae_lens_signaware.training.values import (
    check_buffer,
    check_devices,
    check_ramps,
    check_values,
)


class SignawareTrainingRunner(LanguageModelSAETrainingRunner):
    """``LanguageModelSAETrainingRunner`` with checks before training and files that are whole.

    It overrides public methods alone:

    - the types of the config's fields, the hook's name, ``sae.d_in`` and the folders that are
      written are checked before training;
    - SIGINT and SIGTERM leave a whole checkpoint, taken between two steps (SAELens 6.54 takes it
      wherever the code is, and writes it without the weights);
    - an SAE of ``from_pretrained_path`` is trained with the settings of ``cfg.sae`` (SAELens 6.54
      takes those that its file has, which are the defaults where it was saved for inference);
    - the output folder appears complete or not at all, and where it cannot be written the trained
      SAE is kept elsewhere.

    Attributes:
        last_checkpoint: folder of the checkpoint that was written last.
        kept_sae: where the trained SAE is, where its output folder could not be written.
        text_position: whether the text has been read to its end.
    """

    last_checkpoint: Path | None = None
    kept_sae: Path | None = None
    text_position: TextPosition
    _trainer: Trainer | None = None

    @override
    def __init__(
        self, cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig], *args: Any, **kwargs: Any
    ) -> None:
        """
        Args:
            cfg, args, kwargs: as SAELens's runner has them.

        Raises:
            InvalidInputError: something of ``cfg`` is wrong, in one line that names the field.
        """
        _check_config(cfg)
        if cfg.resume_from_checkpoint is not None:
            cfg.resume_from_checkpoint = str(find_checkpoint(cfg.resume_from_checkpoint, cfg))
        if cfg.from_pretrained_path is not None:
            require_loadable(cfg.from_pretrained_path, cfg.sae)
        with naming_what_is_missing(
            cfg.model_name, cfg.model_class_name, cfg.model_from_pretrained_kwargs
        ):
            super().__init__(cfg, *args, **kwargs)
        require_hook(self.model, cfg.hook_name)
        require_width(self.model, cfg)
        d_in = self.sae.cfg.d_in  # of from_pretrained_path or override_sae, where one is given
        require(d_in == cfg.sae.d_in, "d_in of the SAE to train", d_in, f"sae.d_in, {cfg.sae.d_in}")
        if cfg.from_pretrained_path is not None:
            self.sae = with_settings_of(cfg.sae, self.sae)
        self.text_position = TextPosition(self.activations_store)
        if cfg.prefetch_llm_batches and cfg.resume_from_checkpoint is not None:
            # before SAELens's thread reads there: SAELens 6.54 starts it, and moves the store then
            self.activations_store.load_from_checkpoint(cfg.resume_from_checkpoint)

    @override
    def run_trainer_with_interruption_handling(
        self, trainer: Trainer
    ) -> TrainingSAE[TrainingSAEConfig]:
        self._trainer = trainer
        trainer.save_checkpoint_fn = self._complete_checkpoint
        _count_last_step(trainer)
        # SAELens 6.54 starts with all of them, and would write one a step until it has caught up
        later = [n for n in trainer.checkpoint_thresholds if n >= trainer.n_training_samples]
        trainer.checkpoint_thresholds = later
        restart_firing_window(trainer)
        with naming_what_is_wrong_in_text():  # it is read as the training goes on
            return self._fit(trainer)

    def _fit(self, trainer: Trainer) -> TrainingSAE[TrainingSAEConfig]:
        try:
            if isinstance(trainer.data_provider, PrefetchingIterator):
                # SAELens's evaluator has to see it as it is; an interruption then comes anywhere
                with restoring_handlers():
                    return super().run_trainer_with_interruption_handling(trainer)
            return self._fit_between_signals(trainer)
        except InterruptedException:
            raise
        except Exception as error:
            if not _is_trained(trainer):
                raise
            # what failed is the last checkpoint or a log; the SAE is still to be saved
            logger.warning(f"Training has ended, but not well: {type(error).__name__}: {error}")
            return trainer.sae

    def _fit_between_signals(self, trainer: Trainer) -> TrainingSAE[TrainingSAEConfig]:
        signals = SignalCount()
        trainer.data_provider = stop_on_signal(signals, trainer.data_provider)
        try:
            with counting_signals(signals):
                return trainer.fit()
        except KeyboardInterrupt:
            if self.cfg.checkpoint_path is not None and signals.count == 1:
                folder = Path(self.cfg.checkpoint_path) / str(trainer.n_training_samples)
                self.save_checkpoint(folder)
            raise

    @override
    def save_checkpoint(self, checkpoint_path: Path | None) -> None:
        # SAELens calls this on an interruption, and would write neither weights nor state
        if self._trainer is None:
            self._complete_checkpoint(checkpoint_path)
        elif checkpoint_path is not None and checkpoint_path != self.last_checkpoint:
            # an earlier run may have left its own there; without this file it counts as none
            (checkpoint_path / RUNNER_CFG_FILENAME).unlink(missing_ok=True)
            self._trainer.save_checkpoint(
                checkpoint_name=checkpoint_path.name, base_path=checkpoint_path.parent
            )

    def _complete_checkpoint(self, checkpoint_path: Path | None) -> None:
        """Add SAELens's own files, the last of a checkpoint, to those of the trainer."""
        super().save_checkpoint(checkpoint_path)
        if checkpoint_path is not None:
            self.last_checkpoint = checkpoint_path

    @override
    def save_final_sae(
        self,
        sae: TrainingSAE[TrainingSAEConfig],
        output_path: str,
        log_feature_sparsity: Tensor | None = None,
    ) -> None:
        """Write the output folder whole, or keep the trained SAE elsewhere.

        Raises:
            OSError: the folder could not be written; the message says where the SAE is.
        """
        final = Path(output_path).resolve()
        staging = staging_folder(final)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            super().save_final_sae(sae, str(staging), log_feature_sparsity)
            move_into(staging, final)
        except BaseException as error:  # the disk, W&B, Ctrl-C: hours of training are at stake
            self.kept_sae = keep_trained(sae, staging, final, self._places_for_sae())
            if not isinstance(error, Exception):
                raise
            kept = self.kept_sae
            raise OSError(
                f"output_path: {output_path} could not be written: "
                f"{type(error).__name__}: {one_line(error)}; the trained SAE "
                + (f"is in {kept}" if kept else "could not be saved anywhere else either")
            ) from error

    def _places_for_sae(self) -> list[Path]:
        """Folders that may take a trained SAE where the output folder does not."""
        temporary = Path(tempfile.gettempdir()) / f"trained-sae-{os.getpid()}"
        if self.cfg.checkpoint_path is None:
            return [temporary]
        return [Path(self.cfg.checkpoint_path) / "trained_sae", temporary]


def _check_config(cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig]) -> None:
    for part in (cfg, cfg.logger, cfg.sae):
        check_types(part)
    check_values(cfg)
    check_buffer(cfg)
    check_devices(cfg)
    try:
        check_ramps(cfg)
    except InvalidInputError as error:  # as in a short try of a long training
        logger.warning(f"{error}: the schedule does not end where the config says")
    if cfg.use_cached_activations:  # SAELens looks there after the model is loaded
        path = cfg.cached_activations_path
        is_folder = path is not None and Path(path).is_dir()
        require(is_folder, "cached_activations_path", path, "a folder of cached activations")
    # an interruption writes to checkpoint_path, whatever n_checkpoints is
    for name in ("output_path", "checkpoint_path"):
        path = getattr(cfg, name)
        if path is not None:
            require_writable(name, path)
            require(Path(path).resolve().name != "", name, path, "a folder of its own")


def _count_last_step(trainer: Trainer) -> None:
    """Count the step after which a periodic checkpoint was taken.

    SAELens 6.54 writes such a checkpoint when it has counted the samples of a step, and not yet
    the step. Its own count would stay one behind to the end.
    """
    batch_size = trainer.cfg.train_batch_size_samples
    if trainer.n_training_samples == (trainer.n_training_steps + 1) * batch_size:
        trainer.n_training_steps += 1


def _is_trained(trainer: Trainer) -> bool:
    """Whether all steps are done, and the scale of the activations is folded into the SAE."""
    n_samples = trainer.n_training_samples
    scaler = trainer.activation_scaler
    return (
        n_samples >= trainer.cfg.total_training_samples
        # samples are counted before a step, and steps after it
        and n_samples == trainer.n_training_steps * trainer.cfg.train_batch_size_samples
        and scaler.scaling_factor is None
        and scaler.whitening is None
    )
