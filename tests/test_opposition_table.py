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


def test_a_row_for_each_sae_in_the_order_of_the_names(tables: Any) -> None:
    few = {"d_sae": 64, "bipolar": 1, "measured": 1}  # none to compare with: no opposition
    names = {"b": ("resid", "`b`"), "a": ("mlp_out", "`a`")}
    lines = tables.opposition_table({"a": ROW, "b": few}, names).splitlines()
    assert lines[2] == "| resid | `b` | 1 of 64 |  |  |  |  |"
    assert lines[3] == "| mlp_out | `a` | 242 of 1,152 | 0.47 | 0.21 | 0.996 | 23 of 40 |"
    assert len({line.count("|") for line in lines}) == 1


def test_contexts_are_text_whatever_a_token_holds(tables: Any) -> None:
    line = tables.contexts_table(ROW).splitlines()[2]
    assert line.count("|") == 5  # the four columns alone
    _, latent, opposition, plus, minus, _ = (part.strip() for part in line.split("|"))
    assert (latent, opposition) == ("7", "0.62 (0.50 to 0.75)")
    assert "<i>" not in plus
    assert "*" not in plus
    assert html.unescape(plus) == "… a |b| <b> *rise*</b> <i> …"
    assert minus == "… x<b> fall</b> …<br>… <b>y</b> …"
