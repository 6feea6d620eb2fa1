"""Protocol A, Polarity Dial: is the response to a signed axis calibrated on both sides?

The axis has another gain on each side. The dial t moves the world by y(t) along its axis u, with
y = gain_+ t above 0 and gain_- t below. The protocol asks whether the SAE's reconstruction follows:

    r(t) = mean over samples of <x^(x + y(t) u) - x^(x), u>          x without the axis
    gain of a side = sum r y / sum y^2 over its points               1 is calibrated
"""

import dataclasses
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.evaluation.streaming import decoder_directions
from sae_lens_signaware.experiments.protocols.config import DialConfig
from sae_lens_signaware.experiments.protocols.data import DialData
from sae_lens_signaware.experiments.protocols.result import (
    ProtocolResult,
    TableValue,
    mean_of,
    sd_of,
)
from sae_lens_signaware.experiments.protocols.summary import Prepared, collect, make_result
from sae_lens_signaware.experiments.protocols.training import Advance
from sae_lens_signaware.experiments.protocols.world import World, make_world, seeded
from sae_lens_signaware.printing import percent

RESPONSE_SHARE = 0.9
"""Share of a side's response that the latents counted for it make up."""

MONOTONE_TOLERANCE = 0.01
"""Share of the largest movement by which a monotone response may fall."""

MIN_GAIN = 0.1
"""Least gain of a side that counts as answered."""

COLUMNS = [
    *("SAE", "d_sae", "L0", "R2", "gain +", "gain + sd", "gain -", "gain - sd"),
    *("asymmetry", "worst", "latents", "crosstalk", "monotone"),
]
NOTES = [
    "gain: slope of the reconstruction along the axis against the movement of the input, for "
    "each side; 1 is calibrated, below 1 is shrunk. The whole dial counts, so also what a "
    "threshold cuts off near 0. asymmetry: |gain + less gain -|.",
    "worst: largest distance of the mean response from the movement, in units of the input. "
    "crosstalk: root mean square of the response off the axis over that of the movement.",
    f"latents: how many make up {RESPONSE_SHARE:.0%} of the response of one side or of the other; "
    "one signed latent can carry both sides, plain ones need one each. Over the seeds in which "
    f"both sides answer at all, that is, with a gain of {MIN_GAIN:g} or more.",
    f"monotone: seeds in which the response never falls by more than {MONOTONE_TOLERANCE:.0%} of "
    "the largest movement.",
]


@dataclasses.dataclass(frozen=True)
class DialMeasure:
    """Response of one SAE to the dial.

    Attributes:
        gain_pos, gain_neg: of the two sides.
        worst: largest |r - y|, in units of the input.
        n_latents: number of latents that make up the response of one side or of the other; None
            where a side has no response.
        crosstalk: sqrt(mean |response off the axis|^2 / mean y^2).
        monotone: whether r rises with y all along.
    """

    gain_pos: float
    gain_neg: float
    worst: float
    n_latents: int | None
    crosstalk: float
    monotone: bool

    @property
    def asymmetry(self) -> float:
        """Distance of the two gains, |gain_+ - gain_-|."""
        return abs(self.gain_pos - self.gain_neg)


def world_response(t: Tensor, gain_pos: float, gain_neg: float) -> Tensor:
    """Return the movement y(t) = gain_+ t for t > 0, gain_- t for t < 0."""
    return torch.where(t > 0, gain_pos * t, gain_neg * t)


def movements(data: DialData) -> Tensor:
    """Return the 2 n_points + 1 movements at equally spaced dial positions, ascending."""
    t = torch.linspace(-data.dial_max, data.dial_max, 2 * data.n_points + 1)
    t[data.n_points] = 0.0  # exactly, whatever linspace rounds to
    return world_response(t, data.gain_pos, data.gain_neg)


def side_gain(response: Tensor, y: Tensor) -> float:
    """Fit a slope through 0 by least squares: sum r y / sum y^2."""
    return ((response * y).sum() / y.square().sum()).item()


def carrying_latents(contributions: Tensor, y: Tensor) -> set[int]:
    """Choose the fewest latents that make up 90% of a side's response.

    w_i = sum over points of c_i y; largest first until their sum reaches 90% of the sum of all.

    Args:
        contributions: (n_points, d_sae) c_i, what latent i adds to the response along the axis.
        y: (n_points,).

    Returns:
        Empty where the side has no response in the right direction.
    """
    weight = (contributions * y[:, None]).sum(0)
    total = weight.sum()
    if total <= 0:
        return set()
    order = weight.argsort(descending=True)
    n_before = int((weight[order].cumsum(0) < RESPONSE_SHARE * total).sum())
    return set(order[: n_before + 1].tolist())


