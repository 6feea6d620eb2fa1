"""Tables of the page "One axis, one latent", from results/side_use.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from figure_labels import BOTH_SIDES, OF_BOTH_SIDES, PLAIN, SIGNED
from figure_rows import HALF_SAE, SHORT
from recipe_tables import gaps_table
from result_rows import Row
from side_use import rows_in, side_use_table

CELLS = ("SmolLM2, mlp_out", "SmolLM2, attn_out", "Gemma 3, mlp_out")
OF_WIDTHS = {"widths-smollm2-135m": "SmolLM2", "widths-gemma3-270m": "Gemma 3"}
"""Sweep of several widths -> its model."""
WITH_PAIRS = {
    "equal-width-smollm2-135m": "SmolLM2",
    "pairs-smollm2-135m": "SmolLM2",
    "widths-gemma3-270m": "Gemma 3",
}
"""Sweep with SAEs whose pairs are counted -> its model."""
NAMES = {SHORT: "bi_jumprelu"}
SAES = {
    **PLAIN,
    "bi_jumprelu": SIGNED["bi_jumprelu"],
    **OF_BOTH_SIDES,
    "bi_batchtopk": SIGNED["bi_batchtopk"],
    "sa_gsae": SIGNED["sa_gsae"],
}
WIDE = {
    "bi_jumprelu-4": SIGNED["bi_jumprelu"],
    "bi_jumprelu-8": SIGNED["bi_jumprelu"],
    "bi_jumprelu-warm-up-800-8": "`bi_jumprelu`, warm-up 800",
    "bi_jumprelu-16": SIGNED["bi_jumprelu"],
    "bi_jumprelu-warm-up-800-16": "`bi_jumprelu`, warm-up 800",
    "bi_jumprelu-window-307200-16": "`bi_jumprelu`, window of 307,200",
}
OF_PAIRS = {
    "n_pairs": "antipodal pairs",
    "frequent_in_pairs": "frequent latents in pairs",
    "frequent_bipolar": "frequent latents that are bipolar",
    "activity_of_bipolar": "bipolar share of the active latents",
}
OF_RATES = {
    "bipolar_share": "bipolar latents",
    "rare_share": "rare latents",
    "bipolar_of_rare": "bipolar, of the rare",
    "bipolar_of_others": "bipolar, of the others",
    "activity_of_rare": "rare share of the active latents",
    "activity_of_bipolar": "bipolar share of the active latents",
}


def pairs_tables(measured: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """Name -> Markdown.

    Args:
        measured: what ``benchmarks/side_use.py`` writes.
        rows: runs of equal and of half width, by default and with both sides open.
    """
    wide = _of_sweeps(measured, OF_WIDTHS)
    half, default = f"{BOTH_SIDES}-half", "`bi_jumprelu` by default"
    return {
        "both_sides.md": gaps_table(rows, CELLS, BOTH_SIDES, {SHORT: default} | PLAIN),
        "both_sides_half.md": gaps_table(rows, CELLS, half, {HALF_SAE: default}, (32, 128)),
        "side_use_pairs.md": side_use_table(of_pairs(measured), CELLS, SAES, OF_PAIRS),
        "side_use_rates.md": side_use_table(wide, CELLS, WIDE, OF_RATES),
    }


def of_pairs(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of twice ``d_in`` of SmolLM2 and of four times of Gemma 3, named as SAES is."""
    rows = _of_sweeps(measured, WITH_PAIRS)
    names = [row["sae"].removesuffix("-full").removesuffix("-4") for row in rows]
    return [row | {"sae": NAMES.get(name, name)} for row, name in zip(rows, names, strict=True)]


def _of_sweeps(measured: Mapping[str, Any], sweeps: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of sweeps, with the model before each cell."""
    return [
        row | {"cell": f"{model}, {row['cell']}"}
        for sweep, model in sweeps.items()
        for row in rows_in(measured, sweep)
    ]
