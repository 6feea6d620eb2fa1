"""BatchTopK by size, and its Matryoshka: against SAELens's own two, and what each part does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import get_sae_training_class

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.saes.activations import bi_batch_topk
from sae_lens_signaware.saes.latents import ActiveLatents, AllLatents
from tests.support.saes import (
    D_IN,
    D_SAE,
    inference_of,
    make_training_sae,
    settle,
    training_config,
)
from tests.support.training import TOLERANCE, path, step_input

BATCH, MATRYOSHKA = "bi_batchtopk", "bi_matryoshka_batchtopk"
each_sibling = pytest.mark.parametrize("architecture", [BATCH, MATRYOSHKA])
WIDTHS = [10, 22, 40]


def batch(n: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def twins(architecture: str, **kwargs: Any) -> tuple[Any, Any, list[int]]:
    """Ours of width 40, SAELens's of width 80 with both sides, and which of ours each is (+ H)."""
    nested = architecture == MATRYOSHKA
    widths: Any = {"matryoshka_widths": WIDTHS} if nested else {}
    ours = make_training_sae(architecture, d_sae=40, k=3.3, dtype="float64", **widths, **kwargs)
    kwargs = {k: v for k, v in kwargs.items() if k != "use_sparse_activations"}
    if nested:  # the two sides of a latent lie in the same width
        widths = {"matryoshka_widths": [2 * w for w in WIDTHS]}
    config_class = get_sae_training_class(architecture.removeprefix("bi_"))[1]
    cfg: Any = config_class(d_in=D_IN, d_sae=80, k=3.3, dtype="float64", **widths, **kwargs)  # type: ignore[call-arg]
    theirs: Any = TrainingSAE.from_dict(cfg.to_dict())
    order, start = [], 0
    for width in WIDTHS if nested else [40]:
        order += [*range(start, width), *range(start + 40, width + 40)]
        start = width
    with torch.no_grad():
        theirs.W_enc.copy_(torch.cat([ours.W_enc, -ours.W_enc], 1)[:, order])
        theirs.W_dec.copy_(torch.cat([ours.W_dec, -ours.W_dec], 0)[order])
        biases = torch.cat([ours.b_mag[0] + ours.b_enc, ours.b_mag[0] - ours.b_enc])
        theirs.b_enc.copy_(biases[order])
        theirs.b_dec.copy_(ours.b_dec)
    return ours, theirs, order


def folded(gradient: torch.Tensor, order: list[int], dim: int) -> torch.Tensor:
    """The gradient of a latent's parameters from those of its two sides."""
    sides = torch.empty_like(gradient).index_copy(dim, torch.tensor(order), gradient)
    plus, minus = sides.split(40, dim)
    return plus - minus


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("n_dead", [0, 8, 10])
@pytest.mark.parametrize("variant", [BATCH, MATRYOSHKA, "own auxiliary losses"])
def test_a_step_is_that_of_saelens_with_both_sides(
    variant: str, n_dead: int, rescale: bool, sparse: bool
) -> None:
    # Dead latents: none, or at least d_in / 2 in each width. With fewer, SAELens counts both sides.
    architecture = BATCH if variant == BATCH else MATRYOSHKA
    own: Any = {"use_matryoshka_aux_loss": True} if variant == "own auxiliary losses" else {}
    ours, theirs, order = twins(architecture, rescale_acts_by_decoder_norm=rescale, **own)
    dead = torch.cat([torch.arange(end - start) < n_dead for start, end in
                      zip([0, *WIDTHS], WIDTHS, strict=False)])  # fmt: skip
    if n_dead:  # SAELens's AuxK takes both sides of a latent, and values below 0
        shift = ours.b_mag.data[0].clone()
        ours.b_mag.data.zero_()
        theirs.b_enc.data.sub_(torch.cat([shift, shift])[order])
    x = batch()
    with path(sparse):
        out = ours.training_forward_pass(step_input(x, dead_neuron_mask=dead, is_logging_step=True))
    both = torch.cat([dead, dead])[order]
    wanted = theirs.training_forward_pass(
        step_input(x, dead_neuron_mask=both, is_logging_step=True)
    )
    assert out.feature_acts.is_sparse == sparse
    renamed = {
        f"inner_mse_loss_{2 * int(name.rsplit('_', 1)[1])}" if "inner" in name else name: loss
        for name, loss in out.losses.items()
    }
    assert set(renamed) == set(wanted.losses)
    for name, loss in wanted.losses.items():
        torch.testing.assert_close(renamed[name], loss, **TOLERANCE)
    torch.testing.assert_close(out.loss, wanted.loss, **TOLERANCE)
    torch.testing.assert_close(out.sae_out, wanted.sae_out, **TOLERANCE)
    torch.testing.assert_close(ours.topk_threshold, theirs.topk_threshold, rtol=0, atol=1e-15)
    acts = torch.empty_like(wanted.feature_acts).index_copy(
        1, torch.tensor(order), wanted.feature_acts
    )
    torch.testing.assert_close(
        out.feature_acts.to_dense(), acts[:, :40] - acts[:, 40:], **TOLERANCE
    )
    out.loss.backward()
    wanted.loss.backward()
    grads = theirs.W_enc.grad, theirs.W_dec.grad, theirs.b_enc.grad
    torch.testing.assert_close(ours.W_enc.grad, folded(grads[0], order, 1), **TOLERANCE)
    torch.testing.assert_close(ours.W_dec.grad, folded(grads[1], order, 0), **TOLERANCE)
    torch.testing.assert_close(ours.b_enc.grad, folded(grads[2], order, 0), **TOLERANCE)
    torch.testing.assert_close(ours.b_dec.grad, theirs.b_dec.grad, **TOLERANCE)


