"""Signed SAEs on each device: no step waits for it, and on a GPU results are those of the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, SAETrainer, TrainingSAE

from sae_lens_signaware.saes.finite_losses import CHECK_INTERVAL
from sae_lens_signaware.saes.metrics import n_active
from tests.support.devices import each_accelerator, each_device, each_device_with_values, no_waits
from tests.support.saes import (
    D_IN,
    D_SAE,
    each_variant,
    each_variant_one_by_default,
    make_sae,
    make_training_sae,
    training_config,
)
from tests.support.training import step_input, trainer_config

CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
BATCH = 16

# Whatever a step can have, each where the architecture has it.
EVERYTHING = {
    "auxk_coefficient": 0.5,
    "aux_loss_coefficient": 0.5,
    "target_l0": 6.0,
    "dead_threshold_reset": True,
    "threshold_reset_interval": 10,
}


def batch(device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    g = torch.Generator().manual_seed(4)
    return torch.randn(BATCH, D_IN, generator=g).to(device, dtype)


def train_once(sae: Any, step: int) -> Any:
    """One forward and backward pass with dead latents, on the device of the SAE."""
    x = batch(sae.device, sae.dtype)
    dead = (torch.arange(D_SAE) < 5).to(sae.device)
    with no_waits(sae.device.type):
        out = sae.training_forward_pass(step_input(x, dead_neuron_mask=dead, n_training_steps=step))
        out.loss.backward()
    return out


def everything(architecture: str) -> dict[str, Any]:
    """Those of :data:`EVERYTHING` that the architecture's config has."""
    return {k: v for k, v in EVERYTHING.items() if hasattr(training_config(architecture), k)}


def assert_is_like(got: torch.Tensor, wanted: torch.Tensor, device: str) -> None:
    """Place, shape and dtype, and the values where there are any."""
    assert got.device.type == device
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    if device != "meta":
        torch.testing.assert_close(got.cpu(), wanted, **CLOSE)


@each_device
@each_variant
def test_an_sae_encodes_and_decodes_on_its_device(
    architecture: str, tying: str, device: str
) -> None:
    here, there = (make_sae(architecture, tying, device=d) for d in ("cpu", device))
    for parameter in there.parameters():
        assert parameter.device.type == device
    with torch.no_grad():
        wanted = here.encode(batch("cpu"))
        with no_waits(device):
            z = there.encode(batch(device))
            out = there.decode(z)
    assert_is_like(z, wanted, device)
    assert_is_like(out, here.decode(wanted).detach(), device)
    assert_is_like(there(batch(device)).detach(), here(batch("cpu")).detach(), device)


@each_accelerator
@each_variant
@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
def test_a_training_step_does_not_wait_and_is_that_of_the_cpu(
    architecture: str, tying: str, normalize: str, device: str
) -> None:
    fields = everything(architecture)
    fields |= {"normalize_activations": normalize}
    here = make_training_sae(architecture, tying, use_sparse_activations=False, **fields)
    there = make_training_sae(architecture, tying, device=device, **fields)
    for step in (9, 10):  # the second one resets the thresholds of dead latents
        wanted, got = train_once(here, step), train_once(there, step)
        assert set(got.losses) == set(wanted.losses)
        assert there._auxk_names[1] in got.losses
        for name, loss in wanted.losses.items():
            assert_is_like(got.losses[name].detach(), loss.detach(), device)
        assert_is_like(got.sae_out.detach(), wanted.sae_out.detach(), device)
        for (name, a), (_, b) in zip(
            there.named_parameters(), here.named_parameters(), strict=True
        ):
            assert a.grad is not None, name
            assert b.grad is not None, name
            assert_is_like(a.grad, b.grad, device)
        for (_, a), (_, b) in zip(there.named_buffers(), here.named_buffers(), strict=True):
            assert_is_like(a, b, device)


@each_accelerator
@each_variant
def test_a_step_in_16_bits_does_not_wait(architecture: str, tying: str, device: str) -> None:
    fields = everything(architecture)
    sae = make_training_sae(architecture, tying, device=device, dtype="bfloat16", **fields)
    out = train_once(sae, 10)
    assert out.sae_out.dtype == torch.bfloat16
    for name, parameter in sae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == parameter.dtype


@each_variant
def test_a_look_at_the_loss_is_what_waits(architecture: str, tying: str) -> None:
    # so that the tests above can fail: on meta a wait does raise
    sae = make_training_sae(architecture, tying, device="meta")
    train_once(sae, CHECK_INTERVAL - 2)
    with pytest.raises(RuntimeError, match="meta"):
        train_once(sae, CHECK_INTERVAL - 1)


@each_accelerator
@each_variant_one_by_default
def test_a_step_of_saelens_trainer_does_not_wait(
    architecture: str, tying: str, device: str
) -> None:
    fields = everything(architecture)
    sae = make_training_sae(architecture, tying, device=device, **fields)
    trainer: Any = SAETrainer(trainer_config(12, device=device), sae, iter(()))
    x = batch(device)
    for step in range(12):
        trainer.n_training_steps = step
        with no_waits(device):
            trainer.step(x)
    for tensor in (trainer.n_forward_passes_since_fired, *sae.parameters(), *sae.buffers()):
        assert tensor.device.type == device


def test_sparse_latents_are_counted_where_they_are() -> None:
    indices = torch.empty(2, 5, dtype=torch.int64, device="meta")
    z = torch.sparse_coo_tensor(
        indices, torch.empty(5, device="meta"), (3, 4), is_coalesced=True, check_invariants=False
    )
    assert n_active(z).device.type == "meta"
    assert n_active(torch.eye(3).to_sparse_coo()) == 3


@each_device_with_values
@each_variant
def test_an_sae_travels_between_devices_by_file(
    architecture: str, tying: str, device: str, tmp_path: Path
) -> None:
    sae = make_training_sae(architecture, tying, device=device)
    train_once(sae, 0)
    sae.save_model(tmp_path / "training")
    sae.save_inference_model(tmp_path / "inference")
    for to in {"cpu", device}:
        again = TrainingSAE.load_from_disk(tmp_path / "training", device=to)
        for name, value in sae.state_dict().items():
            assert_is_like(again.state_dict()[name], value.cpu(), to)
        here, there = (SAE.load_from_disk(tmp_path / "inference", device=d) for d in ("cpu", to))
        assert_is_like(there(batch(to)).detach(), here(batch("cpu")).detach(), to)
