"""The split is exact: same output, latents are the two sides, plain SAELens loads the result."""

import contextlib
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import GatedSAE, JumpReLUSAE, StandardSAE, StandardSAEConfig
from safetensors.torch import load_file

from sae_lens_signaware import merge_antipodal, split_polarities
from sae_lens_signaware.evaluation.saved import write_split
from sae_lens_signaware.saes.conversion import split_log_sparsity
from tests.support.hub import save_measured
from tests.support.saes import (
    D_IN,
    SAVED_VARIANTS,
    VARIANTS,
    each_threshold_variant,
    each_variant,
    inference_of,
    make_sae,
    make_training_sae,
    randomise,
    settle,
)


def assert_split_exact(sae: Any, x: torch.Tensor, atol: float) -> None:
    plain = split_polarities(sae)
    z, z_plain, d_sae = sae.encode(x), plain.encode(x), sae.cfg.d_sae
    assert plain.cfg.d_sae == 2 * d_sae
    assert (z_plain >= 0).all()
    torch.testing.assert_close(z_plain[..., :d_sae], z.clamp(min=0), rtol=0, atol=atol)
    torch.testing.assert_close(z_plain[..., d_sae:], (-z).clamp(min=0), rtol=0, atol=atol)
    torch.testing.assert_close(plain(x), sae(x), rtol=0, atol=atol)


