"""The largest of a batch: which are found, whatever the cutoff, and of what size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_lens_signaware.saes.largest import Encoder, encode_largest, first_cutoff, largest_mask


def test_of_equal_sizes_the_first_are_kept() -> None:
    size = torch.tensor([2.0, 1.0, 3.0, 1.0, 1.0])
    assert largest_mask(size, 3).tolist() == [True, True, True, False, False]
    assert largest_mask(size, 4).tolist() == [True, True, True, True, False]
    assert largest_mask(size, 0).tolist() == [False] * 5
    assert largest_mask(size, 7).tolist() == [True] * 5


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 6), st.integers(1, 40)),
    share=st.floats(0.0, 1.0),
    cutoff=st.sampled_from([None, 0.0, 0.3, 2.0, 1e9]),
    bias=st.booleans(),
    shift=st.sampled_from([0.0, 0.5, 3.0]),
    seed=st.integers(0, 1000),
)
def test_the_largest_are_found_whatever_the_cutoff(
    shape: tuple[int, int, int],
    share: float,
    cutoff: float | None,
    bias: bool,
    shift: float,
    seed: int,
) -> None:
    n, d_in, d_sae = shape
    g = torch.Generator().manual_seed(seed)
    x, W_enc = torch.randn(n, d_in, generator=g), torch.randn(d_in, d_sae, generator=g)
    b_enc = torch.randn(d_sae, generator=g) if bias else None
    scale = torch.rand(d_sae, generator=g) + 0.1
    b_mag = shift * torch.randn(d_sae, generator=g)
    n_largest = int(share * n * d_sae)
    found = encode_largest(x, Encoder(W_enc, b_enc, scale, b_mag), n_largest, cutoff)
    assert found is not None
    latents, pre, smallest = found
    all_pre = x @ W_enc if b_enc is None else x @ W_enc + b_enc
    size = (torch.relu(all_pre.abs() + b_mag) * scale).flatten()
    position = latents.token * d_sae + latents.latent
    assert (position.diff() > 0).all()  # by token, then by latent
    assert len(position) == min(n_largest, int((size > 0).sum()))
    torch.testing.assert_close(pre, all_pre.flatten()[position], rtol=1e-5, atol=1e-6)
    if len(position):
        kept = size.sort(descending=True).values[: len(position)]
        torch.testing.assert_close(
            size[position].sort(descending=True).values, kept, rtol=1e-5, atol=1e-6
        )
        assert smallest == pytest.approx(kept[-1].item(), rel=1e-5, abs=1e-6)


def test_where_the_others_are_0_fewer_are_found() -> None:
    x, W_enc = torch.zeros(3, 2), torch.ones(2, 4)
    x[1] = 1.0
    encoder = Encoder(W_enc, None, torch.ones(4), torch.zeros(4))
    found = encode_largest(x, encoder, 9)
    assert found is not None
    assert found[0].token.tolist() == [1, 1, 1, 1]
    assert encode_largest(x * torch.nan, encoder, 9) is None


def test_a_first_cutoff_lets_somewhat_more_pass() -> None:
    g = torch.Generator().manual_seed(0)
    x, W_enc = torch.randn(512, 8, generator=g), torch.randn(8, 100, generator=g)
    cutoff = first_cutoff(x, Encoder(W_enc, None, torch.ones(100), torch.zeros(100)), 512 * 5)
    assert 5 < ((x @ W_enc).abs() > cutoff).sum().item() / 512 < 8
