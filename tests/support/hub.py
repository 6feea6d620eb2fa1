"""A saved SAE with its measurement, as ``push`` takes it."""

from pathlib import Path
from typing import Any

import torch

from sae_lens_signaware.evaluation import write_measurement
from sae_lens_signaware.evaluation.quality import measure_quality
from tests.support.saes import D_IN


def x_batch() -> torch.Tensor:
    return torch.randn(256, D_IN, generator=torch.Generator().manual_seed(3))


def save_measured(sae: Any, folder: Path) -> None:
    sae.cfg.metadata.hook_name = "blocks.8.hook_mlp_out"
    sae.cfg.metadata.model_name = "EleutherAI/pythia-1b"
    sae.cfg.metadata.dataset_path = "monology/pile-uncopyrighted"
    sae.save_model(folder)
    quality, census = measure_quality(sae, [x_batch()], "noise of a test")
    write_measurement(folder, quality, census)
