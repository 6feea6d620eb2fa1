"""Protocol E, worlds with a share of two-sided features: when is a signed SAE the right one? Ours.

    x = sum_k a_k f_k + noise        a_k in {0, +m, -m} for a share p of the features, else {0, m}

Features are more than dimensions, and their rates are Zipfian, as in SAELens's synthetic models.
Worlds of a seed differ in p alone, and so in the number of ends: f, and -f as well where f is
two-sided. The + end of each of the most frequent features has a child, a feature that occurs only
where that end does.
"""

import dataclasses
import functools
import itertools
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.synthetic import (
    ActivationGenerator,
    FeatureDictionary,
    mean_correlation_coefficient,
)
from torch import Tensor

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.evaluation.streaming import decoder_directions
from sae_lens_signaware.experiments.protocols.config import TwoSidedConfig
from sae_lens_signaware.experiments.protocols.data import TwoSidedData
from sae_lens_signaware.experiments.protocols.ends import (
    ends_active,
    match_ends,
    signed_f1,
    signed_mcc,
)
from sae_lens_signaware.experiments.protocols.result import (
    ProtocolResult,
    TableValue,
    mean_of,
    sd_of,
)
from sae_lens_signaware.experiments.protocols.summary import (
    Collected,
    Prepared,
    collect,
    make_result,
)
from sae_lens_signaware.experiments.protocols.training import Advance
from sae_lens_signaware.experiments.protocols.world import World, seeded, world_seed

COLUMNS = [
    *("SAE", "d_sae", "two-sided share", "L0 factor", "R2", "R2 sd", "F1", "F1 sd"),
    *("signed MCC", "signed MCC sd", "MCC", "joined"),
    *("absorption", "absorption sd", "parents found", "L0", "dead"),
]
MIN_RECALL = 0.5
"""A side has found its parent where it is active in this share of the samples without the child."""


