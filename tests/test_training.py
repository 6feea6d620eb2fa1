"""Training of signed SAEs: clamp, resets, target L0, metrics, NaN stop, checks of the configs."""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from sae_lens import SAETrainer, TrainingSAE
from sae_lens.config import LoggingConfig
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from sae_lens_signaware.saes import finite_losses
from sae_lens_signaware.saes.l0_control import L0_EMA_DECAY, update_l0_control
from sae_lens_signaware.saes.metrics import side_metrics
from tests.support.saes import (
    D_IN,
    D_SAE,
    THRESHOLD_ARCHITECTURES,
    asking_for,
    auxk_field,
    each_architecture,
    each_threshold_architecture,
    each_threshold_variant,
    each_variant,
    make_training_sae,
    resetting_every,
    training_config,
    training_field,
)
from tests.support.training import batches, computes_with_all_latents, step_input, trainer_config


@each_threshold_variant
def test_thresholds_are_clamped_in_place_at_the_start_of_a_step(
    architecture: str, tying: str
) -> None:
    sae = make_training_sae(architecture, tying)
    sae.threshold.data.fill_(-0.5)
    parameter = sae.threshold
    sae.training_forward_pass(step_input(next(batches())))
    assert sae.threshold is parameter
    assert sae.threshold.min() == 0


@each_threshold_variant
def test_dead_latents_are_reset_at_the_interval_and_only_then(
    architecture: str, tying: str
) -> None:
    fields: Any = {training_field(architecture, "threshold", "init"): 0.25}
    if architecture == "bi_jumprelu":  # its threshold of |h| is that of |z| less b_mag
        fields = {"jumprelu_init_threshold": 0.125, "dead_threshold_decay": 0.0}
    sae = make_training_sae(
        architecture, tying, dead_threshold_reset=True, threshold_reset_interval=10, **fields
    )
    if architecture == "bi_jumprelu":
        sae.b_mag.data.fill_(-0.125)
    sae.threshold.data.fill_(2.0)
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[[1, 4]] = True
    for step in (0, 9, 11):
        sae.training_forward_pass(
            step_input(next(batches()), dead_neuron_mask=dead, n_training_steps=step)
        )
        assert (sae.threshold == 2.0).all()
    for _ in range(2):  # the second finds them at their initial value already
        sae.training_forward_pass(
            step_input(next(batches()), dead_neuron_mask=dead, n_training_steps=20)
        )
    assert (sae.threshold[:, dead] == 0.25).all()
    assert (sae.threshold[:, ~dead] == 2.0).all()
    assert sae.n_threshold_resets.item() == 2


@each_threshold_variant
def test_resets_can_be_switched_off(architecture: str, tying: str) -> None:
    sae = make_training_sae(
        architecture, tying, threshold_reset_interval=10, dead_threshold_reset=False
    )
    sae.threshold.data.fill_(2.0)
    dead = torch.ones(D_SAE, dtype=torch.bool)
    sae.training_forward_pass(
        step_input(next(batches()), dead_neuron_mask=dead, n_training_steps=10)
    )
    assert (sae.threshold == 2.0).all()


def test_controller_by_hand() -> None:
    control = torch.zeros(2)
    # the first step takes the batch's L0 as it is; above the target, warm-up does not integrate
    control = update_l0_control(control, torch.tensor(20.0), 10.0, 0.1, warms_up=True)
    assert control.tolist() == [0.0, 20.0]
    control = update_l0_control(control, torch.tensor(10.0), 10.0, 0.1, warms_up=False)
    ema = 0.9 * 20 + 0.1 * 10
    e, e_before = math.log(ema / 10), math.log(20 / 10)
    wanted = 0.1 * e + (e - e_before)
    torch.testing.assert_close(control, torch.tensor([wanted, ema]))


