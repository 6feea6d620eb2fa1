"""Census, calibration, quality, audit, merge and evals: by hand, and against slow references."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sae_lens import SAE, ActivationsStore, run_evals
from sae_lens.evals import EvalConfig
from sae_lens.load_model import load_model
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.training.activation_scaler import ActivationScaler
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from sae_lens_signaware.evaluation import (
    SignedEvaluator,
    add_loss_recovered,
    analyze_sae,
    antipodal_audit,
    bipolar_census,
    bipolar_evals,
    measure_quality,
    merge_antipodal,
)
from sae_lens_signaware.evaluation.measures import PolarityCalibration
from sae_lens_signaware.report.latents import clearest_latents
from sae_lens_signaware.saes import BiJumpReLUSAE, BiJumpReLUSAEConfig, split_polarities
from tests.architectures import D_IN, D_SAE, each_variant, inference_sae, inputs

HOOK = "transformer.h.0.mlp"


def by_hand() -> SAE[Any]:
    """Reads both axes of the plane and writes them twice and half as large; latent 2 is dead."""
    sae: Any = BiJumpReLUSAE(BiJumpReLUSAEConfig(d_in=2, d_sae=3))
    for parameter in sae.parameters():
        parameter.data.zero_()
    sae.W_enc.data[:, :2] = torch.eye(2)
    sae.W_dec.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5], [1.0, 1.0]]))
    sae.threshold.data.fill_(0.5)
    return sae


TOKENS = torch.tensor([[1.0, 0.0], [-2.0, 0.1], [3.0, -1.0], [0.0, 0.0]])


def test_a_census_by_hand(tmp_path: Any) -> None:
    census = bipolar_census(by_hand(), TOKENS)
    assert census.firing_rate_pos.tolist() == [0.5, 0.0, 0.0]
    assert census.firing_rate_neg.tolist() == [0.25, 0.25, 0.0]
    assert census.energy_pos.tolist() == [(1 + 9) / 4 * 4, 0.0, 0.0]
    assert census.energy_neg.tolist() == [4 / 4 * 4, 1 / 4 / 4, 0.0]
    assert census.min_share.tolist()[:2] == [1 / 3, 0.0]
    assert census.min_share[2].isnan()
    assert (census.n_tokens, census.l0, census.one_sided) == (4, 1.0, False)
    assert census.dead_share == pytest.approx(1 / 3)
    assert census.pos_share.tolist() == pytest.approx([2 / 3, 0.0, 0.5])
    assert census.bipolar().tolist() == [True, False, False]
    assert (census.bipolar_share(), census.bipolar_share(0.4)) == (0.5, 0.0)
    assert_close(10**census.log_sparsity, torch.tensor([0.75, 0.25, 1e-10]))
    census.write(tmp_path / "census.json")
    again = type(census).read(tmp_path / "census.json")
    assert again.to_dict() == census.to_dict()
    with pytest.raises(ValueError, match=r"census\.json: not a PolarityCalibration"):
        PolarityCalibration.read(tmp_path / "census.json")


def test_a_calibration_by_hand() -> None:
    found = analyze_sae(by_hand(), TOKENS).calibration
    assert found is not None
    # latent 0 writes twice what it reads: half of it is right; latent 1 half of it
    assert found.gain_pos.tolist() == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert found.gain_neg.tolist() == pytest.approx([0.5, 2.0, np.nan], nan_ok=True)
    assert found.quantiles() == pytest.approx(
        dict.fromkeys(("gain_pos_q05", "gain_pos_q50", "gain_pos_q95"), 0.5)
        | {"gain_neg_q05": 0.575, "gain_neg_q50": 1.25, "gain_neg_q95": 1.925}
    )


@each_variant
def test_gains_minimise_the_error(variant: str) -> None:
    sae, x = inference_sae(variant), inputs(200)
    found = analyze_sae(sae, x.split(64)).calibration
    assert found is not None
    z, error = sae.encode(x).double(), (x - sae(x)).double()
    for sign, gains in ((1, found.gain_pos), (-1, found.gain_neg)):
        for i in range(0, D_SAE, 7):
            on = sign * z[:, i] > 0
            written = z[on, i, None] * sae.W_dec[i].double()
            if not on.any():
                assert gains[i].isnan()
                continue
            fit = torch.linalg.lstsq(written.reshape(-1, 1), error[on].reshape(-1, 1)).solution
            assert gains[i].item() == pytest.approx(1 + fit.item(), rel=1e-4, abs=1e-4)


def test_what_is_normalised_per_token_has_no_gain() -> None:
    sae = inference_sae("bi_topk", normalize_activations="layer_norm")
    assert analyze_sae(sae, inputs()).calibration is None


@each_variant
def test_quality_is_one_pass_over_batches_of_any_shape(variant: str, tmp_path: Any) -> None:
    sae, x = inference_sae(variant), inputs(120)
    found, census = measure_quality(sae, (b.view(4, -1, D_IN) for b in x.split(60)), "of a test")
    z, total = sae.encode(x), (x - x.mean(0)).square().sum()
    assert found.l0 == pytest.approx((z != 0).sum(1).double().mean().item())
    r2 = 1 - (x - sae(x)).square().sum() / total
    assert found.explained_variance == pytest.approx(r2.item(), abs=1e-5)
    assert found.dead_share == pytest.approx((z == 0).all(0).double().mean().item())
    assert (found.n_tokens, found.d_sae, found.tokens_from) == (120, D_SAE, "of a test")
    analysis = analyze_sae(sae, x)
    metrics = analysis.metrics()
    for name in ("l0", "explained_variance", "dead_share", "bipolar_share"):
        assert metrics[name] == pytest.approx(getattr(found, name)), name
    assert metrics["l0_pos"] + metrics["l0_neg"] == pytest.approx(found.l0)
    assert_close(analysis.census.firing_rate_neg, census.firing_rate_neg)
    analysis.write(tmp_path)
    assert {p.stem for p in tmp_path.iterdir()} == {"analysis", "census", "calibration"}


def test_r2_at_a_mean_of_300_times_the_spread() -> None:
    x = inputs(500)
    sae = inference_sae("bi_topk", k=8)
    r2 = measure_quality(sae, x)[0].explained_variance
    sae.b_dec.data += 300
    assert measure_quality(sae, x + 300)[0].explained_variance == pytest.approx(r2, abs=1e-4)


def store_of(tiny_model: Any, sae: SAE[Any]) -> tuple[Any, ActivationsStore]:
    generator = torch.Generator().manual_seed(8)
    rows = [{"tokens": torch.randint(63, (16,), generator=generator).tolist()} for _ in range(64)]
    sae.cfg.metadata.hook_name, sae.cfg.metadata.prepend_bos = HOOK, False
    model = load_model("AutoModelForCausalLM", str(tiny_model), "cpu", {}, [HOOK])
    store = ActivationsStore.from_sae(
        model, sae, context_size=16, dataset=Dataset.from_list(rows), store_batch_size_prompts=4
    )
    return model, store


def test_loss_recovered(tiny_model: Any) -> None:
    sae = inference_sae("bi_topk", d_in=16)
    model, store = store_of(tiny_model, sae)
    found = add_loss_recovered(measure_quality(sae, torch.randn(9, 16))[0], sae, model, store)
    again = store_of(tiny_model, sae)[1].get_batch_tokens(4)
    losses = []
    for to in (lambda x: x, sae, torch.zeros_like):
        logits = model.run_with_hooks(
            again, return_type="logits", fwd_hooks=[(HOOK, lambda x, hook, to=to: to(x))]
        )
        losses.append(cross_entropy(logits[:, :-1].flatten(0, 1), again[:, 1:].flatten()))
    full, ours, zero = (loss.item() for loss in losses)
    assert found.loss_recovered == pytest.approx((zero - ours) / (zero - full), rel=1e-3)
    assert found.loss_recovered_tokens == 4 * 16


def test_evals_of_saelens_hold_both_sides_too(tiny_model: Any) -> None:
    sae = inference_sae("bi_jumprelu-full", d_in=16)
    config = EvalConfig(
        batch_size_prompts=4, n_eval_sparsity_variance_batches=2, compute_l2_norms=True
    )
    model, store = store_of(tiny_model, sae)
    metrics, featurewise = bipolar_evals(sae, store, model, eval_config=config)
    model, store = store_of(tiny_model, sae)
    theirs, _ = run_evals(
        sae, store, model, ActivationScaler(), config, exclude_special_tokens=[63]
    )
    assert metrics["shrinkage"] == theirs["shrinkage"]
    x = torch.cat([store.get_activations(store.get_batch_tokens(4)) for _ in range(2)])
    expected = analyze_sae(sae, x)  # of the batches after those of run_evals
    assert metrics["signed"] == pytest.approx(expected.metrics())
    assert featurewise["min_share"] == pytest.approx(
        expected.census.min_share.tolist(), nan_ok=True
    )
    logged = SignedEvaluator(n_batches=2, inner=lambda *_: {"ours": 1.0})(
        sae, iter(x.split(4)), ActivationScaler()
    )
    assert logged.pop("ours") == 1.0
    assert {k.removeprefix("signed/"): v for k, v in logged.items()} == pytest.approx(
        expected.metrics()
    )


@given(st.integers(2, 40), st.integers(1, 6), st.floats(-0.99, -0.1), st.integers(0, 99))
def test_an_audit_finds_every_pair(d_sae: int, d_in: int, max_cosine: float, seed: int) -> None:
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae))
    rows = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed))
    rows[0] = 0  # has no direction
    sae.W_dec.data.copy_(rows)
    found = antipodal_audit(sae, max_cosine=max_cosine)
    cosines = torch.cosine_similarity(rows[:, None].double(), rows[None].double(), dim=-1)
    expected = {
        (i, j) for i in range(d_sae) for j in range(i + 1, d_sae) if cosines[i, j] <= max_cosine
    }
    assert set(zip(found.latent_a.tolist(), found.latent_b.tolist(), strict=True)) == expected
    assert (found.cosine.diff() >= 0).all()
    assert found.n_tokens == 0
    assert found.co_firing_rate.isnan().all()


def test_an_audit_by_hand() -> None:
    sae: Any = JumpReLUSAE(JumpReLUSAEConfig(d_in=2, d_sae=4))
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.01], [0.0, 1.0]])
    sae.W_dec.data.copy_(rows)
    sae.W_enc.data.copy_(rows.T)
    sae.threshold.data.fill_(0.5)
    found = antipodal_audit(sae, TOKENS)
    assert found.latent_a.tolist() == [0, 0]
    assert found.latent_b.tolist() == [1, 2]
    assert found.cosine.tolist() == pytest.approx([-1, -1 / np.sqrt(1.0001)])
    assert (found.rate_a.tolist(), found.rate_b.tolist()) == ([0.5, 0.5], [0.25, 0.25])
    assert found.co_firing_rate.tolist() == [0, 0]
    assert (found.n_pairs, found.freed_width) == (2, 1)
    sae.b_enc.data[1] = 5.0  # fires together with latent 0, so only the other pair can be merged
    sae.b_enc.data[3] = 5.0  # always fires, in no pair
    found = antipodal_audit(sae, TOKENS)
    assert found.firing_share == pytest.approx((0.5 + 1 + 0.25) / 2.75)
    assert found.co_firing_rate.tolist() == [0.5, 0]
    assert found.freed_width == 1


def test_the_clearest_latents_by_hand() -> None:
    rates = {"pos": [0.1, 0.1, 0.5, 0.1, 0.0], "neg": [0.05, 0.001, 0.1, 0.1, 0.0]}
    energies = {"pos": [0.1, 9.0, 5.0, 0.4, 0.0], "neg": [0.2, 9.0, 5.0, 0.3, 0.0]}
    census: Any = SimpleNamespace(
        firing_rate=torch.tensor(rates["pos"]) + torch.tensor(rates["neg"]),
        **{f"firing_rate_{side}": torch.tensor(held) for side, held in rates.items()},
        **{f"energy_{side}": torch.tensor(held) for side, held in energies.items()},
    )
    # weaker sides of 3 and 0 have 3 and 1; 1 has a rare side, 2 is dense, 4 is dead
    assert clearest_latents(census, 9) == [3, 0, 1, 2]
    assert clearest_latents(census, 1) == [3]


@pytest.mark.parametrize("variant", ["sa_gsae-full", "sa_gsae-none", "bi_jumprelu-none"])
def test_a_merge_takes_back_a_split_and_leaves_the_rest(variant: str) -> None:
    sae, x = inference_sae(variant, threshold=0.6), inputs(400)
    plain = split_polarities(sae)
    # latent 3 loses its partner, as that now writes elsewhere
    plain.W_dec.data[D_SAE + 3] = plain.W_dec.data[3] @ torch.eye(D_IN).roll(1, 0)
    merged = merge_antipodal(plain, x)
    assert merged.cfg.d_sae == D_SAE + 1
    assert_close(merged(x), plain(x), rtol=1e-4, atol=1e-4)
    about = SimpleNamespace(**merged.cfg.metadata.merged_from)
    assert (about.n_pairs, about.d_sae, about.n_tokens) == (D_SAE - 1, 2 * D_SAE, 400)
    assert about.latents[-2:] == [[3], [D_SAE + 3]]
    assert about.l0_after == pytest.approx(about.l0_before)
    assert about.explained_variance_after == pytest.approx(about.explained_variance_before)


@pytest.mark.parametrize(
    ("activations", "named"),
    [
        (torch.ones(3, D_IN + 1), f"activations must be .*{D_IN}"),
        (torch.ones(0, D_IN), "activations"),
        (torch.full((3, D_IN), torch.nan), "activations must be finite"),
        (torch.ones(3, D_IN).long(), "activations"),
        ([[1.0]], "activations"),
    ],
)
def test_wrong_activations_are_named(activations: Any, named: str) -> None:
    for measure in (bipolar_census, analyze_sae, antipodal_audit):
        with pytest.raises(ValueError, match=named):
            measure(inference_sae("sa_gsae-full"), activations)


def test_what_cannot_be_measured_is_refused() -> None:
    sae = inference_sae("bi_topk")
    for bad in (0.0, -1.5):
        with pytest.raises(ValueError, match="max_cosine"):
            antipodal_audit(sae, max_cosine=bad)
    with pytest.raises(ValueError, match="plain gated or jumprelu"):
        merge_antipodal(sae, inputs())
