"""SAELens's own runner with its two gaps closed: interruption keeps the weights, saving is all or nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from sae_lens import (
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    SAETrainer,
    TrainingSAE,
)
from sae_lens.constants import (
    ACTIVATION_SCALER_CFG_FILENAME,
    ACTIVATIONS_STORE_STATE_FILENAME,
    RUNNER_CFG_FILENAME,
    SAE_CFG_FILENAME,
    SAE_WEIGHTS_FILENAME,
    TRAINER_STATE_FILENAME,
)
from sae_lens.training._interruption import (
    InterruptedException,
)  # SAELens's name for SIGTERM; no public one
from sae_lens.training.prefetch import PrefetchingIterator
from safetensors.torch import load_file
from typing_extensions import override

from sae_lens_signaware.checks import ConfigError, nearest
from sae_lens_signaware.evaluation.quality import add_loss_recovered, measure_quality
from sae_lens_signaware.evaluation.saved import write_measurement
from sae_lens_signaware.training.cached import SignalCount, counted_by, start_window, until

# In the order in which SAELens writes them, so that the last one marks a whole checkpoint.
CHECKPOINT_FILES = (
    SAE_WEIGHTS_FILENAME,
    SAE_CFG_FILENAME,
    TRAINER_STATE_FILENAME,
    ACTIVATIONS_STORE_STATE_FILENAME,
    RUNNER_CFG_FILENAME,
)


def require_hook(model: Any, hook_name: str) -> None:
    """Raise ConfigError, naming the nearest hook, where the model lacks ``hook_name``."""
    hooks = list(getattr(model, "hook_dict", {}))
    if hook_name not in hooks:
        raise ConfigError(
            f"hook_name: the model has no hook {hook_name!r}" + nearest(hook_name, hooks)
        )


def find_checkpoint(path: str | Path) -> Path:
    """``path`` where it is a whole checkpoint, else the newest whole one below it.

    A run that was killed while it wrote a checkpoint leaves one without its last file; that one
    is passed over.

    Raises:
        ConfigError: there is no whole checkpoint, or a file of the newest cannot be read.
    """
    root = Path(path)
    whole = [
        folder.parent
        for folder in root.rglob(RUNNER_CFG_FILENAME)
        if all((folder.parent / name).exists() for name in CHECKPOINT_FILES)
    ]
    if not whole:
        raise ConfigError(
            f"resume_from_checkpoint: no whole checkpoint at or below {str(root)!r}; "
            f"one has {', '.join(CHECKPOINT_FILES)}"
        )
    newest = max(whole, key=lambda folder: (folder / RUNNER_CFG_FILENAME).stat().st_mtime)
    _require_readable(newest)
    return newest


def _require_readable(checkpoint: Path) -> None:
    """Raise ConfigError where SAELens would stop in the middle of a resume; no pickle is executed."""

    def trainer_state(path: Path) -> object:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)[
            "n_training_steps"
        ]

    for name, read in (
        (TRAINER_STATE_FILENAME, trainer_state),
        (
            ACTIVATION_SCALER_CFG_FILENAME,
            lambda path: json.loads(path.read_text())["scaling_factor"],
        ),
        (SAE_WEIGHTS_FILENAME, load_file),
        (ACTIVATIONS_STORE_STATE_FILENAME, load_file),
    ):
        try:
            read(checkpoint / name)
        except Exception as error:  # whatever a broken file makes torch, json or safetensors raise
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise ConfigError(
                f"resume_from_checkpoint: {checkpoint / name} cannot be read: "
                f"{type(error).__name__}: {reason}"
            ) from None


class SignawareTrainingRunner(LanguageModelSAETrainingRunner):
    """``LanguageModelSAETrainingRunner``, by its public methods alone:

    - the hook name is checked as soon as the model is there;
    - SIGINT and SIGTERM leave a whole checkpoint, taken between two steps (SAELens 6.54 takes it
      wherever the code is, and writes it without the weights);
    - the output folder appears complete or not at all.
    """

    last_checkpoint: Path | None = None
    _trainer: SAETrainer[Any, Any] | None = None

    @override
    def __init__(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
        if cfg.resume_from_checkpoint is not None:
            cfg.resume_from_checkpoint = str(find_checkpoint(cfg.resume_from_checkpoint))
        try:
            super().__init__(cfg, *args, **kwargs)
        except ValueError as error:
            # SAELens's load_model hooks just the named modules of a transformers model, and says so
            # where one is missing; its HookedTransformer takes any name and fails much later.
            if "hook_names not found" not in str(error):
                raise
            raise ConfigError(
                f"hook_name: the model has no module {cfg.hook_name!r} "
                f"(model_class_name {cfg.model_class_name}: names of its submodules, "
                "e.g. 'model.layers.15.mlp')"
            ) from None
        require_hook(self.model, cfg.hook_name)

    @override
    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        self._trainer = trainer
        if trainer.n_training_steps:
            start_window(trainer)
        if isinstance(trainer.data_provider, PrefetchingIterator):
            # SAELens's evaluator has to see it as it is; an interruption then comes anywhere
            return super().run_trainer_with_interruption_handling(trainer)
        signals = SignalCount()
        trainer.data_provider = until(signals, trainer.data_provider)
        try:
            with counted_by(signals):
                return trainer.fit()
        except KeyboardInterrupt:
            if self.cfg.checkpoint_path is not None and signals.count == 1:
                folder = Path(self.cfg.checkpoint_path) / str(trainer.n_training_samples)
                self.save_checkpoint(folder)
            raise

    @override
    def save_checkpoint(self, checkpoint_path: Path | None) -> None:
        if checkpoint_path is None:
            return
        if self._trainer is not None and not (checkpoint_path / SAE_WEIGHTS_FILENAME).exists():
            # SAELens calls this on an interruption with a folder that does not exist yet. The
            # trainer's own save writes weights and state, then calls back here for the rest.
            self._trainer.save_checkpoint(
                checkpoint_name=checkpoint_path.name, base_path=checkpoint_path.parent
            )
            return
        super().save_checkpoint(checkpoint_path)
        self.last_checkpoint = checkpoint_path

    @override
    def save_final_sae(
        self,
        sae: TrainingSAE[Any],
        output_path: str,
        log_feature_sparsity: torch.Tensor | None = None,
    ) -> None:
        final = Path(output_path)
        staging = final.with_name(f".{final.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            super().save_final_sae(sae, str(staging), log_feature_sparsity)
            final.mkdir(parents=True, exist_ok=True)
            for file in sorted(staging.iterdir()):
                file.replace(final / file.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def announce_interruption(runner: SignawareTrainingRunner, console: Console) -> None:
    """Say where the checkpoint of an interrupted run is, and how to go on from it."""
    if runner.last_checkpoint is None:
        console.print("Interrupted. No checkpoint: checkpoint_path is null.")
        return
    console.print(
        f"Interrupted. Checkpoint: {runner.last_checkpoint}\n"
        f"Go on with: --resume_from_checkpoint {runner.last_checkpoint}",
        soft_wrap=True,
    )


def train_and_measure(cfg: LanguageModelSAERunnerConfig[Any], console: Console) -> TrainingSAE[Any]:
    """Run ``cfg`` through SAELens's runner, then measure on the tokens that follow the training ones.

    Writes ``quality.json`` beside the SAE, which ``push`` puts on the model card.

    Raises:
        ConfigError: the model lacks the hook, or there is no checkpoint to resume from.
        KeyboardInterrupt: on SIGINT or SIGTERM, after the checkpoint is on disk.
    """
    runner = SignawareTrainingRunner(cfg)
    try:
        sae = runner.run()
    except (KeyboardInterrupt, InterruptedException):
        announce_interruption(runner, console)
        raise KeyboardInterrupt("Training stopped.") from None
    if cfg.output_path is None:
        return sae
    store = runner.activations_store
    batches = (store.get_filtered_llm_batch() for _ in range(cfg.n_eval_batches))
    quality, census = measure_quality(
        sae, batches, "the training dataset, after the tokens trained on"
    )
    quality = add_loss_recovered(quality, sae, runner.model, store)
    write_measurement(Path(cfg.output_path), quality, census)
    console.print(
        f"{cfg.output_path}: L0 {quality.l0:.1f}, R2 {quality.explained_variance:.4f}, "
        f"dead {quality.dead_share:.2%} of {quality.d_sae} over {quality.n_tokens:,} tokens, "
        f"loss recovered {quality.loss_recovered:.4f}",
        soft_wrap=True,
    )
    return sae
