"""``benchmarks/opposition_table.py``: what its tables show, and that texts stay texts."""

import html
from collections.abc import Callable
from typing import Any

import pytest

ROW = {
    "d_sae": 1152,
    "bipolar": 242,
    "measured": 40,
    "passing": 23,
    "opposition_quartiles": [0.3, 0.47, 0.5],
    "null": 0.21,
    "dial_median": 0.9958,
    "latents": {"7": {"opposition": 0.625, "low": 0.5, "high": 0.75}},
    "contexts": {
        "7": {"+": [["a |b| ", " *rise*", " <i>"]], "-": [["x", " fall", ""], ["", "y", ""]]}
    },
}


@pytest.fixture
def tables(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("opposition_table")


SIGNED, OTHER = "bi_jumprelu-full/target_l0-32", "sa_gsae-full/target_l0-32"


@pytest.fixture
def results() -> dict[str, Any]:
    few = {"d_sae": 48, "bipolar": 1, "measured": 1}  # none to compare with: no opposition
    more = ROW | {"passing": 7, "measured": 20, "opposition_quartiles": [0.1, 0.27, 0.5]}
    folder = "sweep_out/x/saes/{}/seed-0/{}"
    return {
        "A": {"saes": {folder.format("mlp_out", SIGNED): ROW, folder.format("resid", OTHER): ROW}},
        "B": {
            "saes": {folder.format("mlp_out", SIGNED): more, folder.format("resid", SIGNED): few}
        },
    }


def test_a_row_for_each_sae_sums_latents_and_averages_over_the_places(
    tables: Any, results: Any
) -> None:
    lines = tables.opposition_table(results, {SIGNED: "`s`", OTHER: "`o`"}).splitlines()
    # (242 + 242 + 1) of 2 * 1,152 + 48 latents are bipolar; the third hook point judged none
    assert lines[2] == "| `s` | 21% | 0.37 | 0.21 | 0.996 | 30 of 60 |"
    assert lines[3] == "| `o` | 21% | 0.47 | 0.21 | 0.996 | 23 of 40 |"


def test_a_row_for_each_place_has_a_dash_for_what_was_not_measured(
    tables: Any, results: Any
) -> None:
    lines = tables.places_table(results, {SIGNED: "`s`", OTHER: "`o`"}).splitlines()
    assert lines[2:] == [
        "| A, mlp_out | 242 / 23 of 40 | – |",
        "| B, mlp_out | 242 / 7 of 20 | – |",
        "| B, resid | 1 / – | – |",
        "| A, resid | – | 242 / 23 of 40 |",
    ]


def test_contexts_are_text_whatever_a_token_holds(tables: Any) -> None:
    line = tables.contexts_table(ROW).splitlines()[2]
    assert line.count("|") == 5  # the four columns alone
    _, latent, opposition, plus, minus, _ = (part.strip() for part in line.split("|"))
    assert (latent, opposition) == ("7", "0.62 (0.50 to 0.75)")
    assert "<i>" not in plus
    assert "*" not in plus
    assert html.unescape(plus) == "… a |b| <b> *rise*</b> <i> …"
    assert minus == "… x<b> fall</b> …<br>… <b>y</b> …"
