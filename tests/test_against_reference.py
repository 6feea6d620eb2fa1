"""The package against the slow reference in float64: values and gradients to 1e-10, over shapes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import JumpReLUTrainingSAEConfig, TrainingSAE

from sae_lens_signaware import BiJumpReLUTrainingSAEConfig
from sae_lens_signaware.saes.activations import bi_jump_relu_ste, bi_step_ste
from tests import reference
from tests.support.saes import randomise
from tests.support.training import TOLERANCE, float64_sae, leaves, path, step_input

slow_reference = settings(max_examples=50, deadline=None)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))


def dense(t: torch.Tensor) -> torch.Tensor:
    return t.to_dense() if t.is_sparse else t


@slow_reference
@given(
    shape=shapes,
    tying_and_sides=st.sampled_from(
        [("full", True), ("radii", True), ("none", True), ("full", False)]
    ),
    detach_decoder=st.booleans(),
    detach_norm=st.booleans(),
    aux_coefficient=st.sampled_from([0.0, 0.5, 1.0]),
    sparsity_penalty=st.sampled_from(["l1", "log_sum"]),
    seed=st.integers(0, 10_000),
    sparse=st.booleans(),
)
def test_sa_gsae_losses_and_gradients(
    shape: tuple[int, int, int],
    tying_and_sides: tuple[str, bool],
    detach_decoder: bool,
    detach_norm: bool,
    aux_coefficient: float,
    sparsity_penalty: str,
    seed: int,
    sparse: bool,
) -> None:
    batch, d_in, d_sae = shape
    tying, two_sided = tying_and_sides
    sae = float64_sae(
        "sa_gsae",
        tying,
        d_in=d_in,
        d_sae=d_sae,
        two_sided=two_sided,
        detach_decoder=detach_decoder,
        detach_norm=detach_norm,
        aux_coefficient=aux_coefficient,
        sparsity_penalty=sparsity_penalty,
    )
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, d_in, generator=generator, dtype=torch.float64) * 2
    p = leaves(sae)
    with path(sparse):
        out = sae.training_forward_pass(step_input(x))
    assert out.feature_acts.is_sparse == sparse
    wanted = reference.sa_gsae_losses(
        x, p, 0.7, aux_coefficient, two_sided, detach_decoder, detach_norm, sparsity_penalty
    )
    assert set(out.losses) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(out.losses[name], value, **TOLERANCE)
    forward = reference.sa_gsae_forward(x, p, two_sided)
    torch.testing.assert_close(dense(out.feature_acts), forward["z"], **TOLERANCE)
    pre = forward["pi"]
    if sparse:  # where a gate is open
        is_open = torch.where(pre > 0, pre > p["threshold"][0], -pre > p["threshold"][-1])
        pre = pre * (is_open & (pre > 0 if not two_sided else True))
    torch.testing.assert_close(dense(out.hidden_pre), pre, **TOLERANCE)
    torch.testing.assert_close(out.sae_out, forward["x_hat"], **TOLERANCE)

    out.loss.backward()
    sum(wanted.values()).backward()  # type: ignore[union-attr]
    for name, param in sae.named_parameters():
        expected = p[name].grad
        expected = torch.zeros_like(p[name]) if expected is None else expected
        torch.testing.assert_close(param.grad, expected, **TOLERANCE)


@slow_reference
@given(
    shape=shapes,
    tying=st.sampled_from(["full", "none"]),
    seed=st.integers(0, 10_000),
    sparse=st.booleans(),
)
def test_bi_jumprelu_forward_and_encoder_gradients(
    shape: tuple[int, int, int], tying: str, seed: int, sparse: bool
) -> None:
    batch, d_in, d_sae = shape
    sae = float64_sae("bi_jumprelu", tying, d_in=d_in, d_sae=d_sae)
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = leaves(sae)
    with path(sparse):
        out = sae.training_forward_pass(step_input(x))
    assert out.feature_acts.is_sparse == sparse
    forward = reference.bi_jumprelu_forward(x, p)
    if not sparse:  # else only where a latent is open or near a threshold
        torch.testing.assert_close(out.hidden_pre, forward["h"], **TOLERANCE)
    torch.testing.assert_close(dense(out.feature_acts), forward["z"], **TOLERANCE)
    torch.testing.assert_close(out.sae_out, forward["x_hat"], **TOLERANCE)
    l0 = forward["open"].sum(-1).mean()  # z is 0 where b_mag takes all of an open latent
    torch.testing.assert_close(out.losses["l0_loss"], 0.7 * l0, **TOLERANCE)

    out.loss.backward()
    ((x - forward["x_hat"]) ** 2).sum(-1).mean().backward()
    for name in ("W_enc", "b_enc", "b_mag", "W_dec", "b_dec"):
        torch.testing.assert_close(getattr(sae, name).grad, p[name].grad, **TOLERANCE)
    # the thresholds' gradient: the reconstruction's through z, and the sparsity loss's
    with torch.no_grad():
        grad_z = 2 * (forward["x_hat"] - x) @ p["W_dec"].T / batch
        grad_step = torch.full_like(forward["h"], 0.7 / batch)
        wanted = reference.ste_threshold_gradients(
            forward["h"], p["threshold"], p["b_mag"], sae.cfg.jumprelu_bandwidth, grad_z, grad_step
        )
    torch.testing.assert_close(sae.threshold.grad, wanted, **TOLERANCE)


@slow_reference
@given(
    shape=shapes,
    k=st.integers(1, 6),
    rescale=st.booleans(),
    seed=st.integers(0, 10_000),
    sparse=st.booleans(),
)
def test_bi_topk_forward_and_gradients(
    shape: tuple[int, int, int], k: int, rescale: bool, seed: int, sparse: bool
) -> None:
    batch, d_in, d_sae = shape
    k = min(k, d_sae)
    fields = {"k": k, "rescale_acts_by_decoder_norm": rescale}
    sae = float64_sae("bi_topk", "full", d_in=d_in, d_sae=d_sae, **fields)
    sae.b_mag.data.abs_().neg_()
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = leaves(sae)
    with path(sparse):
        out = sae.training_forward_pass(step_input(x))
    assert out.feature_acts.is_sparse == sparse
    forward = reference.bi_topk_forward(x, p, k, rescale)
    torch.testing.assert_close(dense(out.feature_acts), forward["z"], **TOLERANCE)
    torch.testing.assert_close(out.sae_out, forward["x_hat"], **TOLERANCE)

    out.loss.backward()
    ((x - forward["x_hat"]) ** 2).sum(-1).mean().backward()
    for name, param in sae.named_parameters():
        torch.testing.assert_close(param.grad, p[name].grad, **TOLERANCE)


@slow_reference
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    n_rows=st.integers(1, 2),
    bandwidth=st.floats(0.05, 3.0),
    seed=st.integers(0, 10_000),
)
def test_straight_through_gradients(
    shape: tuple[int, int], n_rows: int, bandwidth: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(shape, generator=g, dtype=torch.float64)
    threshold = torch.rand(n_rows, shape[1], generator=g, dtype=torch.float64)
    b_mag = torch.randn(n_rows, shape[1], generator=g, dtype=torch.float64)
    grad_z, grad_step = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    leaf = threshold.clone().requires_grad_()
    bi_jump_relu_ste(h, leaf, b_mag, bandwidth).backward(grad_z)
    bi_step_ste(h, leaf, bandwidth).backward(grad_step)
    wanted = reference.ste_threshold_gradients(h, threshold, b_mag, bandwidth, grad_z, grad_step)
    torch.testing.assert_close(leaf.grad, wanted, **TOLERANCE)


@pytest.mark.parametrize("mode", ["tanh", "quadratic"])
def test_other_sparsity_losses_of_bi_jumprelu(mode: str) -> None:
    target_l0 = 3.0 if mode == "quadratic" else None
    sae = float64_sae("bi_jumprelu", "none", jumprelu_sparsity_loss_mode=mode, target_l0=target_l0)
    x = torch.randn(5, sae.cfg.d_in, dtype=torch.float64)
    out = sae.training_forward_pass(step_input(x))
    z = out.feature_acts.detach()
    if mode == "tanh":
        norm = (sae.W_dec.detach() ** 2).sum(1).sqrt()
        wanted = (4.0 * z.abs() * norm).tanh().sum(-1).mean()
    else:
        # by open sides, of which b_mag may leave nothing
        l0 = reference.bi_jumprelu_forward(x, leaves(sae))["open"].sum(-1)
        wanted = (2 / 3.0 * (l0 - 3.0) ** 2).mean()
    torch.testing.assert_close(out.losses["l0_loss"].detach(), 0.7 * wanted, **TOLERANCE)


def test_pre_act_loss_reaches_dead_latents_only() -> None:
    sae = float64_sae("bi_jumprelu", "none", pre_act_loss_coefficient=0.5)
    sae.threshold.data.fill_(100.0)
    x = torch.randn(4, sae.cfg.d_in, dtype=torch.float64)
    dead = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    dead[3] = True
    out = sae.training_forward_pass(step_input(x, dead_neuron_mask=dead))
    p = leaves(sae)
    h = ((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"])[:, 3]
    nearer = torch.where(h > 0, *p["threshold"][:, 3])
    wanted = 0.5 * ((nearer - h.abs()) * p["W_dec"][3].norm()).mean()
    torch.testing.assert_close(out.losses["pre_act_loss"], wanted, **TOLERANCE)
    names = ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"]
    got = torch.autograd.grad(out.losses["pre_act_loss"], [getattr(sae, n) for n in names])
    expected = torch.autograd.grad(wanted, [p[n] for n in names])
    torch.testing.assert_close(got, expected, **TOLERANCE)


@pytest.mark.parametrize("normalize", ["layer_norm", "none"])
def test_auxiliary_reconstruction_is_in_the_space_of_the_input(normalize: str) -> None:
    sae = float64_sae("sa_gsae", "full", normalize_activations=normalize)
    randomise(sae)
    x = torch.randn(6, sae.cfg.d_in, dtype=torch.float64) * 3 + 1
    out = sae.training_forward_pass(step_input(x))
    mu, std = x.mean(-1, keepdim=True), (x - x.mean(-1, keepdim=True)).std(-1, keepdim=True)
    x_n = (x - mu) / (std + 1e-5) if normalize == "layer_norm" else x
    pi = (x_n - sae.b_dec) @ sae.W_enc
    v = torch.relu(pi - sae.threshold[0]) - torch.relu(-pi - sae.threshold[0])
    recons = v @ sae.W_dec + sae.b_dec
    if normalize == "layer_norm":
        recons = recons * std + mu
    wanted = ((recons - x) ** 2).sum(-1).mean()
    torch.testing.assert_close(out.losses["auxiliary_reconstruction_loss"], wanted, **TOLERANCE)
    assert not hasattr(sae, "ln_mu")  # the statistics are consumed, as after SAELens's own decode


def test_tanh_reaches_the_thresholds_as_in_saelens() -> None:
    # inputs that open the + side alone, where SAELens's jumprelu is the same function
    fields: Any = {"d_in": 6, "d_sae": 9, "jumprelu_sparsity_loss_mode": "tanh"}
    fields |= {"jumprelu_bandwidth": 0.5}
    own = {"use_sparse_activations": False, "minus_bias_init": 0.0}
    ours: Any = TrainingSAE.from_dict(BiJumpReLUTrainingSAEConfig(**fields, **own).to_dict())
    theirs: Any = TrainingSAE.from_dict(JumpReLUTrainingSAEConfig(**fields).to_dict())
    g = torch.Generator().manual_seed(1)
    W_enc, W_dec = torch.rand(6, 9, generator=g), torch.randn(9, 6, generator=g)
    x, gradients = torch.rand(40, 6, generator=g), []
    for sae in (ours, theirs):
        sae.W_enc.data.copy_(W_enc)
        sae.W_dec.data.copy_(W_dec)
        sae.threshold.data.fill_(1.0)
        z, h = sae.encode_with_hidden_pre(x)
        losses = sae.calculate_aux_loss(step_input(x), z, h, x)
        gradients.append(torch.autograd.grad(losses["l0_loss"], sae.threshold)[0].flatten())
    assert gradients[1].abs().max() > 0.1
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("threshold", [0.1, 1.0])
def test_tanh_of_both_sides_has_the_gradients_of_two_latents(
    threshold: float, sparse: bool
) -> None:
    # at 0.1 the window of a side, 0.5 wide, reaches past 0
    fields: Any = {"d_in": 6, "jumprelu_sparsity_loss_mode": "tanh", "jumprelu_bandwidth": 0.5}
    own = {"use_sparse_activations": sparse, "minus_bias_init": 0.0, "polarity_tying": "none"}
    signed = BiJumpReLUTrainingSAEConfig(**fields, **own, d_sae=40)
    plain = JumpReLUTrainingSAEConfig(**fields, d_sae=80)
    ours, theirs = (TrainingSAE.from_dict(cfg.to_dict()).double() for cfg in (signed, plain))
    g = torch.Generator().manual_seed(1)
    W_enc = 0.2 * torch.randn(6, 40, generator=g, dtype=torch.float64)
    W_dec = torch.randn(40, 6, generator=g, dtype=torch.float64)
    x, found = torch.randn(50, 6, generator=g, dtype=torch.float64), []
    for sae, sides in ((ours, 1), (theirs, 2)):
        sae.W_enc.data.copy_(torch.cat([W_enc, -W_enc][:sides], 1))
        sae.W_dec.data.copy_(torch.cat([W_dec, -W_dec][:sides]))
        sae.threshold.data.fill_(threshold)
        with path(sparse):
            out = sae.training_forward_pass(step_input(x))
        (gradient,) = torch.autograd.grad(out.losses["l0_loss"], sae.threshold)
        found.append((out.losses["l0_loss"], gradient.flatten()))
    assert found[1][1].abs().max() > 0.01
    torch.testing.assert_close(found[0], found[1], **TOLERANCE)
