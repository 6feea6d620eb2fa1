"""``benchmarks/figures.py``: the figures and tables in the docs are those of results/."""

import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

import matplotlib

ROOT = Path(__file__).parent.parent
FIGURES = sorted((ROOT / "docs" / "assets" / "results").glob("*.svg"))


def row(
    figures: Any,
    cell: str,
    sae: str,
    l0: float,
    r2: float,
    seed: int = 0,
    swept: str = "target_l0",
    value: float | None = None,
) -> Any:
    return importlib.import_module("result_rows").Row(
        cell, sae, seed, swept, value or round(l0), l0, r2, 0.0, 0.5
    )


def numbered(svg: str) -> str:
    """With numbers for ids, which matplotlib hashes from how numpy prints a float."""
    ids: dict[str, str] = {}
    return re.sub(r"\b[a-z][0-9a-f]{10}\b", lambda m: ids.setdefault(m[0], f"#{len(ids)}"), svg)


@pytest.mark.slow
def test_the_command_makes_what_the_docs_show(
    figures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["figures.py", "--out", str(tmp_path)])
    figures.main()
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.*")}
    assert {ROOT / path for path in made if path.suffix == ".svg"} == set(FIGURES)
    for path, text in made.items():
        kept = (ROOT / path).read_text()
        # other versions of matplotlib draw the same with other bytes
        if path.suffix == ".md" or f"Matplotlib v{matplotlib.__version__}," in kept:
            assert numbered(text) == numbered(kept), f"{path}: run python benchmarks/figures.py"


def test_gaps_over_seeds_are_taken_within_each_seed(figures: Any) -> None:
    def of_seed(seed: int, r2_of_a: float) -> list[Any]:
        return [
            row(figures, "c", "a", 8.0, r2_of_a, seed=seed),
            row(figures, "c", "a", 32.0, 0.7, seed=seed),
            row(figures, "c", "p", 6.0, 0.2, seed=seed, swept="l0_coefficient", value=2.0),
            row(figures, "c", "p", 32 / 3, 0.6, seed=seed, swept="l0_coefficient", value=1.0),
        ]

    # on the line of p, R² is 0.4 at 8, halfway in log L0; its end is too far from 32
    rows = of_seed(0, 0.5) + of_seed(1, 0.3) + of_seed(2, 0.47)
    # a point of one seed alone would move its line
    rows.append(row(figures, "c", "p", 8.0, 0.1, swept="l0_coefficient", value=1.5))
    rows.append(row(figures, "c", "a", 8.0, 0.99, seed=3))  # no p in its seed
    rows += [r._replace(cell="d") for r in of_seed(0, 0.5)]  # one seed alone
    table = figures.seeds_table(rows, ["c", "d"], "a", {"p": "P", "q": "Q"}).splitlines()
    assert table[2:] == ["| c | P | +0.0233 (−0.1000 to +0.1000), n = 3 |  |  |"]


def test_a_peer_with_one_run_is_compared_at_its_own_l0(figures: Any) -> None:
    rows = [
        row(figures, "c", "a", 16.0, 0.5),
        row(figures, "c", "a", 32.0, 0.6),
        row(figures, "c", "p", 32.0, 0.55, swept="k"),
        row(figures, "c", "q", 28.0, 0.7, swept="l1_coefficient", value=3.0)._replace(
            dead_share=0.25
        ),
        row(figures, "c", "far", 24.0, 0.5, swept="l1_coefficient", value=3.0),
        row(figures, "d", "p", 32.0, 0.55, swept="k"),  # no line of a there
    ]
    saes = {"p": "P", "q": "Q", "far": "F", "none": "N"}
    table = figures.peers_table(rows, ["c", "d"], "a", saes, 32).splitlines()
    # the line of a rises by 0.1 a factor of 2 in L0
    of_q = f"−{0.7 - 0.6 - 0.1 * math.log2(28 / 32):.4f} at 28.0; 25.0%"
    assert table[2:] == ["| P | +0.0500 at 32.0; 0.0% |  |", f"| Q | {of_q} |  |"]


