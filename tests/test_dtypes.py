"""SAEs in 16 bits: thresholds and training state stay exact, in memory and in files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, TrainingSAE
from safetensors.torch import load_file

from sae_lens_signaware.saes.state import TRAINING_STATE, names_of_bases
from tests.support.defaults import default_dtype
from tests.support.saes import (
    D_IN,
    D_SAE,
    each_threshold_variant,
    each_variant,
    make_sae,
    make_training_sae,
)
from tests.support.training import step_input


def batch() -> torch.Tensor:
    return torch.randn(32, D_IN, generator=torch.Generator().manual_seed(1))


@each_threshold_variant
def test_bfloat16_keeps_the_training_threshold_in_float32(architecture: str, tying: str) -> None:
    training = make_training_sae(architecture, tying, dtype="bfloat16")
    assert training.W_enc.dtype == torch.bfloat16
    assert training.threshold.dtype == torch.float32
    assert training(batch().bfloat16()).dtype == torch.bfloat16
    # a step that bfloat16 would round away at 0.25 survives a cast there and back
    training.threshold.data.fill_(0.25 + 1e-4)
    cast = training.to(torch.bfloat16)
    assert cast.threshold.dtype == torch.float32
    assert cast.threshold[0, 0].item() == pytest.approx(0.2501)
    assert cast.l0_control.dtype == torch.float32
    # float32 and bfloat16 agree to bfloat16's precision where no gate flips
    inference = make_sae(architecture, tying)
    z32 = inference.encode(batch())
    z16 = inference.to(torch.bfloat16).encode(batch().bfloat16())
    assert z16.dtype == torch.bfloat16
    both = (z32 != 0) & (z16 != 0)
    assert both.float().mean() > 0.3
    torch.testing.assert_close(z16[both].float(), z32[both], rtol=0.05, atol=0.05)


@each_variant
@pytest.mark.parametrize("wider", ["float32", "float64"])
def test_a_checkpoint_in_16_bits_loads_in_more(
    architecture: str, tying: str, wider: str, tmp_path: Path
) -> None:
    sae = make_training_sae(architecture, tying, dtype="bfloat16")
    sae.save_model(tmp_path)
    loaded = TrainingSAE.load_from_disk(tmp_path, dtype=wider)
    assert loaded.W_enc.dtype == getattr(torch, wider)
    expected = sae.state_dict()
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, expected[name].to(tensor.dtype), rtol=0, atol=0)


@each_variant
@pytest.mark.parametrize(("narrower", "count"), [("bfloat16", 70_144), ("float16", 65_504)])
def test_a_checkpoint_in_32_bits_loads_in_less_with_its_counts_rounded(
    architecture: str, tying: str, narrower: str, count: int, tmp_path: Path
) -> None:
    sae = make_training_sae(architecture, tying)
    sae.tokens_since_active[3] = 70_001  # bfloat16 has eight bits of it, and float16 ends before
    sae.save_model(tmp_path)
    loaded: Any = TrainingSAE.load_from_disk(tmp_path, dtype=narrower)
    assert loaded.W_enc.dtype == getattr(torch, narrower)
    assert loaded.tokens_since_active.tolist() == [0, 0, 0, count, *[0] * (D_SAE - 4)]


@each_threshold_variant
def test_training_state_does_not_follow_the_default_dtype(architecture: str, tying: str) -> None:
    with default_dtype(torch.float64):
        sae = make_training_sae(architecture, tying)
    dtypes = {name: tensor.dtype for name, tensor in sae.state_dict().items()}
    assert dtypes == {
        name: tensor.dtype
        for name, tensor in make_training_sae(architecture, tying).state_dict().items()
    }


@each_threshold_variant
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_training_state_survives_a_file(
    architecture: str, tying: str, dtype: str, tmp_path: Path
) -> None:
    sae = make_training_sae(architecture, tying, dtype=dtype)
    sae.n_threshold_resets += 1001  # bfloat16 has no 1001, nor these
    sae.l0_control.copy_(torch.tensor([0.123456, 31.23456]))
    sae.save_model(tmp_path)
    loaded = TrainingSAE.load_from_disk(tmp_path)
    resumed = make_training_sae(architecture, tying, dtype=dtype)
    resumed.load_weights_from_checkpoint(tmp_path)
    for other in (loaded, resumed):
        assert other.n_threshold_resets.item() == 1001
        for name in ("l0_control", "threshold"):
            assert torch.equal(getattr(other, name), getattr(sae, name)), name
    inference = SAE.load_from_disk(tmp_path)
    assert set(inference.state_dict()) == set(make_sae(architecture, tying).state_dict())
    keys = set(load_file(tmp_path / "sae_weights.safetensors"))
    assert keys - set(sae.state_dict()) == (
        set()
        if dtype == "float32"
        else {
            f"{name}_bytes"
            for name in (*names_of_bases(type(sae), "_kept_in_own_dtype"), *TRAINING_STATE)
            if hasattr(sae, name) and getattr(sae, name).dtype != sae.dtype
        }
    )


@each_variant
def test_bfloat16_round_trip(architecture: str, tying: str, tmp_path: Path) -> None:
    training = make_training_sae(architecture, tying, dtype="bfloat16")
    training.save_inference_model(tmp_path)
    saved = load_file(tmp_path / "sae_weights.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert SAE.load_from_disk(tmp_path).dtype == torch.bfloat16
    loaded = SAE.load_from_disk(tmp_path, dtype="float32").state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}


@each_threshold_variant
def test_thresholds_follow_the_module_to_another_device(architecture: str, tying: str) -> None:
    training = make_training_sae(architecture, tying, dtype="bfloat16").to("meta")
    assert training.threshold.device.type == "meta"
    assert training.l0_control.device.type == "meta"


@pytest.mark.parametrize(
    "architecture", ["bi_jumprelu", "bi_batchtopk", "bi_matryoshka_batchtopk", "bi_topk"]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bias_of_each_side_learns_in_bfloat16(
    architecture: str, dtype: str, tmp_path: Path
) -> None:
    # a step of 1e-4 is below what bfloat16 can add to 0.5 and more
    sae = make_training_sae(architecture, dtype=dtype, dead_after_tokens=None)
    with torch.no_grad():
        sae.b_mag.fill_(-0.75)
        sae.b_enc.fill_(0.75)
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-4)
    for step in range(3):
        x = torch.randn(64, D_IN, generator=torch.Generator().manual_seed(step)).to(sae.dtype)
        output = sae.training_forward_pass(
            step_input(x, coefficients={"l0": 0.1}, n_training_steps=step)
        )
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
    for name, start in (("b_mag", -0.75), ("b_enc", 0.75)):
        moved = (getattr(sae, name) - start).abs()
        assert moved.max() > 5e-5, name
        assert moved.max() < 5e-4, name
    # exactly as they are in a checkpoint, and in the SAE's dtype for inference
    sae.save_model(tmp_path / "training")
    resumed = TrainingSAE.load_from_disk(tmp_path / "training")
    assert torch.equal(resumed.b_mag, sae.b_mag)
    assert torch.equal(resumed.b_enc, sae.b_enc)
    sae.save_inference_model(tmp_path / "inference")
    state = load_file(tmp_path / "inference" / "sae_weights.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {sae.dtype}


def test_a_batch_whose_l1_is_beyond_float16_has_a_loss() -> None:
    sae = make_training_sae("sa_gsae", dtype="float16")
    x = 4 * torch.randn(4096, D_IN, dtype=torch.float16)
    l1 = sae.training_forward_pass(step_input(x)).losses["l1_loss"] / 0.7
    assert torch.finfo(torch.float16).max < len(x) * l1.item() < float("inf")
