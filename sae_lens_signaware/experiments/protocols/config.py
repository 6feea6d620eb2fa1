"""Protocol files: strict YAML, of which every SAE is checked before a sample is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sae_lens_signaware.checks import ConfigError, InvalidInputError, nearest
from sae_lens_signaware.experiments.protocols.data import (
    AnomalyData,
    ConsolidationData,
    DialData,
    TwoSidedData,
)
from sae_lens_signaware.experiments.protocols.data import WorldConfig as WorldConfig
from sae_lens_signaware.experiments.protocols.saes import Candidate, candidates_of
from sae_lens_signaware.training.strict import Count, StrictModel, read_config, validated
from sae_lens_signaware.training.values import check_ramps_of_l0, check_sae_values


class TrainingConfig(StrictModel):
    """Settings of the training, the same for every SAE.

    Attributes:
        n_steps, batch_size, lr: of Adam; the learning rate is constant.
        n_train: samples that are drawn once and trained on, in epochs.
        n_heldout: samples that are measured on.
        dead_feature_window: steps without firing after which SAELens counts a latent as dead.
    """

    n_steps: Count
    batch_size: Count
    lr: float = Field(gt=0)
    n_train: Count
    n_heldout: Count = Field(ge=2)  # R² of one is not defined
    dead_feature_window: Count = 100


class ProtocolConfig(StrictModel):
    """Fields that the protocols have in common.

    Attributes:
        protocol: which.
        seeds: of the world, its samples, the initial weights and the order of the batches.
        target_l0: mean number of active latents at which the SAEs are compared.
        saes: name -> ``architecture`` and its fields. An architecture that can be asked for an L0
            is asked for ``target_l0``. Of any other, exactly one field holds a list, all of its
            values are trained, and the one whose L0 is nearest counts.
        training: the same for all.
        threads: of torch; null leaves torch's own.
    """

    protocol: Literal["a", "b", "c", "e"]
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(min_length=1)
    target_l0: float = Field(gt=0)
    saes: dict[str, dict[str, object]] = Field(min_length=1)
    training: TrainingConfig
    threads: int | None = Field(default=None, gt=0, le=4096)
    data: Any

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return self.data.d_in

    @property
    def target_l0s(self) -> list[float]:
        """The L0s that SAEs are asked for."""
        return [self.target_l0]

    @property
    def n_worlds(self) -> int:
        """Number of worlds of a seed."""
        return 1

    @property
    def origin(self) -> str:
        """Where the protocol is from."""
        return "The protocol's name is that of arXiv 2605.28149; its details are ours."


class DialConfig(ProtocolConfig):
    """Config of protocol A."""

    data: DialData


class AnomalyConfig(ProtocolConfig):
    """Config of protocol B."""

    data: AnomalyData


class ConsolidationConfig(ProtocolConfig):
    """Config of protocol C.

    Attributes:
        reference: a name of ``saes``, whose R² is taken off that of the others.
    """

    data: ConsolidationData
    reference: str

    @property
    def n_worlds(self) -> int:
        """One for each share of pairs."""
        return len(self.data.pair_shares)


class TwoSidedConfig(ProtocolConfig):
    """Config of protocol E. Its ``target_l0`` is the L0 of the world."""

    data: TwoSidedData

    @property
    def target_l0s(self) -> list[float]:
        """``target_l0`` times each factor."""
        # 1.1 * 50 is 55.00000000000001, which is no k
        return [round(factor * self.target_l0, 9) for factor in self.data.l0_factors]

    @property
    def n_worlds(self) -> int:
        """One for each share."""
        return len(self.data.shares)

    @property
    def origin(self) -> str:
        """Ours."""
        return "The protocol is ours."


PROTOCOLS: dict[str, type[ProtocolConfig]] = {
    "a": DialConfig,
    "b": AnomalyConfig,
    "c": ConsolidationConfig,
    "e": TwoSidedConfig,
}


def load_protocol_config(path: str | Path) -> ProtocolConfig:
    """Read and check a protocol's file.

    Raises:
        ConfigError: anything wrong, in one line that names the field.
    """
    values = read_config(Path(path), "protocol")
    which = values.get("protocol")
    if not isinstance(which, str) or which not in PROTOCOLS:
        raise ConfigError(f"protocol: must be one of {', '.join(PROTOCOLS)}, got {which!r}")
    config = validated(PROTOCOLS[which], values)
    _check(config)
    for target_l0 in config.target_l0s:
        candidates = candidates_of(config.saes, target_l0, config.d_in, str(path))
        for name, found in candidates.items():
            _check_saes(name, found, config.training.n_steps)
        if isinstance(config, AnomalyConfig):
            _check_budgets(config.data, candidates)
    return config


def _check_saes(name: str, candidates: Sequence[Candidate], n_steps: int) -> None:
    try:
        for candidate in candidates:
            check_sae_values(candidate.cfg)
            check_ramps_of_l0(candidate.cfg, n_steps)
    except InvalidInputError as error:
        raise ConfigError(f"saes.{name}" + str(error).removeprefix("sae")) from None


def _check(config: ProtocolConfig) -> None:
    training = config.training
    if training.n_train < training.batch_size:
        raise ConfigError(
            f"training.n_train: must be at least batch_size = {training.batch_size}, "
            f"got {training.n_train}"
        )
    if len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"seeds: must be different ones, got {list(config.seeds)}")
    if isinstance(config, TwoSidedConfig):
        _check_two_sided(config.data, config.target_l0)
    if isinstance(config, ConsolidationConfig):
        _check_shares("pair_shares", config.data.pair_shares)
        if config.reference not in config.saes:
            raise ConfigError(
                f"reference: no SAE {config.reference!r}" + nearest(config.reference, config.saes)
            )


def _check_budgets(data: AnomalyData, candidates: Mapping[str, Sequence[Candidate]]) -> None:
    most = min(candidate.cfg.d_sae for found in candidates.values() for candidate in found)
    for n in data.budgets:
        if not 1 <= n <= most:
            raise ConfigError(
                f"data.budgets: must be from 1 to the narrowest d_sae, {most}, got {n}"
            )


def _check_shares(field: str, shares: tuple[float, ...]) -> None:
    for share in shares:
        if not 0 <= share <= 1:
            raise ConfigError(f"data.{field}: must be from 0 to 1, got {share}")


def _check_two_sided(data: TwoSidedData, l0: float) -> None:
    _check_shares("shares", data.shares)
    for factor in data.l0_factors:
        if factor <= 0:
            raise ConfigError(f"data.l0_factors: must be above 0, got {factor}")
    if 2 * data.n_children > data.n_features:
        raise ConfigError(
            "data.n_children: must be at most half of n_features = "
            f"{data.n_features}, got {data.n_children}"
        )
    if data.min_probability >= data.max_probability:
        raise ConfigError(
            "data.min_probability: must be below max_probability = "
            f"{data.max_probability}, got {data.min_probability}"
        )
    largest = data.probabilities(l0).max().item()
    if largest >= 1:
        raise ConfigError(
            "target_l0: must leave the most frequent feature a probability below 1, got "
            f"{l0:g}, which makes it {largest:.3g}"
        )
