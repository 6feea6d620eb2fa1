"""Protocol B, directional anomaly detection under a strict latent budget.

An anomaly is a shift of +-delta along one of a few axes that were rare in training. Of an SAE only
n latents may be read. On a labelled split:

    s_i = (z_i - mean of z_i on normal samples) / standard deviation of z_i
    the n latents of the highest correlation of |s_i| with "is an anomaly"
    detection: logistic regression on |s_i| of these        AUROC on another split
    direction: logistic regression on s_i of these, fitted on the anomalies
"""

import dataclasses
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from sae_lens_signaware.evaluation.probe_scores import auc_of_ranks, ranks
from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments.protocols.config import AnomalyConfig
from sae_lens_signaware.experiments.protocols.data import AnomalyData
from sae_lens_signaware.experiments.protocols.result import (
    ProtocolResult,
    TableValue,
    mean_of,
    sd_of,
)
from sae_lens_signaware.experiments.protocols.summary import Prepared, collect, make_result
from sae_lens_signaware.experiments.protocols.training import Advance
from sae_lens_signaware.experiments.protocols.world import World, make_world, seeded
from sae_lens_signaware.printing import percent

RIDGE = 1e-3
"""Weight of sum w^2 / 2 in the logistic regressions; separable data have a solution with it."""

COLUMNS = [
    *("SAE", "d_sae", "L0", "R2", "latents", "AUROC", "AUROC sd"),
    *("direction", "direction sd"),
]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Samples and their labels.

    Attributes:
        x: (n, d_in).
        direction: (n,) int64, 0 normal, +1 or -1 the side of the shift.
    """

    x: Tensor
    direction: Tensor


@dataclasses.dataclass(frozen=True)
class Detection:
    """Detection with a budget of latents, on held-out samples.

    Attributes:
        n_latents: the budget.
        auroc: of the score, anomalies against normal samples.
        direction_accuracy: share of the anomalies that are flagged and given the right side.
    """

    n_latents: int
    auroc: float
    direction_accuracy: float


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Compute the area under the ROC curve: P(a positive scores above a negative) + P(equal) / 2.

    Args:
        scores: (n,).
        positive: (n,) bool, both values present.
    """
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    rank_sum = ranks(scores.numpy()[:, None])[positive.numpy()].sum(0)
    return auc_of_ranks(rank_sum, n_pos, n_neg).item()


def correlation_with(values: Tensor, label: Tensor) -> Tensor:
    """Compute each column's Pearson correlation with a label, (d_sae,); 0 for a constant column.

    Args:
        values: (n, d_sae).
        label: (n,), not constant.
    """
    v, y = values - values.mean(0), label - label.mean()
    return torch.nan_to_num((y @ v) / (v.norm(dim=0) * y.norm()))


def logistic_regression(x: Tensor, label: Tensor) -> Tensor:
    """Minimise the mean cross-entropy and the ridge by LBFGS.

    Args:
        x: (n, k).
        label: (n,) bool.

    Returns:
        (k + 1,) float64 weights, the bias last.
    """
    features, target = _with_bias(x), label.double()
    weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(features @ weights, target)
        value = value + RIDGE / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    # torch types the closure as one that gives a float
    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return weights.detach()


def logits_of(x: Tensor, weights: Tensor) -> Tensor:
    """Compute the (n,) float64 logits of the weights of :func:`logistic_regression`."""
    return _with_bias(x) @ weights


def _with_bias(x: Tensor) -> Tensor:
    return torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)


def measure_detection(
    z_train: Tensor,
    train: Tensor,
    z_test: Tensor,
    test: Tensor,
    budgets: tuple[int, ...],
    false_alarms: float,
) -> list[Detection]:
    """Measure all budgets: choose and fit on the first split, measure on the second.

    The direction counts only where the anomaly is flagged: its score is above the 1 - false_alarms
    quantile of the normal training samples. Without that a latent of one side would be right on the
    other side as well, by staying inactive.

    Args:
        z_train, z_test: (n, d_sae) latents.
        train, test: (n,) directions, as in :class:`Labelled`.
    """
    centre, scale = z_train[train == 0].mean(0), z_train.std(0)
    # a latent that never moves in training says nothing: it stays at 0
    scale = torch.where(scale > 0, scale, torch.inf)
    s_train, s_test = (z_train - centre) / scale, (z_test - centre) / scale
    order = correlation_with(s_train.abs(), (train != 0).to(z_train.dtype)).argsort(descending=True)
    return [
        _at_budget(s_train[:, order[:n]], train, s_test[:, order[:n]], test, false_alarms)
        for n in budgets
    ]


