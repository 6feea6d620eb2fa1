"""Values of a small config of a SAELens runner, in Python and as YAML has them."""

from typing import Any

from benchmarks.faults.small import HOOK, runner_config

__all__ = ["BASE", "QUIET", "runner_config"]

QUIET = {"log_to_wandb": False}
BASE: dict[str, Any] = {
    "model_name": "tiny",
    "hook_name": HOOK,
    "dataset_path": "some/dataset",
    "lr": 1e-3,
    "checkpoint_path": None,
    "sae": {"architecture": "sa_gsae", "d_in": 16, "d_sae": 32, "target_l0": 4},
    "logger": {"log_to_wandb": False},
}
