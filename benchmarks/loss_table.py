"""The table of the loss recovered by two SAEs, on the same batches of tokens."""

import statistics
from collections.abc import Mapping
from typing import Any

from recipe_tables import signed
from reproduction_tables import markdown
from sweep_source import without_ending


def loss_table(measured: Mapping[str, Any], models: Mapping[str, str], sae: str, other: str) -> str:
    """R² and loss recovered of two SAEs at each hook point, and what one has more than the other.

    The difference of the losses recovered is a mean over batches, with its standard error. Of
    several seeds the first one counts.

    Args:
        measured: what ``benchmarks/loss_recovered.py`` writes.
        models: name of a sweep -> name of its model in the table.
        sae, other: names in the results.
    """
    n = measured["columns"].index("loss_recovered_0")
    at = {name: measured["columns"].index(name) for name in ("cell", "sae", "seed", "r2")}
    table = []
    for sweep, model in models.items():
        of_sweep = measured["sweeps"][sweep]["runs"]
        first = min(run[at["seed"]] for run in of_sweep)
        runs = [run for run in of_sweep if run[at["seed"]] == first]
        found = {(run[at["cell"]], without_ending(run[at["sae"]])): run for run in runs}
        for cell in dict.fromkeys(run[at["cell"]] for run in runs):
            a, b = found[cell, sae], found[cell, other]
            gaps = [x - y for x, y in zip(a[n:], b[n:], strict=True)]
            error = statistics.stdev(gaps) / len(gaps) ** 0.5
            gap = f"{signed(statistics.fmean(gaps))} ± {error:.4f}"
            recovered = [f"{statistics.fmean(run[n:]):.4f}" for run in (a, b)]
            table.append([f"{model}, {cell}", *recovered, gap, signed(a[at["r2"]] - b[at["r2"]])])
    heads = ["hook point", "`bi_jumprelu`", "SAELens's `batchtopk`", "difference", "R², difference"]
    return markdown(heads, table, 1)
