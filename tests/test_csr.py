"""Active latents off the CPU: CSR products against dense ones, on the CPU and without values."""

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sae_lens_signaware.saes import row_sums
from sae_lens_signaware.saes.kernels import pre_activation
from sae_lens_signaware.saes.latents import ActiveLatents, AllLatents
from tests.support.devices import (
    csr_products,
    each_device_with_values,
    no_waits,
    sparse_mm_on_meta,
)
from tests.support.saes import D_IN, D_SAE, each_variant, make_sae
from tests.support.training import path

VALUES: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@each_device_with_values
@settings(max_examples=100, deadline=None)
@example(n_tokens=0, d_sae=3, d_in=2, density=1.0, chunk=8, seed=0)  # an empty batch
@example(n_tokens=4, d_sae=3, d_in=2, density=0.0, chunk=8, seed=0)  # no active latents
@given(
    n_tokens=st.integers(0, 9),
    d_sae=st.integers(1, 12),
    d_in=st.integers(1, 5),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    chunk=st.sampled_from([1, 8, 2**24]),
    seed=st.integers(0, 1000),
)
def test_csr_products_and_their_gradients_are_the_dense_ones(
    device: str, n_tokens: int, d_sae: int, d_in: int, density: float, chunk: int, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(n_tokens, d_sae, generator=g).to(device) < density
    shapes = [(int(mask.sum()),), (n_tokens, d_in), (n_tokens, d_in)]
    parameters = [(d_sae, d_in), (d_in, d_sae), (d_sae,), (d_in,)]
    values, x, weight, *ours = (
        normal(*shape, seed=seed + i).to(device) for i, shape in enumerate(shapes + parameters)
    )
    theirs = [p.clone() for p in ours]
    W_dec, W_enc, b_enc, b_dec = (p.requires_grad_() for p in ours)
    token, latent = mask.nonzero(as_tuple=True)
    x_c = (x - b_dec).detach()
    pre = (x_c @ W_enc + b_enc).detach()[mask]
    with (
        csr_products(),
        mock.patch.object(row_sums, "CHUNK_ELEMENTS", chunk),
        no_waits(device),
    ):
        active = ActiveLatents(token, latent, n_tokens, d_sae)
        pre = pre_activation(pre, x_c, W_enc, b_enc, b_dec, active)
        out = active.decode(pre * values, W_dec)
        assert active.starts.shape == (n_tokens + 1,)  # not those of bags
        (out * weight).sum().backward()

    W_dec, W_enc, b_enc, b_dec = (p.requires_grad_() for p in theirs)
    z = torch.zeros_like(mask, dtype=torch.float64).masked_scatter(mask, values)
    wanted = (((x - b_dec) @ W_enc + b_enc) * z) @ W_dec
    torch.testing.assert_close(out, wanted)
    (wanted * weight).sum().backward()
    for got, here in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got.grad, here.grad)


