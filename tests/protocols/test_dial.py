"""Protocol A: gains of hand-built SAEs, and its world."""

import pytest
import torch

from sae_lens_signaware.experiments.protocols import dial
from sae_lens_signaware.experiments.protocols.data import DialData, WorldConfig
from sae_lens_signaware.experiments.protocols.world import make_world, seeded
from tests.protocols.examples import DIAL, WORLD, plain_sae, signed_sae

Y = torch.tensor([-0.6, -0.3, 0.0, 1.0, 2.0])
BASE = torch.tensor([[0.0, 0.7], [0.0, -0.2]])
AXIS = torch.tensor([1.0, 0.0])


def test_the_gain_of_each_side_is_that_of_a_hand_built_sae() -> None:
    sae = signed_sae(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]]), sides=(1.0, 0.4))
    measure = dial.measure_dial(sae, BASE, AXIS, Y)
    assert measure.gain_pos == pytest.approx(1.0)
    assert measure.gain_neg == pytest.approx(0.4)
    assert measure.asymmetry == pytest.approx(0.6)
    assert measure.worst == pytest.approx(0.6 * 0.6)
    assert measure.n_latents == 1
    assert measure.crosstalk == pytest.approx(0.0, abs=1e-6)
    assert measure.monotone


def test_a_pair_of_plain_latents_needs_two_and_what_they_write_off_the_axis_is_crosstalk() -> None:
    W_enc = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    sae = plain_sae(W_enc, torch.tensor([[1.0, 0.5], [-1.0, 0.5]]))
    measure = dial.measure_dial(sae, BASE, AXIS, Y)
    assert (measure.gain_pos, measure.gain_neg) == pytest.approx((1.0, 1.0))
    assert measure.n_latents == 2
    # |off the axis| is half the movement at every point
    assert measure.crosstalk == pytest.approx(0.5)


def test_a_dead_zone_counts_against_the_gain() -> None:
    sae = plain_sae(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]]), threshold=1.5)
    measure = dial.measure_dial(sae, BASE, AXIS, Y)
    # r = (0, 2) at y = (1, 2): 4 / 5
    assert measure.gain_pos == pytest.approx(0.8)
    assert measure.gain_neg == 0.0
    assert measure.n_latents is None  # one side is not answered at all
    assert measure.worst == pytest.approx(1.0)


def test_a_falling_response_is_not_monotone() -> None:
    sae = signed_sae(torch.tensor([[1.0], [0.0]]), torch.tensor([[-1.0, 0.0]]))
    measure = dial.measure_dial(sae, BASE, AXIS, Y)
    assert measure.gain_pos == pytest.approx(-1.0)
    assert not measure.monotone


def test_latents_that_carry_a_side() -> None:
    y = torch.tensor([1.0, 2.0])
    contributions = y[:, None] * torch.tensor([0.1, 0.5, 0.45, -0.05])
    assert dial.carrying_latents(contributions, y) == {1, 2}
    assert dial.carrying_latents(-contributions, y) == set()
    # 60%, 85% and 95% in sum
    contributions = y[:, None] * torch.tensor([0.05, 0.25, 0.1, 0.6])
    assert dial.carrying_latents(contributions, y) == {1, 2, 3}


@pytest.mark.parametrize(("side", "answers"), [(0.11, True), (0.09, False)])
@pytest.mark.parametrize("which", [0, 1])
def test_a_side_answers_from_a_gain_of_a_tenth_on(side: float, answers: bool, which: int) -> None:
    sides = (1.0, side) if which else (side, 1.0)
    sae = signed_sae(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]]), sides)
    assert dial.measure_dial(sae, BASE, AXIS, Y).n_latents == (1 if answers else None)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("fall", "is_monotone"), [(0.018, True), (0.022, False)])
def test_a_monotone_response_may_fall_by_a_hundredth_of_the_largest_movement(
    sign: float, fall: float, is_monotone: bool
) -> None:
    # from 1 to 2 a second latent takes away as much as the first one adds, and a little more
    W_enc = torch.tensor([[sign, sign], [0.0, 0.0]])
    sae = plain_sae(W_enc, sign * torch.tensor([[1.0, 0.0], [-(1 + fall) / 2, 0.0]]))
    assert isinstance(sae.threshold, torch.Tensor)
    sae.threshold.data[1] = 1.5
    y = (sign * Y).sort().values  # the largest movement is 2, to either side
    assert dial.measure_dial(sae, BASE, AXIS, y).monotone is is_monotone


