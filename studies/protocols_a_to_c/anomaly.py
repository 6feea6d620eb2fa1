"""Protocol B: anomalies along either side of rare axes, detected by n latents.

An anomaly is a shift of +-delta along one of a few axes that were rare in training. On a labelled
split, with s_i the standardised latent, the n latents are read whose |s_i| correlates most with "is
an anomaly". Detection is a logistic regression on |s_i|, in AUROC on another split; the direction is
one on s_i, fitted on the anomalies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from studies.synthetic import World, make_world, seeded

COLUMNS = ("sae", "d_sae", "l0", "r2", "latents", "auroc", "auroc_sd", "direction")
RIDGE = 1e-3
"""Weight of sum w^2 / 2 beside the mean cross-entropy: separable data have a solution with it."""


def correlation_with(values: Tensor, label: Tensor) -> Tensor:
    """Each column's Pearson correlation with a (n,) label, (d_sae,); 0 for a constant column."""
    v, y = values - values.mean(0), label - label.mean()
    return torch.nan_to_num((y @ v) / (v.norm(dim=0) * y.norm()))


def logistic_regression(x: Tensor, label: Tensor) -> LogisticRegression:
    """Fit (n, k) features to a (n,) bool label."""
    return LogisticRegression(C=1 / (RIDGE * len(x)), max_iter=1000).fit(x.numpy(), label.numpy())


def detect(
    z_train: Tensor,
    train: Tensor,
    z_test: Tensor,
    test: Tensor,
    budgets: Sequence[int],
    false_alarms: float,
) -> dict[int, dict[str, float]]:
    """Choose and fit on the first split, and measure on the second: AUROC and direction by budget.

    The direction counts only where the anomaly is flagged: its score is above what a share
    ``false_alarms`` of the normal training samples reach. Without that a latent of one side would be
    right on the other side as well, by staying inactive.

    Args:
        z_train, z_test: (n, d_sae) latents.
        train, test: (n,) 0 for a normal sample, else 1 or -1, the side of the shift.
    """
    centre, scale = z_train[train == 0].mean(0), z_train.std(0)
    scale = torch.where(scale > 0, scale, torch.inf)  # a latent that never moves stays at 0
    s_train, s_test = (z_train - centre) / scale, (z_test - centre) / scale
    order = correlation_with(s_train.abs(), (train != 0).to(s_train)).argsort(descending=True)
    found = {}
    for n in budgets:
        a, b = s_train[:, order[:n]], s_test[:, order[:n]]
        detector = logistic_regression(a.abs(), train != 0)
        normal = torch.from_numpy(detector.decision_function(a[train == 0].abs().numpy()))
        score = torch.from_numpy(detector.decision_function(b.abs().numpy()))
        compass = logistic_regression(a[train != 0], train[train != 0] > 0)
        side = torch.from_numpy(2 * compass.predict(b.numpy()) - 1)
        right = (score > normal.quantile(1 - false_alarms)) & (side == test)
        found[n] = {
            "auroc": float(roc_auc_score(test.numpy() != 0, score.numpy())),
            "direction": right[test != 0].double().mean().item(),
        }
    return found


def draw_training(world: World, data: Any, n: int) -> Tensor:
    """Draw (n, d_in): background, and each planted axis at its rate."""
    amplitudes = world.amplitudes(n)
    amplitudes[:, data.n_background :] *= data.delta
    return world.activations(amplitudes)


def draw_labelled(world: World, data: Any, n: int) -> tuple[Tensor, Tensor]:
    """Draw n // 2 normal samples without a planted axis, then as many anomalies with one each.

    Returns:
        (n, d_in) samples, and (n,) int64 directions.
    """
    amplitudes = world.amplitudes(n)
    planted, rows = torch.zeros(n, data.n_planted), torch.arange(n // 2, n)
    axis = torch.randint(0, data.n_planted, rows.shape)
    direction = torch.zeros(n, dtype=torch.int64)
    direction[rows] = 2 * torch.randint(0, 2, rows.shape) - 1
    size = data.delta * (1 + data.magnitude_sd * torch.randn(len(rows))).relu()
    planted[rows, axis] = direction[rows] * size
    amplitudes[:, data.n_background :] = planted
    return world.activations(amplitudes), direction


def prepare(config: Any, seed: int) -> Any:
    """The samples of a seed, and the measure, whose values are named "auroc 4" for a budget of 4."""
    data, training = config.data, config.training
    n_axes = data.n_background + data.n_planted
    probability = torch.full((n_axes,), data.firing_probability)
    probability[data.n_background :] = data.planted_rate
    signed = torch.arange(n_axes) < round(data.signed_share * data.n_background)
    signed[data.n_background :] = True
    world = make_world(data, probability, signed, seed)
    with seeded(seed, 1):
        train = draw_training(world, data, training.n_train)
        heldout = draw_training(world, data, training.n_heldout)
        (x, direction), (x_test, test) = (
            draw_labelled(world, data, data.n_labelled) for _ in range(2)
        )

    @torch.no_grad()
    def measure(sae: SAE[Any]) -> dict[str, Any]:
        z, z_test = sae.encode(x), sae.encode(x_test)
        found = detect(z, direction, z_test, test, data.budgets, data.false_alarms)
        named = {f"{name} {n}": v for n, of_n in found.items() for name, v in of_n.items()}
        return {"d_sae": sae.cfg.d_sae} | named

    return train, heldout, measure
