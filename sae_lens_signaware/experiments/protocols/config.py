"""Protocol files: strict YAML, of which every SAE is checked before a sample is drawn."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from sae_lens.synthetic import zipfian_firing_probabilities
from torch import Tensor

from sae_lens_signaware.checks import ConfigError, nearest
from sae_lens_signaware.experiments.protocols.saes import candidates_of
from sae_lens_signaware.training.strict import StrictModel, read_yaml, validated


class TrainingConfig(StrictModel):
    """Settings of the training, the same for every SAE.

    Attributes:
        n_steps, batch_size, lr: of Adam; the learning rate is constant.
        n_train: samples that are drawn once and trained on, in epochs.
        n_heldout: samples that are measured on.
        dead_feature_window: steps without firing after which SAELens counts a latent as dead.
    """

    n_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    n_train: int = Field(gt=0)
    n_heldout: int = Field(ge=2)  # R² of one is not defined
    dead_feature_window: int = Field(default=100, gt=0)


class WorldConfig(StrictModel):
    """Sparse features on nearly orthogonal axes, and noise.

    Attributes:
        d_in: width of the activations.
        n_background: background axes.
        signed_share: share of these that occur on both sides, equally often.
        firing_probability: of each background axis.
        magnitude_sd: magnitudes are relu(1 + magnitude_sd * normal).
        noise: standard deviation of the noise in each coordinate.
    """

    d_in: int = Field(gt=0)
    n_background: int = Field(gt=0)
    signed_share: float = Field(ge=0, le=1)
    firing_probability: float = Field(gt=0, lt=1)
    magnitude_sd: float = Field(ge=0)
    noise: float = Field(ge=0)

    @property
    def n_signed(self) -> int:
        """Background axes that occur on both sides."""
        return round(self.signed_share * self.n_background)

    def size(self, n_extra: int) -> str:
        """Say how many axes and ends there are with ``n_extra`` more signed axes."""
        n_axes = self.n_background + n_extra
        return (
            f"{n_axes} axes with {n_axes + self.n_signed + n_extra} ends. "
            "A signed latent can carry an axis, a plain one an end."
        )


class DialData(WorldConfig):
    """Protocol A: one more axis, signed, with another gain on each side.

    Attributes:
        gain_pos, gain_neg: the world's response to one unit of the dial on each side.
        axis_probability: of the axis, both signs together, equally often.
        dial_max: the dial goes from -dial_max to dial_max.
        n_points: of the dial on each side.
        n_base: samples without the axis that the dial is added to.
    """

    gain_pos: float = Field(gt=0)
    gain_neg: float = Field(gt=0)
    axis_probability: float = Field(gt=0, lt=1)
    dial_max: float = Field(gt=0)
    n_points: int = Field(gt=0)
    n_base: int = Field(gt=0)


class AnomalyData(WorldConfig):
    """Protocol B: axes that are rare in training, and anomalies along them.

    An anomaly is a shift along one of these axes, to either side.

    Attributes:
        n_planted: number of these axes.
        planted_rate: of each of them in training, both signs together.
        delta: mean size of a shift, in training as well.
        n_labelled: samples of each labelled split, half of them anomalies.
        budgets: numbers of latents.
        false_alarms: share of normal samples that the threshold of the decision lets through.
    """

    n_planted: int = Field(gt=0)
    planted_rate: float = Field(gt=0, lt=1)
    delta: float = Field(gt=0)
    n_labelled: int = Field(ge=4)
    budgets: tuple[int, ...] = Field(min_length=1)
    false_alarms: float = Field(gt=0, lt=1)


class ConsolidationData(StrictModel):
    """Protocol C: features of which a share come in antipodal pairs that exclude each other.

    Attributes:
        d_in, n_features: of the toy model.
        pair_shares: shares of the features that are paired, one world each.
        firing_probability: of each feature, paired or not.
        magnitude_sd, noise: as in the other protocols.
        min_cosine: least cosine of a decoder row that carries a feature.
        min_firing_share: share of the feature's firings above which a latent that is active on the
            right side carries it.
    """

    d_in: int = Field(gt=0)
    n_features: int = Field(gt=1)
    pair_shares: tuple[float, ...] = Field(min_length=1)
    firing_probability: float = Field(gt=0, lt=0.5)
    magnitude_sd: float = Field(ge=0)
    noise: float = Field(ge=0)
    min_cosine: float = Field(default=0.9, gt=0, le=1)
    min_firing_share: float = Field(default=0.5, ge=0, lt=1)


class TwoSidedData(StrictModel):
    """Protocol E: more features than dimensions, of which a share is two-sided.

    Attributes:
        d_in, n_features: of the world; n_features counts the children.
        shares: shares of the features that are two-sided, one world each.
        l0_factors: L0s that the SAEs are asked for, as factors of ``target_l0``, which is the mean
            number of features in a sample.
        n_children: features that occur only with the + end of one of the most frequent features.
        child_probability: of a child in such a sample.
        exponent, max_probability, min_probability: of SAELens's Zipfian firing probabilities,
            before they are scaled to ``target_l0``.
        magnitude_sd, noise: as in the other protocols.
    """

    d_in: int = Field(gt=0)
    n_features: int = Field(gt=1)
    shares: tuple[float, ...] = Field(min_length=1)
    l0_factors: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    n_children: int = Field(default=0, ge=0)
    child_probability: float = Field(default=0.3, gt=0, lt=1)
    exponent: float = Field(default=1.0, ge=0)
    max_probability: float = Field(default=0.3, gt=0, lt=1)
    min_probability: float = Field(default=0.01, gt=0, lt=1)
    magnitude_sd: float = Field(ge=0)
    noise: float = Field(ge=0)

    def probabilities(self, l0: float) -> Tensor:
        """Zipfian firing probabilities of the features that are no children, in sum ``l0``."""
        rates = zipfian_firing_probabilities(
            self.n_features - self.n_children,
            self.exponent,
            self.max_probability,
            self.min_probability,
        )
        return rates * (l0 / rates.sum())


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
    threads: int | None = Field(default=None, gt=0)
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
        return [factor * self.target_l0 for factor in self.data.l0_factors]

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
    values = read_yaml(Path(path))
    which = values.get("protocol")
    if not isinstance(which, str) or which not in PROTOCOLS:
        raise ConfigError(f"protocol: must be one of {', '.join(PROTOCOLS)}, got {which!r}")
    config = validated(PROTOCOLS[which], values)
    _check(config)
    for target_l0 in config.target_l0s:
        candidates_of(config.saes, target_l0, config.d_in, str(path))
    return config


def _check(config: ProtocolConfig) -> None:
    training = config.training
    if training.n_train < training.batch_size:
        raise ConfigError(
            f"training.n_train: must be at least batch_size = {training.batch_size}, "
            f"got {training.n_train}"
        )
    if len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"seeds: must be different ones, got {list(config.seeds)}")
    if isinstance(config, AnomalyConfig):
        widths = [fields.get("d_sae") for fields in config.saes.values()]
        most = min((w for w in widths if isinstance(w, int)), default=None)
        for n in config.data.budgets:
            if n < 1 or (most is not None and n > most):
                raise ConfigError(
                    f"data.budgets: must be from 1 to the narrowest d_sae, {most}, got {n}"
                )
    if isinstance(config, TwoSidedConfig):
        _check_two_sided(config.data, config.target_l0)
    if isinstance(config, ConsolidationConfig):
        _check_shares("pair_shares", config.data.pair_shares)
        if config.reference not in config.saes:
            raise ConfigError(
                f"reference: no SAE {config.reference!r}" + nearest(config.reference, config.saes)
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