def test_the_largest_of_a_batch_by_hand() -> None:
    h = torch.tensor([[1.0, -5.0, 0.5], [-2.0, 0.25, 4.0]], requires_grad=True)
    z = bi_batch_topk(h, 3)
    assert z.tolist() == [[0, -5, 0], [-2, 0, 4]]
    (z * torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [[0, 2, 0], [4, 0, 6]]
    assert bi_batch_topk(h, 9).tolist() == h.tolist()


@each_sibling
def test_the_cutoff_of_the_last_batch_changes_nothing(architecture: str) -> None:
    saes = [make_training_sae(architecture) for _ in range(2)]
    outputs = []
    for sae, before in zip(saes, (None, 0.7), strict=True):
        sae._cutoff = before
        with path(True):
            outputs.append(sae.training_forward_pass(step_input(batch().float())))
    a, b = outputs
    assert torch.equal(a.feature_acts.to_dense(), b.feature_acts.to_dense())
    assert torch.equal(a.loss, b.loss)


@each_sibling
def test_the_cutoff_is_of_a_step_with_active_latents(architecture: str) -> None:
    sae = make_training_sae(architecture)
    with torch.no_grad(), path(True):
        sae.training_forward_pass(step_input(batch().float()))
        before = sae._cutoff
        assert before > 0
        assert sae.encode(torch.empty(0, D_IN)).shape == (0, D_SAE)
        # with a cutoff of these the next step would look at nearly all pre-activations
        sae.encode(1e-3 * batch().float())
        assert sae._cutoff == before
        for param in (sae.W_enc, sae.b_enc):
            param.zero_()  # every pre-activation is 0
        out = sae.training_forward_pass(step_input(batch().float()))
    assert out.feature_acts.to_dense().count_nonzero() == 0
    assert sae._cutoff == before


def test_the_running_threshold_by_hand() -> None:
    sae = make_training_sae(BATCH, topk_threshold_lr=0.25)
    sae.update_topk_threshold(torch.tensor([[0.0, -2.0], [3.0, 0.0]]))
    assert sae.topk_threshold.item() == 0.5
    sae.update_topk_threshold(torch.tensor([-6.0]))
    assert sae.topk_threshold.item() == 0.75 * 0.5 + 0.25 * 6
    for nothing in (torch.zeros(2, 2), torch.empty(0)):
        sae.update_topk_threshold(nothing)
        assert sae.topk_threshold.item() == 0.75 * 0.5 + 0.25 * 6


@each_sibling
@pytest.mark.parametrize("rescale", [True, False])
def test_the_saved_sae_keeps_what_the_batch_keeps(
    architecture: str, rescale: bool, tmp_path: Path
) -> None:
    sae = make_training_sae(architecture, rescale_acts_by_decoder_norm=rescale, dtype="float64")
    x = batch()
    settle(sae, x)
    sae.save_inference_model(tmp_path)
    loaded: Any = SAE.load_from_disk(tmp_path)
    assert loaded.cfg.architecture() == "bi_jumprelu"
    assert loaded.threshold.shape == (1, D_SAE)
    # of |h|, not of |z|
    b_mag = sae.b_mag * sae.W_dec.norm(dim=1) if rescale else sae.b_mag
    torch.testing.assert_close(loaded.b_mag, b_mag)
    torch.testing.assert_close(loaded.threshold, torch.relu(sae.topk_threshold - b_mag))
    if rescale:
        torch.testing.assert_close(loaded.W_dec.norm(dim=1), torch.ones(D_SAE).double())
    torch.testing.assert_close(loaded.encode(x), sae.encode(x), **TOLERANCE)
    torch.testing.assert_close(loaded(x), sae(x), **TOLERANCE)
    assert torch.equal(inference_of(sae)(x), sae.to_inference()(x))


@each_sibling
@pytest.mark.parametrize("rescale", [True, False])
def test_a_folded_scale_leaves_what_is_kept(architecture: str, rescale: bool) -> None:
    sae = make_training_sae(
        architecture,
        rescale_acts_by_decoder_norm=rescale,
        normalize_activations="expected_average_only_in",
        dtype="float64",
    )
    x = batch()
    settle(sae, x)
    z = inference_of(sae).encode(x)
    sae.fold_activation_norm_scaling_factor(2.5)
    # in the units of the decoder norm, which is divided by the scale
    folded = inference_of(sae).encode(x / 2.5)
    torch.testing.assert_close(folded, z / 2.5 if rescale else z, **TOLERANCE)


@each_sibling
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_running_threshold_survives_a_file_exactly(
    architecture: str, dtype: str, tmp_path: Path
) -> None:
    sae = make_training_sae(architecture, dtype=dtype)
    sae.topk_threshold.fill_(0.1 + 1e-12)  # no 32 bits have this
    assert sae.to(torch.bfloat16).topk_threshold.item() == 0.1 + 1e-12
    sae = sae.to(getattr(torch, dtype))
    sae.save_model(tmp_path)
    resumed = make_training_sae(architecture, dtype=dtype)
    resumed.load_weights_from_checkpoint(tmp_path)
    for other in (resumed, TrainingSAE.load_from_disk(tmp_path)):
        assert other.topk_threshold.dtype == torch.float64
        assert other.topk_threshold.item() == 0.1 + 1e-12  # type: ignore[operator]


def test_a_checkpoint_without_its_running_threshold_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_training_sae(BATCH).save_model(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    state = {k: v for k, v in load_file(file).items() if "topk_threshold" not in k}
    save_file(state, file)
    with pytest.raises(InvalidInputError, match=r"missing \['topk_threshold'\]"):
        TrainingSAE.load_from_disk(tmp_path)


@each_sibling
def test_a_norm_that_decides_on_the_choice_cannot_be_folded(architecture: str) -> None:
    sae = make_training_sae(architecture, rescale_acts_by_decoder_norm=False)
    with pytest.raises(NotImplementedError, match="may change the topk activations"):
        sae.fold_W_dec_norm()


@pytest.mark.parametrize("sizes", [(1,), (2, 5), (3, 4, 6)])
def test_nested_products_by_prefix(sizes: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(3)
    z = torch.randn(4, 6, generator=g, dtype=torch.float64)
    z = z * (torch.rand(4, 6, generator=g) < 0.5)
    W_dec = torch.randn(6, 3, generator=g, dtype=torch.float64)
    latents, values = ActiveLatents.of(z)
    ways = [(AllLatents.of(z), z), (latents, values)]
    wanted = [z[:, :w] @ W_dec[:w] for w in sizes]
    for latents_of, v in ways:
        v, W = v.clone().requires_grad_(), W_dec.clone().requires_grad_()
        got = latents_of.decode_nested(v, W, sizes)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, **TOLERANCE)
        sum(p.pow(2).sum() for p in got).backward()  # type: ignore[union-attr]
        W_wanted = sum(2 * torch.cat([z[:, :w].T @ p, z.new_zeros(6 - w, 3)])
                       for w, p in zip(sizes, wanted, strict=True))  # fmt: skip
        torch.testing.assert_close(W.grad, W_wanted, **TOLERANCE)
        z_wanted = sum(2 * torch.cat([p @ W_dec[:w].T, z.new_zeros(4, 6 - w)], 1)
                       for w, p in zip(sizes, wanted, strict=True))  # fmt: skip
        dense = v.grad if v.grad.shape == z.shape else latents.to_dense(v.grad)  # type: ignore[union-attr]
        mask = (z != 0) if v.shape != z.shape else torch.ones_like(z)
        torch.testing.assert_close(dense, z_wanted * mask, **TOLERANCE)


@pytest.mark.parametrize(
    ("architecture", "kwargs", "message"),
    [
        (BATCH, {"k": 0.0}, "k must be a number above 0 and at most d_sae = 24, got 0.0"),
        (BATCH, {"k": 25.0}, "k must be a number above 0 and at most d_sae = 24, got 25.0"),
        (BATCH, {"topk_threshold_lr": 0.0}, "topk_threshold_lr must be a number above 0"),
        (BATCH, {"aux_loss_coefficient": -1.0}, "aux_loss_coefficient must be a number >= 0"),
        (BATCH, {"tying": "none"}, "polarity_tying must be one of full, got 'none'"),
        (MATRYOSHKA, {"matryoshka_widths": []}, "matryoshka_widths must be at least one ascending"),
        (MATRYOSHKA, {"matryoshka_widths": [8, 8, 24]}, "got [8, 8, 24]"),
        (MATRYOSHKA, {"matryoshka_widths": [0, 24]}, "got [0, 24]"),
        (MATRYOSHKA, {"matryoshka_widths": [8, 48]}, "integer from 1 to d_sae = 24, got [8, 48]"),
    ],
)
def test_wrong_configs_give_one_line(
    architecture: str, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        training_config(architecture, **{"tying": "full", **kwargs})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
