"""Checkpoints of a training, loaded by the commands and by ``load_sae_reference``."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sae_lens import SAE, BatchTopKTrainingSAEConfig, SAETrainer, TrainingSAE
from sae_lens.constants import ACTIVATION_WHITENING_FILENAME
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.hub.upload import push
from tests.support.hub_server import HubServer
from tests.support.saes import D_IN, make_training_sae, training_config
from tests.support.training import batches, trainer_config

SCALER = "activation_scaler.json"


def trained(architecture: str, normalisation: str, folder: Path) -> SAE[Any]:
    """Train for 12 steps with a checkpoint at the last; what the training saves at its end."""
    if architecture == "batchtopk":
        cfg: Any = BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=24, k=4)
    else:
        cfg = training_config(architecture)
    cfg.normalize_activations = normalisation
    sae = TrainingSAE.from_dict(cfg.to_dict())
    trainer = SAETrainer(trainer_config(12), sae, (7 * x for x in batches()))
    fold = sae.fold_activation_norm_scaling_factor, sae.fold_activation_whitening

    def checkpoint_first(which: int) -> Any:
        def checkpoint_then_fold(*args: Any, **kwargs: Any) -> None:
            trainer.save_checkpoint("last", base_path=folder)
            fold[which](*args, **kwargs)

        return checkpoint_then_fold

    sae.fold_activation_norm_scaling_factor = checkpoint_first(0)
    sae.fold_activation_whitening = checkpoint_first(1)
    trainer.fit()
    sae.save_inference_model(folder / "output")
    return SAE.load_from_disk(folder / "output")


@pytest.mark.parametrize("normalisation", ["expected_average_only_in", "covariance_whitening"])
@pytest.mark.parametrize("architecture", ["bi_jumprelu", "sa_gsae", "bi_batchtopk", "batchtopk"])
def test_a_checkpoint_is_what_the_training_would_have_saved(
    architecture: str, normalisation: str, tmp_path: Path
) -> None:
    saved = trained(architecture, normalisation, tmp_path)
    loaded = signaware.load_sae_reference(tmp_path / "last")
    assert type(loaded) is type(saved)
    assert loaded.cfg.normalize_activations == "none"
    x = 7 * next(batches(1))
    assert (saved.encode(x) != 0).any()
    assert_close(loaded.encode(x), saved.encode(x))
    assert_close(loaded(x), saved(x))


@pytest.mark.parametrize("architecture", ["bi_jumprelu", "bi_batchtopk"])
def test_a_pushed_checkpoint_is_the_sae_that_was_loaded(
    architecture: str, hub: HubServer, tmp_path: Path
) -> None:
    saved = trained(architecture, "expected_average_only_in", tmp_path)
    repo = f"someone/checkpoint-{architecture}"
    push(tmp_path / "last", repo, "a")
    x = 7 * next(batches(1))
    assert_close(SAE.from_pretrained(repo, "a")(x), saved(x))
    assert_close(SAE.from_pretrained(repo, "a-plain")(x), saved(x))


@pytest.mark.parametrize("factor", ["0.0", "-1.0", "NaN", "Infinity", "true", '"1"'])
def test_a_scale_that_is_none_is_one_line(factor: str, tmp_path: Path) -> None:
    trained("bi_jumprelu", "expected_average_only_in", tmp_path)
    (tmp_path / "last" / SCALER).write_text(f'{{"scaling_factor": {factor}}}')
    with pytest.raises(ConfigError) as error:
        signaware.load_sae_reference(tmp_path / "last")
    assert "scaling_factor must be a finite number above 0, got " in str(error.value)


def test_a_whitening_that_is_not_finite_is_one_line(tmp_path: Path) -> None:
    trained("bi_jumprelu", "covariance_whitening", tmp_path)
    path = tmp_path / "last" / ACTIVATION_WHITENING_FILENAME
    held = load_file(path)
    first = next(iter(held))
    save_file(held | {first: held[first] * math.nan}, path)
    with pytest.raises(ConfigError, match=r"its whitening holds NaN or inf$"):
        signaware.load_sae_reference(tmp_path / "last")


@pytest.mark.parametrize("scaler", [None, {"scaling_factor": None, "has_whitening": False}])
def test_a_checkpoint_without_its_scale_is_one_line(
    scaler: dict[str, Any] | None, tmp_path: Path
) -> None:
    trained("bi_jumprelu", "expected_average_only_in", tmp_path)
    path = tmp_path / "last" / SCALER
    path.unlink()
    if scaler is not None:
        path.write_text(json.dumps(scaler))
    with pytest.raises(ConfigError, match=r"last is of activations .* its scale is not there") as e:
        signaware.load_sae_reference(tmp_path / "last")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_a_threshold_that_is_not_finite(value: float, tmp_path: Path) -> None:
    sae = make_training_sae("sa_gsae")
    sae.threshold.data[0, 3] = value
    sae.save_model(tmp_path)
    with pytest.raises(InvalidInputError, match=r"threshold in .* must be finite"):
        TrainingSAE.load_from_disk(tmp_path)
    if value > 0:  # a gate that never opens
        loaded: Any = SAE.load_from_disk(tmp_path)
        assert loaded.threshold[0, 3] == math.inf
    else:
        with pytest.raises(InvalidInputError, match=r"threshold in .* must be finite"):
            SAE.load_from_disk(tmp_path)