def test_the_dial_is_symmetric_and_the_world_answers_by_its_gains() -> None:
    y = dial.movements(DialData(**DIAL))
    assert y.tolist() == pytest.approx(
        [-0.6, -0.45, -0.3, -0.15, 0, 0.375, 0.75, 1.125, 1.5], abs=1e-6
    )


def test_the_dialled_axis_occurs_on_both_sides_with_its_gains() -> None:
    data = DialData(**DIAL)
    world = make_world(data, 1, data.axis_probability, seed=3)
    with seeded(3, 1):
        x = dial.sample(world, data, 20_000, with_axis=True)
        base = dial.sample(world, data, 500, with_axis=False)
    a = x @ torch.linalg.pinv(world.directions)
    on = a[:, -1]
    assert (on > 1e-3).float().mean() == pytest.approx(0.15, abs=0.01)
    assert (on < -1e-3).float().mean() == pytest.approx(0.15, abs=0.01)
    assert on[on > 1e-3].mean() == pytest.approx(1.0, abs=0.02)
    assert on[on < -1e-3].mean() == pytest.approx(-0.4, abs=0.01)
    assert (base @ torch.linalg.pinv(world.directions))[:, -1].abs().max() < 1e-4


# ---- worlds of signed axes


def test_a_world_has_its_rates_signs_and_directions() -> None:
    world = make_world(WorldConfig(**WORLD), n_extra=1, extra_probability=0.05, seed=0)
    with seeded(0, 1):
        a = world.amplitudes(40_000)
    rate = (a != 0).float().mean(0)
    assert rate[:6].tolist() == pytest.approx([0.25] * 6, abs=0.01)
    assert rate[6] == pytest.approx(0.05, abs=0.005)
    negative = (a < 0).float().sum(0) / (a != 0).float().sum(0)
    assert negative[:3].tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert negative[3:6].tolist() == [0, 0, 0]
    assert negative[6] == pytest.approx(0.5, abs=0.05)
    assert a[a != 0].abs().mean() == pytest.approx(1.0, abs=0.01)
    gram = world.directions @ world.directions.T
    assert (gram - torch.eye(7)).abs().max() < 0.02
    assert WorldConfig(**WORLD).size(1).startswith("7 axes with 11 ends.")


def test_a_seed_is_a_world_and_torch_s_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (make_world(WorldConfig(**WORLD), 0, 0.1, seed) for seed in (1, 1, 2))
    with seeded(1, 1):
        a = first.amplitudes(10)
    with seeded(1, 1):
        assert a.equal(again.amplitudes(10))
    assert torch.rand(3).equal(expected)
    assert first.directions.equal(again.directions)
    assert not first.directions.equal(other.directions)


def test_the_noise_has_its_deviation_in_each_coordinate() -> None:
    world = make_world(WorldConfig(**WORLD | {"noise": 0.3}), 0, 0.1, seed=0)
    with seeded(0, 1):
        a = world.amplitudes(5_000)
        rest = world.activations(a) - a @ world.directions
    assert rest.std(0).tolist() == pytest.approx([0.3] * 8, rel=0.05)


def test_magnitudes_have_their_deviation() -> None:
    world = make_world(WorldConfig(**WORLD), 1, 0.1, seed=0)
    with seeded(0, 1):
        a = world.amplitudes(20_000)
    assert a[a != 0].abs().std() == pytest.approx(0.25, rel=0.05)


def test_the_signed_background_is_the_nearest_number_to_its_share() -> None:
    # 1.8 of 6
    data = WorldConfig(**WORLD | {"signed_share": 0.3})
    assert data.n_signed == 2
    assert make_world(data, 1, 0.1, seed=0).signed.tolist() == [True] * 2 + [False] * 4 + [True]
    assert data.size(1).startswith("7 axes with 10 ends.")
