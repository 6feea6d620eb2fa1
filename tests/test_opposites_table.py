"""Tables and figure of natural opposites (``benchmarks/opposites_table.py``)."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the [demo] extra")


@pytest.fixture
def tables(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("opposites_table")


def row(sae: str, name: str, metric: str, scores: dict[tuple[str, int], float], verdict: str = ""):
    ends = [["side", "1+", "both sides"]] + ([["axis", "1", verdict]] if verdict else [])
    probes = [[form, k, value] for (form, k), value in scores.items()]
    return {"sae": sae, "set": name, "metric": metric, "probes": probes, "ends": ends}


@pytest.fixture
def rows() -> list[Any]:
    signed, plain = "folder/signed", "folder/plain"
    return [
        row(signed, "a", "auc", {("axis", 1): 0.6, ("side", 1): 0.7, ("side", 8): 0.9}, "one side"),
        row(signed, "b", "auc", {("axis", 1): 0.8, ("side", 1): 0.8, ("side", 8): 1}, "both sides"),
        row(signed, "c", "rho", {("axis", 1): 0.2, ("side", 1): 0.3, ("side", 8): 0.4}, "one side"),
        row(plain, "a", "auc", {("side", 1): 0.5, ("side", 8): 0.7}),
        row(plain, "b", "auc", {("side", 1): 0.6, ("side", 8): 0.8}),
        row(plain, "c", "rho", {("side", 1): 0.1, ("side", 8): 0.3}),
    ]


@pytest.fixture
def probed(tables: Any) -> dict[str, Any]:
    return {
        "folder/signed": tables.Probed("mlp", tables.Series("s", "S", "sa_gsae"), "`s`"),
        "folder/plain": tables.Probed("mlp", tables.Series("p", "P", "batchtopk"), "`p`"),
    }


def test_means_over_the_sets_of_a_score(tables: Any, rows: Any, probed: Any) -> None:
    *_, signed, plain = tables.means_table(rows, probed).splitlines()
    assert signed == "| mlp | `s` | 0.70 | 0.75 | 0.95 | 0.20 | 0.30 | 0.40 | 1 of 3 |"
    assert plain == "| mlp | `p` | – | 0.55 | 0.75 | – | 0.10 | 0.30 | – |"


def test_a_set_has_its_three_scores_and_bold_where_both_sides_are_ends(
    tables: Any, rows: Any
) -> None:
    table = tables.opposites_table(rows, {"folder/signed": "`s`", "folder/plain": "`p`"})
    assert table.splitlines()[2:] == [
        "| a | auc | 0.60 / 0.70 / 0.90 | – / 0.50 / 0.70 |",
        "| b | auc | **0.80** / 0.80 / 1.00 | – / 0.60 / 0.80 |",
        "| c | rho | 0.20 / 0.30 / 0.40 | – / 0.10 / 0.30 |",
    ]


def test_a_point_is_filled_where_both_sides_of_the_axis_are_ends(
    tables: Any, rows: Any, probed: Any
) -> None:
    figure = tables.sides_figure(rows, probed, ["mlp"])
    auc, rho = figure.axes
    # the diagonal, then hollow and filled points; a plain SAE has no axis
    _, hollow, filled = auc.lines
    assert (list(hollow.get_xdata()), list(hollow.get_ydata())) == ([0.7], [0.6])
    assert (list(filled.get_xdata()), list(filled.get_ydata())) == ([0.8], [0.8])
    assert hollow.get_markerfacecolor() == "none" != filled.get_markerfacecolor()
    assert [list(line.get_ydata()) for line in rho.lines[1:]] == [[0.2]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["S"]
    importlib.import_module("figure_drawing").plt.close(figure)
