"""Worlds of sparse signed axes, made with SAELens's synthetic models.

x = sum_k a_k f_k + noise        a_k in {0, +m, -m}, m = relu(1 + magnitude_sd * normal)
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from sae_lens.synthetic import ActivationGenerator, FeatureDictionary
from torch import Tensor

from sae_lens_signaware.experiments.protocols.data import WorldConfig


def world_seed(seed: int, stream: int) -> int:
    """Return a seed of torch's generator for every seed of a protocol, and stream of its world.

    It is far from those that SAEs are trained with. From one seed torch draws the normal features
    of a world and the uniform initial weights of an SAE out of the same random bits, and latent i
    would start near minus feature i, at a cosine of -0.3.
    """
    return 1_000_000 + 1_000 * seed + stream


@contextlib.contextmanager
def seeded(seed: int, stream: int) -> Iterator[None]:
    """Set torch's generator to a state of every seed and stream; afterwards it is as before.

    SAELens's synthetic models draw from torch's global generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world_seed(seed, stream))
        yield


@dataclasses.dataclass(frozen=True)
class World:
    """Axes of a synthetic world, and how they occur.

    Attributes:
        directions: (n_axes, d_in) of unit norm; the background first, then ``n_extra`` more axes.
        generator: of the magnitudes, one for each axis of ``directions``.
        signed: (n_axes,) bool, whether an axis occurs on both sides.
        noise: standard deviation in each coordinate.
        n_background: number of axes of the background.
    """

    directions: Tensor
    generator: ActivationGenerator
    signed: Tensor
    noise: float
    n_background: int

    def amplitudes(self, n: int) -> Tensor:
        """Draw (n, n_axes) signed amplitudes from torch's global generator."""
        magnitudes = self.generator.sample(n)
        negative = (torch.rand_like(magnitudes) < 0.5) & self.signed
        return torch.where(negative, -magnitudes, magnitudes)

    def activations(self, amplitudes: Tensor) -> Tensor:
        """Return the (n, d_in) activations of these amplitudes, with noise."""
        x = amplitudes @ self.directions
        return x + self.noise * torch.randn_like(x)


def make_world(data: WorldConfig, n_extra: int, extra_probability: float, seed: int) -> World:
    """Make the background of ``data``, and ``n_extra`` signed axes that occur at their own rate.

    Args:
        extra_probability: of each of them, both signs together.
    """
    n_axes = data.n_background + n_extra
    probability = torch.full((n_axes,), data.firing_probability)
    probability[data.n_background :] = extra_probability
    signed = torch.ones(n_axes, dtype=torch.bool)
    signed[data.n_signed : data.n_background] = False
    with seeded(seed, 0):
        dictionary = FeatureDictionary(n_axes, data.d_in, seed=world_seed(seed, 2))
    return World(
        directions=dictionary.feature_vectors.detach(),
        generator=ActivationGenerator(n_axes, probability, std_firing_magnitudes=data.magnitude_sd),
        signed=signed,
        noise=data.noise,
        n_background=data.n_background,
    )
