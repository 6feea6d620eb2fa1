"""SAEs that version 0.1.0 saved (tests/fixtures/saved_by_0_1_0) load and compute the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import get_sae_class, get_sae_training_class
from safetensors.torch import load_file, save_file

from sae_lens_signaware import measure_quality, write_measurement
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation import saved
from tests.support.saes import D_IN, make_sae

SAVED = Path(__file__).parent / "fixtures" / "saved_by_0_1_0"
EXPECTED = load_file(SAVED / "expected.safetensors")
NAMES = sorted(path.name for path in SAVED.iterdir() if path.is_dir())
TRAINING_NAMES = [name for name in NAMES if name.endswith("-training")]
# The order of a float32 sum may differ between machines.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def cfg_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "cfg.json").read_text())


def architecture_of(name: str) -> str:
    return name.rpartition("-")[0]


def assert_computes_the_same(sae: Any, name: str) -> None:
    latents, output = EXPECTED[f"{name}.latents"], EXPECTED[f"{name}.output"]
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(EXPECTED["x"]), latents, **TOLERANCE)
        torch.testing.assert_close(sae(EXPECTED["x"]), output, **TOLERANCE)


def test_the_fixture_holds_what_these_tests_are_about() -> None:
    assert {architecture_of(name) for name in TRAINING_NAMES} == {"sa_gsae", "bi_jumprelu"}
    assert set(EXPECTED) == {f"{n}.{kind}" for n in NAMES for kind in ("latents", "output")} | {"x"}
    for name in NAMES:
        latents = EXPECTED[f"{name}.latents"]
        assert (latents > 0).any()
        assert (latents < 0).any()
        assert (latents == 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_for_inference_and_computes_the_same(name: str) -> None:
    sae = SAE.load_from_disk(SAVED / name)
    assert type(sae) is get_sae_class(architecture_of(name))[0]
    assert_computes_the_same(sae, name)


@pytest.mark.parametrize("name", TRAINING_NAMES)
def test_it_loads_for_training_with_its_state(name: str) -> None:
    sae: Any = TrainingSAE.load_from_disk(SAVED / name)
    assert type(sae) is get_sae_training_class(architecture_of(name))[0]
    assert sae.cfg.target_l0 == 4.0
    assert sae.n_threshold_resets.item() == 3
    assert sae.l0_control.tolist() == [0.25, 4.5]
    assert_computes_the_same(sae, name)


@pytest.mark.parametrize("name", TRAINING_NAMES)
def test_a_training_goes_on_without_the_later_defaults(name: str) -> None:
    cfg: Any = TrainingSAE.load_from_disk(SAVED / name).cfg
    assert (cfg.dead_after_tokens, cfg.dead_threshold_decay) == (None, 0.0)
    fresh = type(cfg)(d_in=16, d_sae=24)
    assert (fresh.dead_after_tokens, fresh.dead_threshold_decay) == (25_600, 0.01)


def test_an_earlier_bi_jumprelu_has_no_bias_of_the_minus_side() -> None:
    cfg: Any = TrainingSAE.load_from_disk(SAVED / "bi_jumprelu-training").cfg
    assert cfg.minus_bias_init == 0.0
    assert type(cfg)(d_in=16, d_sae=24).minus_bias_init is None


def test_a_training_from_an_inference_file_is_a_new_one(tmp_path: Path) -> None:
    make_sae("sa_gsae").save_model(tmp_path)
    cfg: Any = TrainingSAE.load_from_disk(tmp_path).cfg
    assert (cfg.dead_after_tokens, cfg.dead_threshold_decay) == (25_600, 0.01)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_its_config_is_saved_again(name: str, tmp_path: Path) -> None:
    loader: Any = TrainingSAE if name in TRAINING_NAMES else SAE
    loader.load_from_disk(SAVED / name).save_model(tmp_path)
    before, after = cfg_in(SAVED / name), cfg_in(tmp_path)
    for cfg in (before, after):  # SAELens writes its own version
        cfg["metadata"] = {k: v for k, v in cfg["metadata"].items() if "version" not in k}
    details = after["metadata"].get("training_architecture_details", {})
    for field in set(details) - set(before["metadata"].get("training_architecture_details", {})):
        details.pop(field)  # of a later version
    assert {field: after.get(field) for field in before} == before
    state = load_file(SAVED / name / "sae_weights.safetensors")
    for key, tensor in load_file(tmp_path / "sae_weights.safetensors").items():
        if key in ("tokens_since_active", "b_mag") and key not in state:  # of a later version
            assert not tensor.any()
            continue
        assert torch.equal(tensor, state.pop(key)), key
    assert not state
    again = loader.load_from_disk(tmp_path)
    assert again.cfg == loader.load_from_disk(SAVED / name).cfg
    assert_computes_the_same(again, name)


def test_only_a_file_of_format_1_may_lack_b_mag(tmp_path: Path) -> None:
    make_sae("bi_jumprelu").save_model(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "b_mag"}, file)
    with pytest.raises(InvalidInputError, match=r"missing \['b_mag'\]"):
        SAE.load_from_disk(tmp_path)
    cfg = cfg_in(tmp_path)
    assert cfg["format_version"] == 2
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"format_version": 1}))
    loaded: Any = SAE.load_from_disk(tmp_path)
    assert not loaded.b_mag.any()


def test_a_measurement_that_was_cut_off_vouches_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae, x = make_sae("bi_jumprelu"), torch.randn(64, D_IN)
    sae.save_model(tmp_path)
    quality, census = measure_quality(sae, x, "here")
    real, written = saved.write_tensors, []

    def cut_off(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        real(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(saved, "write_tensors", cut_off)
        with pytest.raises(KeyboardInterrupt):
            write_measurement(tmp_path, quality, census)
    assert saved.measured_quality(tmp_path) is None
    write_measurement(tmp_path, quality, census)
    assert saved.measured_quality(tmp_path) is not None
