"""What a validation, an encode and a deleted SAE leave behind, and what a user replaces."""

import gc
import weakref
from typing import Any

import pytest
import torch

from sae_lens_signaware.saes.auxk import auxk_loss
from tests.support.defaults import default_dtype
from tests.support.saes import (
    D_IN,
    D_SAE,
    asking_for,
    auxk_names,
    each_architecture,
    each_variant,
    fields_of,
    make_sae,
    make_training_sae,
    recipe_of_dead_latents,
    resetting_every,
)
from tests.support.training import path, step_input


def training_in_need(architecture: str, tying: str = "full") -> Any:
    """A training SAE in which each of what a step counts, steers and decays is at work."""
    decay = dict.fromkeys({"dead_threshold_decay"} & fields_of(architecture), 0.5)
    fields = recipe_of_dead_latents(architecture, 10) | resetting_every(architecture, 1) | decay
    sae = make_training_sae(architecture, tying, **fields, **asking_for(architecture, 4))
    sae.tokens_since_active.fill_(20)
    if hasattr(sae, "b_mag"):
        sae.b_mag.data.fill_(-0.1)
    if hasattr(sae, "threshold"):
        sae.threshold.data.abs_()
    return sae


@each_variant
@pytest.mark.parametrize("sparse", [True, False])
def test_a_validation_leaves_the_training_as_it_was(
    architecture: str, tying: str, sparse: bool
) -> None:
    sae = training_in_need(architecture, tying)
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    step = step_input(torch.randn(32, D_IN), n_training_steps=3)
    with torch.no_grad(), path(sparse):
        sae.eval()
        validation = sae.training_forward_pass(step)
        for name, tensor in sae.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        sae.train()
        trained = sae.training_forward_pass(step)
    changed = {n for n, tensor in sae.state_dict().items() if not torch.equal(tensor, before[n])}
    assert "tokens_since_active" in changed
    assert changed & {"l0_control", "b_mag", "threshold"}
    assert validation.losses.keys() == trained.losses.keys()
    assert validation.losses[auxk_names(architecture)[1]] > 0


@each_variant
@pytest.mark.parametrize("make", [make_sae, make_training_sae])
def test_an_sae_is_freed_with_its_last_name(make: Any, architecture: str, tying: str) -> None:
    gc.disable()
    try:
        sae = make(architecture, tying)
        left = weakref.ref(sae)
        del sae
        assert left() is None
    finally:
        gc.enable()


@each_architecture
@pytest.mark.parametrize("on", ["object", "class"])
def test_what_replaces_a_method_later_counts(
    architecture: str, on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = make_training_sae(architecture)
    original = type(sae).calculate_aux_loss

    def with_mine(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        losses = original(*args, **kwargs) if on == "class" else original(sae, *args, **kwargs)
        return losses | {"mine": torch.tensor(2.0)}

    step = step_input(torch.randn(32, D_IN))
    with path(True):
        before = sae.training_forward_pass(step)
        assert "mine" not in before.losses
        monkeypatch.setattr(sae if on == "object" else type(sae), "calculate_aux_loss", with_mine)
        after = sae.training_forward_pass(step)
    torch.testing.assert_close(after.loss, before.loss + 2.0)


def test_the_tanh_loss_of_float16_is_that_of_float32() -> None:
    fields = {"jumprelu_sparsity_loss_mode": "tanh", "d_sae": D_SAE}
    x = 400 * torch.randn(16, D_IN, generator=torch.Generator().manual_seed(0))
    losses = []
    for dtype in ("float32", "float16"):
        sae = make_training_sae("bi_jumprelu", dtype=dtype, **fields)
        step = step_input(x.to(getattr(torch, dtype)), coefficients={"l0": 1.0})
        z, pre = sae.encode_with_hidden_pre(step.sae_in)
        assert (z.abs() > 256).any()  # the largest number whose square float16 has
        loss = sae.calculate_aux_loss(step, feature_acts=z, hidden_pre=pre, sae_out=step.sae_in)
        losses.append(loss["l0_loss"].float())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-2, atol=0)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_the_auxk_loss_does_not_depend_on_torchs_default_dtype(default: torch.dtype) -> None:
    ungated, W_dec, error = torch.randn(8, 5), torch.randn(5, D_IN), torch.randn(8, D_IN)
    dead = torch.tensor([True, True, False, True, False])
    args = (ungated, W_dec, error, dead, lambda product: product, 7)
    expected = auxk_loss(*args)
    with default_dtype(default):
        loss = auxk_loss(*args)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
