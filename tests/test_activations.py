"""Hand-computed values and gradients of the pure functions: both signs, both rows, the edges."""

import math

import pytest
import torch

from sae_lens_signaware.saes.activations import (
    bi_jump_relu_ste,
    bi_jump_step,
    bi_step_ste,
    log_sum,
    nearest_threshold_gap,
    rectangle,
    select_side,
    shifted,
    signed_gate,
    soft_threshold,
)
from sae_lens_signaware.saes.activations.sides import sum_sides

# One latent seen at seven pre-activations; threshold_+ = 0.5, threshold_- = 1.0.
PI = torch.tensor([[2.0], [0.6], [0.5], [0.0], [-1.0], [-1.1], [-3.0]])
THRESHOLD = torch.tensor([[0.5], [1.0]])
LN2 = math.log(2.0)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_bi_jump_relu_untied_by_hand() -> None:
    r_mag = torch.tensor([[LN2], [0.0]])  # gains 2 and 1
    b_mag = torch.tensor([[0.25], [-1.05]])
    z = signed_gate(PI, THRESHOLD, r_mag, b_mag)
    # 2*2+.25; 2*.6+.25; at the threshold: shut; 0; at the threshold: shut; -(1.1-1.05); -(3-1.05)
    torch.testing.assert_close(z, column(4.25, 1.45, 0.0, 0.0, 0.0, -0.05, -1.95))


def test_bi_jump_relu_magnitude_below_zero_is_cut_while_the_gate_is_open() -> None:
    z = signed_gate(PI, THRESHOLD, torch.zeros(1, 1), torch.full((1, 1), -2.5))
    torch.testing.assert_close(z, column(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5))


def test_bi_jump_relu_tied_by_hand() -> None:
    z = signed_gate(PI, THRESHOLD[:1], torch.full((1, 1), LN2), torch.full((1, 1), 0.5))
    torch.testing.assert_close(z, column(4.5, 1.7, 0.0, 0.0, -2.5, -2.7, -6.5))


def test_bi_jump_relu_one_sided_never_opens_the_minus_side() -> None:
    z = signed_gate(PI, torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1), two_sided=False)
    torch.testing.assert_close(z, column(3.0, 1.6, 1.5, 0.0, 0.0, 0.0, 0.0))


def test_a_zero_pre_activation_is_shut_even_at_threshold_zero() -> None:
    zero = torch.zeros(1, 1)
    assert signed_gate(zero, zero, zero, torch.ones(1, 1)).item() == 0.0
    assert bi_jump_step(zero, zero, zero).item() == 0.0


def test_soft_threshold_by_hand() -> None:
    norm = torch.tensor([3.0])
    v, l1 = soft_threshold(PI, THRESHOLD, norm)
    torch.testing.assert_close(v, column(1.5, 0.1, 0.0, 0.0, 0.0, -0.1, -2.0))
    torch.testing.assert_close(l1, 3 * v.abs().squeeze(1))
    v, l1 = soft_threshold(PI, THRESHOLD[:1], norm, two_sided=False)
    torch.testing.assert_close(l1, 3 * v.squeeze(1))
    torch.testing.assert_close(v, column(1.5, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0))


def test_gradients_of_the_gated_paths_by_hand() -> None:
    pi = torch.tensor([[2.0], [-3.0], [0.25]], requires_grad=True)
    threshold = THRESHOLD.clone().requires_grad_()
    r_mag = torch.tensor([[LN2], [0.0]], requires_grad=True)
    b_mag = torch.zeros(2, 1, requires_grad=True)
    weight = column(1.0, 10.0, 100.0)
    (signed_gate(pi, threshold, r_mag, b_mag) * weight).sum().backward()
    assert pi.grad is not None
    # dz/dpi = gain of the open side: 2, 1, shut
    torch.testing.assert_close(pi.grad, column(2.0, 10.0, 0.0))
    # dz/dr = s * gain * u: +4 at pi = 2; -3 at pi = -3
    torch.testing.assert_close(r_mag.grad, column(4.0, -30.0))
    torch.testing.assert_close(b_mag.grad, column(1.0, -10.0))
    assert threshold.grad is None  # a hard gate

    pi.grad = None
    norm = torch.tensor([3.0], requires_grad=True)
    v, l1 = soft_threshold(pi, threshold, norm)
    ((v * weight).sum() + l1 @ torch.tensor([1.0, 2.0, 5.0])).backward()
    # |v| n has the slope +-3 times what its token weighs
    torch.testing.assert_close(pi.grad, column(1.0 + 3.0, 10.0 - 6.0, 0.0))
    torch.testing.assert_close(threshold.grad, column(-1.0 - 3.0, 10.0 - 6.0))
    # dl1/dn = |v|: 1.5 once, 2 twice
    torch.testing.assert_close(norm.grad, torch.tensor([1.5 + 4.0]))


