"""Values of a small config of a SAELens runner, in Python and as YAML has them."""

from pathlib import Path
from typing import Any

from benchmarks.faults.small import HOOK, runner_config
from tests.support import configs

__all__ = ["BASE", "QUIET", "runner_config", "write"]

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


def write(folder: Path, changes: dict[str, Any] | None = None, sae: Any = None) -> Path:
    """Write ``BASE`` with changes of its fields and of those of its SAE."""
    values = {**BASE, **(changes or {}), "sae": {**BASE["sae"], **(sae or {})}}
    return configs.write(values, folder / "config.yaml")
