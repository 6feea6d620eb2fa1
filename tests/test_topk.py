"""TopK by size with a bias for each side: against SAELens's topk and abstopk, and by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import get_sae_training_class
from torch.testing import assert_close

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.saes.activations import bi_topk
from sae_lens_signaware.saes.kernels import CHUNK_ELEMENTS
from sae_lens_signaware.saes.largest import Encoder, encode_largest_of_tokens
from tests.support.saes import D_IN, inference_of, make_sae, make_training_sae, training_config
from tests.support.training import TOLERANCE, path, step_input

D_SAE = 40


def batch(n: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(**fields: Any) -> Any:
    """A training SAE whose biases are at most 0, as a training has them."""
    sae = make_training_sae("bi_topk", d_sae=D_SAE, k=3, dtype="float64", **fields)
    sae.b_mag.data.abs_().neg_()
    return sae


def theirs(architecture: str, d_sae: int, **fields: Any) -> Any:
    cfg: Any = get_sae_training_class(architecture)[1](
        d_in=D_IN, d_sae=d_sae, k=3, dtype="float64", **fields
    )  # type: ignore[call-arg]
    return TrainingSAE.from_dict(cfg.to_dict())


def folded(gradient: torch.Tensor, dim: int) -> torch.Tensor:
    """The gradient of a latent's parameters from those of its two sides."""
    plus, minus = gradient.split(D_SAE, dim)
    return plus - minus


