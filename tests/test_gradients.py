"""Gradients: straight-through estimators by hand, stop-gradients, the reference, differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from sae_lens_signaware.saes import activations
from sae_lens_signaware.saes.bi_jumprelu import BANDWIDTH
from tests import reference
from tests.architectures import (
    ONE_EACH,
    VARIANTS,
    each_variant,
    gradients,
    inputs,
    run_step,
    step_input,
    training_sae,
)

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}
GATED = [variant for variant in VARIANTS if variant.startswith("sa_gsae")]


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


# Bandwidth 1/4, thresholds 1/2 and 1, all exact in binary: the windows of the sides are
# (0.375, 0.625) and (-1.125, -0.875).
E = 0.25
THRESHOLD = column(0.5, 1.0)
H = column(0.5625, 0.4375, 0.625, 0.9, -1.0625, -0.9375, -1.125, -2.0)
GRAD = column(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


@pytest.mark.parametrize(
    ("b_mag", "of_threshold", "of_b_mag"),
    [
        # + side: two lie in the window, the third on its edge: -(0.5 / 0.25) (1 + 2)
        # - side: +(1 / 0.25) (16 + 32); b_mag: what is open, 1 + 4 + 8 - 16 - 64 - 128
        (0.0, (-6.0, 192.0), -195.0),
        # what jumps is 0.25 smaller, or larger: 0.25 and 0.75, 0.75 and 1.25
        (-0.25, (-3.0, 144.0), -195.0),
        (0.25, (-9.0, 240.0), -195.0),
        # nothing is left at the + threshold, so that nothing jumps; 0.25 is left of 1
        (-0.75, (0.0, 48.0), 8.0 - 16 - 64 - 128),
    ],
)
def test_gradients_of_the_jumprelu_by_hand(b_mag, of_threshold, of_b_mag):
    h, threshold = H.clone().requires_grad_(), THRESHOLD.clone().requires_grad_()
    b_mag = torch.tensor([[b_mag]], requires_grad=True)
    z = activations.bi_jump_relu(h, threshold, b_mag, E)
    z.backward(GRAD)
    assert_close(threshold.grad, column(*of_threshold))
    assert_close(b_mag.grad, torch.tensor([[of_b_mag]]))
    assert_close(h.grad, GRAD * (z != 0))  # the estimator does not reach the encoder


def test_gradients_of_the_step_by_hand():
    h, threshold = H.clone().requires_grad_(), THRESHOLD.clone().requires_grad_()
    activations.bi_step(h, threshold, E).backward(GRAD)
    assert_close(threshold.grad, column(-(1.0 + 2) / E, -(16.0 + 32) / E))
    assert h.grad is None or not h.grad.any()


def test_a_shared_threshold_gets_both_sides_and_windows_reach_across_0():
    # the windows of 0.1 are (-0.15, 0.35) and (-0.35, 0.15)
    h, threshold = column(0.3, 0.05, -0.12, -0.3), torch.full((1, 1), 0.1, requires_grad=True)
    grad = column(1.0, 10.0, 100.0, 1000.0)
    activations.bi_jump_relu(h, threshold, torch.zeros(1, 1), 0.5).backward(grad)
    assert threshold.grad.item() == pytest.approx(0.2 * (1110 - 111))


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5)),
    n_sides=st.integers(1, 2),
    bandwidth=st.floats(0.05, 3.0),
    seed=st.integers(0, 1000),
)
def test_straight_through_gradients_are_those_of_the_reference(shape, n_sides, bandwidth, seed):
    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    generator = torch.Generator().manual_seed(seed)
    h, grad_z, grad_step = (random(*shape) for _ in range(3))
    threshold, b_mag = random(n_sides, shape[1]).abs().requires_grad_(), random(1, shape[1])
    activations.bi_jump_relu(h, threshold, b_mag, bandwidth).backward(grad_z)
    activations.bi_step(h, threshold, bandwidth).backward(grad_step)
    wanted = reference.threshold_gradients(
        list(map(list, h)), threshold.detach(), b_mag, bandwidth, grad_z, grad_step
    )
    assert_close(threshold.grad, wanted, **TOLERANCE)


CASES = [(v, case) for v in VARIANTS for case in ("alive", "dead")]
CASES += [(v, "few_dead") for v in ONE_EACH]


@pytest.mark.parametrize(
    ("variant", "case"), [*CASES, ("bi_matryoshka_batchtopk", "error_of_each_width")]
)
def test_losses_and_gradients_of_a_step_are_those_of_the_reference(variant, case):
    fields = {"d_in": 4, "d_sae": 10, "dtype": "float64", "dead_after_tokens": None}
    if "matryoshka" in variant:
        fields |= {"matryoshka_widths": [4, 7, 10], "use_matryoshka_aux_loss": "width" in case}
    sae = training_sae(variant, threshold=0.4, **fields).eval()  # else dead thresholds decay first
    generator = torch.Generator().manual_seed(2)
    x = 2 * torch.randn(9, 4, generator=generator, dtype=torch.float64)
    dead = None if case == "alive" else torch.arange(10) % (9 if case == "few_dead" else 3) == 1
    p = {name: t.detach().clone().requires_grad_() for name, t in sae.named_parameters()}
    wanted = reference.Reference(sae.cfg, p, x)

    step = sae.training_forward_pass(step_input(x, dead=dead))
    losses = wanted.losses(0.7, dead)
    assert step.losses.keys() == losses.keys()
    for name, loss in losses.items():
        assert_close(step.losses[name], loss, **TOLERANCE, msg=name)
    assert_close(step.loss, sum(losses.values()), **TOLERANCE)

    step.loss.backward()
    sum(losses.values()).backward()
    found = gradients(sae)
    if "jumprelu" in variant:
        with torch.no_grad():
            grad_z = 2 * (torch.stack(wanted.output) - x) @ p["W_dec"].T / len(x)
            grad_step = torch.full_like(grad_z, wanted.l0_weight().item())
            rows = sae.threshold.detach(), sae.b_mag.detach()
            p["threshold"].grad = reference.threshold_gradients(
                wanted.pre, *rows, BANDWIDTH, grad_z, grad_step, sae.cfg.two_sided
            )
    for name, gradient in found.items():
        grad = p[name].grad
        assert_close(gradient, torch.zeros_like(gradient) if grad is None else grad, msg=name)


@pytest.mark.parametrize("variant", GATED)
def test_stop_gradients_of_the_gated_losses(variant):
    def reached(loss: str) -> set[str]:
        sae = training_sae(variant, threshold=0.4)
        run_step(sae, inputs()).losses[loss].backward()
        return {name for name, gradient in gradients(sae).items() if gradient.any()}

    # a threshold learns from L1 and from the auxiliary loss alone; neither touches the magnitudes,
    # nor the decoder, through its norms or as the frozen copy. b_dec is that of the input.
    assert reached("l1_loss") == {"W_enc", "threshold", "b_dec"}
    assert reached("auxiliary_reconstruction_loss") == {"W_enc", "threshold", "b_dec"}
    assert reached("mse_loss") == {"W_enc", "W_dec", "b_dec", "r_mag", "b_mag"}


# parameters in which the losses are smooth, but where a latent comes or goes
SMOOTH = {
    "sa_gsae": (None, ("W_enc", "r_mag", "b_mag", "threshold")),  # W_dec, b_dec: frozen copies
    "bi_jumprelu": ("mse_loss", ("W_enc", "W_dec", "b_enc", "b_mag", "b_dec")),
}


@each_variant
def test_gradients_are_finite_differences(variant):
    fields = {"dtype": "float64", "normalize_activations": "layer_norm", "dead_after_tokens": None}
    sae = training_sae(variant, threshold=0.5, **fields).eval()  # else each step moves thresholds
    x = 2 * inputs(16, dtype=torch.float64)
    names = ("W_enc", "W_dec", "b_enc", "b_mag", "b_dec")
    loss, names = SMOOTH.get(sae.cfg.architecture(), (None, names))

    def value() -> torch.Tensor:
        step = run_step(sae, x)
        return step.loss if loss is None else step.losses[loss]

    value().backward()
    generator, width = torch.Generator().manual_seed(3), 1e-6
    for name in names:
        parameter = getattr(sae, name)
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            parameter.data.add_(sign * width * direction)
            ends.append(value().item())
            parameter.data.sub_(sign * width * direction)
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * width), rel=1e-5, abs=1e-6), name
