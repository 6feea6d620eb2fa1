"""AuxK for dead latents: against the slow reference, and what it does to a training."""

import contextlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_lens_signaware.saes.auxk import dead_columns, top_dead
from tests import reference
from tests.support.saes import (
    D_IN,
    D_SAE,
    VARIANTS,
    auxk_names,
    each_variant,
    make_training_sae,
    training_config,
)
from tests.support.training import (
    TOLERANCE,
    batches,
    computes_with_all_latents,
    float64_sae,
    leaves,
    path,
    step_input,
)


def test_the_largest_dead_ones_by_hand() -> None:
    ungated = torch.tensor([[5.0, -3.0, 1.0, 2.0, -0.5], [-1.0, 0.5, -4.0, 0.125, 0.25]])
    dead = torch.tensor([False, True, True, False, True])
    assert top_dead(ungated, dead, 2).tolist() == [[0, -3, 1, 0, 0], [0, 0.5, -4, 0, 0]]
    # fewer dead than k: all of them
    assert top_dead(ungated, dead, 4).tolist() == [[0, -3, 1, 0, -0.5], [0, 0.5, -4, 0, 0.25]]
    assert top_dead(ungated, dead, 9).tolist() == [[0, -3, 1, 0, -0.5], [0, 0.5, -4, 0, 0.25]]


def test_the_dead_are_counted_on_a_cpu_alone() -> None:
    dead = torch.tensor([False, True, True])
    columns = dead_columns(dead)
    assert isinstance(columns, torch.Tensor)
    assert columns.tolist() == [1, 2]
    assert dead_columns(dead.to("meta")) == slice(None)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 7)),
    variant=st.sampled_from([*VARIANTS, ("sa_gsae", "one-sided")]),
    seed=st.integers(0, 10_000),
    n_dead=st.integers(1, 7),
    sparse=st.booleans(),
    on_gpu=st.booleans(),
    aux_k=st.sampled_from([None, 1, 2, 4]),  # a share of these is exact in 32 bits
)
def test_loss_and_gradients(
    shape: tuple[int, int, int],
    variant: tuple[str, str],
    seed: int,
    n_dead: int,
    sparse: bool,
    on_gpu: bool,
    aux_k: int | None,
) -> None:
    batch, d_in, d_sae = shape
    architecture, tying = variant
    sides: Any = {"two_sided": False} if tying == "one-sided" else {}
    tying = "full" if sides else tying
    coefficient, name = auxk_names(architecture)
    fields: Any = {coefficient: 0.5, **sides}
    if hasattr(training_config(architecture), "aux_k"):
        fields["aux_k"] = aux_k
    else:
        aux_k = None
    sae = float64_sae(architecture, tying, d_in=d_in, d_sae=d_sae, **fields)
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, d_in, generator=g, dtype=torch.float64) * 2
    dead = torch.zeros(d_sae, dtype=torch.bool)
    dead[torch.randperm(d_sae, generator=g)[:n_dead]] = True
    with path(sparse), computes_with_all_latents() if on_gpu else contextlib.nullcontext():
        out = sae.training_forward_pass(step_input(x, dead_neuron_mask=dead))
    assert out.feature_acts.is_sparse == sparse
    p = leaves(sae)
    by_norm = sae._latent_scale() is not None
    wanted = 0.5 * reference.auxk_loss(
        x, out.sae_out.detach(), p, dead, bool(not sides), by_norm, aux_k
    )
    torch.testing.assert_close(out.losses[name], wanted, **TOLERANCE)
    assert out.loss.item() == pytest.approx(sum(v.item() for v in out.losses.values()))

    params = dict(sae.named_parameters())
    got = torch.autograd.grad(out.losses[name], list(params.values()), allow_unused=True)
    for (name, param), gradient in zip(params.items(), got, strict=True):
        (expected,) = torch.autograd.grad(wanted, p[name], retain_graph=True, allow_unused=True)
        none = torch.zeros_like(param)
        torch.testing.assert_close(
            none if gradient is None else gradient,
            none if expected is None else expected,
            **TOLERANCE,
        )


@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_error_is_in_the_space_of_the_input(normalize: str, sparse: bool) -> None:
    sae = float64_sae("bi_jumprelu", "full", normalize_activations=normalize, auxk_coefficient=2.0)
    x = torch.randn(6, D_IN, dtype=torch.float64) * 3 + 1
    dead = torch.arange(D_SAE) < 3
    with path(sparse):
        out = sae.training_forward_pass(step_input(x, dead_neuron_mask=dead))
    if normalize == "layer_norm":
        centred = x - x.mean(-1, keepdim=True)
        scale = centred.std(-1, keepdim=True)
        x_n = centred / (scale + 1e-5)
    else:
        scale = x.norm(dim=-1, keepdim=True) / D_IN**0.5
        x_n = x / scale
    h = ((x_n - sae.b_dec) @ sae.W_enc + sae.b_enc)[:, :3]
    u = h.sign() * torch.relu(h.abs() + sae.b_mag[0, :3])
    error = x - out.sae_out - (u @ sae.W_dec[:3]) * scale
    wanted = 2.0 * 3 / (D_IN // 2) * error.pow(2).sum(-1).mean()
    torch.testing.assert_close(out.losses["auxk_loss"], wanted, **TOLERANCE)
    assert not hasattr(sae, "ln_mu")
    assert not hasattr(sae, "x_norm_coeff")


@each_variant
def test_without_a_dead_latent_it_is_0_and_off_it_is_not_there(
    architecture: str, tying: str
) -> None:
    coefficient, name = auxk_names(architecture)
    sae = make_training_sae(architecture, tying, **{coefficient: 1.0})
    none = torch.zeros(D_SAE, dtype=torch.bool)
    x = next(batches())
    out = sae.training_forward_pass(step_input(x, dead_neuron_mask=none))
    assert out.losses[name].item() == 0.0
    assert name not in sae.training_forward_pass(step_input(x)).losses  # no count yet
    sae = make_training_sae(architecture, tying, **{coefficient: 0.0})
    out = sae.training_forward_pass(step_input(x, dead_neuron_mask=~none))
    own = {"auxiliary_reconstruction_loss"} if architecture == "sa_gsae" else set()
    assert name not in set(out.losses) - own
