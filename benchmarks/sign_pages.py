"""Figures and tables of the page "What a sign means", from results/opposites_* and opposition_*."""

from collections.abc import Callable, Mapping
from typing import Any

from figure_drawing import Series
from matplotlib.figure import Figure
from opposites_table import (
    axes_table,
    saes_table,
    sets_table,
    sides_figure,
    sides_table,
    trainings_table,
)
from opposition_table import contexts_table, opposition_table, places_table

MODELS = {"SmolLM2": "smollm2_135m", "Gemma 3": "gemma3_270m"}
BI_JUMPRELU = "bi_jumprelu-full/target_l0-32"
DOUBLE = "batchtopk-double/k-32"
SIGNED = {  # SAEs near an L0 of 32, by folder -> their names in the tables
    BI_JUMPRELU: "`bi_jumprelu`",
    "sa_gsae-full/target_l0-32": "`sa_gsae`",
    "bi_batchtopk-full/k-32": "`bi_batchtopk`",
    "bi_matryoshka_batchtopk-full/k-32": "`bi_matryoshka_batchtopk`",
}
PLAIN = {
    "batchtopk-full/k-32": "SAELens's `batchtopk`",
    "jumprelu-full/": "SAELens's `jumprelu`",
    DOUBLE: "SAELens's `batchtopk`, twice as wide",
}
TRAININGS = {
    BI_JUMPRELU: "`bi_jumprelu`",
    "bi_jumprelu-full/target_l0-8": "L0 8",
    "bi_jumprelu-full/target_l0-128": "L0 128",
    "bi_jumprelu-half/target_l0-32": "half as wide",
    "bi_jumprelu-double/target_l0-32": "twice as wide",
    "bi_jumprelu-both-sides/target_l0-32": "`minus_bias_init: 0`",
    "bi_jumprelu-untied/target_l0-32": "`polarity_tying: none`",
    "sa_gsae-full/target_l0-32": "`sa_gsae`",
    "sa_gsae-untied/target_l0-32": "`sa_gsae`, `polarity_tying: none`",
    "bi_batchtopk-full/k-32": "`bi_batchtopk`",
    "bi_matryoshka_batchtopk-full/k-32": "`bi_matryoshka_batchtopk`",
}
SERIES = tuple(Series(name, label.strip("`"), label.strip("`")) for name, label in SIGNED.items())
BEST = "sweep_out/equal_width_smollm2_135m/saes/mlp_out/seed-0/bi_jumprelu-full/target_l0-32"
"""The SAE of pretrained/ on the MLP output, before it was rounded to float16."""


def sign_figures(read: Callable[[str], Any]) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """Name -> title and figure. ``read`` gives a file of results/."""
    opposites = by_model(read, "opposites")
    title = "The score of the best axis against that of the best side, natural opposites"
    return {"sides_and_axes": (title, lambda: sides_figure(opposites, SERIES))}


def sign_tables(read: Callable[[str], Any]) -> dict[str, str]:
    """Name -> Markdown."""
    opposites, opposition = by_model(read, "opposites"), by_model(read, "opposition")
    contexts = opposition["SmolLM2"]["saes"][BEST]
    return {
        "opposites_sides.md": sides_table(opposites, SIGNED | PLAIN, DOUBLE),
        "opposites_axes.md": axes_table(opposites, SIGNED | PLAIN),
        "opposites_sets.md": sets_table(opposites, SIGNED | {DOUBLE: PLAIN[DOUBLE]}),
        "opposites_pretrained.md": saes_table(read("opposites_pretrained.json"), "tense"),
        "opposites_trainings.md": trainings_table(opposites, TRAININGS, "mlp_out"),
        "opposition.md": opposition_table(opposition, SIGNED),
        "opposition_places.md": places_table(opposition, SIGNED),
        "opposition_contexts.md": contexts_table(contexts),
    }


def by_model(read: Callable[[str], Any], what: str) -> dict[str, Mapping[str, Any]]:
    """Model -> its file of results/."""
    return {model: read(f"{what}_{name}.json") for model, name in MODELS.items()}
