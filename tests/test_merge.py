"""merge undoes split exactly, and says what it costs where pairs are only nearly antipodal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, GatedSAE, GatedSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE
from safetensors.torch import save_file

import sae_lens_signaware as signaware
from tests.support.cli import assert_one_line_error, invoke
from tests.support.saes import D_IN, D_SAE, VARIANTS, make_sae, plain_with_pairs

# A plain TopK is not merged: it has no threshold that a side without a partner could stay below.
each_merged_variant = pytest.mark.parametrize(
    ("architecture", "tying"),
    [(a, t) for a, t in VARIANTS if not isinstance(make_sae(a, t).to_plain(), TopKSAE)],
)


@each_merged_variant
def test_merge_of_a_split_sae_is_the_signed_sae(architecture: str, tying: str) -> None:
    sae = make_sae(architecture, tying)
    x = torch.randn(600, D_IN)
    plain = signaware.split_polarities(sae)
    merged = signaware.merge_antipodal(plain, x)
    assert type(signaware.split_polarities(merged)) is type(plain)
    assert merged.cfg.d_sae == D_SAE
    # bi_jumprelu: the plain twin's biases are sums of two
    rounding = {"rtol": 0, "atol": 0 if architecture == "sa_gsae" else 2e-6}
    torch.testing.assert_close(merged.encode(x), sae.encode(x), **rounding)
    torch.testing.assert_close(merged(x), sae(x), **rounding)
    for name, value in sae.state_dict().items():
        got = merged.state_dict()[name]
        if name == "threshold" and architecture != "sa_gsae":  # below -b_mag, z is 0 all the same
            value = value.maximum(-sae.b_mag)
        torch.testing.assert_close(got, value.expand(got.shape), **rounding)
    report = merged.cfg.metadata.merged_from
    assert report["n_pairs"] == D_SAE
    assert report["l0_before"] == pytest.approx(report["l0_after"], rel=1e-12)
    assert report["explained_variance_before"] == pytest.approx(report["explained_variance_after"])


def test_merge_joins_only_pairs_that_never_fire_together() -> None:
    sae, x = plain_with_pairs()
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    merged = signaware.merge_antipodal(sae, x)
    assert merged.cfg.d_sae == 8  # (0, 6) and (1, 7); latent 2 fires together with 8 and 9
    assert merged.cfg.metadata.merged_from["n_pairs"] == 2
    of = merged.cfg.metadata.merged_from["latents"]
    assert of == [[0, 6], [1, 7], [2], [3], [4], [5], [8], [9]]
    z, z_plain = merged.encode(x), sae.encode(x)
    torch.testing.assert_close(z[:, :2], z_plain[:, :2] - z_plain[:, 6:8])
    # unpaired latents stay one-sided, in their order
    torch.testing.assert_close(z[:, 2:], z_plain[:, [2, 3, 4, 5, 8, 9]])
    torch.testing.assert_close(merged(x), sae(x), rtol=1e-4, atol=1e-4)


def test_merge_of_a_gated_pair_with_other_norms_is_exact() -> None:
    plain = signaware.split_polarities(make_sae("sa_gsae", "none", dtype="float64"))
    x = torch.randn(600, D_IN, dtype=torch.float64)
    out = plain(x)
    with torch.no_grad():  # the same SAE, its - latents in other units
        scale = torch.linspace(0.5, 2.0, D_SAE, dtype=torch.float64)
        plain.W_dec[D_SAE:] /= scale[:, None]
        plain.b_mag[D_SAE:] *= scale
        plain.r_mag[D_SAE:] += scale.log()
        plain.W_enc[:, D_SAE:] *= 3.0
        plain.b_gate[D_SAE:] *= 3.0
        plain.r_mag[D_SAE:] -= torch.tensor(3.0).double().log()
    torch.testing.assert_close(plain(x), out, rtol=1e-10, atol=1e-10)
    merged = signaware.merge_antipodal(plain, x)
    assert merged.cfg.d_sae == D_SAE
    torch.testing.assert_close(merged(x), out, rtol=1e-10, atol=1e-10)


def test_merge_of_a_jumprelu_pair_with_other_norms_is_exact() -> None:
    plain = signaware.split_polarities(make_sae("bi_jumprelu", "none", dtype="float64"))
    x = torch.randn(600, D_IN, dtype=torch.float64)
    out = plain(x)
    with torch.no_grad():  # the same SAE, its - latents in other units
        scale = torch.linspace(0.5, 2.0, D_SAE, dtype=torch.float64)
        plain.W_dec[D_SAE:] /= scale[:, None]
        plain.W_enc[:, D_SAE:] *= scale
        plain.b_enc[D_SAE:] *= scale
        plain.threshold[D_SAE:] *= scale
    torch.testing.assert_close(plain(x), out, rtol=1e-10, atol=1e-10)
    merged = signaware.merge_antipodal(plain, x)
    assert merged.cfg.d_sae == D_SAE
    torch.testing.assert_close(merged(x), out, rtol=1e-10, atol=1e-10)


def test_merge_of_nearly_antipodal_pairs_reports_its_cost() -> None:
    sae, x = plain_with_pairs()
    with torch.no_grad():
        sae.W_dec[6] += 0.3 * torch.eye(D_IN)[12] * sae.W_dec[6].norm()
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    merged = signaware.merge_antipodal(sae, x)
    report = merged.cfg.metadata.merged_from
    assert report["n_pairs"] == 2
    assert report["n_tokens"] == 4000
    variance = (x - x.mean(0)).square().sum()
    for when, s in (("before", sae), ("after", merged)):
        r2 = 1 - (x - s(x)).square().sum() / variance
        assert report[f"explained_variance_{when}"] == pytest.approx(r2.item(), abs=1e-4)
        l0 = (s.encode(x) != 0).sum(-1).float().mean()
        assert report[f"l0_{when}"] == pytest.approx(l0.item(), rel=1e-5)
    assert report["explained_variance_before"] != report["explained_variance_after"]


def tilted_pair(architecture: str) -> tuple[Any, torch.Tensor]:
    """A plain SAE of one pair at a cosine of -0.96, both active, of norms 2 and 3; and its data."""
    sae, x = plain_with_pairs()
    if architecture == "gated":
        sae = GatedSAE(GatedSAEConfig(d_in=D_IN, d_sae=10))
        for name in ("b_gate", "b_mag"):
            getattr(sae, name).data.fill_(-0.5)
    for weight in (sae.W_dec.data, sae.W_enc.data.T):
        weight.copy_(torch.eye(D_IN)[:10])
        weight[6] = torch.tensor([-0.96, 0.28, *[0.0] * 14])
    sae.W_dec.data[0] *= 2
    sae.W_dec.data[6] *= 3
    return sae, x


@pytest.mark.parametrize("architecture", ["gated", "jumprelu"])
def test_a_merged_direction_is_the_mean_of_one_and_the_other_negated(architecture: str) -> None:
    sae, x = tilted_pair(architecture)
    merged = signaware.merge_antipodal(sae, x)
    assert merged.cfg.metadata.merged_from["latents"][0] == [0, 6]
    mean = torch.tensor([0.98, -0.14, *[0.0] * 14])
    torch.testing.assert_close(merged.W_dec[0], 2 * mean)
    # a jumprelu has its magnitudes from W_enc: those of the - side are 3 / 2 of their size
    of_neg = {"gated": 1.0, "jumprelu": 1.5}[architecture]
    expected = (torch.tensor([1.0, *[0.0] * 15]) - of_neg * sae.W_enc[:, 6]) / 2
    torch.testing.assert_close(merged.W_enc[:, 0], expected)


def test_only_a_pair_of_the_cosine_asked_for_is_merged() -> None:
    sae, x = tilted_pair("jumprelu")
    for max_cosine, n_pairs in ((-0.97, 0), (-0.95, 1)):
        report = signaware.merge_antipodal(sae, x, max_cosine).cfg.metadata.merged_from
        assert (report["n_pairs"], report["max_cosine"]) == (n_pairs, max_cosine)


@pytest.mark.parametrize("dead", ["first", "second"])
def test_a_latent_that_never_fires_does_not_move_its_partner(dead: str) -> None:
    sae, x = plain_with_pairs()
    first, second = (6, 0) if dead == "first" else (0, 6)
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
        sae.W_dec[6] = torch.nn.functional.normalize(
            sae.W_dec[6] + 0.3 * torch.eye(D_IN)[12], dim=0
        )
        sae.threshold[second] = 1e4
    assert not sae.encode(x)[:, second].any()
    merged = signaware.merge_antipodal(sae, x)
    assert merged.cfg.metadata.merged_from["n_pairs"] == 2
    sign = 1 if first == 0 else -1
    torch.testing.assert_close(merged.encode(x)[:, 0], sign * sae.encode(x)[:, first])
    torch.testing.assert_close(merged(x), sae(x), rtol=1e-4, atol=1e-4)


def test_a_merged_sae_saves_splits_and_trains_on(tmp_path: Path) -> None:
    sae, x = plain_with_pairs()
    merged = signaware.merge_antipodal(sae, x)
    merged.save_model(tmp_path)
    loaded = SAE.load_from_disk(tmp_path)
    torch.testing.assert_close(loaded(x), merged(x))
    torch.testing.assert_close(
        signaware.split_polarities(loaded)(x), merged(x), rtol=1e-4, atol=1e-4
    )
    training = signaware.BiJumpReLUTrainingSAE(
        signaware.BiJumpReLUTrainingSAEConfig(d_in=D_IN, d_sae=8, polarity_tying="none")
    )
    training.load_weights_from_checkpoint(tmp_path)
    training(x).sum().backward()
    gradients = [p.grad for p in training.parameters() if p.grad is not None]
    assert any(gradient.any() for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_pages_of_other_latents_are_not_linked() -> None:
    sae, x = plain_with_pairs()
    sae.cfg.metadata.neuronpedia_id = "gpt2-small/0-res"
    merged = signaware.merge_antipodal(sae, x)
    merged.cfg.metadata.neuronpedia_id = "mine/0-signed"
    assert signaware.split_polarities(merged).cfg.metadata.neuronpedia_id is None
    sae.cfg.metadata.l0, sae.cfg.metadata.num_dead_features = 3.0, 2  # of the trainer of SAELens
    held = signaware.merge_antipodal(sae, x).cfg.metadata.to_dict()
    assert held["neuronpedia_id"] is None
    assert not {"l0", "num_dead_features"} & set(held)
    assert sae.cfg.metadata.neuronpedia_id == "gpt2-small/0-res"


def test_merge_names_wrong_input() -> None:
    with pytest.raises(TypeError, match="takes a gated or jumprelu SAE, got StandardSAE"):
        signaware.merge_antipodal(
            StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=4)),  # type: ignore[arg-type]
            torch.randn(4, D_IN),
        )
    sae, _ = plain_with_pairs()
    with pytest.raises(ValueError, match="at least one token"):
        signaware.merge_antipodal(sae, [])


def test_merge_command(tmp_path: Path) -> None:
    sae, x = plain_with_pairs()
    sae.save_model(tmp_path / "plain")
    save_file({"heldout": x}, tmp_path / "acts.safetensors")
    args = ["merge", str(tmp_path / "plain"), str(tmp_path / "signed")]
    args += ["--activations", str(tmp_path / "acts.safetensors")]
    result = invoke(*args)
    assert result.exit_code == 0, result.stderr
    assert "2 pairs merged: width 10 -> 8" in result.stdout
    assert SAE.load_from_disk(tmp_path / "signed").cfg.architecture() == "bi_jumprelu"
    assert_one_line_error(invoke(*args), 2, "exists already")


@pytest.mark.parametrize("architecture", ["sa_gsae", "bi_jumprelu"])
def test_thresholds_of_64_bits_are_not_rounded(architecture: str) -> None:
    sae = make_sae(architecture, "none", dtype="float64")
    threshold = torch.linspace(0.1, 0.3, 2 * D_SAE, dtype=torch.float64)  # no 32 bits hold these
    sae.threshold.data.copy_(threshold.view(2, D_SAE))
    x = torch.randn(400, D_IN, dtype=torch.float64)
    merged = signaware.merge_antipodal(signaware.split_polarities(sae), x)
    assert merged.cfg.d_sae == D_SAE
    expected = sae.threshold
    if architecture == "bi_jumprelu":  # below -b_mag, z is 0 all the same
        expected = expected.maximum(-sae.b_mag)
    torch.testing.assert_close(merged.threshold, expected, rtol=0, atol=1e-15)


def test_a_float16_sae_is_merged() -> None:
    sae, x = plain_with_pairs()
    half = sae.to(torch.float16)
    half.cfg.dtype = "float16"
    merged = signaware.merge_antipodal(half, x.half())
    assert merged.cfg.d_sae < half.cfg.d_sae
    assert merged(x.half()).isfinite().all()
    # the - side of a latent without a partner is never active, and inf * 0 would be NaN
    assert merged.threshold.max() == torch.finfo(torch.float16).max


def test_a_float16_latent_without_an_encoder_row_is_merged() -> None:
    sae = make_sae("sa_gsae", "none")
    sae.W_enc.data[:, 3] = 0
    plain, x = signaware.split_polarities(sae), torch.randn(400, D_IN)
    expected = signaware.merge_antipodal(plain, x)
    half = plain.to(torch.float16)
    half.cfg.dtype = "float16"
    merged = signaware.merge_antipodal(half, x.half())
    assert merged.cfg.d_sae == expected.cfg.d_sae
    for name, value in expected.state_dict().items():
        got = merged.state_dict()[name].float()
        torch.testing.assert_close(got, value, rtol=2e-3, atol=2e-3)


def test_a_gate_that_is_open_at_0_gets_a_threshold_of_0(tmp_path: Path) -> None:
    plain: Any = signaware.split_polarities(make_sae("sa_gsae", "none"))
    plain.b_gate.data[3] = 0.5
    merged = signaware.merge_antipodal(plain, torch.randn(600, D_IN))
    assert (merged.threshold >= 0).all()
    assert (merged.threshold == 0).any()
    merged.save_model(tmp_path)
    SAE.load_from_disk(tmp_path)  # which refuses a threshold below 0