def test_the_largest_of_each_token_by_hand() -> None:
    h = torch.tensor([[1.0, -5.0, 0.5], [-2.0, 0.25, 4.0]], requires_grad=True)
    z = bi_topk(h, 2)
    assert z.tolist() == [[1, -5, 0], [-2, 0, 4]]
    (z * torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [[1, 2, 0], [4, 0, 6]]
    assert bi_topk(h, 3).tolist() == h.tolist()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("n_dead", [0, D_IN])
def test_a_step_is_that_of_saelens_topk_with_both_sides(
    n_dead: int, rescale: bool, sparse: bool
) -> None:
    sae = ours(rescale_acts_by_decoder_norm=rescale)
    plain = theirs("topk", 2 * D_SAE, rescale_acts_by_decoder_norm=rescale)
    if n_dead:  # SAELens's AuxK takes both sides of a latent, and values below 0
        sae.b_mag.data.zero_()
    with torch.no_grad():
        plain.W_enc.copy_(torch.cat([sae.W_enc, -sae.W_enc], 1))
        plain.W_dec.copy_(torch.cat([sae.W_dec, -sae.W_dec], 0))
        plain.b_enc.copy_(torch.cat([sae.b_mag[0] + sae.b_enc, sae.b_mag[0] - sae.b_enc]))
        plain.b_dec.copy_(sae.b_dec)
    x, dead = batch(), torch.arange(D_SAE) < n_dead
    with path(sparse):
        out = sae.training_forward_pass(step_input(x, dead_neuron_mask=dead))
    wanted = plain.training_forward_pass(step_input(x, dead_neuron_mask=torch.cat([dead, dead])))
    assert out.feature_acts.is_sparse == sparse
    assert set(out.losses) == set(wanted.losses)
    for name, loss in wanted.losses.items():
        torch.testing.assert_close(out.losses[name], loss, **TOLERANCE)
    torch.testing.assert_close(out.sae_out, wanted.sae_out, **TOLERANCE)
    acts = folded(wanted.feature_acts, 1)
    torch.testing.assert_close(out.feature_acts.to_dense(), acts, **TOLERANCE)
    assert 2.5 < (acts != 0).sum(1).double().mean() <= 3
    out.loss.backward()
    wanted.loss.backward()
    torch.testing.assert_close(sae.W_enc.grad, folded(plain.W_enc.grad, 1), **TOLERANCE)
    torch.testing.assert_close(sae.W_dec.grad, folded(plain.W_dec.grad, 0), **TOLERANCE)
    torch.testing.assert_close(sae.b_enc.grad, folded(plain.b_enc.grad, 0), **TOLERANCE)
    torch.testing.assert_close(sae.b_dec.grad, plain.b_dec.grad, **TOLERANCE)
    # both sides add b_mag
    b_mag = sum(plain.b_enc.grad.split(D_SAE))
    torch.testing.assert_close(sae.b_mag.grad[0], b_mag, **TOLERANCE)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n_dead", [0, 3, D_IN])
def test_without_a_bias_of_size_a_step_is_that_of_saelens_abstopk(
    n_dead: int, sparse: bool
) -> None:
    sae, other = ours(), theirs("abstopk", D_SAE)
    sae.b_mag.data.zero_()
    state = {name: sae.state_dict()[name] for name in other.state_dict()}
    other.load_state_dict(state)
    x, dead = batch(), torch.arange(D_SAE) < n_dead
    with path(sparse):
        out = sae.training_forward_pass(step_input(x, dead_neuron_mask=dead))
    wanted = other.training_forward_pass(step_input(x, dead_neuron_mask=dead))
    torch.testing.assert_close(out.feature_acts.to_dense(), wanted.feature_acts, **TOLERANCE)
    torch.testing.assert_close(out.loss, wanted.loss, **TOLERANCE)
    out.loss.backward()
    wanted.loss.backward()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(getattr(sae, name).grad, parameter.grad, **TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(1, 40)),
    share=st.floats(0.0, 1.0),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_largest_of_each_token_are_found(
    shape: tuple[int, int, int], share: float, bias: bool, seed: int
) -> None:
    n, d_in, d_sae = shape
    g = torch.Generator().manual_seed(seed)
    x, W_enc = torch.randn(n, d_in, generator=g), torch.randn(d_in, d_sae, generator=g)
    b_enc = torch.randn(d_sae, generator=g) if bias else None
    scale, b_mag = torch.rand(d_sae, generator=g) + 0.1, torch.randn(d_sae, generator=g)
    k = max(1, int(share * d_sae))
    found = encode_largest_of_tokens(x, Encoder(W_enc, b_enc, scale, b_mag), k)
    assert found is not None
    latents, pre = found
    all_pre = x @ W_enc if b_enc is None else x @ W_enc + b_enc
    size = torch.relu(all_pre.abs() + b_mag) * scale
    assert latents.token.tolist() == [token for token in range(n) for _ in range(k)]
    chosen = latents.latent.view(n, k)
    assert (chosen.diff(dim=1) > 0).all()
    torch.testing.assert_close(pre.view(n, k), all_pre.gather(1, chosen), rtol=1e-5, atol=1e-6)
    kept = size.gather(1, chosen).sort(dim=1, descending=True).values
    wanted = size.sort(dim=1, descending=True).values[:, :k]
    torch.testing.assert_close(kept, wanted, rtol=1e-5, atol=1e-6)


def test_tokens_of_several_tiles_and_what_is_not_finite() -> None:
    g = torch.Generator().manual_seed(0)
    d_sae = CHUNK_ELEMENTS // 4  # four tokens a tile
    x, W_enc = torch.randn(9, 2, generator=g), torch.randn(2, d_sae, generator=g)
    encoder = Encoder(W_enc, None, torch.ones(d_sae), torch.zeros(d_sae))
    found = encode_largest_of_tokens(x, encoder, 2)
    assert found is not None
    wanted = (x @ W_enc).abs().topk(2).indices.sort().values
    assert found[0].latent.view(9, 2).tolist() == wanted.tolist()
    W_enc[0, 5] = torch.nan
    assert encode_largest_of_tokens(x, encoder, 2) is None


def test_a_bias_above_0_is_one_of_0() -> None:
    sae = ours()
    x = batch()
    sae.b_mag.data[0, ::2] = 0.0
    wanted = sae.encode(x)
    sae.b_mag.data[0, ::2] = 0.3
    torch.testing.assert_close(sae.encode(x), wanted, **TOLERANCE)
    torch.testing.assert_close(inference_of(sae)(x), sae(x), **TOLERANCE)
    torch.testing.assert_close(sae.to_plain()(x), sae(x), **TOLERANCE)
    assert inference_of(sae).b_mag.max() == 0
    sae.training_forward_pass(step_input(x))
    assert sae.b_mag.max() == 0  # so that a gradient can bring it back below


@pytest.mark.parametrize("rescale", [True, False])
def test_the_saved_sae_keeps_what_the_training_sae_keeps(rescale: bool, tmp_path: Path) -> None:
    sae, x = ours(rescale_acts_by_decoder_norm=rescale), batch()
    sae.save_inference_model(tmp_path)
    loaded: Any = SAE.load_from_disk(tmp_path)
    assert loaded.cfg.architecture() == "bi_topk"
    assert (loaded.cfg.k, loaded.cfg.rescale_acts_by_decoder_norm) == (3, rescale)
    torch.testing.assert_close(loaded.encode(x), sae.encode(x), **TOLERANCE)
    torch.testing.assert_close(loaded(x), sae(x), **TOLERANCE)
    if rescale:
        torch.testing.assert_close(loaded.W_dec.norm(dim=1), torch.ones(D_SAE).double())


@pytest.mark.parametrize("make", [make_sae, make_training_sae])
def test_a_norm_that_decides_on_the_choice_cannot_be_folded(make: Any) -> None:
    sae = make("bi_topk", rescale_acts_by_decoder_norm=False)
    with pytest.raises(NotImplementedError, match="may change the topk activations"):
        sae.fold_W_dec_norm()


@pytest.mark.parametrize("make", [make_sae, make_training_sae])
def test_a_norm_that_rescales_can_be_folded(make: Any) -> None:
    sae = make("bi_topk", rescale_acts_by_decoder_norm=True, dtype="float64")
    x = batch()
    z, out = sae.encode(x), sae(x)
    sae.fold_W_dec_norm()
    torch.testing.assert_close(sae.encode(x), z, **TOLERANCE)
    torch.testing.assert_close(sae(x), out, **TOLERANCE)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(len(sae.W_dec)).double())


