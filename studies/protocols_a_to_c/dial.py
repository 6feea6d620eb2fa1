"""Protocol A: is the response to a signed axis calibrated on both sides?

The axis has another gain on each side. The dial t moves the world by y(t) along its axis u, with
y = gain_+ t above 0 and gain_- t below. Does the SAE's reconstruction follow?

    r(t) = mean over samples of <x^(x + y(t) u) - x^(x), u>          x without the axis
    gain of a side = sum r y / sum y^2 over its points               1 is calibrated
"""

from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from studies.synthetic import World, make_world, seeded

COLUMNS = ("sae", "d_sae", "l0", "r2", "gain_pos", "gain_neg", "latents", "crosstalk")
RESPONSE_SHARE = 0.9
"""Share of a side's response that the latents counted for it make up."""
MIN_GAIN = 0.1
"""Least gain of a side that counts as answered."""


def movements(data: Any) -> Tensor:
    """The (2 n_points + 1,) movements y at equally spaced dial positions, ascending."""
    t = torch.linspace(-data.dial_max, data.dial_max, 2 * data.n_points + 1)
    t[data.n_points] = 0.0  # exactly, whatever linspace rounds to
    return torch.where(t > 0, data.gain_pos * t, data.gain_neg * t)


def side_gain(response: Tensor, y: Tensor) -> float:
    """A slope through 0 by least squares: sum r y / sum y^2."""
    return ((response * y).sum() / y.square().sum()).item()


def carrying_latents(contributions: Tensor, y: Tensor) -> set[int]:
    """The fewest latents that make up 90% of a side's response; none where it has no response.

    Args:
        contributions: (n_points, d_sae), what each latent adds to the response along the axis.
        y: (n_points,).
    """
    weight = (contributions * y[:, None]).sum(0)
    total = weight.sum()
    if total <= 0:
        return set()
    order = weight.argsort(descending=True)
    n_before = int((weight[order].cumsum(0) < RESPONSE_SHARE * total).sum())
    return set(order[: n_before + 1].tolist())


@torch.no_grad()
def measure_dial(sae: SAE[Any], base: Tensor, axis: Tensor, y: Tensor) -> dict[str, Any]:
    """Move samples along the axis and read the SAE.

    Args:
        base: (n, d_in) samples without the axis.
        axis: (d_in,) of unit norm.
        y: (n_points,) movements, both signs.
    """
    z_0 = sae.encode(base)
    x_hat_0, along = sae.decode(z_0), sae.W_dec @ axis
    response, off_axis, contributions = [], [], []
    for amount in y.tolist():
        z = sae.encode(base + amount * axis)
        change = sae.decode(z) - x_hat_0
        projected = change @ axis
        response.append(projected.mean())
        off_axis.append((change.square().sum(1) - projected.square()).mean())
        contributions.append((z - z_0).mean(0) * along)
    r, c = torch.stack(response), torch.stack(contributions)
    pos, neg = y > 0, y < 0
    gains = side_gain(r[pos], y[pos]), side_gain(r[neg], y[neg])
    latents = carrying_latents(c[pos], y[pos]) | carrying_latents(c[neg], y[neg])
    return {
        "d_sae": sae.cfg.d_sae,
        "gain_pos": gains[0],
        "gain_neg": gains[1],
        "latents": float(len(latents)) if min(gains) >= MIN_GAIN else None,
        "crosstalk": (torch.stack(off_axis).mean().clamp(min=0) / y.square().mean()).sqrt().item(),
    }


def draw(world: World, data: Any, n: int, with_axis: bool) -> Tensor:
    """Draw (n, d_in): background and noise, and the signed axis at its rate or not at all."""
    amplitudes = world.amplitudes(n)
    t = amplitudes[:, -1]
    moved = torch.where(t > 0, data.gain_pos * t, data.gain_neg * t)
    amplitudes[:, -1] = moved if with_axis else 0.0
    return world.activations(amplitudes)


def prepare(config: Any, seed: int) -> Any:
    """The samples of a seed, and the measure."""
    data, training = config.data, config.training
    probability = torch.full((data.n_background + 1,), data.firing_probability)
    probability[-1] = data.axis_probability
    signed = torch.arange(data.n_background + 1) < round(data.signed_share * data.n_background)
    signed[-1] = True
    world = make_world(data, probability, signed, seed)
    with seeded(seed, 1):
        train = draw(world, data, training.n_train, with_axis=True)
        heldout = draw(world, data, training.n_heldout, with_axis=True)
        base = draw(world, data, data.n_base, with_axis=False)
    axis, y = world.directions[-1], movements(data)
    return train, heldout, lambda sae: measure_dial(sae, base, axis, y)
