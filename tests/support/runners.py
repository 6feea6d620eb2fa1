"""Values of a small config of a SAELens runner, in Python and as YAML has them."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.small import HOOK, runner_config
from tests.support import configs

__all__ = ["BASE", "QUIET", "runner_config", "running_state", "write"]

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


def running_state(sae: Any) -> torch.Tensor:
    """What a training of this architecture goes on from, a vector; its last number is above 0.

    The state of its steering, its running threshold, or where it has neither the decoder norms.
    """
    for name in ("l0_control", "topk_threshold"):
        if hasattr(sae, name):
            return getattr(sae, name).reshape(-1)
    return sae.W_dec.detach().norm(dim=1)