@each_device_with_values
@pytest.mark.parametrize("widths", [(9,), (2, 5, 9), (1, 4)])
def test_nested_csr_products_are_the_dense_ones(device: str, widths: tuple[int, ...]) -> None:
    mask = torch.rand(7, 9, generator=torch.Generator().manual_seed(1)).to(device) < 0.4
    z = (normal(7, 9, seed=2).to(device) * mask).requires_grad_()
    W_dec = normal(9, 4, seed=3).to(device).requires_grad_()
    weights = normal(len(widths), 7, 4, seed=4).to(device)

    def gradients(products: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((torch.stack(products) * weights).sum(), (z, W_dec))

    wanted = AllLatents.of(z).decode_nested(z, W_dec, widths)
    token, latent = mask.nonzero(as_tuple=True)
    with csr_products(), no_waits(device):
        got = ActiveLatents(token, latent, 7, 9).decode_nested(z[token, latent], W_dec, widths)
        grad_z, grad_W_dec = gradients(got)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    dense_z, dense_W_dec = gradients(wanted)
    torch.testing.assert_close(grad_z, dense_z * mask)
    torch.testing.assert_close(grad_W_dec, dense_W_dec)


def test_csr_decode_passes_gradcheck() -> None:
    mask = torch.rand(7, 9, generator=torch.Generator().manual_seed(1)) < 0.3
    with csr_products():
        active, _ = ActiveLatents.of(mask.double())
        values = normal(len(active.token), seed=2).requires_grad_()
        W_dec = normal(9, 4, seed=3).requires_grad_()
        assert torch.autograd.gradcheck(lambda v, W: active.decode(v, W), (values, W_dec))


def test_a_sparse_tensor_is_taken_as_it_is_stored() -> None:
    # tokens in no order, one latent twice, a zero, a token without a latent
    indices = torch.tensor([[3, 0, 0, 3, 1], [2, 1, 4, 2, 0]])
    given = torch.tensor([1.0, -2.0, 3.0, 4.0, 0.0])
    z = torch.sparse_coo_tensor(indices, given, (4, 5), check_invariants=True)
    active, values = ActiveLatents.as_stored(z)
    assert active.token.tolist() == [0, 0, 1, 3, 3]
    assert active.latent.tolist() == [1, 4, 0, 2, 2]
    assert values.tolist() == [-2.0, 3.0, 0.0, 1.0, 4.0]
    W_dec = normal(5, 3, seed=0, dtype=torch.float32)
    with csr_products():
        torch.testing.assert_close(active.decode(values, W_dec), z.to_dense() @ W_dec)


def test_indices_that_are_stored_transposed_are_brought_in_one_piece() -> None:
    indices = torch.tensor([[0, 1], [1, 0], [1, 2]]).T  # as matrix.nonzero().T has them
    z = torch.sparse_coo_tensor(
        indices, torch.ones(3), (2, 3), is_coalesced=True, check_invariants=True
    )
    assert not z.indices()[0].is_contiguous()  # so that this test can fail
    active, _ = ActiveLatents.as_stored(z)
    assert active.token.is_contiguous()
    assert active.latent.is_contiguous()


@each_device_with_values
@each_variant
def test_sparse_latents_are_decoded_by_a_csr_product(
    architecture: str, tying: str, device: str
) -> None:
    sae = make_sae(architecture, tying, device=device)
    x = normal(11, D_IN, seed=4, dtype=torch.float32).to(device)
    with torch.no_grad(), path(False):
        wanted, coo = sae(x), sae.encode_sparse(x)
    real, none = torch.sparse.mm, torch.empty(0, dtype=torch.int64, device=device)
    with torch.no_grad(), csr_products(), mock.patch.object(torch.sparse, "mm", wraps=real) as mm:
        with path(True):
            torch.testing.assert_close(sae.decode(coo), wanted, **VALUES)
            assert mm.call_count == 1
            torch.testing.assert_close(sae.decode(coo.index_select(0, none)), wanted[:0])
            backwards = coo.indices().flip(1), coo.values().flip(0)
            uncoalesced = torch.sparse_coo_tensor(*backwards, coo.shape)
            torch.testing.assert_close(sae.decode(uncoalesced), wanted, **VALUES)
        assert mm.call_count == 3
        with path(False):  # many are active
            torch.testing.assert_close(sae.decode(coo), wanted, **VALUES)
        with path(True), torch.autocast(device, dtype=torch.bfloat16):
            sae.decode(coo)
        with path(True):  # a dtype that torch has no CSR product for on every device
            half = sae.to(torch.bfloat16).decode(coo.bfloat16())
    torch.testing.assert_close(half.float(), wanted, rtol=0.05, atol=0.1)
    assert mm.call_count == 3


def test_no_csr_product_waits_for_the_device() -> None:
    # on meta a wait raises: the values that it waits for are not there
    n_active, n_tokens = 12, 4
    size = torch.empty(n_tokens * D_SAE, device="meta")
    position = size.topk(n_active).indices.sort().values
    active = ActiveLatents(position // D_SAE, position % D_SAE, n_tokens, D_SAE)
    parameters = {
        "values": torch.empty(n_active),
        "W_enc": torch.empty(D_IN, D_SAE),
        "W_dec": torch.empty(D_SAE, D_IN),
        "b_enc": torch.empty(D_SAE),
        "b_dec": torch.empty(D_IN),
    }
    p = {name: value.to("meta").requires_grad_() for name, value in parameters.items()}
    x_c = torch.empty(n_tokens, D_IN, device="meta")
    with sparse_mm_on_meta():
        pre = pre_activation(p["values"].detach(), x_c, p["W_enc"], p["b_enc"], p["b_dec"], active)
        out = active.decode(pre * p["values"], p["W_dec"])
        *_, nested = active.decode_nested(pre, p["W_dec"], (D_SAE // 2, D_SAE))
        (out.sum() + nested.sum() + active.sum_by_token(pre).sum()).backward()
        stored, values = ActiveLatents.as_stored(active.to_coo(p["values"].detach()))
        assert stored.decode(values, p["W_dec"]).shape == (n_tokens, D_IN)
    assert out.shape == (n_tokens, D_IN)
    assert active.to_dense(pre).shape == (n_tokens, D_SAE)
    for name, value in p.items():
        assert value.grad is not None, name
        assert value.grad.shape == value.shape
        assert value.grad.dtype == torch.float32
    with pytest.raises((NotImplementedError, RuntimeError)):  # so that this test can fail
        active.token.bincount(minlength=n_tokens)


def test_which_sparse_latents_take_bags_on_the_cpu() -> None:
    sae = make_sae("sa_gsae")
    with torch.no_grad(), path(True), mock.patch.object(torch.sparse, "mm") as mm:
        sae.decode(sae.encode_sparse(torch.randn(3, D_IN)))
    assert mm.call_count == 0
