"""What the field ``data`` of a protocol file says, by protocol: how its samples are drawn."""

from pydantic import Field
from sae_lens.synthetic import zipfian_firing_probabilities
from torch import Tensor

from sae_lens_signaware.training.strict import Count, StrictModel


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

    d_in: Count
    n_background: Count
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
    n_points: Count
    n_base: Count


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

    n_planted: Count
    planted_rate: float = Field(gt=0, lt=1)
    delta: float = Field(gt=0)
    n_labelled: Count = Field(ge=4)
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

    d_in: Count
    n_features: Count = Field(ge=2)  # gt is that of Count
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

    d_in: Count
    n_features: Count = Field(ge=2)  # gt is that of Count
    shares: tuple[float, ...] = Field(min_length=1)
    l0_factors: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    n_children: int = Field(default=0, ge=0)
    child_probability: float = Field(default=0.3, gt=0, lt=1)
    exponent: float = Field(default=1.0, gt=0)
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
