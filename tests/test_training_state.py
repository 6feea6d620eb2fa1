"""What a training keeps beside its weights: dead latents, target_l0, k, thresholds, NaN stop."""

import copy
import math
from typing import Any
from unittest import mock

import pytest
import torch
from sae_lens import SAETrainer
from torch.testing import assert_close

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.saes import bi_jumprelu
from sae_lens_signaware.saes.common import DEAD_DECAY
from sae_lens_signaware.saes.sa_gsae import update_l0_control
from tests.architectures import (
    BATCH,
    D_IN,
    D_SAE,
    batches,
    config,
    dense,
    each_architecture,
    each_threshold_variant,
    each_variant,
    inputs,
    run_step,
    saved,
    trainer_config,
    training_sae,
)

ALL_DEAD = torch.ones(D_SAE, dtype=torch.bool)
keeps = pytest.mark.parametrize("variant", ["bi_topk", "bi_batchtopk", "bi_matryoshka_batchtopk"])


def train(sae: Any, n_steps: int, source: Any = None, **fields: Any) -> Any:
    """SAELens's trainer after ``n_steps``."""
    trainer = SAETrainer(trainer_config(n_steps, **fields), sae, source or batches())
    trainer.fit()
    return trainer


@each_architecture
def test_tokens_are_counted_since_a_latent_was_active(variant):
    sae, wanted = training_sae(variant, dead_after_tokens=100), torch.zeros(D_SAE)
    for n, x in ((3, torch.zeros(3, D_IN)), (9, inputs(9)), (40, inputs(40, seed=2)), (7, None)):
        # 3-D: by the plain step
        x = inputs(7, seed=3)[:, None] if x is None else x
        acts = dense(run_step(sae, x).feature_acts).reshape(-1, D_SAE)
        wanted = torch.where((acts != 0).any(0), 0.0, wanted + n)
        assert torch.equal(sae.tokens_since_active, wanted)
    assert 0 < (wanted == 0).sum() < D_SAE


