"""The results of tests/report/pages.py as files, and their page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.chromium import as_screen, complaints, opened, start_chromium
from tests.report.pages import PROTOCOL, Parsed, ablations_summary, sae_latents, sweep_summary


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a sweep with latents, ablations, and a protocol."""
    folder = tmp_path_factory.mktemp("results")
    sweep_summary().write(folder / "main_sweep", "sae-lens-signaware sweep <main>.yaml")
    ablations_summary().write(folder / "ablations", "sae-lens-signaware sweep ablations.yaml")
    for cell in range(3):
        for sae in (0, 2):
            path = folder / "main_sweep" / "latents" / f"{cell}-{sae}.json"
            sae_latents(cell, sae).write(path)
    PROTOCOL.write(folder / "protocol-c.json")
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = pytest.importorskip("sae_lens_signaware.report", reason="needs the [report] extra")
    return report.write_report(results, tmp_path_factory.mktemp("page") / "new" / "report.html")


@pytest.fixture(scope="module")
def parsed(page: Path) -> Parsed:
    return Parsed(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    started = start_chromium()
    yield started
    started.quit()


@pytest.fixture
def chromium(driver: Any, page: Path) -> Iterator[Any]:
    """A browser at the page; after each test nothing has left the page and nothing complained."""
    as_screen(driver)
    yield opened(driver, page)
    assert complaints(driver) == []