@settings(max_examples=30, deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    d_in=st.integers(1, 9),
    d_sae=st.integers(1, 9),
    apply_b_dec_to_input=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_split_is_exact_in_float64(
    variant: tuple[str, str], d_in: int, d_sae: int, apply_b_dec_to_input: bool, seed: int
) -> None:
    sae = make_sae(
        *variant,
        d_in=d_in,
        d_sae=d_sae,
        dtype="float64",
        apply_b_dec_to_input=apply_b_dec_to_input,
    )
    x = torch.randn(8, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_split_exact(sae, x, atol=1e-12)


@each_variant
def test_split_in_float32_from_both_classes(architecture: str, tying: str) -> None:
    x = torch.randn(64, D_IN)
    assert_split_exact(make_sae(architecture, tying), x, atol=1e-5)
    training = make_training_sae(architecture, tying)
    settle(training, x)
    assert_split_exact(training, x, atol=1e-5)


@each_threshold_variant
def test_thresholds_that_the_last_step_left_below_0_are_split_as_they_are_saved(
    architecture: str, tying: str
) -> None:
    sae = make_training_sae(architecture, tying)
    sae.threshold.data[:, :5] = -0.5
    plain, saved = split_polarities(sae), split_polarities(inference_of(sae))
    for name, value in saved.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value), name


@each_variant
def test_split_leaves_its_argument_alone_and_owns_its_tensors(
    architecture: str, tying: str
) -> None:
    sae = make_sae(architecture, tying)
    sae.cfg.metadata.notes = ["mine"]
    before = {k: v.clone() for k, v in sae.state_dict().items()}
    plain = split_polarities(sae)
    plain.b_dec.data += 1.0
    plain.cfg.metadata.hook_name = "elsewhere"
    plain.cfg.metadata.notes.append("of the twin")
    for key, value in sae.state_dict().items():
        assert torch.equal(value, before[key])
    assert sae.cfg.metadata.hook_name is None
    assert sae.cfg.metadata.notes == ["mine"]
    assert all(p.is_contiguous() for p in plain.parameters())


def test_split_classes_and_metadata() -> None:
    gated = split_polarities(make_sae("sa_gsae"))
    assert type(gated) is GatedSAE
    assert type(split_polarities(make_sae("bi_jumprelu"))) is JumpReLUSAE
    assert gated.cfg.metadata.split_from == {
        "architecture": "sa_gsae",
        "d_sae": 24,
        "index_map": "latent i is i (+ side) and i + d_sae (- side)",
    }


def test_split_of_a_one_sided_sae_keeps_its_width() -> None:
    sae = make_sae("sa_gsae", two_sided=False)
    plain = split_polarities(sae)
    x = torch.randn(64, D_IN)
    assert plain.cfg.d_sae == sae.cfg.d_sae
    assert (sae.encode(x) >= 0).all()
    torch.testing.assert_close(plain.encode(x), sae.encode(x))
    torch.testing.assert_close(plain(x), sae(x))


def test_split_refuses_a_plain_sae() -> None:
    with pytest.raises(TypeError, match="takes a signed SAE, got StandardSAE"):
        split_polarities(StandardSAE(StandardSAEConfig(d_in=4, d_sae=4)))


@each_variant
def test_split_after_fold_and_with_hook_z(architecture: str, tying: str) -> None:
    sae = make_sae(architecture, tying, reshape_activations="hook_z", dtype="float64")
    with contextlib.suppress(NotImplementedError):  # its choice of latents depends on the norm
        sae.fold_W_dec_norm()
    x = torch.randn(6, 2, D_IN // 2, dtype=torch.float64)
    plain = split_polarities(sae)
    torch.testing.assert_close(plain(x), sae(x), rtol=0, atol=1e-12)


@pytest.mark.slow  # it starts a process
def test_split_files_load_where_this_package_is_never_imported(tmp_path: Path) -> None:
    x = torch.randn(16, D_IN)
    outputs = {}
    for architecture, tying in SAVED_VARIANTS:
        sae = make_sae(architecture, tying)
        randomise(sae)
        split_polarities(sae).save_model(tmp_path / f"{architecture}-{tying}")
        outputs[f"{architecture}-{tying}"] = sae(x).detach()
    torch.save({"x": x, "outputs": outputs}, tmp_path / "io.pt")
    # all in one process, which takes many times as long to start as to load them
    code = f"""
        import sys, torch
        from pathlib import Path
        from sae_lens import SAE
        folder = Path({str(tmp_path)!r})
        io = torch.load(folder / "io.pt", weights_only=True)
        for name, output in io["outputs"].items():
            sae = SAE.load_from_disk(folder / name)
            torch.testing.assert_close(sae(io["x"]), output, rtol=0, atol=1e-5, msg=name)
        assert "sae_lens_signaware" not in sys.modules
        print(len(io["outputs"]), "with the same output")
    """
    # -I keeps this folder off the path; -c imports SAELens alone
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.stdout == f"{len(SAVED_VARIANTS)} with the same output\n", done.stderr


def test_split_log_sparsity_by_hand() -> None:
    log_sparsity = torch.tensor([-1.0, -2.0, -10.0])
    share = torch.tensor([0.75, 1.0, 0.5])
    rates = 10.0 ** split_log_sparsity(log_sparsity, share).double()
    wanted = torch.tensor([0.075, 0.01, 1e-10, 0.025, 1e-10, 1e-10], dtype=torch.float64)
    torch.testing.assert_close(rates, wanted, rtol=1e-5, atol=1e-12)
    # not measured by side: an upper bound for either
    assert split_log_sparsity(log_sparsity).tolist() == [-1.0, -2.0, -10.0] * 2


def test_a_sparsity_of_other_weights_is_not_split(tmp_path: Path) -> None:
    sae = make_sae("sa_gsae", "none")
    save_measured(sae, tmp_path / "sae")
    sae.W_enc.data.mul_(2)
    sae.save_model(tmp_path / "sae")  # what lies beside it is of before
    write_split(sae, tmp_path / "sae", tmp_path / "plain")
    assert not (tmp_path / "plain" / "sparsity.safetensors").exists()
    # as SAELens's runner leaves it, without shares of the sides
    (tmp_path / "sae" / "quality.json").unlink()
    write_split(sae, tmp_path / "sae", tmp_path / "of_runner")
    whole, sides = (
        load_file(tmp_path / name / "sparsity.safetensors")["sparsity"]
        for name in ("sae", "of_runner")
    )
    torch.testing.assert_close(sides, torch.cat([whole, whole]))


def test_saved_tensors_are_the_split_of_the_design(tmp_path: Path) -> None:
    sae = make_sae("sa_gsae", "none")
    split_polarities(sae).save_model(tmp_path)
    state, s = load_file(tmp_path / "sae_weights.safetensors"), sae.state_dict()
    assert torch.equal(state["W_enc"], torch.cat([s["W_enc"], -s["W_enc"]], 1))
    assert torch.equal(state["W_dec"], torch.cat([s["W_dec"], -s["W_dec"]], 0))
    assert torch.equal(state["b_gate"], -s["threshold"].flatten())
    assert torch.equal(state["r_mag"], s["r_mag"].flatten())
    assert torch.equal(state["b_mag"], s["b_mag"].flatten())


def test_a_twin_of_a_merged_sae_keeps_no_numbers_of_other_latents() -> None:
    sae = make_sae("sa_gsae", "none")
    sae.cfg.metadata.merged_from = {"latents": [[0, 1]]}
    sae.cfg.metadata.split_from = {"index_map": "latent i is i"}
    sae.cfg.metadata.num_dead_features = 3  # as SAELens's trainer writes it
    plain = split_polarities(sae)
    assert "num_dead_features" not in plain.cfg.metadata.to_dict()
    assert plain.cfg.metadata.to_dict().get("merged_from") is None
    assert plain.cfg.metadata.split_from["d_sae"] == sae.cfg.d_sae


def test_a_split_and_a_merge_draw_no_random_numbers() -> None:
    sae, x = make_sae("bi_jumprelu"), torch.randn(200, D_IN)
    before = torch.get_rng_state()
    merge_antipodal(split_polarities(sae), x)
    assert torch.equal(torch.get_rng_state(), before)
