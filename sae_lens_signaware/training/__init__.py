"""Checked configs, SAELens's runner with its gaps closed, and training on cached activations."""

from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache
from sae_lens_signaware.training.config import build_sae_config, load_runner_config
from sae_lens_signaware.training.runner import SignawareTrainingRunner, train_and_measure

__all__ = [
    "InterruptedTraining",
    "SignawareTrainingRunner",
    "build_sae_config",
    "load_runner_config",
    "train_and_measure",
    "train_on_cache",
]