def dead_of(sae: Any, given: torch.Tensor | None = None) -> list[int]:
    """The few latents that a step takes as dead: those that AuxK has a gradient for."""
    twin = copy.deepcopy(sae).eval()
    run_step(twin, inputs(200), dead=given).losses[sae.auxk_names[1]].backward()
    return twin.W_dec.grad.any(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("variant", ["bi_jumprelu-full", "bi_topk", "bi_batchtopk"])
def test_a_window_of_tokens_takes_the_place_of_the_trainers(variant):
    runners = torch.isin(torch.arange(D_SAE), torch.tensor([7, 9, 30]))
    for window, wanted in ((128, [2, 3, 4]), (None, [7, 9, 30])):
        sae = training_sae(variant, dead_after_tokens=window)
        sae.b_mag.data.zero_()  # so that no dead latent is without an ungated size
        sae.tokens_since_active[:5] = torch.tensor([0, 127, 128, 129, 500])
        assert dead_of(sae, runners) == wanted


@pytest.mark.parametrize(("k", "first_dead"), [(8, 3), (64, 3), (128, 1)])
def test_above_a_k_of_64_a_latent_is_dead_sooner(k, first_dead):
    sae = training_sae("bi_topk", d_sae=256, k=k, dead_after_tokens=1000)
    sae.b_mag.data.zero_()
    sae.tokens_since_active[:4] = torch.tensor([499, 500, 999, 1000])
    assert dead_of(sae) == list(range(first_dead, 4))


@each_threshold_variant
def test_the_threshold_of_a_dead_latent_falls_until_it_is_active(variant):
    # identity: tokens are +-3 on each axis, so that latents 0 to 2 are active below 3
    sae = training_sae(variant, d_in=D_IN, d_sae=D_IN, dead_after_tokens=2 * D_IN)
    for name, parameter in sae.named_parameters():
        eye = torch.eye(D_IN) if name.startswith("W_") else torch.zeros_like(parameter)
        parameter.data.copy_(eye)
    start = 3.0 / (1 - DEAD_DECAY) ** 2.5  # three steps above 3
    sae.threshold.data.fill_(0.5)
    sae.threshold.data[:, :3] = start
    x, seen = 3.0 * torch.cat([torch.eye(D_IN), -torch.eye(D_IN)]), []
    for _ in range(6):
        with mock.patch.object(bi_jumprelu, "RATE", 0.0):
            run_step(sae, x)
        thresholds = sae.rows(torch.float32)["threshold"]
        seen.append(thresholds[0, 0].item() / start)
        assert_close(thresholds[:, 3:], torch.full_like(thresholds[:, 3:], 0.5))
    powers = [0, 1, 2, 3, 3, 3]  # dead from the second step on, active after three decays
    assert seen == pytest.approx([(1 - DEAD_DECAY) ** n for n in powers])


@pytest.mark.parametrize("variant", ["bi_jumprelu-full", "bi_topk", "bi_batchtopk"])
def test_a_size_bias_below_0_of_a_dead_latent_falls_too(variant):
    sae = training_sae(variant, dead_after_tokens=None)
    sae.b_mag.data[:, ::2] = -0.5
    sae.b_mag.data[:, 1::2] = 0.0 if variant == "bi_topk" else 0.5
    before = sae.b_mag.detach().clone()
    run_step(sae, inputs(), dead=torch.arange(D_SAE) < 10)
    moved = torch.where(before < 0, before * (1 - DEAD_DECAY), before)
    assert_close(sae.b_mag[:, :10], moved[:, :10])
    assert torch.equal(sae.b_mag[:, 10:], before[:, 10:])


def test_resets_of_the_thresholds_of_dead_latents():
    fields = {"dead_threshold_reset": True, "threshold_reset_interval": 10}
    sae = training_sae("sa_gsae-none", dead_after_tokens=None, **fields)
    sae.threshold.data.fill_(2.0)
    dead = torch.arange(D_SAE) < 2
    for step in (0, 9, 11):
        run_step(sae, inputs(), step=step, dead=dead)
        assert (sae.threshold > 1.9).all()
    run_step(sae, inputs(), step=20, dead=dead)
    assert (sae.threshold[:, dead] == 0).all()
    assert (sae.threshold[:, ~dead] == 2).all()
    off = training_sae("sa_gsae-none", dead_after_tokens=None)
    run_step(off, inputs(), step=500, dead=ALL_DEAD)
    assert (off.threshold > 0).all()


def test_the_controller_by_hand():
    def update(log_multiplier, l0, batch_l0, target, warms_up=False):
        control = torch.tensor([log_multiplier, l0])
        return update_l0_control(control, torch.tensor(batch_l0), target, warms_up).tolist()

    # the first step takes the batch's L0 as it is; above the target a warm-up does not count
    assert update(0.0, 0.0, 20.0, 10.0, warms_up=True) == pytest.approx([0.0, 20.0])
    error, before = math.log(19 / 10), math.log(20 / 10)
    assert update(0.0, 20.0, 10.0, 10.0) == pytest.approx([0.02 * error + error - before, 19.0])
    # below the target, and rising: by the rate alone
    error = math.log(4.1 / 10)
    assert update(0.5, 4.0, 5.0, 10.0, True) == pytest.approx([0.5 + 0.02 * error, 4.1])
    # standing still, the error counts as 1 at most; L0 = 0 pulls back by as much
    assert update(0.0, 1e3, 1e3, 1.0)[0] == pytest.approx(0.02)
    assert update(0.0, 1e-30, 0.0, 1.0)[0] == pytest.approx(-0.02)
    assert update(4.6, 1e3, 1e9, 1.0)[0] == pytest.approx(math.log(100))
    assert update(-9.2, 1.0, 0.0, 1e9)[0] == pytest.approx(math.log(1e-4))


def test_the_l1_coefficient_in_force_is_steered():
    variant, fields = "sa_gsae-full", {"l1_warm_up_steps": 5, "target_l0": 0.1}
    for step, moved in ((4, 0.0), (5, 0.02)):  # L0 is far above the target from the first step on
        sae = training_sae(variant, **fields)
        run_step(sae, inputs(), step=step)
        assert sae.l0_control[0].item() == pytest.approx(moved)
    sae.l0_control[0] = math.log(3.0)
    plain = training_sae(variant)
    found, wanted = run_step(sae, inputs(), log=True), run_step(plain, inputs(), log=True)
    assert_close(found.losses["l1_loss"], 3 * wanted.losses["l1_loss"])
    assert found.metrics["l1_in_force"].item() == pytest.approx(3 * 0.7)
    run_step(plain, inputs(), step=9)
    assert plain.l0_control.tolist() == [0.0, 0.0]


def test_a_training_meets_its_target_l0():
    variant, target = "sa_gsae-full", 3.0
    sae = type(training_sae(variant))(config(variant, d_sae=24, target_l0=target))
    train(sae, 700, lr=1e-2, lr_end=1e-2)
    source = batches(seed=1)
    with torch.no_grad():
        l0 = sum((sae.encode(next(source)) != 0).sum().item() for _ in range(20)) / 20 / BATCH
    assert l0 == pytest.approx(target, rel=0.1)


@keeps
def test_k_falls_from_half_of_the_width_of_the_input(variant):
    fields = {"d_sae": 40, "k": 2, "k_anneal_steps": 4, "rescale_acts_by_decoder_norm": False}
    fields |= {"matryoshka_widths": [20, 40]} if "matryoshka" in variant else {}
    sae, x = training_sae(variant, **fields), inputs()
    sae.b_mag.data.zero_()  # no size is 0
    for step, k in enumerate((4.0, 3.5, 3.0, 2.5, 2.0, 2.0)):
        n = (dense(run_step(sae, x, step=step).feature_acts) != 0).sum()
        assert n == (int(k) * BATCH if variant == "bi_topk" else int(k * BATCH))
        assert (sae.encode(x) != 0).sum() == 2 * BATCH  # outside of a step it is the config's
    with pytest.raises(RuntimeError):
        run_step(sae, x * torch.nan)
    assert (sae.encode(x) != 0).sum() == 2 * BATCH


@pytest.mark.parametrize("variant", ["bi_batchtopk", "bi_matryoshka_batchtopk"])
def test_the_running_threshold_follows_the_smallest_size_kept(variant):
    sae = training_sae(variant, topk_threshold_lr=0.25)
    sae.topk_threshold.fill_(1.0)
    acts = dense(run_step(sae, inputs()).feature_acts).abs()
    assert_close(sae.topk_threshold, 0.75 + 0.25 * acts[acts > 0].min().double())


@each_threshold_variant
def test_thresholds_are_clamped_in_place_at_the_start_of_a_step(variant):
    sae = training_sae(variant)
    parameter = sae.threshold
    sae.threshold.data[:, ::2] = -0.5
    run_step(sae, inputs()).loss.backward()
    assert sae.threshold is parameter
    assert (sae.threshold[:, ::2] == 0).all()
    if "sa_gsae" in variant:
        assert (sae.threshold.grad[:, ::2] != 0).any()  # at the bound it still learns


@each_architecture
def test_in_bfloat16_what_small_steps_move_is_in_float32(variant):
    sae = training_sae(variant, dtype="bfloat16", dead_after_tokens=None)
    own = [n for n in ("threshold", "b_enc", "b_mag") if n != "b_mag" or "sa_gsae" not in variant]
    own = [name for name in own if hasattr(sae, name)]
    for name in own:
        getattr(sae, name).data.fill_(-1.0 if name == "b_mag" else 1.0)
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-4)
    for seed in range(3):
        x = inputs(seed=seed, dtype=torch.bfloat16)
        optimiser.zero_grad()
        run_step(sae, 2 * x).loss.backward()
        optimiser.step()
    for name in own:  # a step of 1e-4 is below what bfloat16 can add to 1
        moved = getattr(sae, name).abs() - 1.0
        assert getattr(sae, name).dtype == torch.float32
        assert 5e-5 < moved.abs().max() < 5e-4, name
    optimiser.zero_grad()
    before = {name: getattr(sae, name).clone() for name in own}
    sae.to(torch.bfloat16)
    assert all(torch.equal(getattr(sae, name), value) for name, value in before.items())
    assert sae.W_enc.dtype == sae.encode(x).dtype == sae(x).dtype == torch.bfloat16
    assert {t.dtype for t in saved(sae).state_dict().values()} == {torch.bfloat16}
    assert {p.device.type for p in sae.to("meta").parameters()} == {"meta"}