def test_the_best_of_ours_is_the_one_furthest_above_all_others(figures: Any) -> None:
    def line(sae: str, at_8: float, at_32: float) -> list[Any]:
        return [
            row(figures, "c", sae, 8.0, at_8, swept="k"),
            row(figures, "c", sae, 32.0, at_32, swept="k"),
        ]

    rows = line("a", 0.5, 0.6) + line("b", 0.51, 0.55) + line("p", 0.4, 0.62) + line("q", 0.53, 0.5)
    rows += line("ignored", 0.9, 0.9)
    ours, others = {"a": "A", "b": "B", "none": "N"}, {"p": "P", "q": "Q"}
    table = figures.best_table(rows, ["c", "d"], ours, others).splitlines()
    assert table[2:] == ["| c | B −0.0200 to Q | A −0.0200 to P |  |", "| d |  |  |  |"]


def test_saes_at_one_l0_are_bold_where_they_are_level_with_the_best(figures: Any) -> None:
    rows = [
        row(figures, "c", "a", 32.0, 0.6),
        row(figures, "c", "p", 28.0, 0.5, swept="l0_coefficient", value=2.0),
        row(figures, "c", "p", 1024 / 28, 0.704, swept="l0_coefficient", value=1.0),
        row(figures, "c", "q", 32.0, 0.5996, swept="k"),
        row(figures, "c", "q", 8.0, 0.3, swept="k"),
        row(figures, "c", "one run", 31.0, 0.9, swept="k", value=32),
    ]
    saes = {name: name.upper() for name in ("a", "p", "q", "one run")}
    # of p 0.602 at 32, halfway in log L0; q is 0.0024 below that, and a 0.002
    assert figures.same_l0_table(rows, ["c"], "a", saes, 32).splitlines() == [
        "| hook point | A | P | Q | ONE RUN |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| c | **0.6000** | **0.6020** | 0.5996 |  |",
    ]


def test_pages_show_files_as_they_are(benchmark_script: Callable[[str], Any]) -> None:
    page_files = benchmark_script("page_files")
    shown: list[str] = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text()
        shown += [match["name"] for match in page_files.BLOCK.finditer(text)]
        assert page_files.fill_page(text, ROOT) == text, f"{page}: run python benchmarks/figures.py"
    of_sweeps = {"sweep.md", "equal_width.md"}
    several = ("widths", "longer", "k_anneal", "annealed_batchtopk", "both_sides")
    of_sweeps |= {f"{name}_runs.md" for name in several}
    made = {path.name for path in (ROOT / "results").glob("*.md")} - of_sweeps
    assert {Path(name).name for name in shown if name.endswith(".md")} == made
    assert len(shown) == len(set(shown))


def test_a_file_is_indented_as_its_comment_and_a_config_is_fenced(
    benchmark_script: Callable[[str], Any], tmp_path: Path
) -> None:
    fill_page = benchmark_script("page_files").fill_page
    (tmp_path / "a.md").write_text("| a |\n\nmore\n")
    (tmp_path / "b.yaml").write_text("x: 1\n")
    page = """- item
    <!-- file: a.md -->
    old
    <!-- end of file -->
<!-- file: b.yaml -->
<!-- end of file -->
"""
    filled = """- item
    <!-- file: a.md -->

    | a |

    more

    <!-- end of file -->
<!-- file: b.yaml -->

```yaml
x: 1
```

<!-- end of file -->
"""
    assert fill_page(page, tmp_path) == filled
    assert fill_page(filled, tmp_path) == filled


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_a_figure_is_small_and_follows_the_colour_scheme(
    path: Path, benchmark_script: Callable[[str], Any]
) -> None:
    text = path.read_text()
    assert len(text.encode()) < 100_000
    assert "prefers-color-scheme:dark" in text
    assert "<text" in text
    # a colour that stands outside of the style sheet would be the same in both schemes
    body = text.partition("</style>")[2]
    drawing = benchmark_script("figure_drawing")
    for light, dark, _ in drawing.ARCHITECTURES.values():
        assert light not in body
        assert dark not in body


