"""The summary of a sweep, of made-up results and of one written by an earlier version."""

import dataclasses
import errno
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from sae_lens_signaware.experiments.plots import frontier_axes
from sae_lens_signaware.experiments.sweep.comparison import Comparison
from sae_lens_signaware.experiments.sweep.frontier import Point, compare_frontiers, summarise_seeds
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import (
    MISSED_NOTE,
    SweepSummary,
    missed_l0,
    plot_cell,
)
from tests.report.pages import CELLS, SAES, run_result

OLD = Path(__file__).parents[1] / "fixtures/swept_by_0_1_0/out/sweep.json"


def printed(table: Table) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return " ".join(console.export_text().split())


def missing(value: float, l0: float) -> RunResult:
    """A run that asked for an L0 of ``value``."""
    result = run_result(0, 0, 0, value)
    return dataclasses.replace(result, quality=dataclasses.replace(result.quality, l0=l0))


def test_an_old_file_is_read_and_its_verdicts_follow_the_rule_of_today() -> None:
    summary = SweepSummary.read(OLD)
    assert len(summary.results) == 4
    (comparison,) = summary.comparisons
    # the file has 2.00 for the dead latents: the ratio of two widths without a dead latent
    expected = ("none", "–", "no verdict 1 of 1", "none / none")
    assert comparison.row() == ("mlp", "half", "full", *expected)
    assert comparison.verdicts[0].dominates is None
    text = printed(summary.verdict_table())
    assert "mlp, half against full, seed 0: no verdict: the L0 ranges do not overlap" in text
    assert "by more than 0.002" in text


def test_a_run_without_an_active_latent_is_said_to_be_left_out(tmp_path: Path) -> None:
    summary = SweepSummary.read(OLD)
    (comparison,) = summary.comparisons
    silent = dataclasses.replace(summary.results[0], value=7.0)
    silent = dataclasses.replace(silent, quality=dataclasses.replace(silent.quality, l0=0.0))
    other = dataclasses.replace(silent, sae="of no comparison")
    with_it = dataclasses.replace(summary, results=[*summary.results, silent, other])
    before, after = summary.verdict_notes(), with_it.verdict_notes()
    assert comparison.a == silent.sae
    assert after[:-1] == before
    assert after[-1] == (
        "mlp, half, seed 0, l1_coefficient 7: left out, its dead latents as well: "
        "no latent is active"
    )


def test_an_old_file_that_calls_a_tiny_gap_dominating_is_read_as_level(tmp_path: Path) -> None:
    b = [Point(8, 0.5, 0.1, 1000), Point(64, 0.8, 0.1, 1000)]
    a = [dataclasses.replace(p, explained_variance=p.explained_variance + 2e-5) for p in b]
    results = [
        dataclasses.replace(
            run_result(0, 0, sae, point.l0),
            quality=dataclasses.replace(
                run_result(0, 0, sae, point.l0).quality, **dataclasses.asdict(point)
            ),
        )
        for sae, points in enumerate((a, b))
        for point in points
    ]
    old = dataclasses.replace(compare_frontiers(a, b), outcome="ahead", dominates=True)
    comparison = Comparison(CELLS[0], *SAES[:2], {0: old}, summarise_seeds([old]))
    SweepSummary(4, results, {}, [comparison]).write(tmp_path, "x")
    (read,) = SweepSummary.read(tmp_path / "sweep.json").comparisons
    assert (read.verdicts[0].outcome, read.verdicts[0].dominates) == ("level", False)
    assert read.summary.n_dominating == 0


def test_brackets_in_names_are_no_markup() -> None:
    results = [run_result(0, 0, sae, value, "bi [/2H]") for sae in (0, 1) for value in (8, 64)]
    points = [Point(r.quality.l0, r.quality.explained_variance, 0.1, 9) for r in results]
    verdict = compare_frontiers(points[:2], points[2:])
    comparison = Comparison(CELLS[0], "a [k]", "bi [/2H]", {0: verdict}, summarise_seeds([verdict]))
    summary = SweepSummary(4, results, {}, [comparison])
    assert "bi [/2H]" in printed(summary.point_table())
    assert "a [k]" in printed(summary.verdict_table())


def test_a_missed_l0_is_marked_in_the_table_and_said_below() -> None:
    near, far = missing(16, 16.9), missing(16, 58.24)
    summary = SweepSummary(2, [near, far], {}, [])
    assert repr(summary) == "SweepSummary of 2 of 2 runs, 0 failed, 0 comparisons"
    text = printed(summary.point_table())
    assert "58.24 !" in text
    assert "16.90 !" not in text
    assert f"! {CELLS[0]}, {SAES[0]}, seed 0: asked for L0 16, measured 58.2" in text
    assert "!" not in printed(SweepSummary(1, [near], {}, []).point_table())


