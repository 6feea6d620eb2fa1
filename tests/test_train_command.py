"""``sae-lens-signaware train``, with a model of transformers in a folder."""

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from sae_lens_signaware.training.heldout import TRAINED_ON_TOO
from tests.support.checked_runs import proxy_model
from tests.support.cli import assert_one_line_error, invoke
from tests.support.runners import runner_config
from tests.support.saes import training_config
from tests.sweep.examples import last_line


def test_train_on_the_command_line(tmp_path: Path) -> None:
    proxy: Any = proxy_model()
    proxy.model.save_pretrained(tmp_path / "model")
    proxy.tokenizer.save_pretrained(tmp_path / "model")
    words = torch.randint(63, (40, 24), generator=torch.Generator().manual_seed(1)).tolist()
    text = [" ".join(f"w{word}" for word in row) for row in words]
    (tmp_path / "text").mkdir()
    Dataset.from_dict({"text": text}).to_parquet(tmp_path / "text" / "train.parquet")
    cfg = runner_config(training_config("sa_gsae"), tmp_path).to_dict() | {
        "model_name": str(tmp_path / "model"),
        "model_class_name": "AutoModelForCausalLM",
        "model_from_pretrained_kwargs": None,
        "hook_name": "transformer.h.0.mlp",
        "dataset_path": str(tmp_path / "text"),
        "is_dataset_tokenized": False,
    }
    path = tmp_path / "runner_cfg.json"
    path.write_text(json.dumps(cfg))
    result = invoke("train", str(path), "--d_in", "12")
    assert result.exit_code == 2
    assert last_line(result) == (
        "Error: sae.d_in must be 16, the width of hook 'transformer.h.0.mlp', got 12"
    )
    result = invoke("train", str(path), "--hook_name", "transformer.h.0.mlpp")
    assert result.exit_code == 2
    assert last_line(result).startswith(
        "Error: hook_name: the model has no module 'transformer.h.0.mlpp'"
    )
    assert "Traceback" not in result.stderr
    result = invoke("train", str(path), "--output_path", str(path))
    assert_one_line_error(result, 2, "output_path must be a folder, got")
    weights = {}
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        out = tmp_path / name
        assert invoke("train", str(path), "--seed", seed, "--output_path", str(out)).exit_code == 0
        weights[name] = (out / "sae_weights.safetensors").read_bytes()
    assert weights["a"] == weights["b"] != weights["c"]
    result = invoke("train", str(path), "--target_l0", "1")
    assert result.exit_code == 0, result.stderr
    printed = " ".join(result.stdout.split())
    assert "Warning: asked for L0 1, measured " in printed
    assert f"Warning: measured on {TRAINED_ON_TOO}" in printed
