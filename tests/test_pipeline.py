"""The one pipeline of demo, sweep and protocols: what is measured is what a user loads."""

import dataclasses
from pathlib import Path

import pytest
import torch
from sae_lens import SAE, BatchTopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig

from sae_lens_signaware.evaluation import measure_quality
from sae_lens_signaware.evaluation.quality import QUALITY_FILENAME, SAEQuality
from sae_lens_signaware.experiments import demo, pipeline

D_IN = 8
CFG = BatchTopKTrainingSAEConfig(
    d_in=D_IN, d_sae=16, k=2, normalize_activations="expected_average_only_in"
)
TRAINER = SAETrainerConfig(
    total_training_samples=5 * 32,
    train_batch_size_samples=32,
    lr=1e-3,
    lr_end=1e-3,
    n_batches_for_norm_estimate=2,
)


def test_the_inference_sae_is_measured_and_all_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, heldout = torch.randn(128, D_IN), torch.randn(64, D_IN)
    trained = pipeline.train_save_and_measure(
        CFG,
        TRAINER,
        x,
        heldout,
        seed=0,
        folder=tmp_path / "sae",
        checkpoint=tmp_path / "checkpoint",
        tokens_from="noise",
        metadata={"hook_name": "h"},
    )
    assert capsys.readouterr().err == ""  # SAELens draws a bar there
    loaded = SAE.load_from_disk(tmp_path / "sae")
    assert trained.quality.architecture == loaded.cfg.architecture() == "jumprelu"
    assert trained.quality == measure_quality(loaded, heldout, "noise")[0]
    assert loaded.cfg.metadata.hook_name == "h"
    assert trained.seconds_per_step is not None
    assert trained.seconds_per_step > 0
    on_disk = SAEQuality.read(tmp_path / "sae" / QUALITY_FILENAME)
    assert dataclasses.replace(on_disk, weights_sha256=None) == trained.quality


def test_the_demo_measures_what_a_user_loads_and_reads_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = demo.DemoConfig(n_steps=10, batch_size=16, n_train_tokens=64, n_eval_tokens=32)
    activations = {name: torch.randn(n, D_IN) for name, n in cfg.token_counts.items()}
    row, sae = demo.train_one("one", "k 2", CFG, activations, cfg, tmp_path)
    assert row.quality.architecture == sae.cfg.architecture() == "jumprelu"
    assert row.quality.weights_sha256 is not None
    monkeypatch.delattr(demo, "train_save_and_measure")
    again, _ = demo.train_one("one", "k 2", CFG, activations, cfg, tmp_path)
    assert again == row


def test_the_demo_names_the_saes_that_miss_the_l0_asked_for() -> None:
    quality = SAEQuality(30.0, 0.5, 0.0, 1.0, 32, "sa_gsae", 576, "noise")
    l0s = {"sa_gsae-576-l0-32": 30.7, "sa_gsae-576-l0-64": 553.7, "gated-1152-l1-2.5": 40.0}
    rows = [
        demo.DemoRow(name, "", dataclasses.replace(quality, l0=l0), None)
        for name, l0 in l0s.items()
    ]
    lines = demo.missed_targets(rows, demo.DemoConfig())
    assert lines == ["sa_gsae-576-l0-64: asked for L0 64, measured 553.7"]
