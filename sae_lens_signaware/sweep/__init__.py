"""Sweeps: many SAEs on the same cached activations, and which frontier is better."""

from sae_lens_signaware.sweep.config import load_sweep_config as load_sweep_config
from sae_lens_signaware.sweep.executors import run_local as run_local
from sae_lens_signaware.sweep.executors import run_ray as run_ray
from sae_lens_signaware.sweep.executors import run_sweep as run_sweep
from sae_lens_signaware.sweep.results import SweepSummary as SweepSummary
from sae_lens_signaware.sweep.results import print_summary as print_summary
