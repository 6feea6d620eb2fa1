"""Checked configs, training on cached activations, and SAELens's runner with measures after it."""

from sae_lens_signaware.training.cache import load_named_activations
from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache, train_timed
from sae_lens_signaware.training.config import build_runner_config, load_runner_config, read_yaml

__all__ = [
    "InterruptedTraining",
    "build_runner_config",
    "load_named_activations",
    "load_runner_config",
    "read_yaml",
    "train_on_cache",
    "train_timed",
]
