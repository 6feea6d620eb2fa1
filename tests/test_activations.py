"""Activations: values by hand, at the edges, and against the slow reference over many shapes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from sae_lens_signaware.saes import activations
from tests import reference
from tests.architectures import (
    D_SAE,
    dense,
    each_architecture,
    each_threshold_variant,
    each_variant,
    inference_sae,
    inputs,
    run_step,
    saved,
    training_sae,
)

LN2 = math.log(2.0)
DTYPES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}
"""Dtype -> the relative error that its rounding may make."""

# One latent seen at seven pre-activations; threshold_+ = 0.5, threshold_- = 1.
PI = torch.tensor([2.0, 0.75, 0.5, 0.0, -1.0, -1.25, -3.0])[:, None]
THRESHOLD = torch.tensor([[0.5], [1.0]])


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize(
    ("rows", "two_sided", "wanted"),
    [
        # gains 2 and 1, sizes 0.25 more and 1 less; at a threshold and at 0 the gate is shut
        (([0.5, 1.0], [LN2, 0.0], [0.25, -1.0]), True, (4.25, 1.75, 0, 0, 0, -0.25, -2)),
        (([0.5], [LN2], [0.5]), True, (4.5, 2, 0, 0, -2.5, -3, -6.5)),
        # the magnitude is cut at 0 while the gate is open
        (([0.5, 1.0], [0.0], [-2.5, -2.5]), True, (0, 0, 0, 0, 0, 0, -0.5)),
        # the - side never opens
        (([0.0], [0.0], [1.0]), False, (3, 1.75, 1.5, 0, 0, 0, 0)),
        # at threshold 0 all is open but 0 itself
        (([0.0], [0.0], [1.0]), True, (3, 1.75, 1.5, 0, -2, -2.25, -4)),
    ],
)
def test_the_gate_by_hand(rows, two_sided, wanted):
    threshold, r_mag, b_mag = (torch.tensor(row)[:, None] for row in rows)
    z = activations.signed_gate(PI, threshold, r_mag, b_mag, two_sided)
    assert_close(z, column(*map(float, wanted)))


@pytest.mark.parametrize(
    ("threshold", "two_sided", "wanted"),
    [
        (THRESHOLD, True, (1.5, 0.25, 0, 0, 0, -0.25, -2)),
        (THRESHOLD[:1], True, (1.5, 0.25, 0, 0, -0.5, -0.75, -2.5)),
        (THRESHOLD[:1], False, (1.5, 0.25, 0, 0, 0, 0, 0)),
    ],
)
def test_the_soft_threshold_by_hand(threshold, two_sided, wanted):
    v = activations.soft_threshold(PI, threshold, two_sided)
    assert_close(v, column(*map(float, wanted)))


@pytest.mark.parametrize(
    ("b_mag", "wanted"),
    [
        (0.0, (2, 0.75, 0, 0, 0, -1.25, -3)),
        (1.0, (3, 1.75, 0, 0, 0, -2.25, -4)),
        (-1.0, (1, 0, 0, 0, 0, -0.25, -2)),
    ],
)
def test_the_two_sided_jumprelu_by_hand(b_mag, wanted):
    b_mag, wanted = torch.tensor([[b_mag]]), column(*map(float, wanted))
    assert_close(activations.bi_jump_relu(PI, THRESHOLD, b_mag, 0.5), wanted)
    is_open = activations.either_side(PI, THRESHOLD)
    assert_close(activations.with_size_bias(PI, b_mag) * is_open, wanted)
    assert is_open.flatten().tolist() == [True, True, False, False, False, True, True]
    assert_close(activations.bi_step(PI, THRESHOLD, 0.5), is_open.float())


def test_the_largest_keep_their_signs():
    u = torch.tensor([[3.0, -4.0, 0.5], [-1.0, 2.0, 0.0]])
    of_tokens = torch.tensor([[3.0, -4.0, 0.0], [-1.0, 2.0, 0.0]])
    assert_close(activations.topk(u, 2), of_tokens)
    of_batch = torch.tensor([[3.0, -4.0, 0.0], [0.0, 2.0, 0.0]])
    assert_close(activations.batch_topk(u, 3), of_batch)
    assert_close(activations.batch_topk(u, 100), u)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=16)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=st.tuples(st.integers(1, 5), st.integers(1, 4)))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_sides", [1, 2])
def test_values_are_those_of_the_reference(dtype, n_sides, data, shape):
    # numbers of 16 bits, some of them the thresholds themselves: every dtype has the same gates
    def draw(rows: int, low: float, high: float) -> torch.Tensor:
        values = st.lists(numbers(low, high), min_size=rows * shape[1], max_size=rows * shape[1])
        return torch.tensor(data.draw(values), dtype=dtype).view(rows, shape[1])

    threshold, r_mag = draw(n_sides, 0, 2), draw(n_sides, -1, 1)
    b_mag, pre = draw(n_sides, -1, 1), draw(shape[0], -3, 3)
    if data.draw(st.booleans()):
        pre[0] = threshold[-1] * data.draw(st.sampled_from([1.0, -1.0]))
    two_sided = data.draw(st.booleans())
    p = [t.double() for t in (threshold, r_mag, b_mag)]
    pairs = [[(h.double(), i) for i, h in enumerate(row)] for row in pre]
    tolerance = {"rtol": DTYPES[dtype], "atol": 4 * DTYPES[dtype]}

    def check(found, wanted):
        assert found.dtype == dtype
        assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), **tolerance)

    check(
        activations.signed_gate(pre, threshold, r_mag, b_mag, two_sided),
        [[reference.gated(h, *p, i, two_sided) for h, i in row] for row in pairs],
    )
    check(
        activations.soft_threshold(pre, threshold, two_sided),
        [[reference.gate_path(h, p[0], i, two_sided) for h, i in row] for row in pairs],
    )
    n_open = [[reference.n_open(h.item(), p[0], i, two_sided) for h, i in row] for row in pairs]
    check(activations.bi_step(pre, threshold, 0.3, two_sided), n_open)
    u = [[reference.sized(h, p[2], i, two_sided) for h, i in row] for row in pairs]
    check(activations.with_size_bias(pre, b_mag[:1], two_sided), u)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)),
    threshold=st.sampled_from([0.0, 0.2, 1.0]),
    apply_b_dec_to_input=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
@each_variant
def test_an_sae_is_that_of_the_reference(
    variant, shape, threshold, apply_b_dec_to_input, dtype, seed
):
    n, d_in, d_sae = shape
    fields = {"d_in": d_in, "d_sae": d_sae, "dtype": dtype}
    fields |= {"apply_b_dec_to_input": apply_b_dec_to_input}
    if "topk" in variant:
        fields["k"] = min(2, d_sae)
    sae = training_sae(variant, threshold, seed, **fields)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d_in, generator=generator, dtype=torch.float64).to(sae.dtype)
    wanted = reference.Reference(
        sae.cfg, {name: p.detach().double() for name, p in sae.named_parameters()}, x.double()
    )
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]

    def check(found, wanted):
        assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)

    z, output = torch.tensor(wanted.z, dtype=torch.float64), torch.stack(wanted.output)
    with torch.no_grad():
        check(sae.encode(x), z)
        check(sae(x), output)
        check(sae.decode(sae.encode(x).to_sparse()), output)
        step = run_step(sae, x)
        check(dense(step.feature_acts), z)
        check(step.sae_out, output)


@each_variant
def test_both_signs_are_active(variant):
    z = inference_sae(variant).encode(inputs())
    assert (z > 0).any()
    assert (z < 0).any() == ("one_sided" not in variant)


@each_architecture
def test_inputs_of_any_rank(variant):
    sae, d_sae = inference_sae(variant), D_SAE
    for shape in ((8,), (2, 8), (2, 3, 8), (2, 1, 3, 8), (0, 8)):
        x = torch.randn(shape)
        assert sae.encode(x).shape == (*shape[:-1], d_sae)
        assert sae(x).shape == shape
        assert_close(sae.encode(x).reshape(-1, d_sae), sae.encode(x.reshape(-1, 8)))


@each_threshold_variant
def test_a_threshold_below_0_is_0(variant):
    # as the last step of a training may leave it; saving writes 0
    sae, x = training_sae(variant, threshold=0.5), inputs(500)
    sae.b_mag.data.abs_()
    sae.threshold.data[:, ::2] = -0.3
    at_zero = training_sae(variant, threshold=0.5)
    at_zero.load_state_dict(sae.state_dict())
    at_zero.threshold.data.clamp_(min=0.0)
    with torch.no_grad():
        assert_close(sae.encode(x), at_zero.encode(x))
        assert_close(saved(sae).encode(x), at_zero.encode(x))


def test_a_nan_token_is_nan_in_its_row_alone():
    x = inputs(5)
    x[2, 3] = torch.nan
    for variant in ("sa_gsae-full", "bi_jumprelu-full", "bi_topk"):
        output = inference_sae(variant)(x)
        assert output.isnan().any(1).tolist() == [False, False, True, False, False]
