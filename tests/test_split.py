"""The split is exact: same output, latents are the two sides, plain SAELens loads the result."""

import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import GatedSAE, JumpReLUSAE, StandardSAE, StandardSAEConfig, TopKSAE
from torch.testing import assert_close

from sae_lens_signaware.saes.split import split_log_sparsity, split_polarities
from tests.architectures import (
    D_SAE,
    ONE_EACH,
    TABLE,
    each_threshold_variant,
    each_variant,
    inference_sae,
    inputs,
    saved,
    training_sae,
)

PLAIN = {"sa_gsae": GatedSAE, "bi_topk": TopKSAE}


def assert_exact(sae, x: torch.Tensor, tolerance: float) -> None:
    """Same output; latents of the twin are max(z, 0), then max(-z, 0)."""
    plain, d_sae = split_polarities(sae), sae.cfg.d_sae
    with torch.no_grad():
        z, z_plain = sae.encode(x), plain.encode(x)
        sides = [z.clamp(min=0), (-z).clamp(min=0)]
        wanted = torch.cat(sides[: z_plain.shape[-1] // d_sae], -1)
        assert_close(z_plain, wanted, rtol=0, atol=tolerance)
        assert_close(plain(x), sae(x), rtol=0, atol=tolerance)


@settings(max_examples=12, deadline=None)
@given(
    d_in=st.integers(1, 9),
    d_sae=st.integers(1, 9),
    threshold=st.sampled_from([0.0, 0.3, 1.0]),
    apply_b_dec_to_input=st.booleans(),
    seed=st.integers(0, 1000),
)
@each_variant
def test_it_is_exact_in_float64(variant, d_in, d_sae, threshold, apply_b_dec_to_input, seed):
    fields = {"d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": apply_b_dec_to_input}
    fields |= {"k": min(2, d_sae)} if "topk" in variant else {}
    sae = inference_sae(variant, threshold, seed, dtype="float64", **fields)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, d_in, generator=generator, dtype=torch.float64)
    assert_exact(sae, x, 1e-12)


@each_variant
def test_it_takes_training_saes_and_folded_ones(variant):
    sae = training_sae(variant, 0.3)
    saved_one, x = saved(sae), inputs()
    if "batchtopk" not in variant:  # which keep the largest of a batch
        assert_exact(sae, x, 1e-5)
    assert_close(split_polarities(sae)(x), split_polarities(saved_one)(x))
    if "topk" not in variant or saved_one.cfg.architecture() == "bi_jumprelu":
        saved_one.fold_W_dec_norm()
    assert_exact(saved_one, x, 1e-5)


@each_threshold_variant
def test_what_the_last_step_left_out_of_range_is_split_as_it_is_saved(variant):
    sae = training_sae(variant, 0.5)
    sae.threshold.data[:, :9] = -0.5
    sae.b_mag.data[:, :9] = 0.5
    assert_exact(sae, inputs(200), 1e-5)
    found, wanted = (split_polarities(s).state_dict() for s in (sae, saved(sae)))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_size_bias_above_0_of_bi_topk_is_split_as_0():
    sae = training_sae("bi_topk")
    sae.b_mag.data[:, :30] = 0.5
    assert_exact(sae, inputs(200), 1e-5)


@each_variant
def test_classes_metadata_and_ownership(variant):
    sae = inference_sae(variant)
    sae.cfg.metadata.notes = ["mine"]
    sae.cfg.metadata.num_dead_features = 3  # as SAELens's trainer writes it: of other latents
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    plain = split_polarities(sae)
    architecture = sae.cfg.architecture()
    assert type(plain) is PLAIN.get(architecture, JumpReLUSAE)
    one_sided = "one_sided" in variant
    assert plain.cfg.d_sae == (1 if one_sided else 2) * D_SAE
    sides = "i" if one_sided else "i (+ side) and i + d_sae (- side)"
    assert plain.cfg.metadata.split_from == {
        "architecture": architecture,
        "d_sae": D_SAE,
        "index_map": f"latent i is {sides}",
    }
    assert plain.cfg.metadata.num_dead_features is None
    assert plain.cfg.metadata.training_architecture == TABLE[variant][0]
    plain.b_dec.data += 1.0
    plain.cfg.metadata.notes.append("of the twin")
    assert all(torch.equal(tensor, before[name]) for name, tensor in sae.state_dict().items())
    assert sae.cfg.metadata.notes == ["mine"]


def test_firing_rates_are_split_by_hand():
    log_sparsity, share = torch.tensor([-1.0, -2.0, -10.0]), torch.tensor([0.75, 1.0, 0.5])
    rates = 10.0 ** split_log_sparsity(log_sparsity, share).double()
    wanted = torch.tensor([0.075, 0.01, 1e-10, 0.025, 1e-10, 1e-10], dtype=torch.float64)
    assert_close(rates, wanted, rtol=1e-5, atol=1e-12)
    # not measured by side: an upper bound for either
    assert split_log_sparsity(log_sparsity).tolist() == [-1.0, -2.0, -10.0] * 2


def test_a_plain_sae_is_refused():
    with pytest.raises(TypeError, match="takes a signed SAE, got StandardSAE"):
        split_polarities(StandardSAE(StandardSAEConfig(d_in=4, d_sae=4)))


@pytest.mark.slow  # it starts a process
def test_the_files_load_where_this_package_is_never_imported(tmp_path):
    x, outputs = inputs(16), {}
    for variant in ONE_EACH:
        sae = inference_sae(variant)
        split_polarities(sae).save_model(tmp_path / variant)
        outputs[variant] = sae(x).detach()
    torch.save({"x": x, "outputs": outputs}, tmp_path / "io.pt")
    code = f"""
        import sys, torch
        from sae_lens import SAE
        io = torch.load({str(tmp_path / "io.pt")!r}, weights_only=True)
        for name, output in io["outputs"].items():
            sae = SAE.load_from_disk({str(tmp_path)!r} + "/" + name)
            torch.testing.assert_close(sae(io["x"]), output, rtol=0, atol=1e-5, msg=name)
        assert "sae_lens_signaware" not in sys.modules
        print(len(io["outputs"]))
    """
    # -I keeps this folder off the path
    command = [sys.executable, "-I", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{len(ONE_EACH)}\n", done.stderr
