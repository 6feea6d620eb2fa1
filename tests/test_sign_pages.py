"""The page "What a sign means" says what results/opposites_* and opposition_* show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.evaluation.probe_ends import MIN_TEXTS
from tests.support.tables import result_page

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def page() -> str:
    return result_page("sign")


@pytest.fixture
def pages(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("sign_pages")


@pytest.fixture
def by_model(pages: Any, benchmark_script: Callable[[str], Any]) -> Callable[[str], Any]:
    read = benchmark_script("figures").read
    return lambda what: pages.by_model(read, what)


def span(counts: list[int]) -> str:
    return f"{min(counts)} to {max(counts)}"


def test_latents_that_stand_out(pages: Any, by_model: Callable[[str], Any], page: str) -> None:
    rows = [row for result in by_model("opposition").values() for row in result["saes"].values()]
    assert len(rows) == 6 * len(pages.SIGNED)
    stand_out, of = (sum(row[key] for row in rows) for key in ("passing", "measured"))
    assert f"{stand_out} of {of}" in page
    assert 0.45 < stand_out / of < 0.6  # "about half"
    first_token = [
        row for name, row in by_model("opposition")["SmolLM2"]["saes"].items() if "/resid/" in name
    ]
    assert len(first_token) == len(pages.SIGNED)
    less, of_less = (sum(row[key] for row in first_token) for key in ("passing", "measured"))
    assert f"Without it {stand_out - less} of {of - of_less} stand out" in page
    assert sum(row["passing_by_context"] for row in rows) == 0
    dials = sorted(row["dial_median"] for row in rows)
    assert f"opposition of an SAE at a hook point is {dials[0]:.2f} to {dials[-1]:.2f}." in page


def test_no_side_stands_for_its_end_with_few_texts(by_model: Callable[[str], Any]) -> None:
    rows = [row for result in by_model("opposites").values() for row in result["rows"]]
    for row in rows:
        for _, _, verdict, n_pos, _, n_neg, _ in row["ends"]:
            if verdict in ("both sides", "+ side alone"):
                assert n_pos >= MIN_TEXTS
            if verdict in ("both sides", "- side alone"):
                assert n_neg >= MIN_TEXTS


def test_axes_and_pairs_with_both_ends(
    pages: Any, by_model: Callable[[str], Any], page: str, benchmark_script: Callable[[str], Any]
) -> None:
    tables, opposites = benchmark_script("opposites_table"), by_model("opposites")

    def both(name: str, form: str, n: int, cell: str = "") -> int:
        fields = tables.fields_of(opposites, name)
        found = [tables.verdict(row, form) for at, row in fields.items() if cell in ("", at.cell)]
        assert len(found) == n
        return found.count("both sides")

    axes = span([both(name, "axis", 60) for name in pages.SIGNED])
    assert f"in {axes} of 60 tests" in page
    summary = result_page("summary")
    said = "of 60 tests for each signed SAE, the best latent had both ends in"
    assert f"{said} {axes}." in summary
    pairs = span([both(name, "pair", 60) for name in pages.PLAIN])
    assert f"in {pairs} of 60 tests" in page
    trainings = span([both(name, "axis", 20, "mlp_out") for name in pages.TRAININGS])
    assert f"{trainings} axes of 20" in page


def test_by_side_three_signed_saes_are_level_with_the_wider_plain_one(
    pages: Any, by_model: Callable[[str], Any], benchmark_script: Callable[[str], Any]
) -> None:
    table = benchmark_script("opposites_table").sides_table
    lines = table(by_model("opposites"), pages.SIGNED | pages.PLAIN, pages.DOUBLE).splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines}
    for name in pages.SIGNED.values():
        cells = [cell.strip() for cell in rows[name].split("|")]
        holds_zero = ["(−" in cell and "to +" in cell for cell in (cells[3], cells[5])]
        assert holds_zero == [True, name != "`bi_matryoshka_batchtopk`"]


def test_the_figure_says_how_many_points_it_leaves_out(
    pages: Any, by_model: Callable[[str], Any], page: str, benchmark_script: Callable[[str], Any]
) -> None:
    tables, opposites = benchmark_script("opposites_table"), by_model("opposites")
    points = [
        (row["metric"], [tables.score(row, form, 1) for form in ("axis", "side")])
        for name in pages.SIGNED
        for row in tables.fields_of(opposites, name).values()
    ]
    out = sum(min(scores) < tables.METRICS[metric][0] for metric, scores in points)
    assert all(max(scores) <= tables.METRICS[metric][1] for metric, scores in points)
    assert f"leave out {out} of {len(points)} points" in page