@pytest.mark.parametrize(
    ("field", "missed"), [("target_l0", True), ("k", True), ("l1_coefficient", False)]
)
def test_only_what_asks_for_an_l0_can_miss_it(field: str, missed: bool) -> None:
    assert (missed_l0(dataclasses.replace(missing(16, 58), field=field)) is not None) is missed


def test_a_fixed_target_l0_is_known_to_a_summary_that_was_read(tmp_path: Path) -> None:
    sae = {"target_l0": 16, "target_l0_rate": 0.01, "lr": "and so on"}
    result = dataclasses.replace(missing(16, 58.24), field="aux", identity={"sae": sae})
    SweepSummary(1, [result], {}, []).write(tmp_path, "x")
    summary = SweepSummary.read(tmp_path / "sweep.json")
    assert "seed 0, aux 16: asked for L0 16, measured 58.2" in printed(summary.point_table())
    (read,) = summary.results
    assert missed_l0(read) == missed_l0(result) == "asked for L0 16, measured 58.2"
    assert set(read.identity["sae"]) == {"target_l0", "target_l0_rate"}


def drawn(results: list[RunResult], path: Path) -> str:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the [demo] extra")
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters, not their outlines
        plot_cell(SweepSummary(len(results), results, {}, []), CELLS[0], path)
    return path.read_text(encoding="utf-8")


def test_a_picture_leaves_the_backend_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the [demo] extra")
    monkeypatch.setitem(matplotlib.rcParams, "backend", "pdf")
    drawn([run_result(0, 0, 0, 8)], tmp_path / "cell.svg")
    assert matplotlib.get_backend() == "pdf"


def test_the_legend_names_every_sae_once(tmp_path: Path) -> None:
    runs = [(0, 0), (1, 0), (1, 1)]  # seed, SAE: the second SAE lacks the first seed
    results = [run_result(0, seed, sae, value) for seed, sae in runs for value in (8, 64)]
    svg = drawn(results, tmp_path / "cell.svg")
    assert [svg.count(f">{name}</text>") for name in SAES[:2]] == [1, 1]
    assert MISSED_NOTE not in svg


def test_a_missed_l0_is_hollow_in_the_picture(tmp_path: Path) -> None:
    white = "fill: #ffffff; stroke: #"
    missed = drawn([missing(8, 8.1), missing(16, 58.24)], tmp_path / "missed.svg")
    assert missed.count(f">{MISSED_NOTE}</text>") == 1
    assert missed.count(white) == 2  # the marker at the point, and the legend's
    reached = drawn([missing(8, 8.1), missing(58, 58.24)], tmp_path / "reached.svg")
    assert reached.count(white) == 0


@pytest.mark.parametrize(
    ("l0s", "ticks"),
    [
        pytest.param((43, 70), [48, 56, 64], id="narrow"),
        pytest.param((10, 50), [16, 32], id="wide"),
    ],
)
def test_the_axis_of_l0_has_ticks_in_a_narrow_range_too(
    tmp_path: Path, l0s: tuple[int, int], ticks: list[int]
) -> None:
    svg = drawn([missing(l0, l0) for l0 in l0s], tmp_path / "cell.svg")
    names = [str(quarter * 2**i) for i in range(6) for quarter in (4, 5, 6, 7)]
    assert [int(name) for name in names if f">{name}</text>" in svg] == ticks


def test_an_l0_of_0_is_no_point_of_the_picture(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the [demo] extra")
    runs = [run_result(0, 0, 0, 8), run_result(0, 0, 0, 16)]
    silent = dataclasses.replace(missing(4, 0.0), field="l1_coefficient")
    pictures = []
    for results in (runs, [silent, *runs]):
        with matplotlib.rc_context({"svg.hashsalt": "names of parts"}):
            lines = drawn(results, tmp_path / "cell.svg").splitlines()
        pictures.append([line for line in lines if "dc:date" not in line])
    assert pictures[0] == pictures[1]


def test_the_title_speaks_of_shades_where_there_are_some(tmp_path: Path) -> None:
    runs = [run_result(0, 0, sae, value) for sae in (0, 1) for value in (8, 64)]
    assert "shaded" not in drawn(runs, tmp_path / "no_verdict.svg")


def test_a_name_with_dollars_is_no_formula(tmp_path: Path) -> None:
    cell, sae = "$x_{$", "$y^{$"
    run = dataclasses.replace(run_result(0, 0, 0, 16), cell=cell, sae=sae)
    matplotlib = pytest.importorskip("matplotlib", reason="needs the [demo] extra")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_cell(SweepSummary(1, [run], {}, []), cell, tmp_path / "cell.svg")
    svg = (tmp_path / "cell.svg").read_text(encoding="utf-8")
    assert [svg.count(f">{name}</text>") for name in (cell, sae)] == [1, 1]


def test_a_picture_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "frontier.png"
    with frontier_axes(path, "before", (4, 3)):
        pass
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")

    def half(figure: Any, file: Any, **kwargs: Any) -> None:
        Path(file).write_bytes(before[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(OSError, match="No space"), frontier_axes(path, "after", (4, 3)):
        pass
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
