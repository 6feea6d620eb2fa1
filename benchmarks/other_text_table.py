"""The table of two SAEs on text of another kind than they were trained on."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from recipe_tables import signed
from reproduction_tables import markdown

KEY = ("cell", "sae", "seed", "value", "text")


def other_text_table(
    measured: Mapping[str, Any],
    models: Mapping[str, str],
    texts: Mapping[str, str],
    saes: tuple[str, str],
) -> str:
    """R² of one SAE minus that of another at an equal L0, a mean over the seeds that have both.

    On another text the L0s of the two differ. What that gives in R² is taken off, by the slope of
    the second SAE on that text. The standard error is over blocks of texts.

    Args:
        measured: what ``benchmarks/other_text.py`` writes.
        models: name of a sweep -> name of its model in the table.
        texts: name of a text -> name in the table.
        saes: their names.
    """
    at = {name: i for i, name in enumerate(measured["columns"])}
    table = []
    for sweep, model in models.items():
        runs = measured["sweeps"][sweep]["runs"]
        found = {tuple(run[at[name]] for name in KEY): run for run in runs}
        of = {
            sae: {(cell, value, seed) for cell, name, seed, value, _ in found if name == sae}
            for sae in saes
        }
        both = of[saes[0]] & of[saes[1]]
        places = dict.fromkeys((run[at["cell"]], run[at["value"]]) for run in runs)
        for cell, value in places:
            seeds = sorted(seed for *place, seed in both if tuple(place) == (cell, value))
            if not seeds:
                continue
            fields = []
            for text in texts:
                pairs = [[found[cell, sae, s, value, text] for sae in saes] for s in seeds]
                gaps = [_gap_of_blocks(first, second, at) for first, second in pairs]
                mean = [statistics.fmean(block) for block in zip(*gaps, strict=True)]
                error = statistics.stdev(mean) * len(mean) ** 0.5
                fields.append(f"{signed(sum(mean))} ± {error:.4f}")
            table.append([f"{model}, {cell}", f"{value:g}", str(len(seeds)), *fields])
    return markdown(["hook point", "L0", "seeds", *texts.values()], table, 1)


def _gap_of_blocks(first: list[Any], second: list[Any], at: Mapping[str, int]) -> list[float]:
    """By how much the first SAE's R² is above the second's in each block, at the first one's L0."""
    errors = first[at["error_0"] :], second[at["error_0"] :]
    of_l0 = second[at["slope"]] * math.log(first[at["l0"]] / second[at["l0"]])
    return [y - x - of_l0 / len(errors[0]) for x, y in zip(*errors, strict=True)]
