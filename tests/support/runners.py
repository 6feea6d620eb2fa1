"""Values of a small config of a SAELens runner, in Python and as YAML has them."""

from pathlib import Path
from typing import Any

from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig

from tests.support.models import HOOK

QUIET = {"log_to_wandb": False}
BASE: dict[str, Any] = {
    "model_name": "tiny",
    "hook_name": "blocks.0.hook_mlp_out",
    "dataset_path": "some/dataset",
    "lr": 1e-3,
    "checkpoint_path": None,
    "sae": {"architecture": "sa_gsae", "d_in": 16, "d_sae": 32, "target_l0": 4},
    "logger": {"log_to_wandb": False},
}


def runner_config(sae: Any, folder: Path, **kwargs: Any) -> LanguageModelSAERunnerConfig[Any]:
    values: dict[str, Any] = {
        "sae": sae,
        "model_name": "tiny",
        "hook_name": HOOK,
        "dataset_path": "tiny",
        "context_size": 16,
        "training_tokens": 64 * 20,
        "train_batch_size_tokens": 64,
        "store_batch_size_prompts": 4,
        "n_batches_in_buffer": 8,
        "lr": 1e-3,
        "logger": LoggingConfig(**QUIET),
        "n_batches_for_norm_estimate": 4,
        "output_path": str(folder / "out"),
        "checkpoint_path": str(folder / "checkpoints"),
        "verbose": False,
        **kwargs,
    }
    return LanguageModelSAERunnerConfig(**values)
