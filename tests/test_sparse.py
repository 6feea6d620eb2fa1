"""Steps over active latents against steps over all: latents, losses, trainings, and which runs."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from sae_lens import SAETrainer
from torch._subclasses import FakeTensorMode

from sae_lens_signaware.saes import kernels
from tests.support.saes import (
    D_IN,
    D_SAE,
    THRESHOLD_ARCHITECTURES,
    asking_for,
    auxk_field,
    each_architecture,
    each_variant,
    each_variant_one_by_default,
    make_sae,
    make_training_sae,
    resetting_every,
)
from tests.support.training import batches, path, step_input, trainer_config

VALUES: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
GRADIENTS: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def skip_without_sparse_steps(architecture: str) -> None:
    """Skip one that goes over all latents in every step, which ``_active_of`` says by None."""
    sae = make_training_sae(architecture, **asking_for(architecture, 6))
    with torch.no_grad(), path(True):
        active = sae._active_of(sae.process_sae_in(torch.randn(4, D_IN)), 0.0)
    if active is None:
        pytest.skip("every step of this architecture goes over all latents")


@each_variant
def test_encode_and_decode_agree(architecture: str, tying: str) -> None:
    sae = make_sae(architecture, tying)
    x = torch.randn(3, 11, D_IN, generator=torch.Generator().manual_seed(4))
    with torch.no_grad(), path(False):
        dense = sae.encode(x)
        wanted = sae.decode(dense)
    with torch.no_grad(), path(True):
        torch.testing.assert_close(sae.encode(x), dense, **VALUES)
        torch.testing.assert_close(sae.decode(dense), wanted, **VALUES)
        torch.testing.assert_close(sae(x), wanted, **VALUES)
        latents = sae.encode_sparse(x)
        assert latents.is_sparse
        assert (latents.values() != 0).all()
        torch.testing.assert_close(latents.to_dense(), dense.reshape(-1, D_SAE), **VALUES)
        torch.testing.assert_close(sae.decode(latents), wanted.reshape(-1, D_IN), **VALUES)
    with path(False):  # many open, and a gradient asked for: the same latents
        torch.testing.assert_close(sae.encode_sparse(x), latents)
        torch.testing.assert_close(sae.decode(latents), wanted.reshape(-1, D_IN), **VALUES)
    with path(True):
        assert sae.decode(sae.encode(x)).requires_grad
    with torch.no_grad(), path(True):
        assert sae.encode(x[:0]).shape == (0, 11, D_SAE)
        assert sae.decode(dense[:0]).shape == (0, 11, D_IN)


@each_variant
@pytest.mark.parametrize("steps", [{"n_training_steps": 0}, {"n_training_steps": 10}])
@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
# float32 sums of AuxK's many terms differ by more than these tolerances
@pytest.mark.parametrize(("dtype", "auxk"), [("float32", 0.0), ("float64", 0.5)])
def test_a_step_agrees(
    architecture: str, tying: str, steps: dict[str, int], normalize: str, dtype: str, auxk: float
) -> None:
    # step 10 resets the thresholds of dead latents; negative ones are clamped at every step
    skip_without_sparse_steps(architecture)
    outputs, saes = [], []
    g = torch.Generator().manual_seed(4)
    # half as large in float32: its rounding in gradients of 15 and more is above the tolerances
    size = 0.5 if dtype == "float32" else 1.0
    x = size * torch.randn(64, D_IN, generator=g, dtype=getattr(torch, dtype))
    dead = torch.arange(D_SAE) < 5
    for take_sparse in (True, False):
        sae = make_training_sae(
            architecture,
            tying,
            **asking_for(architecture, 6.0),
            **resetting_every(architecture, 10),
            **{auxk_field(architecture): auxk},
            normalize_activations=normalize,
            dtype=dtype,
        )
        resets = architecture in THRESHOLD_ARCHITECTURES
        if resets:
            sae.threshold.data[:, 7] = -0.2
        with path(take_sparse):
            out = sae.training_forward_pass(
                step_input(x, dead_neuron_mask=dead, is_logging_step=True, **steps)
            )
        out.loss.backward()
        assert out.feature_acts.is_sparse == take_sparse
        outputs.append(out)
        saes.append(sae)
    ours, theirs = outputs
    if resets:
        assert saes[0].n_threshold_resets == (5 if steps["n_training_steps"] else 0)
    assert set(ours.losses) == set(theirs.losses)
    for name in ours.losses:
        torch.testing.assert_close(ours.losses[name], theirs.losses[name], **VALUES)
    torch.testing.assert_close(ours.loss, theirs.loss, **VALUES)
    torch.testing.assert_close(ours.sae_out, theirs.sae_out, **VALUES)
    torch.testing.assert_close(ours.feature_acts.to_dense(), theirs.feature_acts, **VALUES)
    for name in ours.metrics:
        torch.testing.assert_close(ours.metrics[name], theirs.metrics[name], **VALUES)
    for (name, a), (_, b) in zip(
        saes[0].named_parameters(), saes[1].named_parameters(), strict=True
    ):
        torch.testing.assert_close(a.grad, b.grad, msg=name, **GRADIENTS)
    for name, buffer in saes[0].named_buffers():
        torch.testing.assert_close(buffer, saes[1].get_buffer(name), **VALUES)


@each_variant
def test_a_training_agrees_trainer_statistics_included(architecture: str, tying: str) -> None:
    trainers = []
    fields = asking_for(architecture, 6.0) | resetting_every(architecture, 4)
    start = make_training_sae(architecture, tying, **fields)
    for take_sparse in (True, False):
        sae = copy.deepcopy(start)
        trainer: Any = SAETrainer(trainer_config(12, dead_feature_window=2), sae, batches())
        with path(take_sparse):
            trainer.fit()
        trainers.append(trainer)
    ours, theirs = trainers
    for name, value in ours.sae.state_dict().items():
        # Adam's first steps are +-lr whatever the gradient's size: rounding can flip a tiny one
        torch.testing.assert_close(value, theirs.sae.state_dict()[name], rtol=1e-4, atol=1e-4)
    for name in ("n_forward_passes_since_fired", "act_freq_scores"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


@each_variant
def test_hooks_see_the_dense_latents(architecture: str, tying: str) -> None:
    sae = make_sae(architecture, tying)
    x = torch.randn(5, D_IN)
    with torch.no_grad(), path(True):
        wanted = sae.encode(x)
        _, cache = sae.run_with_cache(x)
        assert cache["hook_sae_acts_pre"].shape == (5, D_SAE)
        torch.testing.assert_close(cache["hook_sae_acts_post"], wanted, **VALUES)


def test_where_the_sparse_path_steps_aside() -> None:
    sae = make_training_sae("sa_gsae")
    x = torch.randn(8, D_IN)

    def is_sparse(sae: Any, x: torch.Tensor, **kwargs: Any) -> bool:
        with path(True):
            return sae.training_forward_pass(step_input(x, **kwargs)).feature_acts.is_sparse

    assert is_sparse(sae, x)
    assert not is_sparse(sae, x.clone().requires_grad_())
    assert not is_sparse(sae, x[None])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_sparse(sae, x)
    assert not is_sparse(make_training_sae("sa_gsae", use_sparse_activations=False), x)
    assert not is_sparse(make_training_sae("sa_gsae", dtype="bfloat16"), x)
    assert not kernels.is_supported(torch.ones(2, device="meta"))
    pulled = make_training_sae("bi_jumprelu", pre_act_loss_coefficient=0.1)
    assert is_sparse(pulled, x)
    assert not is_sparse(pulled, x, dead_neuron_mask=torch.ones(D_SAE, dtype=torch.bool))


@pytest.mark.parametrize("mode", ["step", "tanh", "quadratic"])
@pytest.mark.parametrize("ste_to_input", [False, True])
def test_every_sparsity_loss_of_bi_jumprelu_agrees(mode: str, ste_to_input: bool) -> None:
    x = torch.randn(32, D_IN, generator=torch.Generator().manual_seed(4))
    grads = []
    for take_sparse in (True, False):
        sae = make_training_sae(
            "bi_jumprelu",
            "none",
            jumprelu_sparsity_loss_mode=mode,
            jumprelu_ste_to_input=ste_to_input,
            jumprelu_bandwidth=0.3,
            target_l0=6.0,
        )
        with path(take_sparse):
            sae.training_forward_pass(step_input(x)).loss.backward()
        grads.append({n: p.grad for n, p in sae.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], msg=name, **GRADIENTS)


@each_variant_one_by_default
@pytest.mark.parametrize("take_sparse", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_compiled_step_agrees(architecture: str, tying: str, take_sparse: bool) -> None:
    if take_sparse:
        skip_without_sparse_steps(architecture)
    cfg: dict[str, Any] = {
        **asking_for(architecture, 6.0),
        **resetting_every(architecture, 10),
        "use_sparse_activations": take_sparse,
    }
    sae, twin = (make_training_sae(architecture, tying, **cfg) for _ in range(2))
    x = torch.randn(16, D_IN, generator=torch.Generator().manual_seed(4))
    inputs = step_input(x, dead_neuron_mask=torch.arange(D_SAE) < 5, n_training_steps=10)
    torch._dynamo.reset()
    # fullgraph raises at a graph break: the dense path has none, the sparse one is left as it is.
    # "eager" runs the captured graph without a C++ compiler.
    step = torch.compile(sae.training_forward_pass, fullgraph=not take_sparse, backend="eager")
    with path(take_sparse):
        compiled, eager = step(inputs), twin.training_forward_pass(inputs)
    compiled.loss.backward()
    eager.loss.backward()
    torch.testing.assert_close(compiled.loss, eager.loss, **VALUES)
    assert compiled.feature_acts.is_sparse == take_sparse
    for (name, a), (_, b) in zip(sae.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name, **GRADIENTS)
    for name, buffer in sae.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name), msg=name)


@each_architecture
def test_a_nan_token_is_nan_in_its_row_and_in_no_other(architecture: str) -> None:
    sae = make_sae(architecture)
    x = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(4))
    x[2, 3] = torch.nan
    with torch.no_grad(), path(True):
        assert sae(x).isnan().any(1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
def test_sparse_latents_of_three_dimensions_decode(normalize: str) -> None:
    sae = make_sae("sa_gsae", normalize_activations=normalize)
    x = torch.randn(3, 5, D_IN, generator=torch.Generator().manual_seed(4)) * 2 + 1
    with torch.no_grad(), path(True):
        wanted = sae(x).reshape(-1, D_IN)
        torch.testing.assert_close(sae.decode(sae.encode_sparse(x)), wanted, **VALUES)


@each_variant
@pytest.mark.parametrize("shape", [(D_IN,), (2, 3, D_IN), (2, 1, 3, D_IN)])
def test_sparse_latents_of_any_rank_decode(architecture: str, tying: str, shape: Any) -> None:
    sae = make_sae(architecture, tying)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    for with_grad in (True, False):
        with torch.set_grad_enabled(with_grad), path(True):
            z = sae.encode(x)
            torch.testing.assert_close(sae.decode(z.to_sparse()), sae.decode(z), **VALUES)


def test_sparse_latents_of_heads_have_a_row_for_each_token() -> None:
    sae = make_sae("sa_gsae", reshape_activations="hook_z")
    x = torch.randn(6, 5, 2, D_IN // 2, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        latents = sae.encode_sparse(x)
        assert latents.shape == (30, D_SAE)
        torch.testing.assert_close(latents.to_dense(), sae.encode(x).flatten(0, 1), **VALUES)


def test_latents_of_another_width_are_refused_with_and_without_a_gradient() -> None:
    sae = make_sae("sa_gsae")
    for width in (D_SAE - 4, 2 * D_SAE):
        z = torch.zeros(200, width)
        z[3, 0] = 1.0
        for latents in (z, z.to_sparse()):
            for with_grad in (True, False):
                with (
                    torch.set_grad_enabled(with_grad),
                    pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
                ):
                    sae.decode(latents)


def test_latents_in_other_sparse_layouts_decode() -> None:
    sae = make_sae("bi_jumprelu")
    z = torch.zeros(40, D_SAE)
    z[::7, ::5] = 1.0
    with torch.no_grad():
        for latents in (z.to_sparse_csr(), z.to_sparse_csc()):
            torch.testing.assert_close(sae.decode(latents), sae.decode(z))


@each_variant
def test_tensors_without_data_pass(architecture: str, tying: str) -> None:
    with FakeTensorMode(), torch.no_grad():
        sae = make_sae(architecture, tying)
        assert sae(torch.randn(3, 40, D_IN)).shape == (3, 40, D_IN)


def test_a_dense_corner_of_the_dictionary_does_not_cost_the_sparse_path() -> None:
    x, W_enc = torch.ones(4, 1), torch.zeros(1, 40)
    W_enc[0, :4] = 1.0  # all open, in one tile of ten

    def encode(limit: float) -> Any:
        with mock.patch.multiple(kernels, CHUNK_ELEMENTS=16, MIN_ROWS=4):
            return kernels.encode_active(x, W_enc, None, lambda pre, _: pre > 0.5, limit)

    assert encode(0.2) is not None
    assert encode(0.09) is None  # a tenth of all
    assert encode(0.15) is None  # more than five times that of a tile: an SAE at its first steps


@each_architecture
def test_torchs_own_hooks_are_called(architecture: str) -> None:
    sae, calls = make_sae(architecture), []
    sae.hook_sae_acts_pre.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad(), path(True):
        sae.encode(torch.randn(3, D_IN))
    assert calls == [1]


@each_architecture
@pytest.mark.parametrize(
    "register", ["register_full_backward_hook", "register_full_backward_pre_hook"]
)
@pytest.mark.parametrize("hook_point", ["hook_sae_acts_pre", "hook_sae_acts_post"])
def test_torchs_backward_hooks_are_called(
    architecture: str, register: str, hook_point: str
) -> None:
    sae, calls = make_training_sae(architecture), []
    getattr(getattr(sae, hook_point), register)(lambda *_: calls.append(1))
    # torch calls no backward hook of the input where the input needs no gradient
    x = torch.randn(3, D_IN, requires_grad=hook_point == "hook_sae_input")
    with path(True):
        sae.training_forward_pass(step_input(x)).loss.backward()
    assert calls == [1]


@each_architecture
def test_an_inference_sae_has_forward_derivatives(architecture: str) -> None:
    sae = make_sae(architecture)
    g = torch.Generator().manual_seed(4)
    x, v = torch.randn(3, D_IN, generator=g), torch.randn(3, D_IN, generator=g)
    _, tangent = torch.func.jvp(sae.forward, (x,), (v,))
    step = 1e-3
    wanted = (sae(x + step * v) - sae(x - step * v)) / (2 * step)
    torch.testing.assert_close(tangent, wanted, rtol=1e-2, atol=1e-2)
