"""The table of two SAEs on text of another kind than they were trained on."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from recipe_tables import signed
from reproduction_tables import markdown
from result_rows import Row, means, r2_at

from sae_lens_signaware.experiments.sweep.frontier import Point

KEY = ("cell", "sae", "seed", "value", "text")


def other_text_table(
    measured: Mapping[str, Any],
    models: Mapping[str, str],
    texts: Mapping[str, str],
    saes: tuple[str, str],
    heldout: Sequence[Row],
    value: float = 32,
) -> str:
    """R² of one SAE minus that of another at an equal L0, with its standard error over blocks.

    On another text the L0s of the two differ by a few percent. What that gives in R² is taken off:
    it is read from the frontier of the second SAE on held-out text.

    Args:
        measured: what ``benchmarks/other_text.py`` writes. Of several seeds the first one counts
            that has both SAEs.
        models: name of a sweep -> name of its model in the table.
        texts: name of a text -> name in the table.
        saes: their names.
        heldout: the runs on held-out text, of cells that start with the name of the model.
        value: the L0 that they were asked for.
    """
    at = {name: i for i, name in enumerate(measured["columns"])}
    table = []
    for sweep, model in models.items():
        runs = measured["sweeps"][sweep]["runs"]
        found = {tuple(run[at[name]] for name in KEY): run for run in runs}
        for cell in dict.fromkeys(run[at["cell"]] for run in runs):
            of_seed = [
                {key[2] for key in found if key[:2] == (cell, sae) and key[3] == value}
                for sae in saes
            ]
            seed = min(of_seed[0] & of_seed[1])
            line = [row.point for row in means(heldout, f"{model}, {cell}", saes[1])]
            fields = []
            for text in texts:
                pair = [found[cell, sae, seed, value, text] for sae in saes]
                errors = [run[at["error_0"] :] for run in pair]
                gaps = [y - x for x, y in zip(*errors, strict=True)]
                error = statistics.stdev(gaps) * len(gaps) ** 0.5
                of_l0 = [_r2(line, run[at["l0"]]) for run in pair]
                fields.append(f"{signed(sum(gaps) - of_l0[0] + of_l0[1])} ± {error:.4f}")
            table.append([f"{model}, {cell}", *fields])
    return markdown(["hook point", *texts.values()], table, 1)


def _r2(line: Sequence[Point], l0: float) -> float:
    r2 = r2_at(line, l0)
    if r2 is None:
        raise ValueError(f"no run is near an L0 of {l0}")
    return r2
