"""The table of losses recovered, by hand."""

from collections.abc import Callable
from typing import Any

from tests.support.tables import fields_of


def test_a_difference_is_over_the_same_batches(benchmark_script: Callable[[str], Any]) -> None:
    losses = ["loss_recovered_0", "loss_recovered_1", "loss_recovered_2"]
    columns = ["cell", "sae", "seed", "r2", *losses]
    runs = [
        ["mlp_out", "a-more-seeds", 1, 0.7, 0.91, 0.93, 0.92],
        ["mlp_out", "b", 1, 0.68, 0.92, 0.95, 0.92],
        ["mlp_out", "c", 1, 0.1, 0.0, 0.0, 0.0],
        ["mlp_out", "a", 2, 0.7, 0.5, 0.5, 0.5],  # the first seed counts
        ["mlp_out", "b", 2, 0.7, 0.5, 0.5, 0.5],
    ]
    measured = {"columns": columns, "sweeps": {"of-x": {"runs": runs}}}
    table = benchmark_script("loss_table").loss_table(measured, {"of-x": "X"}, "a", "b")
    # the differences are -0.01, -0.02 and 0: mean -0.01, and 0.01 / sqrt(3)
    (row,) = fields_of(table)[1:]
    assert row == ["X, mlp_out", "0.9200", "0.9300", "−0.0100 ± 0.0058", "+0.0200"]