@pytest.mark.parametrize("make", [make_sae, make_training_sae])
def test_a_decoder_row_of_zeros_leaves_the_output_finite(make: Any) -> None:
    sae = make("bi_topk", rescale_acts_by_decoder_norm=True)
    sae.W_dec.data[0] = 0.0
    assert sae(batch().float()).isfinite().all()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"k": 0}, "k must be a number above 0 and at most d_sae = 24, got 0"),
        ({"k": 25}, "k must be a number above 0 and at most d_sae = 24, got 25"),
        ({"k": 2.5}, "k must be an integer, got 2.5"),
        ({"aux_loss_coefficient": -1.0}, "aux_loss_coefficient must be a number >= 0, got -1.0"),
        ({"tying": "none"}, "polarity_tying must be one of full, got 'none'"),
    ],
)
def test_wrong_configs_give_one_line(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        training_config("bi_topk", **{"tying": "full", **fields})
    assert str(caught.value) == line


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_of_a_bi_batchtopk_are_not_those_of_a_bi_topk(dtype: str, tmp_path: Path) -> None:
    """Its tensors are those of a bi_topk and a running threshold, in float16 as bytes as well."""
    make_training_sae("bi_topk", dtype=dtype).save_model(tmp_path)
    SAE.load_from_disk(tmp_path)
    make_training_sae("bi_batchtopk", dtype=dtype).save_model(tmp_path / "other")
    (tmp_path / "other" / "sae_weights.safetensors").replace(tmp_path / "sae_weights.safetensors")
    with pytest.raises(InvalidInputError, match=r"unknown \['topk_threshold'\]"):
        SAE.load_from_disk(tmp_path)


def test_the_twin_of_an_sae_with_an_ablated_latent_is_finite(tmp_path: Path) -> None:
    sae = inference_of(ours(rescale_acts_by_decoder_norm=True))
    sae.W_dec.data *= torch.linspace(0.5, 2, D_SAE, dtype=torch.float64)[:, None]
    x = batch()
    assert_close(sae.to_plain()(x), sae(x), **TOLERANCE)
    sae.W_dec.data[3] = 0
    sae.to_plain().save_model(tmp_path)
    twin, z = SAE.load_from_disk(tmp_path), sae.encode(x)
    assert_close(twin(x), sae(x), **TOLERANCE)
    assert_close(twin.encode(x), torch.cat([z.clamp(min=0), -z.clamp(max=0)], dim=-1), **TOLERANCE)
