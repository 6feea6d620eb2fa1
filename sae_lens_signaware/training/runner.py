"""SAELens's own runner, with early checks, whole files, and the measures after it."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from datasets.exceptions import DatasetsError
from rich.console import Console
from sae_lens import SAE, LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, TrainingSAE
from sae_lens.constants import RUNNER_CFG_FILENAME, SAE_CFG_FILENAME, TRAINER_STATE_FILENAME
from sae_lens.load_model import load_model
from torch import Tensor
from typing_extensions import override

from sae_lens_signaware.checks import InvalidInputError, nearest, one_line, require
from sae_lens_signaware.evaluation import measures
from sae_lens_signaware.evaluation.models import require_hook
from sae_lens_signaware.evaluation.saved import write_measurement
from sae_lens_signaware.files import require_writable
from sae_lens_signaware.training.interruption import (
    BetweenSteps,
    Trainer,
    ready_to_go_on,
    stopping_between_steps,
)

RunnerConfig = LanguageModelSAERunnerConfig[Any]
AFTER_TRAINING = "the training dataset, after the tokens trained on"
TRAINED_ON_TOO = "the training dataset, tokens that were trained on too: it is too short"


class SignawareTrainingRunner(LanguageModelSAETrainingRunner):
    """SAELens's ``LanguageModelSAETrainingRunner`` with checks first and files that are whole.

    - A hook that the model lacks, a wrong ``sae.d_in`` and a folder that cannot be written are
      one line before the training.
    - SIGINT and SIGTERM leave a whole checkpoint, taken between two steps. SAELens 6.54 takes it
      wherever the code is, and writes it without the weights.
    - The output folder holds a whole SAE or none.
    """

    last_checkpoint: Path | None = None
    """The checkpoint that an interruption has left, if any."""

    @override
    def __init__(
        self, cfg: RunnerConfig, *args: Any, overwrite: bool = False, **kwargs: Any
    ) -> None:
        """As SAELens's; ``overwrite`` replaces an SAE that is in ``cfg.output_path``.

        Raises:
            InvalidInputError: something of ``cfg`` is wrong, in one line that names the field.
        """
        for name in ("output_path", "checkpoint_path"):
            if (path := getattr(cfg, name)) is not None:
                require_writable(name, path)
        if cfg.output_path is not None and not overwrite:
            is_taken = (Path(cfg.output_path) / SAE_CFG_FILENAME).exists()
            require(not is_taken, "output_path", cfg.output_path, "without an SAE (or --overwrite)")
        if cfg.resume_from_checkpoint is not None:
            cfg.resume_from_checkpoint = str(find_checkpoint(cfg.resume_from_checkpoint))
        try:
            super().__init__(cfg, *args, **kwargs)
        except (OSError, ValueError, DatasetsError) as error:
            raise InvalidInputError(self._what_is_wrong(cfg, error)) from error
        require_hook(self.model, cfg.hook_name)
        self._require_width()
        self._first_pass = self.activations_store.iterable_sequences

    def _what_is_wrong(self, cfg: RunnerConfig, error: Exception) -> str:
        """The line for an error of SAELens's constructor, by how far it has come."""
        if hasattr(self, "model"):
            has_store = hasattr(self, "activations_store")
            name = "from_pretrained_path" if has_store else "dataset_path"
            return f"{name}: {getattr(cfg, name)}: {one_line(error.__cause__ or error)}"
        if "hook_names not found" not in str(error):
            return f"model_name: {cfg.model_name}: {one_line(error)}"
        # SAELens hooks what it is asked for alone; to know all names, it has to load once more
        kwargs = cfg.model_from_pretrained_kwargs
        known = load_model(cfg.model_class_name, cfg.model_name, "cpu", kwargs).hook_dict
        return f"hook_name: the model has no {cfg.hook_name!r}{nearest(cfg.hook_name, known)}"

    @torch.no_grad()
    def _require_width(self) -> None:
        cfg, hook = self.cfg, self.cfg.hook_name
        tokens = torch.zeros(1, 2, dtype=torch.int64, device=cfg.llm_device)
        kwargs = {"names_filter": [hook], "prepend_bos": False, **cfg.model_kwargs}
        shape = self.model.run_with_cache(tokens, **kwargs)[1][hook].shape
        width = shape[2:].numel() if cfg.hook_head_index is None else shape[-1]
        for d_in in (cfg.sae.d_in, self.sae.cfg.d_in):  # the latter of from_pretrained_path
            require(d_in == width, "sae.d_in", d_in, f"{width}, the width of {hook!r}")

    @property
    def tokens_from(self) -> str:
        """What the tokens are that the store has given last, for ``quality.json``."""
        store = self.activations_store
        # SAELens's store makes a new iterator where the text has come to its end
        is_second_pass = store.iterable_sequences is not self._first_pass
        is_trained_on = is_second_pass or store.cached_activation_dataset is not None
        return TRAINED_ON_TOO if is_trained_on else AFTER_TRAINING

    @override
    def run_trainer_with_interruption_handling(self, trainer: Trainer) -> TrainingSAE[Any]:
        ready_to_go_on(trainer)
        try:
            with stopping_between_steps(trainer):
                return trainer.fit()
        except BetweenSteps:
            if (base := self.cfg.checkpoint_path) is not None:
                self.last_checkpoint = Path(base) / str(trainer.n_training_samples)
                trainer.save_checkpoint(self.last_checkpoint.name, base_path=base)
            raise

    @override
    def save_final_sae(
        self,
        sae: TrainingSAE[Any],
        output_path: str,
        log_feature_sparsity: Tensor | None = None,
    ) -> None:
        final = Path(output_path)
        staging = final.with_name(f".{final.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        super().save_final_sae(sae, str(staging), log_feature_sparsity)
        final.mkdir(parents=True, exist_ok=True)
        # without its config a folder is no SAE, so the config goes first and comes last
        (final / SAE_CFG_FILENAME).unlink(missing_ok=True)
        for file in sorted(staging.iterdir(), key=lambda file: file.name == SAE_CFG_FILENAME):
            file.replace(final / file.name)
        staging.rmdir()


def find_checkpoint(path: str | Path) -> Path:
    """``path`` where it is a whole checkpoint, else the newest whole one below it.

    SAELens writes the runner's config last, so one that was cut off lacks it or has a part of it.
    InvalidInputError if there is none.
    """
    states = Path(path).rglob(TRAINER_STATE_FILENAME)
    for state in sorted(states, key=lambda p: p.stat().st_mtime, reverse=True):
        with contextlib.suppress(OSError, ValueError):
            json.loads((state.parent / RUNNER_CFG_FILENAME).read_bytes())
            return state.parent
    raise InvalidInputError(f"resume_from_checkpoint: no whole checkpoint at or below {path}")


def train_and_measure(
    cfg: RunnerConfig, console: Console, overwrite: bool = False
) -> TrainingSAE[Any]:
    """Run ``cfg`` through SAELens's runner, then measure on the text that follows the training's.

    Writes ``quality.json`` and its companions beside the SAE, which ``push`` and ``split`` read.

    Args:
        console: prints what was measured.
        overwrite: replace an SAE that is in ``cfg.output_path``.

    Raises:
        InvalidInputError: something of ``cfg`` is wrong.
        KeyboardInterrupt: on SIGINT or SIGTERM; the line says where the checkpoint is.
    """
    torch.manual_seed(cfg.seed)  # SAELens 6.54 never reads it
    runner = SignawareTrainingRunner(cfg, overwrite=overwrite)
    try:
        sae = runner.run()
    except BetweenSteps:
        folder = runner.last_checkpoint
        line = f"Go on with: --resume_from_checkpoint {folder}" if folder else "No checkpoint."
        raise KeyboardInterrupt(line) from None
    if cfg.output_path is not None:
        measure_output(runner, console)
    return sae


def measure_output(runner: SignawareTrainingRunner, console: Console) -> None:
    """Measure the SAE in a runner's output folder, as loaded, on the store's next tokens."""
    cfg, store, folder = runner.cfg, runner.activations_store, str(runner.cfg.output_path)
    console.print(f"{folder}: saved; measuring it now")
    sae = SAE.load_from_disk(folder, device=cfg.device)
    batches = [store.get_filtered_llm_batch() for _ in range(max(1, cfg.n_eval_batches))]
    quality, census = measures.measure_quality(sae, batches, runner.tokens_from)
    quality = measures.add_loss_recovered(quality, sae, runner.model, store)
    write_measurement(folder, quality, census)
    recovered = quality.loss_recovered
    console.print(
        f"{folder}: L0 {quality.l0:.1f}, R² {quality.explained_variance:.4f}, "
        f"dead {quality.dead_share:.2%} of {quality.d_sae} over {quality.n_tokens:,} tokens, "
        f"loss recovered {'not defined' if recovered is None else f'{recovered:.4f}'}",
    )
    if quality.tokens_from != AFTER_TRAINING:
        console.print(f"Warning: measured on {quality.tokens_from}")