def test_every_architecture_has_colours_of_its_own(benchmark_script: Callable[[str], Any]) -> None:
    drawing = benchmark_script("figure_drawing")
    light, dark, markers = zip(*drawing.ARCHITECTURES.values(), strict=True)
    for one in (light, dark, markers):
        assert len(set(one)) == len(one)


def test_a_gap_is_that_of_the_lines_over_the_overlap(figures: Any) -> None:
    # lines in log2 L0 by hand: a rises by 0.2 and b by 0.1 a doubling, b from 0.2 at 6
    a = [row(figures, "c", "a", l0, 0.2 * math.log2(l0)) for l0 in (4, 8, 16, 32)]
    b = [row(figures, "c", "b", l0, 0.2 + 0.1 * math.log2(l0 / 6)) for l0 in (6, 12, 24)]
    gaps = importlib.import_module("frontier_figure").gaps
    at, gap = gaps(a, b)
    assert at == [6, 8, 16, 24]
    assert gap == pytest.approx(
        [0.2 * math.log2(l0) - 0.2 - 0.1 * math.log2(l0 / 6) for l0 in (6, 8, 16, 24)]
    )
    assert gaps(a, []) == ([], [])
    assert gaps(a[:1], b) == ([], [])


def test_a_gap_is_not_read_far_from_the_points_of_a_line(figures: Any) -> None:
    a = [row(figures, "c", "a", l0, 0.5) for l0 in (8, 16, 32)]
    b = [row(figures, "c", "b", l0, 0.25) for l0 in (8, 32)]  # 16 is a factor of 2 from both
    assert importlib.import_module("frontier_figure").gaps(a, b)[0] == [8, 32]


def test_a_frontier_figure_takes_six_cells(
    figures: Any, benchmark_script: Callable[[str], Any]
) -> None:
    cells = [f"cell {i}" for i in range(6)]
    rows = [
        row(figures, cell, sae, l0, r2 + 0.1 * seed, seed)
        for cell in cells
        for sae, r2 in (("a", 0.3), ("b", 0.2))
        for l0 in (8.0, 16.0)
        for seed in (0, 1)
    ]
    Series = benchmark_script("figure_drawing").Series
    series = [Series("a", "A", "sa_gsae"), Series("b", "B", "gated")]
    figure = figures.frontier_figure(rows, cells, series, series[1])
    assert len(figure.axes) == 12
    assert [
        axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")
    ] == cells
    upper, lower = figure.axes[0].lines[0], figure.axes[3].lines[0]
    assert list(upper.get_ydata()) == pytest.approx([0.35, 0.35])  # the mean over both seeds
    assert list(lower.get_ydata()) == pytest.approx([0.1, 0.1])
    figures.plt.close(figure)


def test_runs_of_more_seeds_count_for_their_sae(figures: Any) -> None:
    sweep = {
        "columns": [
            "cell",
            "sae",
            "seed",
            "swept",
            "value",
            "l0",
            "r2",
            "dead_share",
            "bipolar_share",
        ],
        "runs": [
            ["c", "a", 0, "k", 8, 8.0, 0.5, 0.0, 0.2],
            ["c", "a-more-seeds", 1, "k", 8, 8.2, 0.7, 0.02, 0.4],
        ],
    }
    (mean,) = importlib.import_module("result_rows").means(figures.rows_of(sweep), "c", "a")
    assert mean[:5] == ("c", "a", 2, "k", 8)
    assert mean[5:] == pytest.approx((8.1, 0.6, 0.01, 0.3))