@each_variant
def test_a_few_steps_train_every_parameter(variant):
    for dtype, autocast in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, True)):
        sae = training_sae(variant, 0.5, dtype=str(dtype).removeprefix("torch."))
        before = {name: p.detach().clone() for name, p in sae.named_parameters()}
        train(sae, 5, (batch.to(dtype) for batch in batches()), autocast=autocast)
        for name, parameter in sae.named_parameters():
            assert parameter.isfinite().all(), name
            assert not torch.equal(parameter, before[name]), name


@each_variant
def test_a_validation_leaves_all_as_it_is(variant):
    fields: dict[str, Any] = {"dead_after_tokens": 64}
    fields |= {"target_l0": 2.0} if "sa_gsae" in variant or "jumprelu" in variant else {}
    fields |= {"dead_threshold_reset": True} if "sa_gsae" in variant else {}
    sae = training_sae(variant, **fields)
    sae.tokens_since_active[::3] = 1000.0
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    sae.eval()
    validated = run_step(sae, inputs(), step=500, log=True)
    for name, tensor in sae.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    sae.train()
    run_step(sae, inputs(), step=500)
    assert not torch.equal(sae.tokens_since_active, before["tokens_since_active"])
    assert validated.loss.isfinite()


@each_architecture
def test_a_nan_batch_stops_the_training_before_it_reaches_the_weights(variant, tmp_path):
    good = batches()
    bad = next(good).clone()
    bad[5, 3] = torch.nan
    sae = training_sae(variant)
    trainer: Any = SAETrainer(trainer_config(10), sae, iter([next(good), next(good), bad]))
    with pytest.raises(RuntimeError, match="training loss is not finite") as error:
        trainer.fit()
    assert "\n" not in str(error.value)
    assert trainer.n_training_steps == 2
    assert all(t.isfinite().all() for t in sae.state_dict().values())
    for save in (sae.save_model, sae.save_inference_model):
        with pytest.raises(RuntimeError, match="training loss is not finite"):
            save(tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_sided_never_opens_the_minus_side():
    sae = training_sae("sa_gsae-one_sided", threshold=0.1)
    train(sae, 30)
    acts = dense(run_step(sae, next(batches()), log=True).feature_acts)
    assert (acts > 0).any()
    assert (acts >= 0).all()
    assert (saved(sae).encode(next(batches())) >= 0).all()


@each_architecture
def test_metrics_of_a_logging_step(variant):
    sae = training_sae(variant)
    always = set(run_step(sae, inputs()).metrics)
    assert always == ({"topk_threshold"} if "batchtopk" in variant else set())
    step = run_step(sae, inputs(), log=True)
    acts, metrics = dense(step.feature_acts), step.metrics
    n_pos, n_neg = (acts > 0).sum(0).tolist(), (acts < 0).sum(0).tolist()
    assert metrics["l0_pos"].item() == pytest.approx(sum(n_pos) / BATCH)
    assert metrics["l0_neg"].item() == pytest.approx(sum(n_neg) / BATCH)
    pairs = [(p, n) for p, n in zip(n_pos, n_neg, strict=True) if p + n]
    share = sum(min(p, n) >= 0.1 * (p + n) for p, n in pairs) / len(pairs)
    assert metrics["bipolar_share_of_batch"].item() == pytest.approx(share)


@pytest.mark.parametrize(
    ("variant", "fields", "field"),
    [
        ("sa_gsae-full", {"polarity_tying": "half"}, "polarity_tying"),
        ("bi_jumprelu-full", {"polarity_tying": "radii"}, "polarity_tying"),
        ("sa_gsae-full", {"target_l0": D_SAE + 1}, "target_l0"),
        ("bi_jumprelu-full", {"target_l0": 0}, "target_l0"),
        ("sa_gsae-full", {"target_l0": 2, "l1_coefficient": 0.0}, "l1_coefficient"),
        ("sa_gsae-full", {"dead_after_tokens": 0}, "dead_after_tokens"),
        ("sa_gsae-full", {"threshold_reset_interval": 0}, "threshold_reset_interval"),
        ("bi_topk", {"k": D_SAE + 1}, "k"),
        ("bi_batchtopk", {"k": 0}, "k"),
        ("bi_matryoshka_batchtopk", {"matryoshka_widths": [8, 4]}, "matryoshka_widths"),
        ("bi_topk", {"d_in": 0}, "d_in"),
    ],
)
def test_a_field_out_of_its_range_is_one_line(variant, fields, field):
    with pytest.raises(InvalidInputError, match=rf"^{field} must be ") as error:
        config(variant, **fields)
    assert "\n" not in str(error.value)