def test_warm_up_only_ever_lowers_the_coefficient() -> None:
    # below the target, and rising: by rate * e, without the damping
    control = update_l0_control(torch.tensor([0.5, 4.0]), torch.tensor(5.0), 10.0, 0.1, True)
    e = math.log((0.9 * 4 + 0.1 * 5) / 10)
    assert control[0].item() == pytest.approx(0.5 + 0.1 * e)
    far = update_l0_control(torch.tensor([0.5, 0.1]), torch.tensor(0.1), 10.0, 0.1, True)
    assert far[0].item() == pytest.approx(0.5 - 0.1)


def test_controller_rests_while_l0_falls_at_its_pace() -> None:
    # e falls by rate * e a step: nothing to do
    l0, target, rate = 20.0, 10.0, 0.01
    falling = l0 * (target / l0) ** rate
    batch = (falling - L0_EMA_DECAY * l0) / (1 - L0_EMA_DECAY)
    control = update_l0_control(torch.tensor([0.3, l0]), torch.tensor(batch), target, rate, False)
    assert control[0].item() == pytest.approx(0.3, abs=1e-3)


def test_controller_is_bounded() -> None:
    # far off and standing still, the error is clipped to +-1
    far = update_l0_control(torch.tensor([0.0, 1000.0]), torch.tensor(1000.0), 1.0, 0.1, False)
    assert far[0].item() == pytest.approx(0.1)
    none = update_l0_control(torch.tensor([0.0, 1e-30]), torch.tensor(0.0), 1.0, 0.1, False)
    assert none[0].item() == pytest.approx(-0.1)
    # of an L0 that has fallen to nothing, the running mean still falls, and its error does not
    dark = update_l0_control(torch.tensor([0.0, 5e-3]), torch.tensor(0.0), 1.0, 0.1, False)
    assert dark[0].item() == pytest.approx(-0.1)
    top = update_l0_control(torch.tensor([4.6, 1000.0]), torch.tensor(1e6), 1.0, 1.0, False)
    assert top[0].exp().item() == pytest.approx(100.0)
    low = update_l0_control(torch.tensor([-9.2, 1.0]), torch.tensor(1.0), 1000.0, 1.0, False)
    assert low[0].exp().item() == pytest.approx(1e-4)


@each_threshold_architecture
def test_steering_begins_with_the_first_step_after_the_warm_up(architecture: str) -> None:
    warm_up = {training_field(architecture, "warm_up_steps"): 5}
    for step, is_steered in ((4, False), (5, True)):
        sae = make_training_sae(architecture, target_l0=0.1, target_l0_rate=0.02, **warm_up)
        sae.training_forward_pass(step_input(next(batches()), n_training_steps=step))
        # L0 is far above the target, and a warm-up does not raise the coefficient
        assert sae.l0_control[0].item() == pytest.approx(0.02 if is_steered else 0.0)


@each_threshold_architecture
def test_target_l0_is_reached(architecture: str) -> None:
    sae: Any = TrainingSAE.from_dict(training_config(architecture, target_l0=4.0).to_dict())
    trainer: Any = SAETrainer(trainer_config(900, lr=1e-2, lr_end=1e-2), sae, batches())
    trainer.fit()
    source = batches(seed=1)
    l0 = torch.stack([(sae.encode(next(source)) != 0).sum(-1).float().mean() for _ in range(20)])
    assert l0.mean().item() == pytest.approx(4.0, rel=0.1)
    assert sae.l0_control[0] != 0


def test_coefficient_is_constant_without_a_target() -> None:
    sae = make_training_sae("sa_gsae")
    first = sae.training_forward_pass(step_input(next(batches())))
    again = sae.training_forward_pass(step_input(next(batches())))
    torch.testing.assert_close(first.losses, again.losses, rtol=0, atol=0)
    assert sae.l0_control.tolist() == [0.0, 0.0]


