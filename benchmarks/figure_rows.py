"""Runs of results/ that the figures and tables of the documentation are of."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from result_rows import Row, rows_of

from sae_lens_signaware.experiments.sweep.result import TARGET_FIELDS

ROOT = Path(__file__).parent.parent
SHORT = "bi_jumprelu-warm-up-400"
"""In results/equal_width.json: a warm-up of a tenth of the training, and not of a fifth."""
HALF_SAE = "bi_jumprelu-half"
MODELS = {"SmolLM2": "one_recipe_smollm2_135m.json", "Gemma 3": "one_recipe_gemma3_270m.json"}
"""The models of the comparison on 500,000 tokens -> their runs in results/."""
ONE_PASS = {"SmolLM2": "equal-width-smollm2-135m", "Gemma 3": "equal-width-gemma3-270m"}
"""Of the comparison on tokens that are all different -> its sweep in results/equal_width.json."""
D_IN = {"SmolLM2": 576, "Gemma 3": 640}


def one_recipe() -> list[Row]:
    """The runs of both models by today's defaults, the model before the name of each cell."""
    return [row for model, name in MODELS.items() for row in rows_of(read(name), model)]


def one_pass() -> list[Row]:
    """The runs on different tokens; those of full width are named as in :func:`one_recipe`."""
    rows = _of_models("equal_width.json", ONE_PASS)
    return [row._replace(sae=row.sae.removesuffix("-full")) for row in rows]


def annealed_runs() -> list[Row]:
    """The runs of BatchTopKs with an annealed k on the text of :func:`one_pass`, beside those."""
    names = {"SmolLM2": "annealed_smollm2", "Gemma 3": "annealed_gemma3"}
    return _of_models("annealed_batchtopk.json", names)


def both_sides() -> list[Row]:
    """The runs of bi_jumprelu with both sides open from the start, on that text."""
    names = {model: name.replace("equal-width", "pairs") for model, name in ONE_PASS.items()}
    rows = _of_models("both_sides.json", names)
    return [row._replace(sae=row.sae.removesuffix("-full")) for row in rows]


def _of_models(name: str, sweeps: Mapping[str, str]) -> list[Row]:
    """The runs of sweeps in a file of results/, by model, with the model before each cell."""
    of_file = read(name)["sweeps"]
    return [row for model, sweep in sweeps.items() for row in rows_of(of_file[sweep], model)]


def with_short_half(rows: Sequence[Row]) -> list[Row]:
    """The runs of half width with the shorter warm-up in the place of the others of their cell."""
    short = f"{SHORT}-half"
    cells = {row.cell for row in rows if row.sae == short}
    kept = [row for row in rows if (row.sae, row.cell in cells) != (HALF_SAE, True)]
    return [row._replace(sae=HALF_SAE) if row.sae == short else row for row in kept]


def widths(equal: Sequence[Row]) -> list[Row]:
    """The runs of several widths at L0 32; an SAE's name ends in "-N" at N times ``d_in``.

    Another warm-up than 400 steps stands before that. An SAE without a target has its runs at other
    L0s too.

    Args:
        equal: the runs of :func:`one_pass`, of one seed.
    """
    names = {
        SHORT: "bi_jumprelu-2",
        "bi_jumprelu": "bi_jumprelu-warm-up-800-2",
        "batchtopk": "batchtopk-2",
        "batchtopk-double": "batchtopk-4",
        "jumprelu": "jumprelu-2",
    }
    known = [row._replace(sae=names[row.sae]) for row in equal if row.sae in names]
    of_widths = {model: name.replace("equal-width", "widths") for model, name in ONE_PASS.items()}
    wider = _of_models("widths.json", of_widths)
    return _near_32(known + [_of_four_times(model) for model in ONE_PASS] + wider)


def _of_four_times(model: str) -> Row:
    """The SAE of the MLP output with a warm-up of 800 steps that the tests of ends are of."""
    sweep = ONE_PASS[model].replace("equal-width-", "")
    (sae,) = (
        sae
        for folder, sae in read(f"opposites_{sweep}.json".replace("-", "_"))["saes"].items()
        if "/mlp_out/seed-0/bi_jumprelu-double/target_l0-32" in folder
    )
    at = (f"{model}, mlp_out", "bi_jumprelu-warm-up-800-4", 0, "target_l0", 32)
    # its dead latents are not in that file
    return Row(*at, sae["l0"], sae["r2"], float("nan"), sae["bipolar_share"])


def read(name: str) -> Any:
    """A file of results/."""
    return json.loads((ROOT / "results" / name).read_text())


def longer(equal: Sequence[Row]) -> dict[int, list[Row]]:
    """The runs at L0 32 of 4,000 steps, and those of 8,000, by the name of the former.

    An SAE without a target has its runs at other L0s too.

    Args:
        equal: the runs of :func:`one_pass`, of one seed.
    """
    (sweep,) = read("longer.json")["sweeps"].values()
    names = {"bi_jumprelu-8000-warm-up-800": SHORT}
    runs = [
        row._replace(sae=names.get(row.sae, row.sae.removesuffix("-8000")))
        for row in rows_of(sweep, "SmolLM2")
    ]
    return {4000: _near_32(equal), 8000: runs}


def _near_32(rows: Sequence[Row]) -> list[Row]:
    """The runs that were asked for an L0 of 32, and all of SAEs that cannot be asked."""
    return [row for row in rows if row.value == 32 or row.swept not in TARGET_FIELDS]
