"""A user's subclass that redefines SAELens's own methods: they count in every step and measure."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sae_lens_signaware.saes.activations import bi_jump_step
from tests.support.saes import D_IN, each_architecture, make_sae, make_training_sae
from tests.support.training import path, step_input

each_path = pytest.mark.parametrize("sparse", [True, False], ids=["active", "all"])


def batch(n: int = 40) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def subclassed(sae: Any, **methods: Any) -> Any:
    """The same SAE as an object of a subclass of its class."""
    sae.__class__ = type("Mine", (type(sae),), {**methods, "__module__": __name__})
    return sae


def step_of(sae: Any, sparse: bool) -> Any:
    with path(sparse):
        return sae.training_forward_pass(step_input(batch()))


@each_path
@each_architecture
def test_a_loss_of_its_own_is_added(architecture: str, sparse: bool) -> None:
    sae = make_training_sae(architecture, dtype="float64")
    without = step_of(sae, sparse)

    def calculate_aux_loss(self: Any, **step: Any) -> dict[str, Tensor]:
        losses = super(type(self), self).calculate_aux_loss(**step)
        return losses | {"mine": 3 * step["feature_acts"].square().mean()}

    output = step_of(subclassed(sae, calculate_aux_loss=calculate_aux_loss), sparse)
    mine = 3 * without.feature_acts.to_dense().square().mean()
    torch.testing.assert_close(output.losses["mine"], mine)
    torch.testing.assert_close(output.loss, without.loss + mine)
    (gradient,) = torch.autograd.grad(output.losses["mine"], sae.W_enc)
    assert gradient.any()


@each_path
@each_architecture
def test_its_latents_and_its_output_are_those_of_the_step(architecture: str, sparse: bool) -> None:
    sae = make_training_sae(architecture, dtype="float64")

    def encode_with_hidden_pre(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        z, pre = super(type(self), self).encode_with_hidden_pre(x)
        return z * (torch.arange(z.shape[-1]) % 2), pre

    def decode(self: Any, feature_acts: Tensor) -> Tensor:
        return super(type(self), self).decode(feature_acts) + 100

    usual = step_of(sae, sparse)
    masked = usual.feature_acts.to_dense().clone()
    masked[:, ::2] = 0
    sae = subclassed(sae, encode_with_hidden_pre=encode_with_hidden_pre)
    torch.testing.assert_close(step_of(sae, sparse).feature_acts, masked)
    sae = subclassed(make_training_sae(architecture, dtype="float64"), decode=decode)
    torch.testing.assert_close(step_of(sae, sparse).sae_out, usual.sae_out + 100)


@each_path
@each_architecture
def test_a_parameter_of_its_input_learns(architecture: str, sparse: bool) -> None:
    def process_sae_in(self: Any, sae_in: Tensor) -> Tensor:
        return super(type(self), self).process_sae_in(sae_in) * self.gain

    sae = make_training_sae(architecture, dtype="float64")
    sae.gain = nn.Parameter(torch.ones(D_IN, dtype=torch.float64))
    sae = subclassed(sae, process_sae_in=process_sae_in)
    with path(sparse):
        z, _ = sae.encode_with_hidden_pre(batch())
    (found,) = torch.autograd.grad(z.square().sum(), sae.gain)
    # latents grow with the gain, and one that crosses a threshold in between would jump
    direction, step, ends = batch(1)[0], 1e-7, []
    for sign in (1, -1):
        sae.gain.data = 1 + sign * step * direction
        ends.append(sae.encode_with_hidden_pre(batch())[0].square().sum().item())
    assert (found @ direction).item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)
    sae.gain.data.fill_(1)
    output = step_of(sae, sparse)
    assert torch.autograd.grad(output.loss, sae.gain)[0].any()


@each_path
@each_architecture
def test_what_it_encodes_is_what_is_measured(architecture: str, sparse: bool) -> None:
    def encode(self: Any, x: Tensor) -> Tensor:
        z = super(type(self), self).encode(x)
        return z * (torch.arange(z.shape[-1]) % 2)

    sae = make_sae(architecture, dtype="float64")
    with path(sparse):
        expected = sae.encode_sparse(batch()).to_dense()
        expected[:, ::2] = 0
        measured = subclassed(sae, encode=encode).encode_sparse(batch())
    assert measured.is_sparse
    torch.testing.assert_close(measured.to_dense(), expected)


@each_path
@each_architecture
def test_what_it_trains_is_what_is_measured(architecture: str, sparse: bool) -> None:
    def encode_with_hidden_pre(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        z, pre = super(type(self), self).encode_with_hidden_pre(x)
        return 2 * z, pre

    sae = make_training_sae(architecture, dtype="float64")
    with path(sparse), torch.no_grad():
        expected = 2 * sae.encode(batch())
        sae = subclassed(sae, encode_with_hidden_pre=encode_with_hidden_pre)
        torch.testing.assert_close(sae.encode(batch()), expected)
        torch.testing.assert_close(sae.encode_sparse(batch()).to_dense(), expected)
        torch.testing.assert_close(sae(batch()), sae.decode(expected))


def test_an_architecture_without_a_threshold_folds() -> None:
    sae: Any = make_sae("bi_jumprelu", dtype="float64")
    del sae.threshold
    norm, W_enc, b_mag = sae.W_dec.norm(dim=1), sae.W_enc.clone(), sae.b_mag.clone()
    sae.fold_W_dec_norm()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones_like(norm))
    torch.testing.assert_close(sae.W_enc, W_enc * norm)
    torch.testing.assert_close(sae.b_mag, b_mag * norm)


@each_path
def test_its_latent_scale_counts_where_active_latents_are_looked_for(sparse: bool) -> None:
    def _latent_scale(self: Any) -> Tensor:
        return self.get_W_dec_norm()

    sae = make_sae("bi_jumprelu", dtype="float64")
    sae.W_dec.data *= torch.linspace(0.2, 5, len(sae.W_dec), dtype=torch.float64)[:, None]
    sae = subclassed(sae, _latent_scale=_latent_scale)
    h = (batch() - sae.b_dec) @ sae.W_enc + sae.b_enc
    expected = bi_jump_step(h * sae.W_dec.norm(dim=1), sae.threshold, sae.b_mag)
    unscaled = h.abs() > sae.threshold
    assert ((expected != 0) & ~unscaled).any()
    assert ((expected == 0) & unscaled).any()
    with path(sparse), torch.no_grad():
        torch.testing.assert_close(sae.encode(batch()), expected)
        torch.testing.assert_close(sae.encode_sparse(batch()).to_dense(), expected)
