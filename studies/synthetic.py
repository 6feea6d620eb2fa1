"""Worlds of sparse signed axes from SAELens's synthetic models, and the SAEs that train on them.

x = sum_k a_k f_k + noise        a_k in {0, +m, -m}, m = relu(1 + magnitude_sd * normal)
"""

import contextlib
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from sae_lens import SAE, TrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.synthetic import ActivationGenerator, FeatureDictionary
from torch import Tensor

from sae_lens_signaware.evaluation.measures import measure_quality
from sae_lens_signaware.evaluation.saved import save_and_measure
from sae_lens_signaware.training.cached import train_on_cache

MEETS_TARGET_L0 = ("sa_gsae", "bi_jumprelu")
"""Architectures whose ``target_l0`` steers the training."""


def read_config(path: Path) -> SimpleNamespace:
    """A config as ``config.data.d_in``; ``saes`` stays a dictionary."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name in ("data", "training"):
        values[name] = SimpleNamespace(**values[name])
    return SimpleNamespace(**values)


def world_seed(seed: int, stream: int) -> int:
    """A seed of torch's generator for every seed of a study and stream of its world.

    Far from those that SAEs are trained with: from one seed torch draws the normal features of a
    world and the uniform initial weights of an SAE out of the same random bits.
    """
    return 1_000_000 + 1_000 * seed + stream


@contextlib.contextmanager
def seeded(seed: int, stream: int) -> Iterator[None]:
    """Set torch's global generator, which SAELens's worlds draw from; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world_seed(seed, stream))
        yield


@dataclasses.dataclass(frozen=True)
class World:
    """Axes and how they occur.

    Attributes:
        directions: (n_axes, d_in) of unit norm.
        generator: of the magnitudes, (n, n_axes).
        signed: (n_axes,) bool, whether an axis occurs on both sides, equally often.
        noise: standard deviation in each coordinate.
    """

    directions: Tensor
    generator: ActivationGenerator
    signed: Tensor
    noise: float

    def amplitudes(self, n: int) -> Tensor:
        """Draw (n, n_axes) signed amplitudes."""
        magnitudes = self.generator.sample(n)
        negative = (torch.rand_like(magnitudes) < 0.5) & self.signed
        return torch.where(negative, -magnitudes, magnitudes)

    def activations(self, amplitudes: Tensor) -> Tensor:
        """The (n, d_in) activations of these amplitudes, with noise."""
        x = amplitudes @ self.directions
        return x + self.noise * torch.randn_like(x)


def make_world(data: Any, probability: Tensor, signed: Tensor, seed: int) -> World:
    """Draw the directions of a world.

    Args:
        data: with ``d_in``, ``magnitude_sd`` and ``noise``.
        probability: (n_axes,) of each axis, both signs together.
    """
    n_axes = len(probability)
    with seeded(seed, 0):
        dictionary = FeatureDictionary(n_axes, data.d_in, seed=world_seed(seed, 2))
    return World(
        directions=dictionary.feature_vectors.detach(),
        generator=ActivationGenerator(n_axes, probability, std_firing_magnitudes=data.magnitude_sd),
        signed=signed,
        noise=data.noise,
    )


def candidates(fields: Mapping[str, Any], target_l0: float, d_in: int) -> list[TrainingSAEConfig]:
    """The trainings of an SAE: one by ``k`` or ``target_l0``, else one for each value of a list."""
    config_class = get_sae_training_class(fields["architecture"])[1]
    values = {name: value for name, value in fields.items() if name != "architecture"}
    values |= {"d_in": d_in, "normalize_activations": "expected_average_only_in"}
    if "k" in {field.name for field in dataclasses.fields(config_class)}:
        # a TopK's k is a whole number
        grid = {"k": [int(target_l0) if target_l0 == int(target_l0) else target_l0]}
    elif fields["architecture"] in MEETS_TARGET_L0:
        grid = {"target_l0": [target_l0]}
    else:
        grid = {n: v for n, v in values.items() if isinstance(v, list) and "widths" not in n}
    ((name, values_of_grid),) = grid.items()
    return [config_class(**{**values, name: value}) for value in values_of_grid]


def train(cfg: TrainingSAEConfig, training: Any, activations: Tensor, seed: int) -> SAE[Any]:
    """Train at a constant learning rate, and load what SAELens saves for inference."""
    trainer = SAETrainerConfig(
        total_training_samples=training.n_steps * training.batch_size,
        train_batch_size_samples=training.batch_size,
        lr=training.lr,
        lr_end=training.lr,
        dead_feature_window=100,
        n_batches_for_norm_estimate=training.n_train // training.batch_size,
    )
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        trained = train_on_cache(cfg, trainer, activations, seed)
        return save_and_measure(trained, Path(folder) / "sae", activations[:2], "").sae


def quality_of(sae: SAE[Any], samples: Tensor) -> dict[str, float]:
    """L0, R² and the dead share."""
    quality, _ = measure_quality(sae, samples.split(2048), "synthetic samples")
    return {
        "l0": quality.l0,
        "r2": quality.explained_variance,
        "dead_share": quality.dead_share,
    }


def measure_all(
    config: Any, target_l0: float, prepare: Callable[[int], tuple[Tensor, Tensor, Callable]]
) -> dict[str, dict[str, float | None]]:
    """Train and measure every SAE on the world of every seed; means over seeds by name.

    An SAE that cannot be asked for an L0 is trained with every coefficient of its list, and the one
    whose L0 on training samples is nearest in log counts. One that diverges does not count.

    Args:
        prepare: a seed -> training samples, held-out samples, and what is measured of an SAE: a
            function of it that gives a dictionary.
    """
    found: dict[str, list[dict[str, float | None]]] = {name: [] for name in config.saes}
    for seed in config.seeds:
        activations, heldout, measure = prepare(seed)
        for name, fields in config.saes.items():
            best: tuple[float, SAE[Any]] | None = None
            for cfg in candidates(fields, target_l0, config.data.d_in):
                try:
                    sae = train(cfg, config.training, activations, seed)
                except RuntimeError as error:
                    print(f"{name}, seed {seed}: {error}")
                    continue
                l0 = quality_of(sae, activations[: len(heldout)])["l0"]
                distance = abs(math.log(max(l0, 1e-6) / target_l0))
                if best is None or distance < best[0]:
                    best = distance, sae
            assert best is not None, f"{name}: every training of seed {seed} failed"
            found[name].append(quality_of(best[1], heldout) | measure(best[1]))
            print(f"{name}, seed {seed}, target L0 {target_l0:g}: {found[name][-1]}", flush=True)
    return {name: means(of_seeds) for name, of_seeds in found.items()}


def means(of_seeds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each value over the seeds that have it, and its sample deviation as "NAME_sd"."""
    result: dict[str, float | None] = {}
    for name in of_seeds[0]:
        known = [v for one in of_seeds if (v := one[name]) is not None and math.isfinite(v)]
        result[name] = statistics.fmean(known) if known else None
        result[f"{name}_sd"] = statistics.stdev(known) if len(known) > 1 else None
    return result


def row(values: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    """The values of a row of ``result.json``, rounded."""
    return [round(v, 6) if isinstance(v := values[name], float) else v for name in columns]
