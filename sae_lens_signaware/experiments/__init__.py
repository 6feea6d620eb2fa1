"""Comparisons of architectures: sweeps with verdicts, protocols, the demo (docs/experiments.md)."""

from sae_lens_signaware.experiments.demo_data import load_demo_model
from sae_lens_signaware.experiments.protocols import load_protocol_config, run_protocol
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.executors import run_local, run_ray
from sae_lens_signaware.experiments.sweep.frontier import (
    Point,
    SeedSummary,
    Verdict,
    compare_frontiers,
    dead_share_ratio,
    summarise_seeds,
)
from sae_lens_signaware.experiments.sweep.summary import summarise

__all__ = [
    "Point",
    "SeedSummary",
    "Verdict",
    "compare_frontiers",
    "dead_share_ratio",
    "load_demo_model",
    "load_protocol_config",
    "load_sweep_config",
    "run_local",
    "run_protocol",
    "run_ray",
    "summarise",
    "summarise_seeds",
]
