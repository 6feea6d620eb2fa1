"""SignedEvaluator in SAELens's trainer and runners: its metrics in the offline logs of W&B."""

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from sae_lens import (
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
    SAETrainer,
)
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformer
from wandb.proto import wandb_internal_pb2

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation.evaluator import signed_metrics_of
from sae_lens_signaware.evaluation.results import Provenance
from tests.support.models import HOOK, tiny_model_config, tokens
from tests.support.runners import runner_config
from tests.support.saes import ARCHITECTURES, D_IN, make_training_sae, planted, training_config
from tests.support.training import batches, trainer_config

WANDB = {"log_to_wandb": True, "wandb_log_frequency": 2, "eval_every_n_wandb_logs": 2}
KEYS = {"signed/l0", "signed/dead_share", "signed/bipolar_share", "signed/gain_pos_q50"}


def logged_keys(folder: Path) -> set[str]:
    """Keys in the history of the one offline run below ``folder``, read from its own log.

    A .wandb file is a 7-byte header, then LevelDB log records in blocks of 32 KiB: checksum
    (4 bytes), length (2), type (1: whole, 2 to 4: first, middle and last part), protobuf payload.
    """
    wandb.teardown()  # waits for its service to exit: a finished run may not be on disk before
    (file,) = folder.rglob("*.wandb")
    data, position, payload = file.read_bytes(), 7, b""
    keys: set[str] = set()
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        payload += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record.FromString(payload)
            payload = b""
            if record.WhichOneof("record_type") == "history":
                keys |= {i.key or "/".join(i.nested_key) for i in record.history.item}
    return keys


@pytest.fixture
def wandb_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # its settings are read once a process
    yield tmp_path
    wandb.teardown()


def test_batches_are_measured_in_the_units_of_the_sae() -> None:
    sae, source, scaler = make_training_sae("sa_gsae"), batches(), ActivationScaler(3.0)
    metrics = signaware.SignedEvaluator(n_batches=2)(sae, batches(), scaler)
    z = sae.encode(3.0 * torch.cat([next(source), next(source)]))
    assert metrics["signed/n_tokens"] == len(z)
    assert metrics["signed/l0_pos"] == pytest.approx((z > 0).sum().item() / len(z))
    assert metrics["signed/l0_neg"] == pytest.approx((z < 0).sum().item() / len(z))


def test_an_sae_that_normalises_each_token_has_no_gains() -> None:
    sae: Any = make_training_sae("sa_gsae", normalize_activations="layer_norm")
    found = signaware.SignedEvaluator(n_batches=1)(sae, batches(), ActivationScaler())
    assert found["signed/l0"] > 0
    assert not any("gain" in name for name in found)


@pytest.mark.parametrize(("least", "expected"), [(0.05, 0.4), (0.2, 0.3), (0.4, 0.2)])
def test_the_least_share_of_a_two_sided_latent_is_that_asked_for(
    least: float, expected: float
) -> None:
    sae, x, _ = planted()  # of 10 alive ones, 4 are two-sided: shares 0.5, 0.5, 0.25 and 0.1
    quality, _ = signaware.measure_quality(sae, x, "noise", least)
    assert quality.bipolar_share == pytest.approx(expected)
    evaluator = signaware.SignedEvaluator(n_batches=1, bipolar_min_share=least)
    found = evaluator(sae, iter([x]), ActivationScaler())
    assert found["signed/bipolar_share"] == pytest.approx(expected)


def test_the_gains_are_quantiles_of_those_that_are_known() -> None:
    sae, x, _ = planted()
    nan, known = torch.full((12,), torch.nan), torch.arange(101.0)
    calibration = signaware.PolarityCalibration(
        Provenance.of(sae, len(x)), torch.cat([nan, known.flip(0), nan]).double(), nan.double()
    )
    found = signed_metrics_of(signaware.bipolar_census(sae, x), calibration)
    gains = {name: value for name, value in found.items() if "gain" in name}
    expected = {"gain_pos_q05": 5.0, "gain_pos_q50": 50.0, "gain_pos_q95": 95.0}
    assert gains == pytest.approx(expected)
    skewed = dataclasses.replace(calibration, gain_pos=calibration.gain_pos**2)
    assert skewed._summary()["median gain_pos"] == 2500.0


def test_four_batches_are_measured_beside_what_another_evaluator_says() -> None:
    def inner(sae: Any, provider: Any, scaler: Any) -> dict[str, Any]:
        del sae, scaler
        return {"own": len(next(provider))}

    provider = iter([torch.randn(n, D_IN) for n in (1, 2, 4, 8, 16, 32)])
    evaluator = signaware.SignedEvaluator(inner=inner)
    found = evaluator(make_training_sae("sa_gsae"), provider, ActivationScaler())
    assert found["own"] == 1
    assert found["signed/n_tokens"] == 2 + 4 + 8 + 16
    assert len(next(provider)) == 32


def test_evaluator_in_the_trainer(wandb_folder: Path) -> None:
    logger = LoggingConfig(**WANDB)
    wandb.init(mode="offline", dir=wandb_folder)
    sae = make_training_sae("sa_gsae", target_l0=4.0)
    trainer: Any = SAETrainer(
        trainer_config(6, logger=logger), sae, batches(), evaluator=signaware.SignedEvaluator()
    )
    trainer.fit()
    wandb.finish()
    assert logged_keys(wandb_folder) >= KEYS


def test_evaluator_in_the_language_model_runner(wandb_folder: Path) -> None:
    cfg = runner_config(
        training_config("bi_jumprelu"),
        wandb_folder,
        logger=LoggingConfig(**WANDB, log_weights_to_wandb=False),
        training_tokens=64 * 6,
        n_eval_batches=1,
    )
    runner = LanguageModelSAETrainingRunner(
        cfg, override_model=HookedTransformer(tiny_model_config()), override_dataset=tokens()
    )
    runner.evaluator = signaware.SignedEvaluator(inner=runner.evaluator)  # type: ignore[assignment]
    runner.run()
    keys = logged_keys(wandb_folder)
    assert keys >= KEYS
    assert any("model_performance_preservation" in key for key in keys)  # SAELens's own stay


def test_evaluator_in_the_multi_sae_runner(wandb_folder: Path) -> None:
    cfg = MultiSAETrainingRunnerConfig(
        saes={name: training_config(name) for name in ARCHITECTURES},
        hook_names=HOOK,
        model_name="tiny",
        dataset_path="tiny",
        context_size=16,
        training_tokens=64 * 6,
        train_batch_size_tokens=64,
        store_batch_size_prompts=4,
        n_batches_in_buffer=8,
        n_eval_batches=1,
        evaluator=signaware.SignedEvaluator(n_batches=1),
        logger=LoggingConfig(**WANDB, log_weights_to_wandb=False),
        output_path=None,
        checkpoint_path=None,
    )
    model = HookedTransformer(tiny_model_config())
    MultiSAETrainingRunner(cfg, override_model=model, override_dataset=tokens()).run()
    keys = logged_keys(wandb_folder)
    assert {f"{name}/{key}" for name in ARCHITECTURES for key in KEYS} <= keys
