"""A step computed from the active latents alone gives what the plain step gives."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from sae_lens import SAETrainer
from torch.testing import assert_close

from sae_lens_signaware.saes import fast
from tests.architectures import (
    D_IN,
    D_SAE,
    ONE_EACH,
    batches,
    dense,
    each_architecture,
    each_variant,
    gradients,
    inputs,
    run_step,
    trainer_config,
    training_sae,
)


def twins(variant: str, **fields: Any) -> tuple[Any, Any]:
    """An SAE, and the same as an object of a subclass, all of whose steps are plain."""
    sae = training_sae(variant, **fields)
    plain = copy.deepcopy(sae)
    plain.__class__ = type("Plain", (type(sae),), {"__module__": __name__})
    return sae, plain


def compare_steps(sae: Any, plain: Any, x: torch.Tensor, tolerance: float, **kwargs: Any) -> None:
    steps = [run_step(sae, x, log=True, **kwargs), run_step(plain, x, log=True, **kwargs)]
    assert [step.feature_acts.is_sparse for step in steps] == [True, False]
    for step in steps:
        step.loss.backward()
    found, wanted = steps
    close = {"rtol": tolerance, "atol": tolerance}
    assert_close(found.losses, wanted.losses, **close)
    assert_close(found.loss, wanted.loss, **close)
    assert_close(found.sae_out, wanted.sae_out, **close)
    assert_close(dense(found.feature_acts), wanted.feature_acts, **close)
    # pre-activations are given where a latent is active, or about to be
    pre = dense(found.hidden_pre)
    assert_close(pre, wanted.hidden_pre * (pre != 0), **close)
    assert ((pre != 0) >= (wanted.feature_acts != 0)).all()
    assert found.metrics.keys() == wanted.metrics.keys()
    assert_close(found.metrics, wanted.metrics, **close)
    for name, gradient in gradients(plain).items():
        assert_close(gradients(sae)[name], gradient, **close, msg=lambda m, n=name: f"{n}: {m}")
    for name, buffer in plain.named_buffers():
        assert_close(sae.get_buffer(name), buffer, **close)


DEAD = torch.arange(D_SAE) % 5 == 3


@each_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_is_the_plain_step(variant, dtype):
    sae, plain = twins(variant, dtype=dtype, dead_after_tokens=None)
    x, tolerance = inputs(dtype=sae.dtype), {"float32": 1e-4, "float64": 1e-10}[dtype]
    compare_steps(sae, plain, x, tolerance, dead=None if dtype == "float32" else DEAD)


@each_architecture
def test_a_step_is_the_plain_step_of_normalised_inputs(variant):
    for fields in (
        {"normalize_activations": "layer_norm"},
        {"normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": False},
    ):
        sae, plain = twins(variant, dtype="float64", dead_after_tokens=None, **fields)
        compare_steps(sae, plain, 3 * inputs(dtype=torch.float64) + 1, 1e-9, dead=DEAD)


@pytest.mark.parametrize(
    ("variant", "fields", "step"),
    [
        ("sa_gsae-none", {"dead_threshold_reset": True, "target_l0": 2.0}, 500),
        ("sa_gsae-full", {"aux_coefficient": 0.0, "auxk_coefficient": 0.0}, 1),
        ("bi_jumprelu-none", {"target_l0": 2.0}, 1),
        ("bi_batchtopk", {"k": 0.5}, 1),
        ("bi_topk", {"k": 2, "k_anneal_steps": 10}, 8),
        ("bi_matryoshka_batchtopk", {"use_matryoshka_aux_loss": True}, 1),
    ],
)
def test_a_step_is_the_plain_step_with_options(variant, fields, step):
    fields = {"dtype": "float64", "dead_after_tokens": None, **fields}
    sae, plain = twins(variant, **fields)
    # few are dead: a reset opens all of them
    dead = torch.arange(D_SAE) % 30 == 3
    compare_steps(sae, plain, inputs(dtype=torch.float64), 1e-10, dead=dead, step=step)


@each_variant
def test_a_training_is_the_plain_training(variant):
    fields = {"dead_after_tokens": 512, "dtype": "float64"}
    n_sparse, trained = 0, []
    for sae in twins(variant, **fields):
        source = (batch.double() / 4 for batch in batches())
        trainer: Any = SAETrainer(trainer_config(25), sae, source)
        forward = sae.training_forward_pass

        def counting(step_input: Any, forward: Any = forward) -> Any:
            nonlocal n_sparse
            step = forward(step_input)
            n_sparse += step.feature_acts.is_sparse
            return step

        sae.training_forward_pass = counting
        trainer.fit()
        trained.append(trainer)
    assert n_sparse == 25  # of the first training all, of the second none
    found, wanted = (trainer.sae.state_dict() for trainer in trained)
    for name, tensor in wanted.items():
        # Adam divides by the size of a gradient: what is tiny may differ by more than rounding
        assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    for name in ("n_forward_passes_since_fired", "act_freq_scores"):
        assert_close(getattr(trained[0], name), getattr(trained[1], name))


@each_architecture
def test_tiles_of_any_size_find_the_same_latents(variant):
    for chunk in (40, 700):
        sae, plain = twins(variant, dtype="float64")
        with mock.patch.multiple(fast, CHUNK=chunk, MIN_TOKENS=5):
            compare_steps(sae, plain, inputs(61, dtype=torch.float64), 1e-10)


REGISTER = ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")


@each_architecture
def test_a_hook_gets_the_plain_step(variant):
    for name in REGISTER:
        sae, seen = training_sae(variant), []
        register = getattr(sae.hook_sae_acts_post, f"register_{name}")
        handle = register(lambda *_, seen=seen: seen.append(1))
        step = run_step(sae, inputs())
        step.loss.backward()
        handle.remove()
        assert seen, name
        assert not step.feature_acts.is_sparse
        assert run_step(sae, inputs()).feature_acts.is_sparse


@each_architecture
def test_a_subclass_counts_in_the_step(variant):
    sae = training_sae(variant)
    usual = run_step(copy.deepcopy(sae), inputs())

    def calculate_aux_loss(self: Any, **step: Any) -> dict[str, torch.Tensor]:
        losses = super(type(self), self).calculate_aux_loss(**step)
        return losses | {"mine": 3 * step["feature_acts"].square().mean()}

    sae.__class__ = type("Mine", (type(sae),), {"calculate_aux_loss": calculate_aux_loss})
    step = run_step(sae, inputs())
    mine = 3 * dense(usual.feature_acts).square().mean()
    assert_close(step.losses["mine"], mine)
    assert_close(step.loss, usual.loss + mine)


@pytest.mark.parametrize("how", ["bfloat16", "autocast", "3-D", "requires_grad", "many_active"])
def test_what_else_gets_the_plain_step(how):
    for variant in ONE_EACH:
        fields: dict[str, Any] = {"dtype": "bfloat16"} if how == "bfloat16" else {}
        if how == "many_active" and "topk" in variant:
            fields["k"] = 40
        sae = training_sae(variant, 0.1 if how == "many_active" else 2.0, **fields)
        x = inputs(dtype=sae.dtype)
        x = x.view(8, 8, D_IN) if how == "3-D" else x.requires_grad_(how == "requires_grad")
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            step = run_step(sae, x)
        assert not step.feature_acts.is_sparse
        assert step.loss.isfinite()