@each_variant
def test_metrics_on_logging_steps_only(architecture: str, tying: str) -> None:
    sae = make_training_sae(architecture, tying)
    x = next(batches())
    always = set(sae.training_forward_pass(step_input(x)).metrics)
    out = sae.training_forward_pass(step_input(x, is_logging_step=True))
    z, metrics = out.feature_acts, out.metrics
    names = {"l0_pos", "l0_neg", "bipolar_share_of_batch"}
    if architecture in THRESHOLD_ARCHITECTURES:
        (key,) = sae.get_coefficients()
        names |= {"mean_threshold", "threshold_resets", f"{key}_in_force"}
        assert always == set()
        assert metrics[f"{key}_in_force"].item() == pytest.approx(0.7)
    else:
        # as SAELens's batchtopk has it, and its topk has not
        assert always == (set() if architecture == "bi_topk" else {"topk_threshold"})
    assert set(metrics) == names | always
    assert metrics["l0_pos"].item() == pytest.approx((z > 0).sum().item() / 64)
    assert metrics["l0_neg"].item() == pytest.approx((z < 0).sum().item() / 64)
    n_pos, n_neg = (z > 0).sum(0).tolist(), (z < 0).sum(0).tolist()
    bipolar = [p + n > 0 and min(p, n) >= 0.1 * (p + n) for p, n in zip(n_pos, n_neg, strict=True)]
    alive = [p + n > 0 for p, n in zip(n_pos, n_neg, strict=True)]
    assert metrics["bipolar_share_of_batch"].item() == pytest.approx(sum(bipolar) / sum(alive))


def test_saelens_logs_the_metrics() -> None:
    sae = make_training_sae("sa_gsae", target_l0=4.0)
    logger = LoggingConfig(log_to_wandb=True, wandb_log_frequency=1)
    trainer: Any = SAETrainer(trainer_config(3, logger=logger), sae, batches())
    output = trainer.step(next(batches()))
    logged = trainer.build_train_step_log_dict(output, 64)
    assert logged["metrics/l0_pos"] + logged["metrics/l0_neg"] == pytest.approx(
        logged["metrics/l0"]
    )
    assert "metrics/l1_in_force" in logged


@each_variant
def test_a_step_that_does_not_log_never_waits_for_the_device(architecture: str, tying: str) -> None:
    # Fake tensors hold no data: whatever would read a value on the host (.item(), a branch on a
    # tensor), and so wait for a GPU, raises. Steps over active latents are for CPUs.
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        cfg = training_config(
            architecture,
            tying,
            **asking_for(architecture, 6.0),
            **resetting_every(architecture, 10),
            **{auxk_field(architecture): 1.0},
            use_sparse_activations=False,
        )
        sae: Any = TrainingSAE.from_dict(cfg.to_dict())
        x = torch.randn(8, D_IN)
        dead = torch.zeros(D_SAE, dtype=torch.bool)
        with computes_with_all_latents():
            out = sae.training_forward_pass(
                step_input(x, dead_neuron_mask=dead, n_training_steps=10)
            )
        out.loss.backward()
        assert mode is not None
        with pytest.raises(DataDependentOutputException):
            out.loss.item()  # the guard itself works


@each_variant
def test_a_nan_batch_stops_that_step_and_leaves_the_weights(architecture: str, tying: str) -> None:
    sae = make_training_sae(architecture, tying)
    good = batches()

    def poisoned() -> Any:
        for _ in range(3):
            yield next(good)
        bad = next(good)
        bad[5, 3] = torch.nan
        yield bad

    trainer: Any = SAETrainer(trainer_config(10), sae, poisoned())
    with pytest.raises(RuntimeError, match="training loss is not finite") as error:
        trainer.fit()
    assert "\n" not in str(error.value)
    assert trainer.n_training_steps == 3
    assert all(torch.isfinite(p).all() for p in sae.parameters())
    assert all(torch.isfinite(b).all() for b in sae.buffers())


