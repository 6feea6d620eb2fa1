"""What a training will probably miss, said before it starts."""

from typing import Any

from sae_lens import LanguageModelSAERunnerConfig

from sae_lens_signaware.training.values import steers_l0

ENOUGH_TO_RISE = 1.0
"""How far thresholds should be able to move. On SmolLM2-135M, with the default start and an L0 of
32, they met ``target_l0`` where they could move by 1.9, and missed it where by 0.75 (ours,
docs/log.md, "SAELens's default learning rate")."""

RATES_OF_LR = 10.0
"""How many times the learning rate ``target_l0_rate`` may be. 7 times met the target, and 20 times
overshot it (ours, docs/log.md, "The learning rate of each SAE")."""


def notes_on_target_l0(cfg: LanguageModelSAERunnerConfig[Any]) -> list[str]:
    """Say why a training of ``bi_jumprelu`` may end far from its ``target_l0``.

    Adam moves a threshold by about the learning rate a step, so a low one in a short training
    leaves it near its start.

    Returns:
        Lines; none where nothing is to be said, and of other architectures.
    """
    sae: Any = cfg.sae
    if not steers_l0(sae) or not hasattr(sae, "jumprelu_init_threshold"):
        return []
    rate, missed = sae.target_l0_rate, f"target_l0 {sae.target_l0:g} may be missed"
    steps = cfg.training_tokens // cfg.train_batch_size_tokens
    reach = cfg.lr * (steps - (cfg.lr_warm_up_steps + cfg.lr_decay_steps) / 2)
    notes = []
    if reach < ENOUGH_TO_RISE:
        notes.append(
            f"{missed}: at lr {cfg.lr:g} thresholds move by at most {reach:.2g} in {steps:,} "
            "steps; raise lr or training_tokens"
        )
    if rate > RATES_OF_LR * cfg.lr:
        notes.append(
            f"{missed}: target_l0_rate {rate:g} is fast for lr {cfg.lr:g}; take {3 * cfg.lr:.2g}"
        )
    return notes
