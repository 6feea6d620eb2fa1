"""The error term, hook points and hook_z reshaping of every architecture."""

import math
from typing import Any

import pytest
import torch

from tests.support.saes import (
    D_IN,
    D_SAE,
    auxk_names,
    each_architecture,
    each_variant,
    make_sae,
    make_training_sae,
    x_batch,
)
from tests.support.training import path, step_input

HOOKS = [
    "hook_sae_input",
    "hook_sae_acts_pre",
    "hook_sae_acts_post",
    "hook_sae_recons",
    "hook_sae_error",
    "hook_sae_output",
]


@each_variant
def test_hook_z_reshaping(architecture: str, tying: str) -> None:
    flat = make_sae(architecture, tying)
    heads = make_sae(architecture, tying, reshape_activations="hook_z")
    x = x_batch().reshape(4, 8, D_IN)
    x_heads = x.reshape(4, 8, 2, D_IN // 2)
    torch.testing.assert_close(heads.encode(x_heads), flat.encode(x))
    assert heads(x_heads).shape == x_heads.shape
    torch.testing.assert_close(heads(x_heads).flatten(-2), flat(x))


@each_variant
@pytest.mark.filterwarnings("ignore:Setting use_error_term")
def test_error_term_restores_the_input(architecture: str, tying: str) -> None:
    sae = make_sae(architecture, tying)
    x = x_batch()
    assert not torch.allclose(sae(x), x)
    sae.use_error_term = True
    torch.testing.assert_close(sae(x), x)


@each_architecture
@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("take_sparse", [False, True])
def test_a_training_step_with_hook_z_reshaping(
    architecture: str, normalize: str, take_sparse: bool
) -> None:
    coefficient, auxk = auxk_names(architecture)
    of_its_own = "auxiliary_reconstruction_loss" if architecture == "sa_gsae" else None
    options: dict[str, Any] = {"normalize_activations": normalize, coefficient: 0.5}
    flat = make_training_sae(architecture, **options)
    heads = make_training_sae(architecture, reshape_activations="hook_z", **options)
    heads.turn_on_forward_pass_hook_z_reshaping()
    # as many dead as the k of AuxK for a head, which is half of that of the whole
    x, dead = x_batch(), torch.arange(D_SAE) < D_IN // 4
    losses: list[dict[str, Any]] = []
    with path(take_sparse):
        for sae, sae_in in ((flat, x), (heads, x.reshape(-1, 2, D_IN // 2))):
            out = sae.training_forward_pass(step_input(sae_in, dead_neuron_mask=dead))
            out.loss.backward()
            losses.append(out.losses)
    of_flat, of_heads = losses
    assert of_flat[auxk] > 0
    for name, loss in of_flat.items():
        # SAELens's mean over tokens is one over heads too, where there are any
        n_heads = 2 if "mse" in name or name == of_its_own else 1
        torch.testing.assert_close(loss, n_heads * of_heads[name], msg=name)


@each_architecture
@pytest.mark.parametrize("first", ["with gradients", "with a hook", "by active latents"])
@pytest.mark.filterwarnings("ignore:Setting use_error_term")
def test_the_error_term_is_of_the_same_way_as_the_pass(
    architecture: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # by active latents, those at their threshold may round to the other side: here all of them
    sae, x = make_sae(architecture), x_batch()
    find, n_found = type(sae)._find_active, []
    with torch.no_grad(), path(sparse=True):
        if find(sae, x, 0.0) is None:
            pytest.skip("the architecture does not say which latents are active")

    def none(sae: Any, x_c: torch.Tensor, margin: float) -> Any:
        latents, pre = find(sae, x_c, margin)
        n_found.append(len(pre))
        return latents.where(pre > math.inf), pre[:0]

    monkeypatch.setattr(type(sae), "_find_active", none)
    sae.use_error_term = True
    if first == "with a hook":
        sae.hook_sae_acts_post.add_hook(lambda z, hook: z)
    with path(sparse=True), torch.set_grad_enabled(first == "with gradients"):
        torch.testing.assert_close(sae(x), x)
    assert len(n_found) == (2 if first == "by active latents" else 0)


@each_variant
@pytest.mark.filterwarnings("ignore:Setting use_error_term")
def test_all_hook_points_fire_and_steer(architecture: str, tying: str) -> None:
    sae = make_sae(architecture, tying)
    sae.use_error_term = True
    _, cache = sae.run_with_cache(x_batch())
    assert set(cache) == set(HOOKS)
    assert cache["hook_sae_acts_pre"].shape == (32, D_SAE)
    torch.testing.assert_close(cache["hook_sae_acts_post"], sae.encode(x_batch()))
    sae.use_error_term = False
    shut = sae.run_with_hooks(
        x_batch(), fwd_hooks=[("hook_sae_acts_pre", lambda t, hook: torch.zeros_like(t))]
    )
    torch.testing.assert_close(shut, sae.b_dec.expand_as(shut))
