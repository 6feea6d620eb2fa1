"""torch.func over signed SAEs gives the derivatives of the backward pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sae_lens import SAE
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from tests.support.saes import D_IN, D_SAE, each_variant, make_sae, make_training_sae
from tests.support.training import path, step_input

each_kind = pytest.mark.parametrize("make", [make_sae, make_training_sae], ids=["sae", "training"])


def float64(make: Callable[..., Any], architecture: str, tying: str) -> SAE[Any]:
    sae = make(architecture, tying, dtype="float64")
    return sae.requires_grad_(False)


def batch(n: int = 5) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def jacobian_by_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """One backward pass for each output, without torch.func."""
    x = x.clone().requires_grad_()
    out = function(x)
    rows = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in out]
    return torch.stack(rows)


@each_variant
def test_export_takes_a_batch_of_any_size(architecture: str, tying: str) -> None:
    sae, x = float64(make_sae, architecture, tying), batch()
    sizes = ({0: torch.export.Dim("n_tokens", min=2)},)
    exported = torch.export.export(sae, (x,), dynamic_shapes=sizes).module()
    for n in (3, 17):
        torch.testing.assert_close(exported(batch(n)), sae(batch(n)))


@each_kind
@each_variant
@pytest.mark.parametrize("with_grad", [True, False])
def test_jacobians(make: Any, architecture: str, tying: str, with_grad: bool) -> None:
    sae, x = float64(make, architecture, tying), batch()
    expected = torch.stack([jacobian_by_rows(sae.encode, row) for row in x])
    assert 0 < expected.abs().sum(-1).count_nonzero() < len(x) * D_SAE  # some are inactive
    with torch.set_grad_enabled(with_grad):
        by_rows, by_columns = vmap(jacrev(sae.encode))(x), vmap(jacfwd(sae.encode))(x)
        z = vmap(sae.encode)(x)
        x_hat = vmap(sae)(x)
    torch.testing.assert_close(by_rows, expected)
    torch.testing.assert_close(by_columns, expected)
    # row by row: what a batch of several keeps may depend on all of them
    torch.testing.assert_close(z, torch.stack([sae.encode(row) for row in x]))
    torch.testing.assert_close(x_hat, torch.stack([sae(row) for row in x]))


def test_a_one_sided_sae_is_so_under_vmap() -> None:
    sae, x = make_sae("sa_gsae", two_sided=False, dtype="float64"), batch(20)
    expected = sae.encode(x)
    assert expected.min() == 0 < expected.max()
    torch.testing.assert_close(vmap(sae.encode)(x), expected)


@each_kind
@each_variant
@pytest.mark.parametrize("with_grad", [True, False])
def test_forward_mode(make: Any, architecture: str, tying: str, with_grad: bool) -> None:
    sae, x, tangent = float64(make, architecture, tying), batch(1)[0], batch(2)[1]
    jacobian = jacobian_by_rows(sae.forward, x)
    with torch.set_grad_enabled(with_grad):
        _, by_func = jvp(sae.forward, (x,), (tangent,))
        with forward_ad.dual_level():
            out = sae(forward_ad.make_dual(x, tangent))
            by_dual = forward_ad.unpack_dual(out).tangent
    torch.testing.assert_close(by_func, jacobian @ tangent)
    torch.testing.assert_close(by_dual, jacobian @ tangent)


@each_kind
@each_variant
def test_second_derivatives(make: Any, architecture: str, tying: str) -> None:
    sae, x = float64(make, architecture, tying), batch(1)[0]

    def energy(x: Tensor) -> Tensor:
        return sae.encode(x).square().sum()

    # z is piecewise linear in x, so that the Hessian of |z|^2 is 2 J'J
    jacobian = jacobian_by_rows(sae.encode, x)
    torch.testing.assert_close(hessian(energy)(x), 2 * jacobian.T @ jacobian)


@each_variant
def test_second_derivatives_by_autograd(architecture: str, tying: str) -> None:
    sae: Any = make_training_sae(architecture, tying, dtype="float64")
    x = batch()

    def squared_gradient() -> Tensor:
        (first,) = torch.autograd.grad(sae(x).square().sum(), sae.W_enc, create_graph=True)
        return first.square().sum()

    with path(False):
        (found,) = torch.autograd.grad(squared_gradient(), sae.b_dec)
        step, direction = 1e-6, torch.randn_like(sae.b_dec)
        ends = []
        for sign in (1, -1):
            sae.b_dec.data.add_(sign * step * direction)
            ends.append(squared_gradient().item())
            sae.b_dec.data.sub_(sign * step * direction)
    expected = (ends[0] - ends[1]) / (2 * step)
    assert (found @ direction).item() == pytest.approx(expected, rel=1e-5)


@each_variant
@pytest.mark.parametrize("name", ["W_dec", "b_dec"])
def test_a_step_with_the_active_latents_refuses_the_graph_of_a_second_derivative(
    architecture: str, tying: str, name: str
) -> None:
    sae: Any = make_training_sae(architecture, tying, dtype="float64")
    with path(True):
        loss = sae.training_forward_pass(step_input(batch(40))).loss
    # not first where the second derivative arrives: autograd.grad of other inputs never gets there
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(loss, getattr(sae, name), create_graph=True)


@each_variant
def test_gradients_of_the_parameters_of_a_training_sae(architecture: str, tying: str) -> None:
    sae: Any = make_training_sae(architecture, tying, dtype="float64")
    x, names = batch(), [name for name, _ in sae.named_parameters()]

    def size(parameters: dict[str, Tensor]) -> Tensor:
        z = torch.func.functional_call(sae, parameters, (x,))
        return z.square().sum()

    size({n: p.detach() for n, p in sae.named_parameters()})
    transformed = grad(size)({n: p.detach() for n, p in sae.named_parameters()})
    sae(x).square().sum().backward()
    for name in names:
        expected = getattr(sae, name).grad
        if expected is None:
            expected = torch.zeros_like(getattr(sae, name))
        torch.testing.assert_close(transformed[name], expected, msg=name)