def test_tied_threshold_gets_the_sum_of_both_sides() -> None:
    threshold = torch.full((1, 1), 0.5, requires_grad=True)
    v, _ = soft_threshold(column(2.0, -3.0), threshold, torch.ones(1))
    (v * column(1.0, 10.0)).sum().backward()
    assert threshold.grad is not None
    assert threshold.grad.item() == pytest.approx(-1.0 + 10.0)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_gated_paths_pass_gradcheck(n_rows: int) -> None:
    def args(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        # away from the kinks by more than gradcheck's step
        pi = torch.tensor([[1.3, -0.9], [-0.7, 0.05]], dtype=dtype)
        rows = [torch.tensor([[0.2, 0.3], [0.4, 0.1]], dtype=dtype)[:n_rows] for _ in range(3)]
        return [t.clone().requires_grad_() for t in (pi, *rows)]

    assert torch.autograd.gradcheck(
        lambda pi, t, r, b: signed_gate(pi, t.detach(), r, b), tuple(args())
    )
    norm = torch.tensor([0.7, 1.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_threshold, (*args()[:2], norm))


def test_log_sum_by_hand() -> None:
    v = torch.tensor([[1.0, -3.0, 0.0], [0.0, 2.0, 0.0]]).requires_grad_()
    norm = torch.tensor([1.0, 2.0, 5.0]).requires_grad_()
    c = (1 + 6 + 4) / 3  # mean of |v| norm where it is not 0
    value = log_sum(v, norm)
    assert value.item() == pytest.approx(c * sum(math.log(1 + s / c) for s in (1, 6, 4)))
    value.backward()
    slope = [1 / (1 + s / c) for s in (1, 6, 4)]  # of c log(1 + s / c), c a constant
    torch.testing.assert_close(
        v.grad, torch.tensor([[slope[0], -2 * slope[1], 0.0], [0.0, 2 * slope[2], 0.0]])
    )
    torch.testing.assert_close(
        norm.grad, torch.tensor([slope[0], 3 * slope[1] + 2 * slope[2], 0.0])
    )


def test_log_sum_of_open_latents_alone_is_that_of_all() -> None:
    v, norm = torch.tensor([[1.0, -3.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([1.0, 2.0, 5.0])
    token, latent = v.nonzero(as_tuple=True)
    torch.testing.assert_close(log_sum(v[token, latent], norm[latent]), log_sum(v, norm))


@pytest.mark.parametrize("shape", [(0,), (2, 3)])
def test_log_sum_of_nothing_is_zero_and_pulls_at_nothing(shape: tuple[int, ...]) -> None:
    v = torch.zeros(shape, requires_grad=True)
    value = log_sum(v, torch.ones(shape[-1]))
    value.backward()
    assert value.item() == 0.0
    assert v.grad is not None
    assert not v.grad.any()


def test_log_sum_holds_in_half_precision() -> None:
    v = torch.full((512, 64), 40.0, dtype=torch.float16)  # their sum is beyond float16
    assert log_sum(v, torch.ones(64, dtype=torch.float16)).item() == pytest.approx(
        v.numel() * 40 * math.log(2)
    )


def test_rectangle_is_open_at_its_edges() -> None:
    x = torch.tensor([-0.5, -0.49, 0.0, 0.49, 0.5])
    assert rectangle(x).tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


# Bandwidth 1/4, all values exact in binary. Windows of h: + side (0.375, 0.625), - side
# (-1.125, -0.875).
E = 0.25
H = torch.tensor([[0.5625], [0.4375], [0.625], [0.9], [-1.0625], [-0.9375], [-1.125], [-2.0]])
NO_SHIFT = torch.zeros(2, 1)
GRAD = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0], [64.0], [128.0]])


def test_shifted_by_hand() -> None:
    h = column(2.0, 0.5, 0.0, -0.5, -2.0)
    torch.testing.assert_close(shifted(h, column(-1.0, 0.5)), column(1.0, 0.0, 0.0, -1.0, -2.5))
    torch.testing.assert_close(shifted(h, torch.tensor([[-1.0]])), column(1.0, 0.0, 0.0, 0.0, -1.0))


def test_bi_jump_step_by_hand() -> None:
    torch.testing.assert_close(
        bi_jump_step(H, THRESHOLD, NO_SHIFT),
        column(0.5625, 0.0, 0.625, 0.9, -1.0625, 0.0, -1.125, -2.0),
    )


def test_bi_jump_relu_ste_gradients_by_hand() -> None:
    h = H.clone().requires_grad_()
    threshold = THRESHOLD.clone().requires_grad_()
    bi_jump_relu_ste(h, threshold, NO_SHIFT, E).backward(GRAD)
    # + side: the first two lie in the window, the third is its edge: -(0.5 / 0.25) (1 + 2)
    # - side: the fifth and sixth do, the seventh is the edge: +(1 / 0.25) (16 + 32)
    torch.testing.assert_close(threshold.grad, column(-6.0, 192.0))
    torch.testing.assert_close(h.grad, column(1.0, 0.0, 4.0, 8.0, 16.0, 0.0, 64.0, 128.0))


def test_bi_jump_relu_with_shifted_sizes_by_hand() -> None:
    h, threshold = H.clone().requires_grad_(), THRESHOLD.clone().requires_grad_()
    b_mag = column(-0.25, 0.5).requires_grad_()
    z = bi_jump_relu_ste(h, threshold, b_mag, E)
    # the + side is 0.25 smaller, the - side 0.5 larger
    torch.testing.assert_close(z, column(0.3125, 0.0, 0.375, 0.65, -1.5625, 0.0, -1.625, -2.5))
    z.backward(GRAD)
    # what jumps at the thresholds of 0.5 and 1 is 0.25 and 1.5: -(0.25 / e) (1 + 2), (1.5 / e) 48
    torch.testing.assert_close(threshold.grad, column(-3.0, 288.0))
    torch.testing.assert_close(b_mag.grad, column(13.0, -208.0))
    torch.testing.assert_close(h.grad, column(1.0, 0.0, 4.0, 8.0, 16.0, 0.0, 64.0, 128.0))


def test_a_shift_below_the_size_leaves_nothing() -> None:
    h = column(0.6, 0.8, -0.6).requires_grad_()
    threshold, b_mag = torch.full((1, 1), 0.5), torch.full((1, 1), -0.7)
    z = bi_jump_relu_ste(h, threshold, b_mag, E, ste_to_input=True)
    torch.testing.assert_close(z, column(0.0, 0.1, 0.0))
    z.sum().backward()
    torch.testing.assert_close(h.grad, column(0.0, 1.0, 0.0))  # nothing jumps at this threshold


def test_bi_jump_relu_ste_to_input_by_hand() -> None:
    h = H.clone().requires_grad_()
    bi_jump_relu_ste(h, THRESHOLD, NO_SHIFT, E, ste_to_input=True).backward(torch.ones_like(H))
    # open: 1; in a window: + threshold_s / e, which is 2 and 4
    torch.testing.assert_close(h.grad, column(3.0, 2.0, 1.0, 1.0, 5.0, 4.0, 1.0, 1.0))


def test_tied_ste_gets_both_sides_and_windows_that_reach_across_zero() -> None:
    # threshold 0.1, bandwidth 0.5: the + window is (-0.15, 0.35), the - window (-0.35, 0.15)
    h = column(0.3, 0.05, -0.12, -0.3)
    threshold = torch.full((1, 1), 0.1, requires_grad=True)
    grad = column(1.0, 10.0, 100.0, 1000.0)
    bi_jump_relu_ste(h, threshold, torch.zeros(1, 1), 0.5).backward(grad)
    assert threshold.grad is not None
    # (0.1 / 0.5) * (-(1 + 10 + 100) + (10 + 100 + 1000))
    assert threshold.grad.item() == pytest.approx(0.2 * (1110 - 111))


def test_bi_step_ste_by_hand() -> None:
    h = H.clone().requires_grad_()
    threshold = THRESHOLD.clone().requires_grad_()
    step = bi_step_ste(h, threshold, E, ste_to_input=True)
    torch.testing.assert_close(step, column(1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0))
    step.backward(GRAD)
    # -(1 / e) over the window of each side
    torch.testing.assert_close(threshold.grad, column(-12.0, -192.0))
    torch.testing.assert_close(h.grad, column(4.0, 8.0, 0.0, 0.0, -64.0, -128.0, 0.0, 0.0))


def test_bi_step_ste_leaves_the_input_alone_by_default() -> None:
    h = H.clone().requires_grad_()
    (bi_step_ste(h, THRESHOLD.clone().requires_grad_(), E).sum() + 0 * h.sum()).backward()
    assert h.grad is not None
    assert h.grad.abs().max() == 0


def test_nearest_threshold_gap_by_hand() -> None:
    gap = nearest_threshold_gap(column(0.6, 0.2, -0.2, -0.4, -1.5), THRESHOLD)
    # open; 0.5 - 0.2; min(0.7, 0.8); min(0.9, 0.6); open
    torch.testing.assert_close(gap, column(0.0, 0.3, 0.7, 0.6, 0.0))


def test_select_side_reads_row_minus_one_at_zero() -> None:
    picked = select_side(column(1.0, 0.0, -1.0), THRESHOLD)
    torch.testing.assert_close(picked, column(0.5, 1.0, 1.0))


def test_the_gradient_of_a_rare_side_is_not_lost_in_16_bits() -> None:
    g = torch.Generator().manual_seed(0)
    is_minus = torch.arange(4096) % 500 == 0  # 9 of 4,096 tokens
    pi = torch.where(is_minus, -1.0, 1.0)[:, None].expand(4096, 8)
    grad = torch.randn(4096, 8, generator=g).abs()
    wanted = torch.stack([grad[~is_minus].sum(0), grad[is_minus].sum(0)])
    found = sum_sides(grad.bfloat16(), pi.bfloat16(), 2).float()
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0)
