"""Planted truth for census and calibration, and agreement with SAELens's own evals."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sae_lens import (
    SAE,
    ActivationsStore,
    StandardSAE,
    StandardSAEConfig,
    run_evals,
)
from sae_lens.evals import EvalConfig
from sae_lens.registry import get_sae_class
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.evaluation import measure_quality
from sae_lens_signaware.evaluation import quality as quality_module
from sae_lens_signaware.evaluation.census import census_of
from sae_lens_signaware.evaluation.quality import SAEQuality, missed_target_l0, target_l0_of
from sae_lens_signaware.evaluation.streaming import SideSums
from tests.support.models import HOOK, hooked_transformer, tiny_model_config, tokens
from tests.support.saes import D_IN, D_SAE, N_PLANTED, each_variant, make_sae, planted


def test_census_counts_what_was_planted() -> None:
    sae, x, z = planted()
    census = signaware.bipolar_census(sae, x)
    torch.testing.assert_close(census.firing_rate_pos, (z > 0).double().mean(0))
    torch.testing.assert_close(census.firing_rate_neg, (z < 0).double().mean(0))
    energy_pos = z.clamp(min=0).double().square().mean(0)
    torch.testing.assert_close(census.energy_pos, energy_pos, rtol=1e-5, atol=1e-8)
    # to sampling error of the truth
    assert census.min_share[2].item() == pytest.approx(0.25, abs=0.02)
    assert census.min_share[3].item() == pytest.approx(0.1, abs=0.02)
    assert census.min_share[4].item() == 0.0
    assert census.min_share[10].isnan()
    assert census.bipolar(0.2).tolist() == [True] * 3 + [False] * 9
    assert census.bipolar_share(0.2) == pytest.approx(3 / 10)
    of_bipolar = (census.firing_rate_pos + census.firing_rate_neg)[:3].sum().item()
    assert census.bipolar_activity_share(0.2) == pytest.approx(of_bipolar / census.l0)
    assert census.dead_share == pytest.approx(2 / 12)
    assert census.n_tokens == N_PLANTED
    assert not census.one_sided
    curve = census.bipolar_share_by_energy_rank(0.2)
    assert len(curve) == 10
    assert curve[-1].item() == pytest.approx(3 / 10)


def test_census_by_hand() -> None:
    sae = make_sae("sa_gsae", d_sae=5)
    sae.W_dec.data = torch.eye(D_IN)[:5] * torch.tensor([[1.0], [2.0], [1.0], [1.0], [1.0]])
    # the third has just the least share, the last but one never fires
    n_fired = torch.tensor([[6, 1, 9, 0, 8], [2, 7, 1, 0, 0]])
    energy = torch.tensor([[2.0, 1.0, 9.0, 0.0, 3.0], [6.0, 2.0, 1.0, 0.0, 0.0]]).double()
    census = census_of(sae, SideSums(16, n_fired, 16 * energy, torch.zeros(2, 5)))
    assert census.energy_pos.tolist() == [2, 4, 9, 0, 3]
    assert census.energy_neg.tolist() == [6, 8, 1, 0, 0]
    assert census.min_share.nan_to_num(-1.0).tolist() == [0.25, 0.125, 0.1, -1, 0]
    # whatever the number of tokens: 0.27 and 0.03 are a little less than a tenth apart
    of_100 = census_of(sae, SideSums(100, 3 * n_fired, energy, torch.zeros(2, 5)))
    assert of_100.min_share[2] == 0.1
    shares = torch.tensor([2 / 8, 4 / 12, 1 / 10, torch.nan, 0.0], dtype=torch.float64)
    torch.testing.assert_close(census.min_energy_share, shares, equal_nan=True)
    assert census.bipolar().tolist() == [True, True, True, False, False]
    assert census.bipolar(0.2).tolist() == [True, False, False, False, False]
    assert census.bipolar_activity_share() == pytest.approx((8 + 8 + 10) / 34)
    # energies of 12, 10, 8 and 3: latents 1, 2, 0 and 4
    assert census.bipolar_share_by_energy_rank().tolist() == [1, 1, 1, 0.75]
    by_rank = census.bipolar_share_by_energy_rank(0.2)
    torch.testing.assert_close(by_rank, torch.tensor([0, 0, 1 / 3, 1 / 4], dtype=torch.float64))
    assert census.pos_share.tolist() == [0.75, 0.125, 0.9, 0.5, 1]


def test_calibration_recovers_a_planted_gain() -> None:
    sae, x, _ = planted(gain_neg=0.8)
    calibration = signaware.polarity_calibration(sae, x)
    expected_neg = torch.tensor([1.25, 1.25, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(calibration.gain_neg[:4], expected_neg, rtol=0, atol=0.01)
    torch.testing.assert_close(
        calibration.gain_pos[:8], torch.ones(8, dtype=torch.float64), rtol=0, atol=0.01
    )
    assert calibration.gain_neg[4:8].isnan().all()
    assert calibration.gain_pos[8:].isnan().all()


def test_streaming_does_not_depend_on_the_batches() -> None:
    sae, x, _ = planted(0.8)
    whole = signaware.polarity_calibration(sae, x)
    parts = signaware.polarity_calibration(sae, iter(x.split(777)))
    torch.testing.assert_close(whole.gain_neg, parts.gain_neg, equal_nan=True)


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk", "abstopk"])
def test_any_saelens_sae_has_a_census(architecture: str) -> None:
    sae_class, config_class = get_sae_class(architecture)
    kwargs: dict[str, Any] = {"k": 4} if "topk" in architecture else {}
    sae: SAE[Any] = sae_class(config_class(d_in=D_IN, d_sae=20, **kwargs))
    x = torch.randn(500, D_IN)
    census = signaware.bipolar_census(sae, x)
    z = sae.encode(x)
    z = z.to_dense() if z.is_sparse else z
    assert census.one_sided == (architecture != "abstopk")
    torch.testing.assert_close(census.firing_rate_pos, (z > 0).double().mean(0))
    torch.testing.assert_close(census.firing_rate_neg, (z < 0).double().mean(0))
    # the gain is the one-dimensional least-squares factor, checked against a direct computation
    calibration = signaware.polarity_calibration(sae, x)
    latent = int(census.firing_rate_pos.argmax())
    z_plus = z[:, latent].clamp(min=0).double()
    direction = sae.decode(torch.eye(20))[latent] - sae.decode(torch.zeros(20))
    residual = (x - sae.decode(z)).double()
    aligned = (z_plus * (residual @ direction.double())).sum()
    expected = 1 + aligned / (z_plus.square().sum() * direction.double().square().sum())
    assert calibration.gain_pos[latent].item() == pytest.approx(expected.item(), rel=1e-5)


@each_variant
def test_quality_agrees_with_saelens_run_evals(architecture: str, tying: str) -> None:
    model = HookedTransformer(tiny_model_config())
    sae = make_sae(architecture, tying)
    sae.cfg.metadata.hook_name = HOOK
    sae.cfg.metadata.context_size = 16
    sae.cfg.metadata.prepend_bos = False

    def store() -> ActivationsStore:
        return ActivationsStore.from_sae(
            model, sae, tokens(), context_size=16, store_batch_size_prompts=4, streaming=False
        )

    metrics, featurewise = run_evals(
        sae,
        store(),
        model,
        ActivationScaler(),
        EvalConfig(
            n_eval_sparsity_variance_batches=3,
            compute_sparsity_metrics=True,
            compute_variance_metrics=True,
            compute_featurewise_density_statistics=True,
        ),
        exclude_special_tokens=False,
    )
    source = store()
    quality, census = measure_quality(
        sae, [source.get_raw_llm_batch()[0] for _ in range(3)], "tiny"
    )
    assert quality.l0 == pytest.approx(metrics["sparsity"]["l0"], rel=1e-6)
    assert quality.explained_variance == pytest.approx(
        metrics["reconstruction_quality"]["explained_variance"], abs=1e-6
    )
    density = torch.tensor(featurewise["feature_density"], dtype=torch.float64)
    assert quality.dead_share == pytest.approx((density == 0).double().mean().item(), abs=1e-6)
    torch.testing.assert_close(
        census.firing_rate_pos + census.firing_rate_neg, density, rtol=1e-6, atol=1e-6
    )


def test_bipolar_evals_has_the_shape_of_run_evals() -> None:
    model = HookedTransformer(tiny_model_config())
    sae = make_sae("sa_gsae", "none")
    sae.cfg.metadata.hook_name = HOOK
    sae.cfg.metadata.context_size = 16
    sae.cfg.metadata.prepend_bos = False

    def store() -> ActivationsStore:
        return ActivationsStore.from_sae(
            model, sae, tokens(), context_size=16, store_batch_size_prompts=4, streaming=False
        )

    config = EvalConfig(
        n_eval_reconstruction_batches=1,
        n_eval_sparsity_variance_batches=2,
        compute_ce_loss=True,
        compute_sparsity_metrics=True,
    )
    excluded, scaler = [3, 5, 7], ActivationScaler(2.0)
    args: dict[str, Any] = {"eval_config": config, "exclude_special_tokens": excluded}
    once = args | {"exclude_special_tokens": iter(excluded)}  # an iterator is an iterable too
    metrics, featurewise = signaware.bipolar_evals(sae, store(), model, scaler, **once)
    theirs, theirs_featurewise = run_evals(sae, store(), model, scaler, **args)
    assert {k: v for k, v in metrics.items() if k != "signed"} == theirs
    assert set(theirs_featurewise) <= set(featurewise)

    # the extra pass, by hand: the third and fourth batches, as run_evals took three
    source = store()
    ids = torch.cat([source.get_batch_tokens() for _ in range(5)][3:])
    x = 2.0 * source.get_activations(ids).flatten(0, 1)
    x = x[~torch.isin(ids.flatten(), torch.tensor(excluded))]
    z = sae.encode(x)
    assert metrics["signed"]["n_tokens"] == len(x)
    assert metrics["signed"]["l0"] == pytest.approx((z != 0).sum().item() / len(x))
    assert featurewise["firing_rate_neg"] == pytest.approx((z < 0).double().mean(0).tolist())
    assert len(featurewise["gain_pos"]) == sae.cfg.d_sae


def test_bipolar_evals_without_a_batch_for_the_sides_is_one_line() -> None:
    config = EvalConfig(n_eval_reconstruction_batches=1, n_eval_sparsity_variance_batches=0)
    wrong: Any = None  # nothing is run
    with pytest.raises(ValueError, match=r"^eval_config\.n_eval_sparsity_variance_batches must be"):
        signaware.bipolar_evals(make_sae("sa_gsae"), wrong, wrong, eval_config=config)


def test_bipolar_evals_of_a_hook_z_sae_restores_its_reshaping() -> None:
    model = HookedTransformer(tiny_model_config())
    sae = make_sae("bi_jumprelu", reshape_activations="hook_z")
    sae.cfg.metadata.hook_name = "blocks.0.attn.hook_z"
    sae.cfg.metadata.context_size = 16
    sae.cfg.metadata.prepend_bos = False
    store = ActivationsStore.from_sae(
        model, sae, tokens(), context_size=16, store_batch_size_prompts=4, streaming=False
    )
    metrics, _ = signaware.bipolar_evals(sae, store, model, exclude_special_tokens=False)
    assert metrics["signed"]["n_tokens"] == 4 * 16
    assert sae.hook_z_reshaping_mode


def test_bipolar_evals_of_an_sae_that_normalises_each_token_has_no_gains() -> None:
    model = HookedTransformer(tiny_model_config())
    sae = make_sae("sa_gsae", normalize_activations="layer_norm")
    sae.cfg.metadata.hook_name = HOOK
    sae.cfg.metadata.context_size = 16
    sae.cfg.metadata.prepend_bos = False
    store = ActivationsStore.from_sae(
        model, sae, tokens(), context_size=16, store_batch_size_prompts=4, streaming=False
    )
    metrics, featurewise = signaware.bipolar_evals(sae, store, model, exclude_special_tokens=False)
    assert len(featurewise["firing_rate_neg"]) == D_SAE
    assert not any("gain" in name for name in (*featurewise, *metrics["signed"]))


def test_loss_recovered_is_asked_of_the_tokens_of_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def evals(**kwargs: Any) -> Any:
        asked.update(kwargs)
        return {"model_performance_preservation": {"ce_loss_score": 0.5}}, {}

    monkeypatch.setattr(quality_module, "run_evals", evals)
    store: Any = SimpleNamespace(
        exclude_special_tokens=torch.tensor([3, 5]),
        model_kwargs={"start_at_layer": 0},
        store_batch_size_prompts=4,
        context_size=16,
    )
    sae, model = make_sae("sa_gsae"), hooked_transformer()
    measured, _ = measure_quality(sae, torch.randn(64, D_IN), "noise")
    found = signaware.add_loss_recovered(measured, sae, model, store, n_batches=3)
    assert (found.loss_recovered, found.loss_recovered_tokens) == (0.5, 3 * 4 * 16)
    assert asked["exclude_special_tokens"] == [3, 5]
    assert asked["model_kwargs"] == store.model_kwargs
    assert asked["eval_config"].n_eval_reconstruction_batches == 3
    store.exclude_special_tokens = None
    signaware.add_loss_recovered(measured, sae, model, store)
    assert asked["exclude_special_tokens"] is False


def test_one_token_and_latents_that_never_fire() -> None:
    sae = make_sae("sa_gsae")
    sae.threshold.data.fill_(1e6)
    census = signaware.bipolar_census(sae, torch.randn(1, D_IN))
    assert census.l0 == 0
    assert census.dead_share == 1
    assert census.bipolar_share() == census.bipolar_activity_share() == 0
    assert len(census.bipolar_share_by_energy_rank()) == 0
    assert signaware.polarity_calibration(sae, torch.randn(1, D_IN)).gain_pos.isnan().all()


def test_calibration_refuses_a_per_token_normalisation() -> None:
    sae = StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=8, normalize_activations="layer_norm"))
    with pytest.raises(ValueError, match="normalize_activations must be no per-token norm"):
        signaware.polarity_calibration(sae, torch.randn(4, D_IN))


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_energy_is_what_decode_writes(architecture: str) -> None:
    sae_class, config_class = get_sae_class(architecture)
    sae: Any = sae_class(config_class(d_in=D_IN, d_sae=8, k=3, rescale_acts_by_decoder_norm=True))
    x = torch.randn(400, D_IN)
    census = signaware.bipolar_census(sae, x)
    z = sae.encode(x)
    z = z.to_dense() if z.is_sparse else z
    bias = sae.decode(torch.zeros_like(z[:1]))
    for i in range(8):
        alone = torch.where(torch.arange(8) == i, z, 0.0)
        expected = (sae.decode(alone) - bias).square().sum(1).mean().item()
        energy = census.energy_pos[i] + census.energy_neg[i]
        assert energy.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("target", "l0", "text"),
    [
        (None, 58.2, None),
        (16.0, 17.5, None),
        (16.0, 14.5, None),
        (16.0, 18.0, "asked for L0 16, measured 18.0"),
        (16, 58.24, "asked for L0 16, measured 58.2"),
        (0.5, 0.1, "asked for L0 0.5, measured 0.1"),
        (20.0, 22.0, None),  # a tenth is near
        (20.0, 22.05, "asked for L0 20, measured 22.1"),
        (20.0, 17.95, "asked for L0 20, measured 17.9"),
    ],
)
def test_a_missed_target_l0_is_said(target: float | None, l0: float, text: str | None) -> None:
    assert missed_target_l0(target, l0) == text


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"k": 8}, 8.0),
        ({"k": None, "target_l0": 4.0, "target_l0_rate": 0.01}, 4.0),
        ({"target_l0": 4, "jumprelu_sparsity_loss_mode": "quadratic"}, 4.0),
        ({"target_l0": 4.0, "jumprelu_sparsity_loss_mode": "step"}, None),  # it is not read
        ({"target_l0": None, "target_l0_rate": 0.01}, None),
        ({"target_l0": 4.0}, None),
        ({}, None),
    ],
)
def test_the_l0_that_a_config_asks_for(fields: dict[str, Any], target: float | None) -> None:
    assert target_l0_of(fields) == target


def test_a_quality_has_an_l0_of_at_least_0_and_a_latent() -> None:
    sae, x, _ = planted()
    quality, _ = measure_quality(sae, x, "noise")
    read = SAEQuality.of(quality.to_dict() | {"l0": 0.0, "d_sae": 1})
    assert (read.l0, read.d_sae) == (0.0, 1)
    for wrong, message in (
        ({"l0": -0.1}, r"l0 must be at least 0, got -0\.1"),
        ({"d_sae": 0}, "d_sae must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            SAEQuality.of(quality.to_dict() | wrong)
