"""The one pipeline of demo, sweep and protocols: what is measured is what a user loads."""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, BatchTopKTrainingSAEConfig, logger
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


def trained_in(folder: Path, heldout: torch.Tensor) -> pipeline.TrainedSAE:
    return pipeline.train_save_and_measure(
        CFG,
        TRAINER,
        torch.randn(128, D_IN),
        heldout,
        seed=0,
        folder=folder / "sae",
        checkpoint=folder / "checkpoint",
        tokens_from="noise",
        metadata={"hook_name": "h"},
    )


def test_the_inference_sae_is_measured_and_all_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heldout = torch.randn(64, D_IN)
    trained = trained_in(tmp_path, heldout)
    assert capsys.readouterr().err == ""  # SAELens draws a bar there
    loaded = SAE.load_from_disk(tmp_path / "sae")
    assert trained.quality.architecture == loaded.cfg.architecture() == "jumprelu"
    assert trained.quality == measure_quality(loaded, heldout, "noise")[0]
    assert loaded.cfg.metadata.hook_name == "h"
    assert trained.seconds_per_step is not None
    assert trained.seconds_per_step > 0
    on_disk = SAEQuality.read(tmp_path / "sae" / QUALITY_FILENAME)
    assert dataclasses.replace(on_disk, weights_sha256=None) == trained.quality


def test_the_time_of_a_resumed_training_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline.train_timed

    def resumed(*args: Any) -> Any:
        return dataclasses.replace(real(*args), n_steps=3)  # of 5

    monkeypatch.setattr(pipeline, "train_timed", resumed)
    assert trained_in(tmp_path, torch.randn(64, D_IN)).seconds_per_step is None


def test_the_demo_is_a_fair_sweep(tmp_path: Path) -> None:
    config, runs = demo.demo_config(tmp_path, 40, 2048)
    trainers = [dataclasses.asdict(run.cfg.to_sae_trainer_config()) for run in runs]
    for trainer in trainers:
        del trainer["logger"]  # it holds a name of the run
        assert trainer == trainers[0]
    assert trainers[0]["total_training_samples"] == 40 * 512
    widths = {run.sae: run.cfg.sae.d_sae for run in runs}
    assert widths == {"signed": 1152, "plain": 1152, "half": 576}
    by_sae = {name: [run.target_l0 for run in runs if run.sae == name] for name in widths}
    assert by_sae == {name: [32, 64] for name in widths}
    # both count a latent as dead after as many tokens
    plain = next(run for run in runs if run.sae == "plain").cfg
    signed = next(run for run in runs if run.sae == "signed").cfg
    tokens = plain.dead_feature_window * plain.train_batch_size_tokens
    assert tokens == signed.sae.dead_after_tokens
    assert config.compare == (("signed", "plain"), ("half", "plain"))


def test_a_short_demo_searches_few_prompts_for_contexts(tmp_path: Path) -> None:
    def n_prompts(n_train_tokens: int) -> int:
        config, _ = demo.demo_config(tmp_path, 40, n_train_tokens)
        assert config.latents is not None
        return config.latents.n_prompts

    assert [n_prompts(n) for n in (1024, 2048, 40_000)] == [4, 8, 64]  # of 256 tokens each


def test_warnings_are_printed_while_bars_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []  # pytest's own: an experiment runs without any
    try:
        with pipeline.without_bars():
            print("a bar", file=sys.stderr)
            logger.warning("a checkpoint was passed over")
    finally:
        root.handlers = handlers
    assert capsys.readouterr().err == "a checkpoint was passed over\n"
    assert logger.handlers == []