@torch.no_grad()
def measure_dial(sae: SAE[Any], base: Tensor, axis: Tensor, y: Tensor) -> DialMeasure:
    """Move samples along the axis and read the SAE.

    Args:
        sae: inference SAE whose latents' contributions add up: it has no per-sample
            normalisation.
        base: (n, d_in) samples without the axis.
        axis: (d_in,) of unit norm.
        y: (n_points,) movements, ascending, both signs.
    """
    z_0 = sae.encode(base)
    x_hat_0, along = sae.decode(z_0), decoder_directions(sae) @ axis
    response, contributions, off_axis = torch.zeros(len(y)), [], torch.zeros(len(y))
    for k, amount in enumerate(y.tolist()):
        z = sae.encode(base + amount * axis)
        change = sae.decode(z) - x_hat_0
        projected = change @ axis
        response[k] = projected.mean()
        off_axis[k] = (change.square().sum(1) - projected.square()).mean()
        contributions.append((z - z_0).mean(0) * along)
    c = torch.stack(contributions)
    sides = (y > 0, y < 0)
    gain_pos, gain_neg = (side_gain(response[side], y[side]) for side in sides)
    pos, neg = (carrying_latents(c[side], y[side]) for side in sides)
    largest = y.abs().max()
    return DialMeasure(
        gain_pos=gain_pos,
        gain_neg=gain_neg,
        worst=(response - y).abs().max().item(),
        n_latents=len(pos | neg) if min(gain_pos, gain_neg) >= MIN_GAIN else None,
        crosstalk=(off_axis.mean().clamp(min=0) / y.square().mean()).sqrt().item(),
        monotone=bool((response.diff() >= -MONOTONE_TOLERANCE * largest).all()),
    )


def sample(world: World, data: DialData, n: int, with_axis: bool) -> Tensor:
    """Draw (n, d_in): background and noise, and the signed axis at its rate or not at all."""
    amplitudes = world.amplitudes(n)
    t = amplitudes[:, world.n_background]
    amplitudes[:, world.n_background] = (
        world_response(t, data.gain_pos, data.gain_neg) if with_axis else 0.0
    )
    return world.activations(amplitudes)


def run(config: DialConfig, command: str, advance: Advance) -> ProtocolResult:
    """Train and dial every SAE on every seed."""
    data, training = config.data, config.training
    y = movements(data)

    def prepare(seed: int) -> Prepared[DialMeasure]:
        world = make_world(data, 1, data.axis_probability, seed)
        with seeded(seed, 1):
            train = sample(world, data, training.n_train, with_axis=True)
            heldout = sample(world, data, training.n_heldout, with_axis=True)
            base = sample(world, data, data.n_base, with_axis=False)
        axis = world.directions[-1]
        return Prepared(train, heldout, lambda sae: measure_dial(sae, base, axis, y))

    collected = collect(config, config.target_l0, prepare, advance)
    rows = [_row(name, runs) for name, runs in collected.measures.items()]
    return make_result(
        config,
        title="Protocol A, Polarity Dial",
        question=f"one signed axis that answers {data.gain_pos:g} times on its + side and "
        f"{data.gain_neg:g} times on its - side: is the SAE's response calibrated on both?",
        columns=COLUMNS,
        rows=rows,
        notes=[
            *NOTES,
            f"World: {data.n_background} background axes in {data.d_in} dimensions, "
            f"{percent(data.signed_share)} of them signed, and the dialled one: {data.size(1)}",
        ],
        collected=[collected],
        command=command,
    )


def _row(name: str, runs: list[tuple[SAEQuality, DialMeasure]]) -> list[TableValue]:
    qualities, dials = zip(*runs, strict=True)
    pos, neg = [d.gain_pos for d in dials], [d.gain_neg for d in dials]
    return [
        name,
        qualities[0].d_sae,
        mean_of([q.l0 for q in qualities]),
        mean_of([q.explained_variance for q in qualities]),
        mean_of(pos),
        sd_of(pos),
        mean_of(neg),
        sd_of(neg),
        mean_of([d.asymmetry for d in dials]),
        mean_of([d.worst for d in dials]),
        mean_of([d.n_latents for d in dials]),
        mean_of([d.crosstalk for d in dials]),
        f"{sum(d.monotone for d in dials)} of {len(dials)}",
    ]
