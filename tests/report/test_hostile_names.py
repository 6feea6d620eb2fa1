"""Names and reasons that hold HTML: the page shows them, and a browser sees no tag of theirs."""

import dataclasses
import re
from pathlib import Path

import pytest

from sae_lens_signaware.experiments.sweep.summary import SweepSummary
from tests.report.pages import Parsed, run_result, sae_latents

pytest.importorskip("plotly", reason="needs the [report] extra")
from sae_lens_signaware.report.load import read_results
from sae_lens_signaware.report.page import page
from sae_lens_signaware.report.sections import sections

HOSTILE = "<u onx='1'>\"'</u>"


def test_names_of_cells_saes_and_runs_are_text_in_tables_controls_and_notes(tmp_path: Path) -> None:
    cell, sae, failed = f"{HOSTILE}c", f"{HOSTILE}s", {f"{HOSTILE}run": f"{HOSTILE}why"}
    run = dataclasses.replace(run_result(0, 0, 0, 8), cell=cell, sae=sae)
    quality = dataclasses.replace(run.quality, l0=58.0)
    missed = dataclasses.replace(run, quality=quality, seed=1)  # which a note names
    folder = tmp_path / HOSTILE.replace("/", "")
    SweepSummary(3, [run, missed], failed, []).write(folder, HOSTILE)
    latents = dataclasses.replace(sae_latents(0, 0), cell=cell, run=f"{cell}/seed-0/{sae}/l1-2")
    latents.write(tmp_path / "latents" / "a.json")
    results = read_results(tmp_path)
    parsed = Parsed(page(results, sections(results), ""))
    assert "u" not in {tag for tag, _ in parsed.tags}
    attributes = {name for _, attrs in parsed.tags for name in attrs}
    assert all(re.fullmatch("[a-z-]+", name) for name in attributes), attributes
    assert not any(name.startswith("on") for name in attributes), attributes
    for end in ("c", "s", "run", "why"):
        assert f"{HOSTILE}{end}" in parsed.text
