"""The table of the search: R² of every SAE with one setting changed at a time."""

from collections.abc import Mapping, Sequence

from equal_time import L0
from equal_time_figure import at_l0_if_off
from figure_labels import ALL_PLAIN, BI_TOPK, SIGNED
from reproduction_tables import markdown
from result_rows import Row

SETTINGS = {
    "as compared": "3e-3-26k",
    "learning rate 1e-3": "1e-3-26k",
    "window of 76,800": "3e-3-77k",
    "window of 307,200": "3e-3-307k",
}
"""Column -> learning rate and window, as the names of the search have them."""
RATES = {"as compared": "3e-3", "learning rate 1e-3": "1e-3"}
"""Column of `SETTINGS` -> its learning rate."""
ON_GEMMA3 = {"mlp_out": "MLP output", "attn_out": "attention", "resid": "residual"}
"""Hook point of the search on Gemma 3 -> its heading."""
WITH_WINDOW = (
    *("sa_gsae", "bi_jumprelu", "bi_batchtopk", "bi_matryoshka_batchtopk", "bi_topk"),
    *("batchtopk", "topk", "matryoshka_batchtopk", "abstopk"),
)
"""SAEs with a loss for dead latents. The others count them for the statistics alone."""
OWN_NAMES = {
    "bi_jumprelu": {"1e-3-26k": "bi_jumprelu-1e-3-26k-rate-0.003"},  # else its L0 is missed
    "jumprelu": {f"{lr}-26k": f"jumprelu-bandwidth-0.5-{lr}" for lr in ("3e-3", "1e-3")},
    "gated": {f"{lr}-26k": f"gated-{lr}" for lr in ("3e-3", "1e-3")},
}
"""Learning rate and window -> the name in the search, where it is not the SAE's with these."""


LOW_RATES = {
    "`bi_jumprelu`": (
        "bi_jumprelu-3e-3-26k",
        "bi_jumprelu-1e-3-26k-rate-0.003",
        "bi_jumprelu-3e-4-rate-0.001",
    ),
    "`bi_jumprelu`, `minus_bias_init: 0`": (None, "bi_jumprelu-1e-3-rate-0.003-minus-0", None),
    "`bi_jumprelu`, `minus_bias_init: 0`, larger start": (
        None,
        "bi_jumprelu-1e-3-rate-0.003-minus-0-start-1.5",
        "bi_jumprelu-3e-4-rate-0.001-minus-0-start-1.5",
    ),
    "`bi_batchtopk`": ("bi_batchtopk-3e-3-26k", "bi_batchtopk-1e-3-26k", "bi_batchtopk-3e-4"),
    "`bi_batchtopk`, `minus_bias_init: 0`": (
        None,
        "bi_batchtopk-1e-3-minus-0",
        "bi_batchtopk-3e-4-minus-0",
    ),
    "SAELens's `batchtopk`": ("batchtopk-3e-3-26k", "batchtopk-1e-3-26k", "batchtopk-3e-4"),
    "SAELens's `jumprelu`": (
        "jumprelu-bandwidth-0.5-3e-3",
        "jumprelu-bandwidth-0.5-1e-3",
        "jumprelu-3e-4",
    ),
}
"""SAE -> its names at the learning rates 3e-3, 1e-3 and 3e-4."""


def low_rate_table(rows: Sequence[Row], cell: str) -> str:
    """R² by learning rate, of the runs of the search and of low_rate.json; as `search_table`."""
    table = [
        [label, *(_best(rows, cell, name) for name in names)] for label, names in LOW_RATES.items()
    ]
    return markdown(["SAE", "3e-3", "1e-3", "3e-4"], [row for row in table if any(row[1:])], 1)


def search_table(rows: Sequence[Row], cell: str) -> str:
    """R² of each SAE by setting, of the run whose L0 is nearest 32.

    With its L0 where that is off as in the tables of equal time, and the dead latents if any are.
    """
    table = [
        [label, *(_field(rows, cell, sae, column) for column in SETTINGS)]
        for sae, label in (SIGNED | BI_TOPK | ALL_PLAIN).items()
    ]
    return markdown(["SAE", *SETTINGS], table, 1)


def rates_table(rows: Sequence[Row], cells: Mapping[str, str]) -> str:
    """R² of each SAE at both learning rates, at each of the ``cells``, which map to their headings.

    Fields are those of `search_table`.
    """
    table = [
        [label, *(_field(rows, cell, sae, rate) for cell in cells for rate in RATES)]
        for sae, label in (SIGNED | BI_TOPK | ALL_PLAIN).items()
    ]
    head = [f"{place}, {rate}" for place in cells.values() for rate in RATES.values()]
    return markdown(["SAE", *head], [row for row in table if any(row[1:])], 1)


def _field(rows: Sequence[Row], cell: str, sae: str, column: str) -> str:
    if column.startswith("window") and sae not in WITH_WINDOW:
        return "no window"
    setting = SETTINGS[column]
    return _best(rows, cell, OWN_NAMES.get(sae, {}).get(setting, f"{sae}-{setting}"))


def _best(rows: Sequence[Row], cell: str, name: str | None) -> str:
    mine = [row for row in rows if (row.cell, row.sae) == (cell, name)]
    if not mine:
        return ""
    row = min(mine, key=lambda row: abs(row.l0 - L0))
    dead = f", {row.dead_share:.1%} dead" if row.dead_share >= 0.0005 else ""
    return f"{row.r2:.4f}{at_l0_if_off(row.l0)}{dead}"