def test_a_table_of_one_recipe_marks_the_best_and_what_missed_its_l0(figures: Any) -> None:
    rows = [
        row(figures, "c", "a", 8.1, 0.5),
        row(figures, "c", "a", 8.1, 0.7, seed=1),
        row(figures, "c", "b", 8.0, 0.4),
        row(figures, "c", "b", 32.1, 0.6),
        row(figures, "c", "b", 49.0, 0.9, value=128),  # missed, and nearer to 32
        row(figures, "c", "a", 32.0, 0.8),
        row(figures, "c", "p", 30.0, 0.85, swept="l0_coefficient", value=2.5),
        row(figures, "c", "p", 40.0, 0.95, swept="l0_coefficient", value=1.2),
    ]
    table = figures.points_table(rows, ["c"], {"a": "A", "b": "B", "p": "P"}).splitlines()
    of_a = "**0.6000** at 8.1; 50%, n = 2 | **0.8000** at 32.0; 50% |  |"
    assert table[2] == f"| c | A | {of_a}"
    of_b = "0.4000 at 8.0; 50% | 0.6000 at 32.1; 50% | (0.9000) at 49.0; 50%"
    assert table[3] == f"| c | B | {of_b} |"
    assert table[4] == "| c | P |  | 0.8500 at 30.0; 50% |  |"  # another L0: it does not compete
    dead = figures.dead_table(rows, ["c", "d"], {"a": "A"}).splitlines()
    assert dead[2] == "| A | 0.00% (3 runs) |  |"


def test_a_gap_is_taken_at_the_l0_of_the_signed_sae(figures: Any) -> None:
    rows = [
        row(figures, "c", "a", 8.0, 0.5),
        row(figures, "c", "a", 16.0, 0.7, value=32),  # missed its L0
        row(figures, "c", "a", 128.0, 0.9),
        row(figures, "c", "p", 6.0, 0.2, swept="l0_coefficient", value=2.0),
        row(figures, "c", "p", 32 / 3, 0.6, swept="l0_coefficient", value=1.0),
        row(figures, "c", "p", 120.0, 0.8, swept="l0_coefficient", value=0.5),
        row(figures, "c", "q", 128.0, 0.8, swept="k"),  # one point is no line
    ]
    table = figures.gaps_table(rows, ["c"], "a", {"p": "P", "q": "Q"}).splitlines()
    # at 8 halfway in log L0; at 128 the last segment goes on
    beyond = 0.9 - (0.8 + 0.2 * math.log(128 / 120) / math.log(120 * 3 / 32))
    assert table[2:] == [f"| c | P | +0.1000 |  | {beyond:+.4f} |"]
    behind = figures.gaps_table(
        [r._replace(r2=0.35) if r[5] == 8.0 else r for r in rows], ["c"], "a", {"p": "P"}
    )
    assert "| c | P | −0.0500 |" in behind
    far = [r for r in rows if r.l0 < 100] + [row(figures, "c", "a", 128.0, 0.9)]
    assert figures.gaps_table(far, ["c"], "a", {"p": "P"}).splitlines()[2:] == [
        "| c | P | +0.1000 |  |  |"
    ]
    wide = [r._replace(l0=r.l0 * 1.6) if r.l0 == 32 / 3 else r for r in far]
    wide = [r._replace(l0=r.l0 / 1.6) if r.l0 == 6.0 else r for r in wide]  # 8 is between, but far
    assert len(figures.gaps_table(wide, ["c"], "a", {"p": "P"}).splitlines()) == 2


def test_two_gaps_to_one_sae_and_what_lies_between_them(figures: Any) -> None:
    rows = [
        row(figures, "c", "a", 8.0, 0.5),
        row(figures, "c", "b", 8.0, 0.75),
        row(figures, "c", "p", 7.0, 0.625, value=8),
        row(figures, "c", "p", 64 / 7, 0.625, value=32),
        row(figures, "d", "a", 8.0, 0.5),
    ]
    table = figures.two_gaps_table(rows, ["c", "d"], {"a": "A", "b": "B"}, "p", 8).splitlines()
    assert table[0] == "| hook point | A | B | difference |"
    assert table[2:] == ["| c | −0.1250 | +0.1250 | +0.2500 |"]
