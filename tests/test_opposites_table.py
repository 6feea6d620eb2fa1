"""Tables of natural opposites over models and hook points (``benchmarks/opposites_table.py``)."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

SIGNED, PLAIN, OTHER = "bi_jumprelu-full/target_l0-32", "batchtopk-full/k-32", "jumprelu-full/"


@pytest.fixture
def tables(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("opposites_table")


def path_of(cell: str, name: str) -> str:
    return f"sweep_out/x/saes/{cell}/seed-0/{name}"


def row(path: str, name: str, metric: str, scores: dict[tuple[str, int], float], *ends: list[str]):
    probes = [[form, k, value, 0.0, 1.0, "1"] for (form, k), value in scores.items()]
    return {"sae": path, "set": name, "metric": metric, "probes": probes, "ends": list(ends)}


def signed_row(cell: str, name: str, metric: str, axis: float, eight: float, verdict: str):
    scores = {("axis", 1): axis, ("side", 1): axis + 0.1, ("side", 8): eight, ("pair", 1): 0.5}
    ends = ["axis", "1", verdict], ["pair", "1+ 2-", "both sides"]
    return row(path_of(cell, SIGNED), name, metric, scores, *ends)


def plain_row(name: str, cell: str, of: str, metric: str, eight: float):
    return row(path_of(cell, name), of, metric, {("side", 1): 0.5, ("side", 8): eight})


@pytest.fixture
def results() -> dict[str, Any]:
    """Two models of one hook point; of a third SAE the second model has no probe."""
    of_first = [
        signed_row("mlp_out", "a", "auc", 0.6, 0.9, "both sides"),
        signed_row("mlp_out", "b", "rho", 0.2, 0.4, "+ side alone"),
        plain_row(PLAIN, "mlp_out", "a", "auc", 0.8),
        plain_row(PLAIN, "mlp_out", "b", "rho", 0.4),
        plain_row(f"{OTHER}l0_coefficient-2", "mlp_out", "a", "auc", 0.7),
    ]
    of_second = [
        signed_row("mlp_out", "a", "auc", 0.8, 0.7, "neither side"),
        signed_row("mlp_out", "b", "rho", 0.4, 0.6, "both sides"),
        plain_row(PLAIN, "mlp_out", "a", "auc", 0.6),
        plain_row(PLAIN, "mlp_out", "b", "rho", 0.8),
    ]
    about = {path_of("mlp_out", SIGNED): {"r2": 0.8, "bipolar_share": 0.25}}
    return {"A": {"saes": about, "rows": of_first}, "B": {"saes": about, "rows": of_second}}


def test_the_place_and_the_name_of_an_sae_are_read_off_its_folder(tables: Any) -> None:
    assert tables.place_of(path_of("mlp_out", SIGNED)) == ("mlp_out", SIGNED)


def test_means_by_side_and_the_gap_to_the_reference(tables: Any, results: Any) -> None:
    labels = {SIGNED: "`s`", PLAIN: "`p`"}
    *_, signed, plain = tables.sides_table(results, labels, PLAIN).splitlines()
    # both auc fields are ahead by 0.1, so the interval is a point; rho differs by 0 and by -0.2
    assert signed == "| `s` | 0.80 | +0.10 (+0.10 to +0.10) | 0.50 | −0.10 (−0.20 to +0.00) |"
    assert plain == "| `p` | 0.70 |  | 0.60 |  |"


def test_saes_are_compared_where_all_of_them_were_probed(tables: Any, results: Any) -> None:
    held = tables.shared_fields(results, [SIGNED, PLAIN, OTHER])
    assert {name: list(fields) for name, fields in held.items()} == {
        name: [("A", "mlp_out", "a")] for name in (SIGNED, PLAIN, OTHER)
    }


def test_axes_and_pairs_with_both_ends_are_counted(tables: Any, results: Any) -> None:
    *_, signed, plain = tables.axes_table(results, {SIGNED: "`s`", PLAIN: "`p`"}).splitlines()
    assert signed == "| `s` | 0.70 / 0.80 / 0.50 | 0.30 / 0.40 / 0.50 | 2 of 4 | 4 of 4 |"
    assert plain == "| `p` | – / 0.50 / – | – / 0.50 / – | – | – |"


def test_trainings_are_shown_with_what_was_measured_of_them(tables: Any, results: Any) -> None:
    *_, signed = tables.trainings_table(results, {SIGNED: "`s`"}, "mlp_out").splitlines()
    assert signed == "| `s` | 0.800 / 0.800 | 25% / 25% | 0.70 / 0.80 | 0.30 / 0.40 | 2 of 4 |"


def test_a_training_of_one_model_alone_has_a_dash_for_the_other(tables: Any, results: Any) -> None:
    results["B"]["rows"] = []
    *_, signed = tables.trainings_table(results, {SIGNED: "`s`"}, "mlp_out").splitlines()
    assert signed == "| `s` | 0.800 / – | 25% / – | 0.60 / 0.70 | 0.20 / 0.30 | 1 of 2 |"


def test_a_set_has_three_scores_of_each_sae_as_means_over_the_places(
    tables: Any, results: Any
) -> None:
    labels = {SIGNED: "`s`", PLAIN: "`p`"}
    assert tables.sets_table(results, labels).splitlines()[2:] == [
        "| a | auc | 0.70 / 0.80 / 0.80 | – / 0.50 / 0.70 |",
        "| b | rho | 0.30 / 0.40 / 0.50 | – / 0.50 / 0.60 |",
    ]


def test_a_point_is_filled_where_both_sides_of_the_axis_are_ends(tables: Any, results: Any) -> None:
    shown = [tables.Series(SIGNED, "S", "sa_gsae"), tables.Series(PLAIN, "P", "batchtopk")]
    figure = tables.sides_figure(results, shown)
    auc_a, auc_b, rho_a, _ = figure.axes
    points = {
        axis.get_title(loc="left"): [
            (line.get_xydata().tolist(), line.get_markerfacecolor() == "none")
            for line in axis.lines[1:]  # the first is the diagonal; a plain SAE has no axis
        ]
        for axis in (auc_a, auc_b, rho_a)
    }
    assert points == {
        "A, templates (AUC)": [([[0.7, 0.6]], False)],
        "B, templates (AUC)": [([[0.9, 0.8]], True)],
        "A, rated texts (rho)": [([[pytest.approx(0.3), 0.2]], True)],
    }
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["S", "filled: both ends"]
    importlib.import_module("figure_drawing").plt.close(figure)


def test_the_saes_of_a_file_on_one_set(tables: Any) -> None:
    scores = {("axis", 1): 0.9, ("side", 1): 0.8, ("side", 8): 0.95, ("pair", 1): 0.7}
    ends = ["axis", "1", "both sides"], ["pair", "1+ 2-", "neither side"]
    mine = row("pretrained/x", "tense", "auc", scores, *ends)
    mine["probes"].append(["raw", 5, 0.99, 0.9, 1.0, ""])
    other = row("pretrained/x", "case", "auc", scores, *ends)
    table = tables.saes_table({"rows": [mine, other]}, "tense")
    assert table.splitlines()[2:] == [
        "| `x` | 0.90 (`1`); both sides | 0.80 (`1`) | 0.70 (`1`); neither side | 0.95 | 0.99 |"
    ]
