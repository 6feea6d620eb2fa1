"""Protocol C, consolidation of antipodal pairs: does one latent carry both ends?

Features 2k and 2k + 1 of the paired ones are antipodal and never fire together. Latent i carries
feature f on side s where

    s cos(d_i, f) >= min_cosine    and    P(s z_i > 0 | f fires) > min_firing_share
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.synthetic import (
    ActivationGenerator,
    FeatureDictionary,
    FeatureDictionaryInitializer,
    orthogonalize_embeddings,
)
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.evaluation.streaming import decoder_directions
from sae_lens_signaware.experiments.protocols.config import ConsolidationConfig
from sae_lens_signaware.experiments.protocols.data import ConsolidationData
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
from sae_lens_signaware.experiments.protocols.world import seeded, world_seed
from sae_lens_signaware.printing import percent

COLUMNS = [
    *("SAE", "d_sae", "pair share", "by one latent", "by one latent sd", "by two", "features"),
    *("R2", "R2 sd", "R2 less reference", "L0", "dead"),
]


@dataclasses.dataclass(frozen=True)
class ToyModel:
    """SAELens's synthetic model with antipodal pairs.

    Attributes:
        dictionary, generator: SAELens's.
        n_pairs: features 2k and 2k + 1 are a pair for k < n_pairs.
        noise: standard deviation in each coordinate.
    """

    dictionary: FeatureDictionary
    generator: ActivationGenerator
    n_pairs: int
    noise: float

    @torch.no_grad()
    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw feature activations (n, n_features) and activations (n, d_in).

        Both come from torch's global generator.
        """
        features = self.generator.sample(n)
        x = self.dictionary(features)
        return features, x + self.noise * torch.randn_like(x)


@dataclasses.dataclass(frozen=True)
class Consolidation:
    """Shares of the pairs and features that latents carry.

    Attributes:
        by_one: share of the pairs of which one latent carries both ends; None without pairs.
        by_two: share of the pairs of which no latent carries both ends, but two carry one each.
        features: share of all features that some latent carries.
    """

    by_one: float | None
    by_two: float | None
    features: float


def antipodal_initializer(n_pairs: int) -> FeatureDictionaryInitializer:
    """Apply SAELens's orthogonalisation to the axes; feature 2k + 1 is minus feature 2k."""

    def initialise(dictionary: FeatureDictionary) -> None:
        n_axes = dictionary.num_features - n_pairs
        axes = orthogonalize_embeddings(dictionary.feature_vectors[:n_axes])
        pairs = torch.stack([axes[:n_pairs], -axes[:n_pairs]], dim=1).flatten(0, 1)
        dictionary.feature_vectors.data = torch.cat([pairs, axes[n_pairs:]])

    return initialise


def exclusive_pairs(n_pairs: int) -> Callable[[Tensor], Tensor]:
    """Make an activations modifier that silences one of the ends of a pair where both fire.

    A fair coin says which.
    """

    def modify(activations: Tensor) -> Tensor:
        modified = activations.clone()
        ends = modified[:, : 2 * n_pairs].view(len(activations), n_pairs, 2)
        both = (ends > 0).all(2)
        loser = torch.randint(0, 2, both.shape)
        ends[torch.stack([both & (loser == 0), both & (loser == 1)], dim=2)] = 0.0
        return modified

    return modify


def probability_before_exclusion(p: float) -> float:
    """Return the rate q of each end for which p is left: q - q^2 / 2 = p.

    Both ends fire at a rate of q^2, and each is silenced in half of these cases.
    """
    return 1 - (1 - 2 * p) ** 0.5


