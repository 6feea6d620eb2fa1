"""Train signed and plain SAEs on worlds with a share of two-sided features (an hour of one core).

    python studies/worlds/run.py

Features are more than dimensions, and their rates are Zipfian. Worlds of a seed differ in the share
alone, and so in the number of *ends*: f, and -f as well where f is two-sided. The + end of each of
the most frequent features has a child, a feature that occurs only where that end does. Results go
to result.json beside this file, or to --out.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch
from sae_lens import SAE
from sae_lens.synthetic import zipfian_firing_probabilities
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from studies.common import measured_with, write_result
from studies.synthetic import World, make_world, measure_all, read_config, row, seeded

HERE = Path(__file__).parent
COLUMNS = ("sae", "share", "l0_factor", "l0", "r2", "r2_sd", "f1", "joined", "absorption")
MIN_RECALL = 0.5
"""A side has found its parent where it is active in this share of the samples without the child."""


@dataclasses.dataclass(frozen=True)
class TwoSidedWorld(World):
    """Axis k < n_children has a child, axis n_axes - n_children + k, which is one-sided."""

    n_children: int

    def amplitudes(self, n: int) -> Tensor:
        """Draw (n, n_axes) signed amplitudes; a child occurs with its parent's + end alone."""
        amplitudes = super().amplitudes(n)
        if self.n_children:
            amplitudes[:, -self.n_children :] *= amplitudes[:, : self.n_children] > 0
        return amplitudes


def make_two_sided_world(data: Any, share: float, l0: float, seed: int) -> TwoSidedWorld:
    """Draw a world of which a share of the features that are no children is two-sided.

    Args:
        l0: mean number of features in a sample, children left out.
    """
    n_roots = data.n_features - data.n_children
    rates = zipfian_firing_probabilities(n_roots, 1.0, 0.3, 0.01)
    children = torch.full((data.n_children,), data.child_probability)
    probability = torch.cat([rates * (l0 / rates.sum()), children])
    with seeded(seed, 0):
        order = torch.randperm(n_roots)  # a feature that is two-sided at a share stays so above it
    signed = torch.zeros(data.n_features, dtype=torch.bool)
    signed[order[: round(share * n_roots)]] = True
    world = make_world(data, probability, signed, seed)
    return TwoSidedWorld(world.directions, world.generator, signed, data.noise, data.n_children)


class Ends(NamedTuple):
    """The side of a latent that is matched with each end of a feature.

    Attributes:
        features: (n_ends,) of each end; the ends f come first, in order, then the ends -f.
        signs: (n_ends,) 1 for f and -1 for -f.
        latents: (n_ends,) whose side is matched; -1 where none is.
        side_signs: (n_ends,) 1 for its + side and -1 for its - side.
    """

    features: Tensor
    signs: Tensor
    latents: Tensor
    side_signs: Tensor


def match_ends(directions: Tensor, has_side: Tensor, features: Tensor, two_sided: Tensor) -> Ends:
    """Match ends one-to-one with sides of latents, for the largest sum of cosines above 0.

    Args:
        directions: (n_latents, d_in) decoder rows.
        has_side: (n_latents, 2) bool, whether the + and the - side are ever active.
        features: (n_features, d_in).
        two_sided: (n_features,) bool.
    """
    cosine = normalize(directions.double(), dim=1) @ normalize(features.double(), dim=1).T
    latent, side = has_side.nonzero().unbind(1)
    feature = torch.cat([torch.arange(len(features)), two_sided.nonzero().flatten()])
    signs = torch.ones_like(feature)
    signs[len(features) :] = -1
    side_signs = 1 - 2 * side
    match = cosine[latent][:, feature] * torch.outer(side_signs, signs)
    sides, ends = map(torch.as_tensor, linear_sum_assignment(match.clamp(min=0), maximize=True))
    sides, ends = (index[match[sides, ends] > 0] for index in (sides, ends))
    latents, chosen = torch.full_like(feature, -1), torch.ones_like(feature)
    latents[ends], chosen[ends] = latent[sides], side_signs[sides]
    return Ends(feature, signs, latents, chosen)


def joined_share(ends: Ends) -> float | None:
    """Share of the two-sided features whose ends are the two sides of one latent."""
    minus = ends.signs < 0
    of_minus, of_plus = ends.latents[minus], ends.latents[ends.features[minus]]
    joined = (of_minus == of_plus) & (of_plus >= 0)
    return joined.double().mean().item() if len(joined) else None


def activity(ends: Ends, amplitudes: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Which ends occur in a sample, and which of their sides are active: two (n, n_ends) masks."""
    occurs = amplitudes[:, ends.features] * ends.signs > 0
    active = z[:, ends.latents.clamp(min=0)] * ends.side_signs > 0
    return occurs, active & (ends.latents >= 0)


def mean_f1(occurs: Tensor, active: Tensor) -> float:
    """The mean over ends that occur of 2 TP / (2 TP + FP + FN); an end without a side has 0."""
    true, either = (occurs & active).sum(0), occurs.sum(0) + active.sum(0)
    return (2 * true / either.clamp(min=1))[occurs.any(0)].double().mean().item()


def absorption(amplitudes: Tensor, active: Tensor, n_children: int) -> float | None:
    """By how much less often the side of a parent's + end is active where its child occurs too.

    A mean over the parents that were found; None where none was.
    """
    differences = []
    for parent in range(n_children):
        child = amplitudes[:, amplitudes.shape[1] - n_children + parent] > 0
        occurs, fires = amplitudes[:, parent] > 0, active[:, parent].double()
        with_child, without = fires[occurs & child], fires[occurs & ~child]
        if len(with_child) and len(without) and without.mean() >= MIN_RECALL:
            differences.append((without.mean() - with_child.mean()).item())
    return statistics.fmean(differences) if differences else None


@torch.no_grad()
def measure(sae: SAE[Any], world: TwoSidedWorld, amplitudes: Tensor, x: Tensor) -> dict[str, Any]:
    """What an SAE has found of its world."""
    z = sae.encode(x)
    has_side = torch.stack([(z > 0).any(0), (z < 0).any(0)], dim=1)
    ends = match_ends(sae.W_dec, has_side, world.directions, world.signed)
    occurs, active = activity(ends, amplitudes, z)
    return {
        "f1": mean_f1(occurs, active),
        "joined": joined_share(ends),
        "absorption": absorption(amplitudes, active, world.n_children),
    }


def run(config: Any) -> dict[str, Any]:
    """Train and measure every SAE at every share and L0."""
    data, training = config.data, config.training
    rows = []
    for share in data.shares:

        def prepare(seed: int, share: float = share) -> Any:
            world = make_two_sided_world(data, share, config.target_l0, seed)
            with seeded(seed, 1):
                train = world.activations(world.amplitudes(training.n_train))
                amplitudes = world.amplitudes(training.n_heldout)
                heldout = world.activations(amplitudes)
            return (
                train,
                heldout,
                functools.partial(measure, world=world, amplitudes=amplitudes, x=heldout),
            )

        for factor in data.l0_factors:
            found = measure_all(config, factor * config.target_l0, prepare)
            about = {"share": share, "l0_factor": factor}
            rows += [row({"sae": sae} | about | of, COLUMNS) for sae, of in found.items()]
    return {
        "measured_with": measured_with(),
        "target_l0": config.target_l0,
        "columns": list(COLUMNS),
        "rows": rows,
    }


def main() -> None:
    """Run the config beside this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "config.yaml")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    write_result(run(read_config(args.config)), args.out)


if __name__ == "__main__":
    main()
