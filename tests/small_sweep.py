"""A small transformers model, two texts, and a sweep over them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console

from sae_lens_signaware.sweep.config import sweep_config_of
from sae_lens_signaware.sweep.executors import run_local, run_sweep
from sae_lens_signaware.sweep.results import SweepSummary

D_IN, EOS = 16, 63


def write_data(folder: Path, model: Path) -> Path:
    """A copy of ``tiny_model``, and two texts."""
    shutil.copytree(model, folder / "model")
    for seed, name in enumerate(("train", "heldout")):
        write_text(folder / name, seed)
    return folder


def write_text(folder: Path, seed: int) -> None:
    """40 texts of 60 words."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 63, (40, 60), generator=generator).tolist()
    folder.mkdir(exist_ok=True)
    texts = [" ".join(f"w{i}" for i in row) for row in rows]
    Dataset.from_dict({"text": texts}).to_parquet(folder / "train.parquet")


def sweep_values(data: Path) -> dict[str, Any]:
    """Two cells, two seeds, two SAEs of two coefficients each."""
    shared = {"normalize_activations": "expected_average_only_in", "l1_coefficient": [0.1, 1.0]}
    return {
        "runner": {
            "model_name": str(data / "model"),
            "model_class_name": "AutoModelForCausalLM",
            "dataset_path": str(data / "train"),
            "streaming": False,
            "is_dataset_tokenized": False,
            "context_size": 16,
            "device": "cpu",
            "training_tokens": 64 * 8,
            "train_batch_size_tokens": 64,
            "store_batch_size_prompts": 4,
            "n_batches_for_norm_estimate": 4,
            "lr": 3e-3,
        },
        "n_cached_tokens": 512,
        "n_heldout_tokens": 256,
        "heldout_dataset_path": str(data / "heldout"),
        "threads": 1,
        "cells": {
            "mlp": {"hook_name": "transformer.h.0.mlp", "d_in": D_IN},
            "resid": {"hook_name": "transformer.h.0", "d_in": D_IN},
        },
        "seeds": [0, 1],
        "saes": {
            "half": {"architecture": "sa_gsae", "d_sae": 16, **shared},
            "full": {"architecture": "gated", "d_sae": 32, **shared},
        },
        "compare": [["half", "full"]],
    }


def sweep(values: dict[str, Any], out: Path, executor: Any = run_local) -> SweepSummary:
    """Run a sweep without printing."""
    config, runs = sweep_config_of(values)
    return run_sweep(config, runs, out, Console(quiet=True), "command", executor)


def measured(out: Path) -> dict[str, Any]:
    """Every result file without the time it took."""
    by_file = {}
    for file in sorted((out / "runs").rglob("*.json")):
        values = json.loads(file.read_text())
        del values["seconds_per_step"]
        by_file[file.relative_to(out).as_posix()] = values
    return by_file


def written_at(out: Path) -> dict[str, int]:
    """Every file of a sweep but its lock, and when it was written."""
    files = [file for file in out.rglob("*") if file.is_file() and file.name != ".lock"]
    return {file.relative_to(out).as_posix(): file.stat().st_mtime_ns for file in files}