def make_toy_model(data: ConsolidationData, pair_share: float, seed: int) -> ToyModel:
    """Draw a toy model.

    Every feature fires at the same rate, paired or not, so that worlds differ in the pairing alone.
    """
    n_pairs = min(round(pair_share * data.n_features / 2), data.n_features // 2)
    probability = torch.full((data.n_features,), data.firing_probability)
    probability[: 2 * n_pairs] = probability_before_exclusion(data.firing_probability)
    with seeded(seed, 0):
        dictionary = FeatureDictionary(
            data.n_features,
            data.d_in,
            initializer=antipodal_initializer(n_pairs),
            seed=world_seed(seed, 2),
        )
    generator = ActivationGenerator(
        data.n_features,
        probability,
        std_firing_magnitudes=data.magnitude_sd,
        modify_activations=exclusive_pairs(n_pairs),
    )
    return ToyModel(dictionary, generator, n_pairs, data.noise)


def carried(
    directions: Tensor,
    z: Tensor,
    vectors: Tensor,
    features: Tensor,
    min_cosine: float,
    min_firing_share: float,
) -> Tensor:
    """Tell whether latent i carries feature f, on whichever side: (d_sae, n_features) bool.

    Args:
        directions: (d_sae, d_in) of the decoder.
        z: (n, d_sae) latents.
        vectors: (n_features, d_in).
        features: (n, n_features) activations, >= 0; one that never fires is carried by none.
    """
    cosine = normalize(directions, dim=1) @ normalize(vectors, dim=1).T
    fires = (features > 0).to(z.dtype)
    n_fired = fires.sum(0).clamp(min=1)
    on_pos, on_neg = ((side.to(z.dtype).T @ fires) / n_fired for side in (z > 0, z < 0))
    pos = (cosine >= min_cosine) & (on_pos > min_firing_share)
    neg = (-cosine >= min_cosine) & (on_neg > min_firing_share)
    return pos | neg


def consolidation_of(carries: Tensor, n_pairs: int) -> Consolidation:
    """Compute shares of pairs and features from what :func:`carried` gives.

    The ends of a pair are antipodal, so a latent that carries both has one on each side.
    """
    features = carries.any(0).double().mean().item()
    if n_pairs == 0:
        return Consolidation(None, None, features)
    first, second = carries[:, : 2 * n_pairs].unflatten(1, (n_pairs, 2)).unbind(2)
    one = (first & second).any(0)
    two = ~one & first.any(0) & second.any(0)
    return Consolidation(one.double().mean().item(), two.double().mean().item(), features)


@torch.no_grad()
def measure_consolidation(
    sae: SAE[Any], model: ToyModel, features: Tensor, x: Tensor, data: ConsolidationData
) -> Consolidation:
    """Measure one SAE on samples of the toy model."""
    vectors = model.dictionary.feature_vectors.detach()
    carries = carried(
        decoder_directions(sae),
        sae.encode(x),
        vectors,
        features,
        data.min_cosine,
        data.min_firing_share,
    )
    return consolidation_of(carries, model.n_pairs)


def run(config: ConsolidationConfig, command: str, advance: Advance) -> ProtocolResult:
    """Train and measure every SAE on every seed at every share of pairs."""
    data, training = config.data, config.training

    def prepare(share: float, seed: int) -> Prepared[Consolidation]:
        model = make_toy_model(data, share, seed)
        with seeded(seed, 1):
            _, train = model.sample(training.n_train)
            features, heldout = model.sample(training.n_heldout)
        measure = functools.partial(
            measure_consolidation, model=model, features=features, x=heldout, data=data
        )
        return Prepared(train, heldout, measure)

    rows: list[list[TableValue]] = []
    collected: list[Collected[Consolidation]] = []
    for share in data.pair_shares:
        of_share = functools.partial(prepare, share)
        collected.append(collect(config, config.target_l0, of_share, advance))
        measures = collected[-1].measures
        reference = [quality for quality, _ in measures[config.reference]]
        rows += [_row(name, share, runs, reference) for name, runs in measures.items()]
    return make_result(
        config,
        title="Protocol C, consolidation of antipodal pairs",
        question="of planted antipodal pairs, how many does one latent carry, and what does it "
        "cost where such pairs are rare?",
        columns=COLUMNS,
        rows=rows,
        notes=_notes(config),
        collected=collected,
        command=command,
    )


def _notes(config: ConsolidationConfig) -> list[str]:
    data = config.data
    return [
        "by one latent: share of the pairs of which one latent carries both ends; by two: of which "
        "two latents carry an end each. A latent carries an end where its decoder cosine is "
        f"{data.min_cosine:g} or more and it is active on the right side in more than "
        f"{percent(data.min_firing_share)} of the end's firings. features: share of all features, "
        "paired or not, that a latent carries.",
        f"R2 less reference: less that of {config.reference} on the same seeds; at a pair share of "
        "0 it is the cost of a narrow signed dictionary where there is nothing to consolidate.",
        f"World: {data.n_features} features in {data.d_in} dimensions, the axes nearly "
        f"orthogonal, every feature at a rate of {data.firing_probability:g}; pair share 1 leaves "
        f"{data.n_features - data.n_features // 2} axes.",
    ]


def _row(
    name: str,
    share: float,
    runs: list[tuple[SAEQuality, Consolidation]],
    reference: list[SAEQuality],
) -> list[TableValue]:
    qualities, shares = [q for q, _ in runs], [c for _, c in runs]
    one, r2 = [c.by_one for c in shares], [q.explained_variance for q in qualities]
    gaps = [a - b.explained_variance for a, b in zip(r2, reference, strict=True)]
    return [
        name,
        qualities[0].d_sae,
        share,
        mean_of(one),
        sd_of(one),
        mean_of([c.by_two for c in shares]),
        mean_of([c.features for c in shares]),
        mean_of(r2),
        sd_of(r2),
        mean_of(gaps),
        mean_of([q.l0 for q in qualities]),
        mean_of([q.dead_share for q in qualities]),
    ]
