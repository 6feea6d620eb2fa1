"""A run of SAELens's runner from its start to what was measured of its SAE."""

from pathlib import Path

import torch
from rich.console import Console
from sae_lens import LanguageModelSAERunnerConfig, TrainingSAE, TrainingSAEConfig

from sae_lens_signaware.checks import checked, require_64_bits
from sae_lens_signaware.evaluation.quality import missed_target_l0, target_l0_of
from sae_lens_signaware.printing import say
from sae_lens_signaware.training.heldout import AFTER_TRAINING, measure_on_following_tokens
from sae_lens_signaware.training.interruption import InterruptedException
from sae_lens_signaware.training.notes import notes_on_target_l0
from sae_lens_signaware.training.runner import SignawareTrainingRunner


def announce_interruption(runner: SignawareTrainingRunner, console: Console) -> None:
    """Say where an interrupted run's SAE or checkpoint is, and how to go on from the checkpoint."""
    if runner.kept_sae is not None:
        say(console, f"Interrupted. The trained SAE is in {runner.kept_sae}")
        return
    if runner.last_checkpoint is None:
        is_off = runner.cfg.checkpoint_path is None
        reason = "checkpoint_path is null" if is_off else "none was written yet"
        say(console, f"Interrupted. No checkpoint: {reason}.")
        return
    say(
        console,
        f"Interrupted. Checkpoint: {runner.last_checkpoint}\n"
        f"Go on with: --resume_from_checkpoint {runner.last_checkpoint}",
    )


def train_and_measure(
    cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig], console: Console
) -> TrainingSAE[TrainingSAEConfig]:
    """Run ``cfg`` through SAELens's runner, then measure on the text that follows the training's.

    Writes ``quality.json`` beside the SAE, which ``push`` puts on the model card.

    Args:
        cfg: of :func:`~sae_lens_signaware.load_runner_config`, or SAELens's own.
        console: prints what may be missed, what was measured, and where an interrupted run is.

    Raises:
        InvalidInputError: something of ``cfg`` is wrong, or there is no checkpoint to resume from.
        OSError: the output folder could not be written; the message says where the SAE is.
        KeyboardInterrupt: on SIGINT or SIGTERM, after the checkpoint is on disk.
    """
    seed = checked("seed", cfg.seed, int)
    require_64_bits("seed", seed)
    torch.manual_seed(seed)  # of the initial weights and the order: SAELens 6.54 never reads it
    return run_and_measure(SignawareTrainingRunner(cfg), console)


def run_and_measure(
    runner: SignawareTrainingRunner, console: Console
) -> TrainingSAE[TrainingSAEConfig]:
    """Do what :func:`train_and_measure` does, with a runner that is there already."""
    cfg = runner.cfg
    for note in notes_on_target_l0(cfg):
        say(console, f"Note: {note}")
    try:
        sae = runner.run()
    except (KeyboardInterrupt, InterruptedException):
        announce_interruption(runner, console)
        raise KeyboardInterrupt("Training stopped.") from None
    if cfg.output_path is None:
        return sae
    say(console, f"{cfg.output_path}: saved; measuring it now")
    quality = measure_on_following_tokens(
        Path(cfg.output_path),
        runner.model,
        runner.activations_store,
        runner.text_position,
        cfg.n_eval_batches,
        str(cfg.device),
    )
    loss_recovered = "not defined"
    if quality.loss_recovered is not None:
        loss_recovered = f"{quality.loss_recovered:.4f}"
    say(
        console,
        f"{cfg.output_path}: L0 {quality.l0:.1f}, R2 {quality.explained_variance:.4f}, "
        f"dead {quality.dead_share:.2%} of {quality.d_sae} over {quality.n_tokens:,} tokens, "
        f"loss recovered {loss_recovered}",
    )
    missed = missed_target_l0(target_l0_of(cfg.sae.to_dict()), quality.l0)
    if missed is not None:
        say(console, f"Warning: {missed}")
    if quality.tokens_from != AFTER_TRAINING:
        say(console, f"Warning: measured on {quality.tokens_from}")
    return sae
