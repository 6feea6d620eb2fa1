"""Kernels of active latents against dense ones: positions, products, gradients, declining."""

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sae_lens_signaware.saes import kernels, latents
from sae_lens_signaware.saes.activations import active_mask


@settings(max_examples=100, deadline=None)
@example(rows=2, columns=3, offset=2, density=0.0, dtype=torch.float32, seed=0)  # one column
@given(
    rows=st.integers(0, 9),
    columns=st.integers(1, 33),
    offset=st.integers(0, 3),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bool]),
    seed=st.integers(0, 1000),
)
def test_positions_are_those_of_nonzero(
    rows: int, columns: int, offset: int, density: float, dtype: torch.dtype, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=g)
    values = values.where(torch.rand(rows, columns, generator=g) < density, -0.0)
    values = values.to(dtype)[:, offset % columns :]  # may be no longer aligned, nor contiguous
    found = latents.nonzero_positions(values)
    assert torch.equal(found, values.reshape(-1).nonzero().squeeze(1))


def test_positions_of_nan_and_subnormals() -> None:
    values = torch.tensor([0.0, torch.nan, 1e-40, -0.0, torch.inf, 0.0, -1e-40, 0.0])
    assert latents.nonzero_positions(values).tolist() == [1, 2, 4, 6]


def test_a_stored_zero_is_no_active_latent() -> None:
    coo = torch.tensor([[0.0, 2.0, 3.0], [-1.0, 0.0, 0.0]]).to_sparse()
    coo.values()[1] = 0.0
    active, values = latents.ActiveLatents.of(coo)
    assert (active.token.tolist(), active.latent.tolist()) == ([0, 1], [1, 0])
    assert values.tolist() == [2.0, -1.0]


def problem(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    return {
        "x": randn(7, 5),
        "W_enc": randn(5, 9).requires_grad_(),
        "b_enc": randn(9).requires_grad_(),
        "b_dec": randn(5).requires_grad_(),
        "W_dec": randn(9, 5).requires_grad_(),
        "threshold": torch.full((1, 9), 1.0, dtype=dtype),
    }


# of 7 tokens and 9 latents: one at a time; two rows; ranges of latents; both; all at once
@pytest.mark.parametrize("tile", [(1, 1), (20, 1), (20, 512), (20, 3), (10**6, 512)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_open_latents_and_their_gradients_are_the_dense_ones(
    tile: tuple[int, int], with_bias: bool
) -> None:
    p = problem()
    b_enc = p["b_enc"] if with_bias else None
    x_c = p["x"] - p["b_dec"]
    with mock.patch.multiple(kernels, CHUNK_ELEMENTS=tile[0], MIN_ROWS=tile[1]):
        found = kernels.encode_active(
            x_c.detach(),
            p["W_enc"],
            b_enc,
            lambda pre, latents: active_mask(pre, p["threshold"][:, latents]),
            1.0,
        )
    assert found is not None
    opened, values = found
    pre = kernels.pre_activation(values, x_c.detach(), p["W_enc"], b_enc, p["b_dec"], opened)
    weight = torch.randn(7, 5, dtype=torch.float64)
    z = pre * 2 + 0.3
    out = opened.decode(z, p["W_dec"])
    (out * weight).sum().backward()
    got = {n: v.grad for n, v in p.items() if v.requires_grad}

    q = problem()
    h = (q["x"] - q["b_dec"]) @ q["W_enc"] + (q["b_enc"] if with_bias else 0.0)
    mask = h.abs() > 1.0
    assert 0 < mask.sum() < mask.numel()
    assert torch.equal(
        torch.stack([opened.token, opened.latent], 1), mask.nonzero()
    )  # in this order
    wanted = ((h * 2 + 0.3) * mask) @ q["W_dec"]
    torch.testing.assert_close(out, wanted)
    (wanted * weight).sum().backward()
    for name, grad in got.items():
        torch.testing.assert_close(grad, q[name].grad, msg=name)


def test_decode_passes_gradcheck() -> None:
    p = problem()
    mask = torch.rand(7, 9, generator=torch.Generator().manual_seed(1)) < 0.3
    opened, _ = latents.ActiveLatents.of(mask.double())
    values = torch.randn(len(opened.token), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, W: opened.decode(v, W), (values, p["W_dec"]))


def test_too_many_open_latents_and_nan_weights_are_left_to_the_dense_path() -> None:
    p = problem()

    def encode(limit: float) -> Any:
        return kernels.encode_active(
            p["x"],
            p["W_enc"],
            None,
            lambda pre, latents: active_mask(pre, p["threshold"][:, latents]),
            limit,
        )

    assert encode(0.9) is not None
    assert encode(0.1) is None
    with torch.no_grad():
        p["W_enc"][2, 3] = torch.nan
    assert encode(1.0) is None
