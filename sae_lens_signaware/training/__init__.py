"""Checked configs, SAELens's runner with its gaps closed, and training on cached activations."""

from sae_lens_signaware.training.cache import collect_activations
from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache
from sae_lens_signaware.training.checkpoints import find_checkpoint
from sae_lens_signaware.training.config import (
    build_runner_config,
    build_sae_config,
    load_runner_config,
)
from sae_lens_signaware.training.measured_run import run_and_measure, train_and_measure
from sae_lens_signaware.training.runner import SignawareTrainingRunner
from sae_lens_signaware.training.strict import StrictModel, read_config, validated

__all__ = [
    "InterruptedTraining",
    "SignawareTrainingRunner",
    "StrictModel",
    "build_runner_config",
    "build_sae_config",
    "collect_activations",
    "find_checkpoint",
    "load_runner_config",
    "read_config",
    "run_and_measure",
    "train_and_measure",
    "train_on_cache",
    "validated",
]