@each_variant
def test_where_a_look_would_wait_a_nan_is_found_later_and_stops_one_run_alone(
    architecture: str, tying: str, tmp_path: Path
) -> None:
    # As on a GPU: the step itself does not look. (A device-side assertion is sticky there.)
    with mock.patch.object(finite_losses, "_is_on_host", return_value=False):
        bad = next(batches())
        bad[5, 3] = torch.nan
        sae = make_training_sae(architecture, tying)
        assert sae.training_forward_pass(step_input(bad)).loss.isnan()  # not looked at yet
        sae.training_forward_pass(step_input(next(batches()), n_training_steps=1))
        with pytest.raises(RuntimeError, match="training loss is not finite"):
            sae.training_forward_pass(
                step_input(next(batches()), n_training_steps=finite_losses.CHECK_INTERVAL - 1)
            )
        # at a logging step as well, and before a file is written
        sae = make_training_sae(architecture, tying)
        with pytest.raises(RuntimeError, match="training loss is not finite"):
            sae.training_forward_pass(step_input(bad, is_logging_step=True))
        sae.training_forward_pass(step_input(bad))
        for save in (sae.save_model, sae.save_inference_model, sae.save_model):
            with pytest.raises(RuntimeError, match="training loss is not finite"):
                save(tmp_path)
        assert not list(tmp_path.rglob("*.safetensors"))
        other = make_training_sae(architecture, tying)
        trainer: Any = SAETrainer(trainer_config(3), other, batches())
        trainer.fit()
        other.save_inference_model(tmp_path / "other")
    assert all(torch.isfinite(p).all() for p in other.parameters())


@each_variant
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_few_steps_train(architecture: str, tying: str, dtype: str, autocast: bool) -> None:
    sae = make_training_sae(architecture, tying, dtype=dtype, **asking_for(architecture, 6.0))
    before = {n: p.detach().clone() for n, p in sae.named_parameters()}
    source = (b.to(getattr(torch, dtype)) for b in batches())
    trainer: Any = SAETrainer(trainer_config(8, autocast=autocast), sae, source)
    trainer.fit()
    for name, param in sae.named_parameters():
        assert torch.isfinite(param).all(), name
        assert not torch.equal(param, before[name]), f"{name} did not move"
    kept = getattr(sae, "threshold", None)
    assert kept is None or kept.dtype == torch.float32


@each_architecture
def test_what_a_step_keeps_of_the_decoder_ends_with_it(architecture: str) -> None:
    sae, x = make_training_sae(architecture), next(batches())
    sae.training_forward_pass(step_input(x))
    sae.W_dec.data *= torch.linspace(0.5, 2.0, D_SAE)[:, None]
    other = make_training_sae(architecture)
    other.load_state_dict(sae.state_dict())
    torch.testing.assert_close(sae.encode(x), other.encode(x))


@pytest.mark.parametrize("tying", ["full", "radii", "none"])
def test_ablation_switches_change_what_they_say(tying: str) -> None:
    x = next(batches())

    def gradients(**kwargs: Any) -> dict[str, torch.Tensor]:
        sae = make_training_sae("sa_gsae", tying, **kwargs)
        out = sae.training_forward_pass(step_input(x))
        (out.losses["l1_loss"] + out.losses["auxiliary_reconstruction_loss"]).backward()
        return {n: p.grad for n, p in sae.named_parameters()}

    no_gradient = gradients()["W_dec"]  # L1 and auxiliary loss leave the decoder alone
    assert no_gradient is None or not no_gradient.any()
    assert gradients(detach_norm=False)["W_dec"].abs().max() > 0
    assert gradients(detach_decoder=False)["W_dec"].abs().max() > 0
    no_gradient = gradients()["r_mag"]  # and they never touch the magnitude path
    assert no_gradient is None or not no_gradient.any()
    assert gradients()["threshold"].abs().max() > 0


def test_metrics_of_prompts_are_those_of_their_tokens() -> None:
    acts = torch.randn(4, 16, D_SAE) * (torch.rand(4, 16, D_SAE) < 0.3)
    flat = side_metrics(acts.flatten(0, 1))
    for name, value in side_metrics(acts).items():
        torch.testing.assert_close(value, flat[name], msg=name)


@each_variant
def test_each_parameter_of_an_architecture_has_a_histogram(architecture: str, tying: str) -> None:
    sae = make_training_sae(architecture, tying)
    own = {f"weights/{name}" for name, _ in sae.named_parameters()}
    own -= {"weights/W_enc", "weights/W_dec", "weights/b_dec"}
    assert set(sae.log_histograms()) == {"weights/W_dec_norms", *own}
