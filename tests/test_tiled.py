"""Training steps by tiles give the losses and gradients of the steps without tiles."""

from typing import Any

import pytest
import torch

from sae_lens_signaware.saes import tiled
from tests.support.saes import D_IN, D_SAE, VARIANTS, each_architecture, make_training_sae
from tests.support.training import TOLERANCE, float64_sae, path, step_input

DEFAULTS: dict[str, list[dict[str, Any]]] = {
    "sa_gsae": [{}, {"apply_b_dec_to_input": False}],
    "bi_jumprelu": [
        {},
        {"apply_b_dec_to_input": False, "jumprelu_ste_to_input": True},
        {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 5.0},
    ],
}


def step(sae: Any, x: torch.Tensor, dead: torch.Tensor) -> tuple[Any, dict[str, torch.Tensor]]:
    sae.zero_grad()
    with path(sparse=False):
        out = sae.training_forward_pass(step_input(x, dead_neuron_mask=dead))
    out.loss.backward()
    return out, {n: p.grad.clone() for n, p in sae.named_parameters() if p.grad is not None}


def compare(sae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "MIN_COLUMNS", 7)  # tiles of a few rows and columns
    monkeypatch.setattr(tiled, "CHUNK_ELEMENTS", 14)
    monkeypatch.setattr(tiled, "TILE_ELEMENTS", 30)
    x = torch.randn(33, D_IN, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    dead = torch.arange(D_SAE) % 3 == 0
    assert sae._tiled_forward_pass(step_input(x, dead_neuron_mask=dead)) is not None
    out, grads = step(sae, x, dead)
    monkeypatch.setattr(sae, "_tile_formulas", lambda: None)
    wanted, wanted_grads = step(sae, x, dead)
    assert 0 < wanted.feature_acts.count_nonzero() < wanted.feature_acts.numel()
    torch.testing.assert_close(out.losses, wanted.losses, **TOLERANCE)
    torch.testing.assert_close(out.feature_acts, wanted.feature_acts, **TOLERANCE)
    torch.testing.assert_close(out.hidden_pre, wanted.hidden_pre, **TOLERANCE)
    torch.testing.assert_close(grads, wanted_grads, **TOLERANCE)


@pytest.mark.parametrize(("architecture", "tying"), [(a, t) for a, t in VARIANTS if a in DEFAULTS])
def test_losses_and_gradients(
    architecture: str, tying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fields in DEFAULTS[architecture]:
        with monkeypatch.context() as patch:
            fields = {"auxk_coefficient": 0.1, **fields}
            compare(float64_sae(architecture, tying, **fields), patch)


def test_a_gated_sae(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(float64_sae("sa_gsae", "full", two_sided=False), monkeypatch)


def test_pre_activation_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"pre_act_loss_coefficient": 0.5}
    compare(float64_sae("bi_jumprelu", "full", **fields), monkeypatch)


def test_a_subclass_may_have_other_formulas() -> None:
    sae = make_training_sae("sa_gsae")
    assert sae._tile_formulas() is not None
    sae.__class__ = type("Other", (type(sae),), {})
    assert sae._tile_formulas() is None


@each_architecture
def test_a_hook_sees_all_latents(architecture: str) -> None:
    sae, seen = make_training_sae(architecture), []
    sae.hook_sae_acts_post.register_forward_hook(lambda *args: seen.append(args[-1].shape))
    step(sae, torch.randn(9, D_IN), torch.zeros(D_SAE, dtype=torch.bool))
    assert seen == [(9, D_SAE)]
