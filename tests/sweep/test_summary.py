"""The picture of a cell, of made-up results."""

from pathlib import Path

import pytest

from sae_lens_signaware.experiments.sweep.summary import SweepSummary, plot_cell
from tests.report.pages import CELLS, SAES, run_result

matplotlib = pytest.importorskip("matplotlib", reason="needs the [demo] extra")


def test_the_legend_names_every_sae_once(tmp_path: Path) -> None:
    runs = [(0, 0), (1, 0), (1, 1)]  # seed, SAE: the second SAE lacks the first seed
    results = [run_result(0, seed, sae, value) for seed, sae in runs for value in (8, 64)]
    path = tmp_path / "cell.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters, not their outlines
        plot_cell(SweepSummary(len(results), results, {}, []), CELLS[0], path)
    svg = path.read_text(encoding="utf-8")
    assert [svg.count(f">{name}</text>") for name in SAES[:2]] == [1, 1]