@dataclasses.dataclass(frozen=True)
class TwoSidedWorld(World):
    """A world of more axes than dimensions, some of which occur only with others.

    Attributes:
        n_children: axis k < n_children has a child, the axis n_axes - n_children + k, which occurs
            with its + end alone. Children are one-sided.
    """

    n_children: int

    def amplitudes(self, n: int) -> Tensor:
        """Draw (n, n_axes) signed amplitudes from torch's global generator."""
        amplitudes, n_children = super().amplitudes(n), self.n_children
        if n_children:
            amplitudes[:, -n_children:] *= amplitudes[:, :n_children] > 0
        return amplitudes

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw (n, n_axes) signed amplitudes and their (n, d_in) activations."""
        amplitudes = self.amplitudes(n)
        return amplitudes, self.activations(amplitudes)


def make_two_sided_world(data: TwoSidedData, share: float, l0: float, seed: int) -> TwoSidedWorld:
    """Draw a world; worlds of a seed differ in which features are two-sided alone.

    Args:
        share: of the features that are not children.
        l0: mean number of features in a sample, children left out.
    """
    n_roots = data.n_features - data.n_children
    children = torch.full((data.n_children,), data.child_probability)
    probability = torch.cat([data.probabilities(l0), children])
    two_sided = torch.zeros(data.n_features, dtype=torch.bool)
    with seeded(seed, 0):
        dictionary = FeatureDictionary(data.n_features, data.d_in, seed=world_seed(seed, 2))
        # nested: a feature that is two-sided at a share is so at each larger one
        order = torch.randperm(n_roots)
    two_sided[order[: round(share * n_roots)]] = True
    generator = ActivationGenerator(
        data.n_features, probability, std_firing_magnitudes=data.magnitude_sd
    )
    return TwoSidedWorld(
        directions=dictionary.feature_vectors.detach(),
        generator=generator,
        signed=two_sided,
        noise=data.noise,
        n_background=n_roots,
        n_children=data.n_children,
    )


@dataclasses.dataclass(frozen=True)
class Measures:
    """What an SAE has found of a world; None where the world has no such feature.

    Attributes:
        f1, mcc, joined: :func:`signed_f1` and :func:`signed_mcc` of the ends.
        unsigned_mcc: SAELens's ``mean_correlation_coefficient``.
        absorption: by how much less often the side of a parent's + end is active where the child
            occurs too, of the samples with that end. A mean over the parents that were found.
        found: share of the parents that were found.
    """

    f1: float
    mcc: float
    joined: float | None
    unsigned_mcc: float
    absorption: float | None
    found: float | None


def absorption_of(
    amplitudes: Tensor, active: Tensor, n_children: int
) -> tuple[float | None, float | None]:
    """Average over the parents found: how often the side is active without the child, less with it.

    A parent that no side stands for has nothing to absorb, and does not count.

    Args:
        amplitudes: (n, n_features), signed.
        active: (n, n_ends), of which the first are those of the + ends, in order.

    Returns:
        The mean, None where no parent was found. Then the share of the parents that were, None
        where no parent occurs both with and without its child.
    """
    differences: list[float] = []
    n_parents = 0
    for parent in range(n_children):
        child = amplitudes[:, amplitudes.shape[1] - n_children + parent] > 0
        occurs, fires = amplitudes[:, parent] > 0, active[:, parent].double()
        with_child, without = fires[occurs & child], fires[occurs & ~child]
        if len(with_child) and len(without):
            n_parents += 1
            if without.mean() >= MIN_RECALL:
                differences.append((without.mean() - with_child.mean()).item())
    return mean_of(differences), len(differences) / n_parents if n_parents else None


@torch.no_grad()
def measure_world(sae: SAE[Any], world: TwoSidedWorld, amplitudes: Tensor, x: Tensor) -> Measures:
    """Measure one SAE on samples of its world."""
    z, directions = sae.encode(x), decoder_directions(sae)
    has_side = torch.stack([(z > 0).any(0), (z < 0).any(0)], dim=1)
    matching = match_ends(directions, has_side, world.directions, world.signed)
    occurs, active = ends_active(matching, amplitudes, z)
    mcc, joined = signed_mcc(matching)
    absorption, found = absorption_of(amplitudes, active, world.n_children)
    return Measures(
        f1=signed_f1(occurs, active),
        mcc=mcc,
        joined=joined if world.signed.any() else None,
        unsigned_mcc=mean_correlation_coefficient(directions, world.directions),
        absorption=absorption,
        found=found,
    )


def run(config: TwoSidedConfig, command: str, advance: Advance) -> ProtocolResult:
    """Train and measure every SAE on every seed at every share and L0."""
    data, training = config.data, config.training

    def prepare(share: float, seed: int) -> Prepared[Measures]:
        world = make_two_sided_world(data, share, config.target_l0, seed)
        with seeded(seed, 1):
            _, train = world.sample(training.n_train)
            amplitudes, heldout = world.sample(training.n_heldout)
        measure = functools.partial(measure_world, world=world, amplitudes=amplitudes, x=heldout)
        return Prepared(train, heldout, measure)

    rows: list[list[TableValue]] = []
    collected: list[Collected[Measures]] = []
    asked = zip(data.l0_factors, config.target_l0s, strict=True)
    for share, (factor, l0) in itertools.product(data.shares, asked):
        of_share = functools.partial(prepare, share)
        collected.append(collect(config, l0, of_share, advance))
        measures = collected[-1].measures
        rows += [_row(name, share, factor, runs) for name, runs in measures.items()]
    return make_result(
        config,
        title="Protocol E, a share of two-sided features",
        question="from which share of two-sided features on is a signed SAE the better one?",
        columns=COLUMNS,
        rows=rows,
        notes=_notes(config),
        collected=collected,
        command=command,
    )


def _notes(config: TwoSidedConfig) -> list[str]:
    data = config.data
    n_roots = data.n_features - data.n_children
    return [
        "F1: mean over the ends of the features, f and -f where f is two-sided, of the F1 of the "
        "side that is matched with the end; signed MCC: mean of their cosines; an end without a "
        "side counts as 0. MCC: SAELens's, which is blind to sign. joined: share of the two-sided "
        "features whose ends are two sides of one latent.",
        "absorption: by how much less often the side of a parent's + end is active where its child "
        f"occurs too, over the parents found, whose side is active in {MIN_RECALL:.0%} of the "
        "samples without the child.",
        f"World: {n_roots} features in {data.d_in} dimensions at Zipfian rates, "
        f"{config.target_l0:g} of them a sample, and {data.n_children} children, each of which "
        f"occurs in {data.child_probability:g} of the samples with its parent's + end. L0 is asked "
        "for as a factor of that number.",
    ]


def _row(
    name: str, share: float, factor: float, runs: list[tuple[SAEQuality, Measures]]
) -> list[TableValue]:
    qualities, measures = [q for q, _ in runs], [m for _, m in runs]
    r2, f1 = [q.explained_variance for q in qualities], [m.f1 for m in measures]
    mcc, absorption = [m.mcc for m in measures], [m.absorption for m in measures]
    return [
        name,
        qualities[0].d_sae,
        share,
        factor,
        mean_of(r2),
        sd_of(r2),
        mean_of(f1),
        sd_of(f1),
        mean_of(mcc),
        sd_of(mcc),
        mean_of([m.unsigned_mcc for m in measures]),
        mean_of([m.joined for m in measures]),
        mean_of(absorption),
        sd_of(absorption),
        mean_of([m.found for m in measures]),
        mean_of([q.l0 for q in qualities]),
        mean_of([q.dead_share for q in qualities]),
    ]
