"""What SAELens asks of every architecture, for each tying: files, folds, hooks, dtypes."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import (
    SAE_CLASS_REGISTRY,
    SAE_TRAINING_CLASS_REGISTRY,
    get_sae_class,
    get_sae_training_class,
)
from safetensors.torch import load_file, save_file

import sae_lens_signaware as signaware
from sae_lens_signaware.saes.registration import register
from tests.support.saes import (
    D_IN,
    D_SAE,
    each_architecture,
    each_threshold_architecture,
    each_threshold_variant,
    each_variant,
    inference_classes,
    inference_of,
    make_sae,
    make_training_sae,
    settle,
    x_batch,
)


@each_architecture
def test_registration_survives_a_second_import_and_a_reload(architecture: str) -> None:
    importlib.import_module("sae_lens_signaware")
    importlib.reload(signaware)
    assert get_sae_training_class(architecture)[1].architecture() == architecture
    saved_as = inference_classes(architecture)[1].architecture()
    assert get_sae_class(saved_as)[1].architecture() == saved_as


def test_another_holder_of_the_name_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = get_sae_class("gated")
    monkeypatch.setitem(SAE_CLASS_REGISTRY, "sa_gsae", theirs)
    monkeypatch.setitem(
        SAE_TRAINING_CLASS_REGISTRY, "sa_gsae", SAE_TRAINING_CLASS_REGISTRY["sa_gsae"]
    )
    with pytest.raises(ValueError, match="sa_gsae already registered"):
        register(
            signaware.SAGatedSAE,
            signaware.SAGatedSAEConfig,
            signaware.SAGatedTrainingSAE,
            signaware.SAGatedTrainingSAEConfig,
        )
    assert SAE_CLASS_REGISTRY["sa_gsae"] is theirs


ROWS = {
    ("sa_gsae", "full"): {"threshold": 1, "r_mag": 1, "b_mag": 1},
    ("sa_gsae", "radii"): {"threshold": 2, "r_mag": 1, "b_mag": 2},
    ("sa_gsae", "none"): {"threshold": 2, "r_mag": 2, "b_mag": 2},
    ("bi_jumprelu", "full"): {"threshold": 1, "b_mag": 1},
    ("bi_jumprelu", "none"): {"threshold": 2, "b_mag": 1},
}


@pytest.mark.parametrize(("architecture", "tying"), ROWS, ids=map("-".join, ROWS))
def test_fresh_sae_has_the_state_of_the_design(architecture: str, tying: str) -> None:
    state = make_sae(architecture, tying).state_dict()
    wanted = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    wanted |= {name: (n, D_SAE) for name, n in ROWS[architecture, tying].items()}
    if architecture == "bi_jumprelu":
        wanted["b_enc"] = (D_SAE,)
    assert {k: tuple(v.shape) for k, v in state.items()} == wanted


@each_variant
def test_latents_have_both_signs_and_training_agrees_with_inference(
    architecture: str, tying: str
) -> None:
    training = make_training_sae(architecture, tying)
    settle(training, x_batch())
    sae = inference_of(training)
    z = sae.encode(x_batch())
    assert (z > 0).any()
    assert (z < 0).any()
    assert (z == 0).any()
    torch.testing.assert_close(training.encode(x_batch()), z)
    torch.testing.assert_close(training(x_batch()), sae(x_batch()))


@each_architecture
def test_odd_symmetry_of_the_fully_tied_variant(architecture: str) -> None:
    # encode(2 b_dec - x) = -encode(x), where there is no b_enc
    sae = make_sae(architecture, "full", dtype="float64")
    if hasattr(sae, "b_enc"):
        sae.b_enc.data.zero_()
    x = x_batch(dtype=torch.float64)
    torch.testing.assert_close(sae.encode(2 * sae.b_dec - x), -sae.encode(x), rtol=0, atol=1e-12)


@each_variant
def test_inference_model_round_trip(architecture: str, tying: str, tmp_path: Path) -> None:
    training = make_training_sae(architecture, tying)
    settle(training, x_batch())
    training.save_inference_model(tmp_path)
    loaded = SAE.load_from_disk(tmp_path)
    assert type(loaded) is inference_classes(architecture)[0]
    assert loaded.cfg.polarity_tying == tying
    assert loaded.cfg.metadata.training_architecture == architecture
    torch.testing.assert_close(loaded.encode(x_batch()), training.encode(x_batch()))
    torch.testing.assert_close(loaded(x_batch()), training(x_batch()))
    loaded.save_model(tmp_path / "again")
    again = SAE.load_from_disk(tmp_path / "again")
    torch.testing.assert_close(again(x_batch()), loaded(x_batch()), rtol=0, atol=0)


@each_threshold_variant
def test_training_object_saved_by_save_model_loads_as_both(
    architecture: str, tying: str, tmp_path: Path
) -> None:
    training = make_training_sae(architecture, tying, target_l0=5.0)
    training.l0_control.copy_(torch.tensor([0.5, 7.0]))
    training.n_threshold_resets.fill_(3)
    training.save_model(tmp_path)
    inference = SAE.load_from_disk(tmp_path)
    assert "l0_control" not in inference.state_dict()
    torch.testing.assert_close(inference(x_batch()), training(x_batch()))
    again: Any = TrainingSAE.load_from_disk(tmp_path)
    assert again.l0_control.tolist() == [0.5, 7.0]
    assert again.n_threshold_resets.item() == 3
    assert again.cfg.target_l0 == 5.0


@each_threshold_variant
def test_inference_files_load_for_more_training(
    architecture: str, tying: str, tmp_path: Path
) -> None:
    training = make_training_sae(architecture, tying)
    training.l0_control.fill_(1.0)
    training.save_inference_model(tmp_path)
    again: Any = TrainingSAE.load_from_disk(tmp_path)
    assert again.l0_control.tolist() == [0.0, 0.0]
    assert again.threshold.dtype == torch.float32
    assert all(p.device.type == "cpu" for p in again.parameters())


@each_threshold_architecture
def test_an_inference_file_restarts_the_state_of_a_training(
    architecture: str, tmp_path: Path
) -> None:
    make_sae(architecture).save_model(tmp_path)
    sae = make_training_sae(architecture, target_l0=4.0)
    state = "l0_control", "n_threshold_resets", "tokens_since_active"
    for name in state:
        getattr(sae, name).fill_(7)
    sae.load_weights_from_checkpoint(tmp_path)
    for name in state:
        assert not getattr(sae, name).any(), name


@each_variant
def test_parameters_and_buffers_are_made_on_the_configured_device(
    architecture: str, tying: str
) -> None:
    sae: Any = TrainingSAE.from_dict(
        {**make_training_sae(architecture, tying).cfg.to_dict(), "device": "meta"}
    )
    assert {t.device.type for t in [*sae.parameters(), *sae.buffers()]} == {"meta"}


@each_threshold_variant
def test_a_threshold_below_zero_is_not_saved_for_inference(
    architecture: str, tying: str, tmp_path: Path
) -> None:
    training = make_training_sae(architecture, tying)
    training.threshold.data.fill_(-0.1)
    training.save_inference_model(tmp_path)
    assert load_file(tmp_path / "sae_weights.safetensors")["threshold"].abs().max() == 0


@each_variant
def test_fold_W_dec_norm(architecture: str, tying: str) -> None:
    for sae in (make_sae(architecture, tying), make_training_sae(architecture, tying)):
        x = x_batch()
        z, out, norm = sae.encode(x), sae(x), sae.W_dec.norm(dim=1)
        norm = 1.0 if sae._latent_scale() is not None else norm  # z is in those units already
        try:
            sae.fold_W_dec_norm()
        except NotImplementedError:  # its choice of latents depends on the norm; nothing changed
            torch.testing.assert_close(sae(x), out)
            continue
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))
        torch.testing.assert_close(sae.encode(x), z * norm)
        torch.testing.assert_close(sae(x), out)


@each_variant
def test_fold_activation_norm_scaling_factor(architecture: str, tying: str) -> None:
    sae = make_training_sae(architecture, tying, normalize_activations="expected_average_only_in")
    x, scale = x_batch(), 2.5
    z, out = sae.encode(x * scale), sae(x * scale)
    settle(sae, x * scale)
    rescales = sae._latent_scale() is not None
    sae.fold_activation_norm_scaling_factor(scale)
    torch.testing.assert_close(sae.encode(x), z / scale if rescales else z)
    torch.testing.assert_close(inference_of(sae).encode(x), sae.encode(x))
    torch.testing.assert_close(sae(x), out / scale)
    assert sae.cfg.normalize_activations == "none"


@each_variant
@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_fold_activation_whitening(
    architecture: str, tying: str, apply_b_dec_to_input: bool
) -> None:
    # without an encoder bias, the input's centring alone can absorb the shift
    has_b_enc = hasattr(make_training_sae(architecture, tying), "b_enc")
    if not (has_b_enc or apply_b_dec_to_input):
        with pytest.raises(ValueError, match=r"apply_b_dec_to_input must be true"):
            make_training_sae(
                architecture,
                tying,
                normalize_activations="covariance_whitening",
                apply_b_dec_to_input=False,
            )
        return
    sae = make_training_sae(
        architecture,
        tying,
        normalize_activations="covariance_whitening",
        apply_b_dec_to_input=apply_b_dec_to_input,
        dtype="float64",
    )
    x = x_batch(dtype=torch.float64)
    mean = torch.randn(D_IN, dtype=torch.float64)
    whiten = torch.randn(D_IN, D_IN, dtype=torch.float64)
    unwhiten = torch.linalg.inv(whiten)
    x_white = (x - mean) @ whiten
    z, out = sae.encode(x_white), sae(x_white) @ unwhiten + mean
    sae.fold_activation_whitening(mean, whiten, unwhiten)
    torch.testing.assert_close(sae.encode(x), z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(sae(x), out, rtol=1e-8, atol=1e-8)


@each_variant
def test_wrong_weights_give_one_line(architecture: str, tying: str, tmp_path: Path) -> None:
    make_sae(architecture, tying).save_model(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    state = load_file(file)

    save_file({**state, "W_enc": state["W_enc"][:, :-1].contiguous()}, file)
    with pytest.raises(
        ValueError, match=r"shape of W_enc .* must be \(16, 24\) .* got \(16, 23\)"
    ) as e:
        SAE.load_from_disk(tmp_path)
    assert "\n" not in str(e.value)

    name = next((name for name in state if name not in ("W_enc", "W_dec", "b_dec")), "b_dec")
    save_file({k: v for k, v in state.items() if k != name}, file)
    with pytest.raises(ValueError, match=rf"missing \['{name}'\]"):
        SAE.load_from_disk(tmp_path)

    save_file({**state, "b_gate": state["b_dec"].clone()}, file)
    with pytest.raises(ValueError, match=r"unknown \['b_gate'\]"):
        SAE.load_from_disk(tmp_path)


@each_architecture
def test_a_later_format_gives_one_line(architecture: str, tmp_path: Path) -> None:
    make_sae(architecture).save_model(tmp_path)
    cfg = tmp_path / "cfg.json"
    cfg.write_text(re.sub('"format_version": [12]', '"format_version": 3', cfg.read_text()))
    with pytest.raises(ValueError, match=r"format_version must be an integer from 1 to 2, got 3"):
        SAE.load_from_disk(tmp_path)
