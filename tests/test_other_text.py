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


def test_a_difference_is_at_an_equal_l0_and_of_the_first_seed_of_both(
    benchmark_script: Callable[[str], Any],
) -> None:
    table = benchmark_script("other_text_table")
    columns = ["cell", "sae", "seed", "value", "text", "n_tokens", "l0", "r2", "error_0", "error_1"]
    runs = [
        ["c", "a", 0, 32, "t", 9, 16.0, 0.0, 0.9, 0.9],  # no b in this seed
        ["c", "a", 1, 32, "t", 9, 32.0, 0.6, 0.1, 0.3],
        ["c", "b", 1, 32, "t", 9, 16.0, 0.5, 0.2, 0.3],
        ["c", "b", 1, 8, "t", 9, 8.0, 0.1, 0.4, 0.5],
    ]
    measured = {"columns": columns, "sweeps": {"s": {"runs": runs}}}
    rows = benchmark_script("result_rows")
    heldout = [
        rows.Row("M, c", "b", 0, "k", l0, l0, r2, 0.0, 0.0) for l0, r2 in ((16, 0.5), (32, 0.56))
    ]
    text = table.other_text_table(measured, {"s": "M"}, {"t": "T"}, ("a", "b"), heldout)
    # 0.1 + 0.0 less, of which the L0 gives 0.06; the blocks differ by 0.1, sd 0.0707, times sqrt(2)
    assert fields_of(text) == [["hook point", "T"], ["M, c", "+0.0400 ± 0.1000"]]
