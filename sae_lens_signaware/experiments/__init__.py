"""Comparing architectures: frontiers and verdicts (docs/experiments.md)."""

from sae_lens_signaware.experiments.frontier import (
    Point,
    SeedSummary,
    Verdict,
    compare_frontiers,
    dead_share_ratio,
    summarise_seeds,
)

__all__ = [
    "Point",
    "SeedSummary",
    "Verdict",
    "compare_frontiers",
    "dead_share_ratio",
    "summarise_seeds",
]
