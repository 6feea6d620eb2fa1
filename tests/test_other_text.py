"""SAEs on text of another kind: errors of blocks, and the table of their differences."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.tables import fields_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")


def test_errors_of_blocks_add_up_to_r2(benchmark_script: Callable[[str], Any]) -> None:
    script = benchmark_script("other_text")
    x = torch.randn(45, 3) + 2.0  # 2 tokens a block; 5 are left out
    half: Any = SimpleNamespace(encode=lambda t: t.clamp(min=0), decode=lambda z: z / 2)
    errors, l0 = script.block_errors(half, x)
    x = x[:40]
    residual = x - x.clamp(min=0) / 2
    variance = (x - x.mean(0)).square().sum()
    assert sum(errors) == pytest.approx((residual.square().sum() / variance).item(), rel=1e-5)
    assert errors[3] == pytest.approx((residual[6:8].square().sum() / variance).item(), rel=1e-5)
    assert l0 == pytest.approx((x > 0).sum().item() / 40)


class Thresholds(torch.nn.Module):
    """An SAE whose latents are the coordinates above 1."""

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.ones(d_in))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x * (x > self.threshold)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z


def test_a_slope_is_what_lower_thresholds_gain(benchmark_script: Callable[[str], Any]) -> None:
    script = benchmark_script("other_text")
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    sae = Thresholds(3)
    slope = script.slope_of(sae, x)
    points = []
    for value in (1.05, 0.95):
        kept = x * (x > value)
        r2 = 1 - (x - kept).square().sum() / (x - x.mean(0)).square().sum()
        points.append(((kept != 0).double().sum().log().item(), r2.item()))
    assert slope == pytest.approx(
        (points[1][1] - points[0][1]) / (points[1][0] - points[0][0]), abs=6e-5
    )
    assert slope > 0
    assert sae.threshold.tolist() == [1.0] * 3  # those of the SAE itself are left


def test_a_difference_is_at_an_equal_l0_and_a_mean_over_the_seeds_of_both(
    benchmark_script: Callable[[str], Any],
) -> None:
    table = benchmark_script("other_text_table")
    names = ("cell", "sae", "seed", "value", "text", "n_tokens", "l0", "r2", "slope")
    e = 2.718281828
    runs = [
        ["c", "a", 0, 32, "t", 9, 16.0, 0.0, 9.0, 0.9, 0.9],  # no b in this seed
        ["c", "a", 1, 32, "t", 9, 16.0 * e, 0.6, 9.0, 0.1, 0.3],
        ["c", "b", 1, 32, "t", 9, 16.0, 0.5, 0.06, 0.2, 0.3],
        ["c", "a", 2, 32, "t", 9, 16.0, 0.6, 9.0, 0.1, 0.3],
        ["c", "b", 2, 32, "t", 9, 16.0, 0.5, 0.06, 0.2, 0.3],
        ["c", "b", 1, 8, "t", 9, 8.0, 0.1, 0.1, 0.4, 0.5],  # no a
    ]
    measured = {"columns": [*names, "error_0", "error_1"], "sweeps": {"s": {"runs": runs}}}
    text = table.other_text_table(measured, {"s": "M"}, {"t": "T"}, ("a", "b"))
    # 0.1 + 0.0 in both seeds, less 0.06 for the L0 in one; the blocks differ by 0.1: an sd of
    # 0.0707, times sqrt(2)
    assert fields_of(text) == [
        ["hook point", "L0", "seeds", "T"],
        ["M, c", "32", "2", "+0.0700 ± 0.1000"],
    ]
