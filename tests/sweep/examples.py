"""A small sweep, and what is read of its results."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.saes import D_IN

TAKEN_OVER = "results of an earlier version have no digest of model and text"


def sweep_values(data: Path) -> dict[str, Any]:
    shared = {"d_sae": 24, "normalize_activations": "expected_average_only_in"}
    return {
        "runner": {
            "model_name": str(data / "model"),
            "model_class_name": "AutoModelForCausalLM",
            "dataset_path": str(data / "train"),
            "streaming": False,
            "is_dataset_tokenized": False,
            "context_size": 16,
            "device": "cpu",
            "training_tokens": 64 * 12,
            "train_batch_size_tokens": 64,
            "store_batch_size_prompts": 4,
            "n_batches_in_buffer": 4,
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
            "half": {"architecture": "sa_gsae", "l1_coefficient": [0.1, 1.0], **shared},
            "full": {
                **shared,
                "architecture": "gated",
                "l1_coefficient": [0.1, 1.0],
                "d_sae": 48,
            },
        },
        "compare": [["half", "full"]],
        "latents": {
            "saes": ["half"],
            "value": 0.1,
            "plain": "full",
            "n_latents": 4,
            "n_contexts": 2,
            "n_prompts": 8,
        },
    }


def last_line(result: Any) -> str:
    """Of standard error; transformers draws a bar there as it loads a model."""
    return result.stderr.strip().splitlines()[-1]


def written_at(out: Path) -> dict[Path, int]:
    """When each result of a run, and each file of latents, was written."""
    files = [f for name in ("runs", "latents") for f in (out / name).rglob("*.json")]
    return {file: file.stat().st_mtime_ns for file in files}


def measured(out: Path) -> dict[str, Any]:
    """Everything in the result files but the time it took, and the weights."""
    by_file: dict[str, Any] = {}
    for file in sorted((out / "runs").rglob("*.json")):
        values = json.loads(file.read_text())
        del values["seconds_per_step"]
        by_file[str(file.relative_to(out))] = values
    for file in sorted((out / "saes").rglob("sae_weights.safetensors")):
        by_file[str(file.relative_to(out))] = {k: v.tolist() for k, v in load_file(file).items()}
    return by_file


def assert_same_up_to_rounding(after: Any, before: Any, what: str) -> None:
    """Numbers may differ in rounding, and later fields are added.

    Another processor adds in another order, and Adam divides small gradients by small numbers. So
    a weight near zero may differ by much of itself, and a whole tensor may not.
    """
    if isinstance(before, dict):
        for key, value in before.items():
            assert_same_up_to_rounding(after[key], value, f"{what}: {key}")
    elif isinstance(before, list) and what.split(": ")[0].endswith(".safetensors"):
        one, other = torch.tensor(after), torch.tensor(before)
        assert one.shape == other.shape, what
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-6, what
    elif isinstance(before, list):
        assert len(after) == len(before), what
        for one, other in zip(after, before, strict=True):
            assert_same_up_to_rounding(one, other, what)
    elif isinstance(before, float):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-5), what
    else:
        assert after == before, what


def without_latents(whole: tuple[Path, str], out: Path) -> Path:
    """A copy of a whole sweep of which the latents are missing."""
    shutil.copytree(whole[0], out)
    shutil.rmtree(out / "latents")
    return out


def pages(out: Path) -> dict[str, Any]:
    return {file.name: json.loads(file.read_text()) for file in (out / "latents").iterdir()}
