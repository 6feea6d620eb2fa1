"""The table of the search: R² of every SAE with one setting changed at a time."""

from collections.abc import Mapping, Sequence

from equal_time import L0
from equal_time_figure import at_l0_if_off
from figure_labels import ALL_PLAIN, BI_TOPK, SIGNED
from recipe_tables import signed
from reproduction_tables import markdown
from result_rows import Row, r2_at

SETTINGS = {
    "as compared": "3e-3-26k",
    "learning rate 1e-3": "1e-3-26k",
    "window of 76,800": "3e-3-77k",
    "window of 307,200": "3e-3-307k",
}
"""Column -> learning rate and window, as the names of the search have them."""
RATES = {"as compared": "3e-3", "learning rate 1e-3": "1e-3"}
"""Column of `SETTINGS` -> its learning rate."""
HOOK_POINTS = {"mlp_out": "MLP output", "attn_out": "attention", "resid": "residual"}
"""Hook point of the search -> its heading."""
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


JUMPRELU_AS_COMPARED = "jumprelu-bandwidth-0.5-3e-3"
JUMPRELU_SETTINGS = {
    "bandwidth 0.05 and threshold 0.01, SAELens's defaults": "jumprelu-default-3e-3",
    "bandwidth 0.1": "jumprelu-bandwidth-0.1-3e-3",
    "bandwidth 2": "jumprelu-bandwidth-2-3e-3",
    "the tanh recipe of SAELens's documentation": "jumprelu-tanh-3e-3",
    "the quadratic loss of SAELens's documentation": "jumprelu-quadratic-3e-3",
}
"""Setting of SAELens's JumpReLU -> its name in the search."""
STARTS = {
    "default": "bi_jumprelu-1e-3-26k",
    "default, rate 0.001": "bi_jumprelu-1e-3-26k-rate-0.001",
    "default, rate 0.003": "bi_jumprelu-1e-3-26k-rate-0.003",
    "threshold 1": "bi_jumprelu-1e-3-26k-start-1",
    "threshold 1, rate 0.003": "bi_jumprelu-1e-3-26k-start-1-rate-0.003",
    "threshold 1.5": "bi_jumprelu-1e-3-26k-start-1.5",
    "threshold 1.5, rate 0.003": "bi_jumprelu-1e-3-26k-start-1.5-rate-0.003",
    "threshold 2": "bi_jumprelu-1e-3-26k-start-2",
}
"""Where `bi_jumprelu` starts at 1e-3, with its `target_l0_rate` -> its name in the search."""
LOW_RATES = {
    "`bi_jumprelu`": (
        "bi_jumprelu-3e-3-26k",
        "bi_jumprelu-1e-3-26k-rate-0.003",
        "bi_jumprelu-3e-4-rate-0.001",
    ),
    "`bi_jumprelu`, larger start": (None, "bi_jumprelu-1e-3-26k-start-1.5-rate-0.003", None),
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
    "`bi_batchtopk`, `minus_bias_init: 0`, `decoder_init_norm: 1`": (
        None,
        "bi_batchtopk-1e-3-minus-0-norm-1",
        "bi_batchtopk-3e-4-minus-0-norm-1",
    ),
    "SAELens's `batchtopk`": ("batchtopk-3e-3-26k", "batchtopk-1e-3-26k", "batchtopk-3e-4"),
    "SAELens's `batchtopk`, `decoder_init_norm: 1`": (
        None,
        "batchtopk-1e-3-norm-1",
        "batchtopk-3e-4-norm-1",
    ),
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


def starts_table(rows: Sequence[Row], cells: Mapping[str, str]) -> str:
    """R² of `bi_jumprelu` at 1e-3 by where it starts, at each of ``cells``; as `search_table`."""
    table = [[label, *(_best(rows, c, name) for c in cells)] for label, name in STARTS.items()]
    return markdown(["start", *cells.values()], table, 1)


def jumprelu_table(rows: Sequence[Row], compared: Sequence[Row], cells: Mapping[str, str]) -> str:
    """R² of other settings of JumpReLU minus that of the comparison's settings at the same L0.

    A field has the L0 too, and the dead latents if any are. The runs are on validation text, and
    the frontier is on the text that is reported on. So what the run with the comparison's settings
    has less than the frontier is taken off the frontier.

    Args:
        compared: runs of JumpReLU with the comparison's settings, at several L0s of each cell.
    """
    table = [
        [label, *(_against(rows, compared, cell, name) for cell in cells)]
        for label, name in JUMPRELU_SETTINGS.items()
    ]
    return markdown(["setting", *cells.values()], table, 1)


def _against(rows: Sequence[Row], compared: Sequence[Row], cell: str, name: str) -> str:
    row, on_both = (_nearest(rows, cell, sae) for sae in (name, JUMPRELU_AS_COMPARED))
    if row is None or on_both is None:
        return ""
    frontier = [run.point for run in compared if run.cell == cell]
    expected, known = (r2_at(frontier, run.l0) for run in (row, on_both))
    if expected is None or known is None:
        return f"{row.r2:.4f} at {row.l0:.1f}{_dead(row)}"
    gap = (row.r2 - expected) - (on_both.r2 - known)
    return f"{signed(gap)} at {row.l0:.1f}{_dead(row)}"


def _field(rows: Sequence[Row], cell: str, sae: str, column: str) -> str:
    if column.startswith("window") and sae not in WITH_WINDOW:
        return "no window"
    setting = SETTINGS[column]
    return _best(rows, cell, OWN_NAMES.get(sae, {}).get(setting, f"{sae}-{setting}"))


def _best(rows: Sequence[Row], cell: str, name: str | None) -> str:
    row = _nearest(rows, cell, name)
    return "" if row is None else f"{row.r2:.4f}{at_l0_if_off(row.l0)}{_dead(row)}"


def _nearest(rows: Sequence[Row], cell: str, name: str | None) -> Row | None:
    """Of an SAE's runs the one whose L0 is nearest to that of the comparison."""
    mine = [row for row in rows if (row.cell, row.sae) == (cell, name)]
    return min(mine, key=lambda row: abs(row.l0 - L0), default=None)


def _dead(row: Row) -> str:
    return f", {row.dead_share:.1%} dead" if row.dead_share >= 0.0005 else ""