def _at_budget(
    s_train: Tensor, train: Tensor, s_test: Tensor, test: Tensor, false_alarms: float
) -> Detection:
    detector = logistic_regression(s_train.abs(), train != 0)
    threshold = logits_of(s_train[train == 0].abs(), detector).quantile(1 - false_alarms)
    score = logits_of(s_test.abs(), detector)
    anomalies = train != 0
    compass = logistic_regression(s_train[anomalies], train[anomalies] > 0)
    predicted = torch.where(logits_of(s_test, compass) > 0, 1, -1)
    right = (score > threshold) & (predicted == test)
    return Detection(
        n_latents=s_test.shape[1],
        auroc=auroc(score, test != 0),
        direction_accuracy=right[test != 0].double().mean().item(),
    )


def sample_training(world: World, data: AnomalyData, n: int) -> Tensor:
    """Draw (n, d_in): background, and each planted axis at its rate."""
    amplitudes = world.amplitudes(n)
    amplitudes[:, world.n_background :] *= data.delta
    return world.activations(amplitudes)


def sample_labelled(world: World, data: AnomalyData, n: int) -> Labelled:
    """Draw n // 2 normal samples without a planted axis, then as many anomalies with one each."""
    amplitudes = world.amplitudes(n)
    planted = torch.zeros(n, data.n_planted)
    rows = torch.arange(n // 2, n)
    axis = torch.randint(0, data.n_planted, rows.shape)
    direction = torch.zeros(n, dtype=torch.int64)
    direction[rows] = 2 * torch.randint(0, 2, rows.shape) - 1
    size = data.delta * (1 + data.magnitude_sd * torch.randn(len(rows))).relu()
    planted[rows, axis] = direction[rows] * size
    amplitudes[:, world.n_background :] = planted
    return Labelled(world.activations(amplitudes), direction)


def detect(sae: SAE[Any], train: Labelled, test: Labelled, data: AnomalyData) -> list[Detection]:
    """Measure one SAE at all budgets."""
    with torch.no_grad():
        z_train, z_test = sae.encode(train.x), sae.encode(test.x)
    return measure_detection(
        z_train, train.direction, z_test, test.direction, data.budgets, data.false_alarms
    )


def run(config: AnomalyConfig, command: str, advance: Advance) -> ProtocolResult:
    """Train every SAE on every seed, and read it at every budget."""
    data, training = config.data, config.training

    def prepare(seed: int) -> Prepared[list[Detection]]:
        world = make_world(data, data.n_planted, data.planted_rate, seed)
        with seeded(seed, 1):
            train = sample_training(world, data, training.n_train)
            heldout = sample_training(world, data, training.n_heldout)
            labelled, test = (sample_labelled(world, data, data.n_labelled) for _ in range(2))
        return Prepared(train, heldout, lambda sae: detect(sae, labelled, test, data))

    collected = collect(config, config.target_l0, prepare, advance)
    return make_result(
        config,
        title="Protocol B, anomalies under a latent budget",
        question=f"{data.n_planted} rare axes, anomalies along either side of them: how well do n "
        "latents detect them and tell the side?",
        columns=COLUMNS,
        rows=[row for name, runs in collected.measures.items() for row in _rows(name, runs)],
        notes=_notes(data),
        collected=[collected],
        command=command,
    )


def _notes(data: AnomalyData) -> list[str]:
    return [
        "latents: how many may be read, those whose standardised size correlates most with the "
        "label on a labelled split. AUROC: of a logistic regression on their sizes, on another "
        "split; half normal samples, half anomalies.",
        "direction: share of the anomalies that are flagged and given the right side by a logistic "
        "regression on the same latents with their signs; flagged is above what "
        f"{percent(data.false_alarms)} of the normal training samples reach. An anomaly that is "
        "not flagged counts as wrong.",
        f"World: {data.n_background} background axes in {data.d_in} dimensions, "
        f"{percent(data.signed_share)} of them signed, and {data.n_planted} planted ones at a rate "
        f"of {data.planted_rate:g} each in training; shifts of {data.delta:g}. "
        f"{data.size(data.n_planted)}",
    ]


def _rows(name: str, runs: list[tuple[SAEQuality, list[Detection]]]) -> list[list[TableValue]]:
    qualities = [quality for quality, _ in runs]
    head: list[TableValue] = [
        name,
        qualities[0].d_sae,
        mean_of([q.l0 for q in qualities]),
        mean_of([q.explained_variance for q in qualities]),
    ]
    rows: list[list[TableValue]] = []
    for same_budget in zip(*(detections for _, detections in runs), strict=True):
        areas = [d.auroc for d in same_budget]
        directions = [d.direction_accuracy for d in same_budget]
        rows.append(
            [
                *head,
                same_budget[0].n_latents,
                mean_of(areas),
                sd_of(areas),
                mean_of(directions),
                sd_of(directions),
            ]
        )
    return rows
