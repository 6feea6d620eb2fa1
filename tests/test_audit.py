"""The antipodal audit on planted pairs, against a brute-force search, and its command."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import MatchingPursuitSAE, MatchingPursuitSAEConfig
from safetensors.torch import save_file

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation import audit as audit_module
from sae_lens_signaware.evaluation.audit import find_antipodal_pairs
from tests.support.cli import assert_one_line_error, invoke
from tests.support.saes import D_IN, make_sae, plain_with_pairs


def test_audit_finds_all_planted_pairs_and_no_other() -> None:
    sae, x = plain_with_pairs()
    audit = signaware.antipodal_audit(sae, x)
    pairs = list(zip(audit.latent_a.tolist(), audit.latent_b.tolist(), strict=True))
    assert sorted(pairs) == [(0, 6), (1, 7), (2, 8), (2, 9)]
    torch.testing.assert_close(audit.cosine, torch.full((4,), -1.0, dtype=torch.float64))
    k = pairs.index((0, 6))
    assert audit.co_firing_rate[k] == 0
    assert audit.rate_a[k].item() == pytest.approx((x[:, 0] > 0.5).double().mean().item())
    assert audit.rate_b[k].item() == pytest.approx((x[:, 0] < -0.5).double().mean().item())
    assert audit.correlation[k].item() == pytest.approx(-1.0, abs=1e-9)
    assert audit.co_firing_rate[pairs.index((2, 8))] == 1
    # (0, 6) and (1, 7) never fire together; of latent 2's pairs, (2, 9) does as 2 is always active
    assert audit.freed_width == 2
    assert audit.freed_share == pytest.approx(0.2)
    assert audit.n_tokens == 4000


@pytest.mark.parametrize("latent", [0, 6])
@pytest.mark.parametrize(("constant", "n_tokens"), [(0.7, 4000), (2.69, 3001), (1.37, 3999)])
def test_a_constant_pre_activation_has_no_correlation(
    latent: int, constant: float, n_tokens: int, tmp_path: Path
) -> None:
    # the mean square less the squared mean is -6e-17, 9e-16 and 2e-16
    sae, x = plain_with_pairs()
    with torch.no_grad():
        sae.W_enc[:, latent] = 0
        sae.b_enc[latent] = constant
    audit = signaware.antipodal_audit(sae, x[:n_tokens])
    of_constant = (audit.latent_a == latent) | (audit.latent_b == latent)
    assert of_constant.sum() == 1
    assert audit.correlation[of_constant].isnan().all()
    assert audit.correlation[~of_constant].isfinite().all()
    audit.write(tmp_path / "audit.json")  # JSON has no inf
    again = signaware.AntipodalAudit.read(tmp_path / "audit.json")
    assert again.correlation.isnan().equal(of_constant)


def test_indices_of_no_pair_are_integers_too(tmp_path: Path) -> None:
    sae = make_sae("sa_gsae")
    signaware.antipodal_audit(sae, max_cosine=-1.0).write(tmp_path / "audit.json")
    again = signaware.AntipodalAudit.read(tmp_path / "audit.json")
    assert again.n_pairs == 0
    assert again.latent_a.dtype == again.latent_b.dtype == torch.int64


def test_audit_without_activations_counts_disjoint_pairs() -> None:
    sae, _ = plain_with_pairs()
    audit = signaware.antipodal_audit(sae)
    assert audit.n_pairs == 4
    assert audit.freed_width == 3
    assert audit.co_firing_rate.isnan().all()
    assert audit.correlation.isnan().all()
    assert audit.n_tokens == 0


@settings(max_examples=30, deadline=None)
@given(
    d_sae=st.integers(1, 40),
    block_size=st.integers(1, 17),
    max_cosine=st.floats(-1.0, -0.05),
    seed=st.integers(0, 1000),
)
def test_blocks_agree_with_brute_force(
    d_sae: int, block_size: int, max_cosine: float, seed: int
) -> None:
    directions = torch.randn(d_sae, 4, generator=torch.Generator().manual_seed(seed)).double()
    directions[0] = 0  # a row without a direction is in no pair
    a, b, cosine = find_antipodal_pairs(directions, max_cosine, block_size)
    unit = torch.nn.functional.normalize(directions, dim=1)
    full = unit @ unit.T
    expected = {
        (i, j) for i in range(d_sae) for j in range(i + 1, d_sae) if full[i, j] <= max_cosine
    }
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == expected
    assert (cosine.diff() >= 0).all()


def test_a_split_sae_is_all_pairs() -> None:
    plain = signaware.split_polarities(make_sae("sa_gsae", "none"))
    audit = signaware.antipodal_audit(plain, torch.randn(500, D_IN))
    exact = audit.cosine < -1 + 1e-6
    assert exact.sum() == 24
    assert (audit.latent_b[exact] - audit.latent_a[exact] == 24).all()
    assert (audit.co_firing_rate[exact] == 0).all()
    assert audit.freed_width == 24


def test_matching_pursuit_has_rates_and_no_correlation() -> None:
    sae = MatchingPursuitSAE(MatchingPursuitSAEConfig(d_in=16, d_sae=6, max_iterations=4))
    torch.nn.init.orthogonal_(sae.W_dec)
    sae.W_dec.data[3] = -sae.W_dec[0]
    x = torch.randn(200, 16)
    audit = signaware.antipodal_audit(sae, x)
    assert (audit.latent_a.tolist(), audit.latent_b.tolist()) == ([0], [3])
    z = sae.encode(x)
    assert audit.rate_a.item() == pytest.approx((z[:, 0] != 0).double().mean().item())
    assert audit.correlation.isnan().all()


def test_audit_reads_back_and_names_wrong_input(tmp_path: Path) -> None:
    sae, x = plain_with_pairs()
    audit = signaware.antipodal_audit(sae, x)
    audit.write(tmp_path / "audit.json")
    again = signaware.AntipodalAudit.read(tmp_path / "audit.json")
    assert torch.equal(again.latent_b, audit.latent_b)
    assert again.freed_width == 2
    with pytest.raises(ValueError, match=r"max_cosine must be from -1 to below 0, got 0\.5"):
        signaware.antipodal_audit(sae, max_cosine=0.5)
    with pytest.raises(ValueError, match="at least one token"):
        signaware.antipodal_audit(sae, [])


def test_wrong_activations_are_named_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = plain_with_pairs()
    monkeypatch.setattr(audit_module, "find_antipodal_pairs", None)  # it takes seconds to minutes
    with pytest.raises(ValueError, match=r"^activations must be \(n, \d+\) or"):
        signaware.antipodal_audit(sae, x[:, 1:])
    with pytest.raises(ValueError, match=r"got torch\.int64; \.float"):
        signaware.antipodal_audit(sae, x.long())
    late = x.repeat(20, 1)
    late[-1] = torch.nan
    of_wrong: Any = (
        (late, "activations must be finite"),
        ([x, late], "activations must be finite"),
        (x.numpy(), r"activations must be a tensor or an iterable of tensors, got numpy\.ndarray"),
        (5, "activations must be a tensor or an iterable of tensors, got int"),
        ([x, x.numpy()], r"activations\[1\] must be a tensor, got numpy"),
    )
    for wrong, line in of_wrong:
        with pytest.raises(ValueError, match=f"^{line}"):
            signaware.antipodal_audit(sae, wrong)


def test_autocast_does_not_round_cosines() -> None:
    sae, _ = plain_with_pairs()
    expected = signaware.antipodal_audit(sae, max_cosine=-0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = signaware.antipodal_audit(sae, max_cosine=-0.1)
    assert torch.equal(found.cosine, expected.cosine)


def test_audit_command(tmp_path: Path) -> None:
    sae, x = plain_with_pairs()
    sae.save_model(tmp_path / "sae")
    save_file({"heldout": x}, tmp_path / "acts.safetensors")
    result = invoke(
        "audit",
        str(tmp_path / "sae"),
        "--activations",
        str(tmp_path / "acts.safetensors"),
        "--out",
        str(tmp_path / "audit.json"),
    )
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "4 pairs with cosine <= -0.9" in text
    assert "would free 2 latents (20.00%)" in text
    assert (tmp_path / "audit.json").exists()
    assert_one_line_error(invoke("audit", str(tmp_path / "sae"), "--max-cosine", "1"), 2, "max_cos")


def test_exact_antipodes_are_found_at_minus_one() -> None:
    plain = signaware.split_polarities(make_sae("sa_gsae"))
    assert signaware.antipodal_audit(plain, max_cosine=-1).n_pairs == 24


def test_no_directions_are_no_pairs() -> None:
    a, b, cosine = find_antipodal_pairs(torch.empty(0, 8), -0.5)
    assert (len(a), len(b), len(cosine)) == (0, 0, 0)
    assert (a.dtype, b.dtype, cosine.dtype) == (torch.int64, torch.int64, torch.float64)


def test_latents_that_are_no_numbers_are_refused() -> None:
    sae, x = plain_with_pairs()
    with torch.no_grad():
        sae.b_enc[3] = torch.nan
    with pytest.raises(InvalidInputError, match="SAE must give finite latents"):
        signaware.antipodal_audit(sae, x)


def test_the_table_has_the_first_pairs_with_their_rates() -> None:
    sae, x = plain_with_pairs()
    audit = dataclasses.replace(
        signaware.antipodal_audit(sae, x),
        rate_a=torch.tensor([0.5, 0.25, 0.125, torch.nan]),
        rate_b=torch.tensor([0.75, 0.0, 0.0, 0.0]),
        co_firing_rate=torch.tensor([0.375, 0.0, 0.0, 0.0]),
        correlation=torch.tensor([-0.5, 0.0, 0.0, torch.nan]),
        latent_a=torch.tensor([3, 1, 2, 5]),
        latent_b=torch.tensor([8, 7, 9, 6]),
    )
    rows = list(zip(*(column.cells for column in audit.table(1).columns), strict=True))
    assert rows == [("3", "8", "-1.000", "0.5", "0.75", "0.375", "-0.5")]
    last = [list(column.cells)[-1] for column in audit.table().columns]
    assert last == ["5", "6", "-1.000", "-", "0", "0", "-"]
    title = "jumprelu 10: 4 pairs with cosine <= -0.9; merging would free 2 latents (20.00%)"
    assert audit.table().title == title


@pytest.mark.parametrize(("max_cosine", "is_right"), [(-1.0, True), (-1.01, False), (0.0, False)])
def test_a_cosine_of_a_pair_is_from_minus_1_to_below_0(max_cosine: float, is_right: bool) -> None:
    sae, _ = plain_with_pairs()
    if is_right:
        assert signaware.antipodal_audit(sae, max_cosine=max_cosine).n_pairs == 4
    else:
        with pytest.raises(InvalidInputError, match="max_cosine must be from -1 to below 0"):
            signaware.antipodal_audit(sae, max_cosine=max_cosine)


def test_a_key_without_a_file_is_one_line(tmp_path: Path) -> None:
    sae, _ = plain_with_pairs()
    sae.save_model(tmp_path / "sae")
    result = invoke("audit", str(tmp_path / "sae"), "--key", "train")
    assert_one_line_error(result, 2, "key: 'train' names a tensor of --activations")
