"""Protocol C: does one latent carry both features of an antipodal pair?

Features 2k and 2k + 1 of the paired ones are antipodal and never fire together. Latent i carries
feature f on side s where

    s cos(d_i, f) >= 0.9    and    P(s z_i > 0 | f fires) > 0.5
"""

from collections.abc import Callable
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.synthetic import ActivationGenerator, FeatureDictionary, orthogonalize_embeddings
from torch import Tensor
from torch.nn.functional import normalize

from studies.synthetic import seeded, world_seed

COLUMNS = ("sae", "d_sae", "pair_share", "by_one_latent", "by_two", "r2", "l0")
MIN_COSINE, MIN_FIRING_SHARE = 0.9, 0.5


def antipodal(n_pairs: int) -> Callable[[FeatureDictionary], None]:
    """SAELens's orthogonalisation of the axes; feature 2k + 1 is minus feature 2k."""

    def initialise(dictionary: FeatureDictionary) -> None:
        axes = orthogonalize_embeddings(
            dictionary.feature_vectors[: dictionary.num_features - n_pairs]
        )
        pairs = torch.stack([axes[:n_pairs], -axes[:n_pairs]], dim=1).flatten(0, 1)
        dictionary.feature_vectors.data = torch.cat([pairs, axes[n_pairs:]])

    return initialise


def exclusive(n_pairs: int) -> Callable[[Tensor], Tensor]:
    """Silence one end of a pair where both fire; a fair coin says which."""

    def modify(activations: Tensor) -> Tensor:
        modified = activations.clone()
        ends = modified[:, : 2 * n_pairs].view(len(activations), n_pairs, 2)
        both = (ends > 0).all(2)
        loser = torch.randint(0, 2, both.shape)
        ends[torch.stack([both & (loser == 0), both & (loser == 1)], dim=2)] = 0.0
        return modified

    return modify


def carried(directions: Tensor, z: Tensor, vectors: Tensor, features: Tensor) -> Tensor:
    """Whether latent i carries feature f, on whichever side: (d_sae, n_features) bool.

    Args:
        directions: (d_sae, d_in) of the decoder.
        z: (n, d_sae) latents.
        vectors: (n_features, d_in).
        features: (n, n_features) activations, >= 0; one that never fires is carried by none.
    """
    cosine = normalize(directions, dim=1) @ normalize(vectors, dim=1).T
    fires = (features > 0).to(z)
    n_fired = fires.sum(0).clamp(min=1)
    on_pos, on_neg = ((side.to(z).T @ fires) / n_fired for side in (z > 0, z < 0))
    pos = (cosine >= MIN_COSINE) & (on_pos > MIN_FIRING_SHARE)
    return pos | ((-cosine >= MIN_COSINE) & (on_neg > MIN_FIRING_SHARE))


def pair_shares(carries: Tensor, n_pairs: int) -> dict[str, float | None]:
    """Share of the pairs that one latent carries, and of those that two carry; None without any."""
    if n_pairs == 0:
        return {"by_one_latent": None, "by_two": None}
    first, second = carries[:, : 2 * n_pairs].unflatten(1, (n_pairs, 2)).unbind(2)
    one = (first & second).any(0)
    two = ~one & first.any(0) & second.any(0)
    return {"by_one_latent": one.double().mean().item(), "by_two": two.double().mean().item()}


def prepare(config: Any, seed: int, share: float) -> Any:
    """The samples of a seed at a share of pairs, and the measure."""
    data, training = config.data, config.training
    n_pairs = min(round(share * data.n_features / 2), data.n_features // 2)
    probability = torch.full((data.n_features,), data.firing_probability)
    # so that what is left of each end after the exclusion is that rate: q - q^2 / 2 = p
    probability[: 2 * n_pairs] = 1 - (1 - 2 * data.firing_probability) ** 0.5
    with seeded(seed, 0):
        dictionary = FeatureDictionary(
            data.n_features, data.d_in, initializer=antipodal(n_pairs), seed=world_seed(seed, 2)
        )
    generator = ActivationGenerator(
        data.n_features,
        probability,
        std_firing_magnitudes=data.magnitude_sd,
        modify_activations=exclusive(n_pairs),
    )

    @torch.no_grad()
    def draw(n: int) -> tuple[Tensor, Tensor]:
        features = generator.sample(n)
        x = dictionary(features)
        return features, x + data.noise * torch.randn_like(x)

    with seeded(seed, 1):
        _, train = draw(training.n_train)
        features, heldout = draw(training.n_heldout)
    vectors = dictionary.feature_vectors.detach()

    @torch.no_grad()
    def measure(sae: SAE[Any]) -> dict[str, Any]:
        carries = carried(sae.W_dec, sae.encode(heldout), vectors, features)
        return {"d_sae": sae.cfg.d_sae} | pair_shares(carries, n_pairs)

    return train, heldout, measure
