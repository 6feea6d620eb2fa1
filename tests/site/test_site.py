"""The built site in a real browser, opened as files: it fits, is whole and loads nothing else."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sae_lens_signaware as signaware
from tests.report.chromium import complaints, start_chromium

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PAGES = (
    "index", "gallery", "guide", "results/equal_width", "results/equal_time", "results/half_width",
    "results/dead_latents", "results/speed", "results/annealed_k", "results/other_saes",
    "results/signed_saes", "results/generality", "results/equal_width_runs", "log",
)  # fmt: skip

OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN_IMAGES = """
return [...document.images].filter(image => !(image.complete && image.naturalWidth)).map(i => i.src)
"""
COLOURS = """
const style = getComputedStyle(document.body);
return [style.backgroundColor, style.color].map(c => c.match(/[0-9.]+/g).slice(0, 3).map(Number));
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(module, reason="needs the [docs] extra")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    started = start_chromium()
    yield started
    started.quit()


def opened(driver: Any, site: Path, page: str, width: int, scheme: str) -> Any:
    """A page at a width and in the colour scheme that the reader's system asks for."""
    from selenium.webdriver.support.ui import WebDriverWait

    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get("about:blank")  # a fragment alone would not load the page anew
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get((site / f"{page}.html").resolve().as_uri())
    WebDriverWait(driver, 60).until(
        lambda d: d.execute_script("return document.readyState") == "complete"
    )
    return driver


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_and_is_whole(
    driver: Any, site: Path, page: str, width: int, scheme: str
) -> None:
    opened(driver, site, page, width, scheme)
    assert driver.execute_script(OVERFLOW) <= 0
    assert driver.execute_script(BROKEN_IMAGES) == []
    assert complaints(driver) == []
    background, text = driver.execute_script(COLOURS)
    light, dark = (background, text) if scheme == "light" else (text, background)
    assert sum(light) > sum(dark) + 200


def test_the_results_pages_have_their_figures(driver: Any, site: Path) -> None:
    figures = {"half_width": 1, "equal_width": 1, "equal_time": 1, "speed": 1}
    figures |= {"version_0_1_0/half_width": 2, "version_0_1_0/dead_latents": 2}
    for page, n in figures.items():
        opened(driver, site, f"results/{page}", 1280, "light")
        count = "return document.querySelectorAll('figure img').length"
        assert driver.execute_script(count) == n


def test_search_works_in_pages_that_are_opened_as_files(driver: Any, site: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    results = "return document.querySelectorAll('.md-search-result__item').length"
    for page in ("index", "results/speed"):
        opened(driver, site, page, 1280, "light")
        box = driver.find_element(By.CSS_SELECTOR, ".md-search__input")
        box.click()
        box.send_keys("matryoshka")
        WebDriverWait(driver, 60).until(lambda d: d.execute_script(results) > 1)
        assert complaints(driver) == []


def test_pages_hold_what_is_made_when_the_site_is_built(site: Path) -> None:
    pages = {page.stem: page.read_text() for page in site.glob("*.html")}
    assert "Usage: sae-lens-signaware train" in pages["cli"]
    assert "0.1.0" in pages["changelog"]
    assert 'class="arithmatex"' in pages["architectures"]
    assert "split_polarities" in pages["notebook"]
    api = pages["api"]
    for name in signaware.__all__:
        assert f'id="sae_lens_signaware.{name}"' in api
    assert ":func:" not in api
    assert ":class:" not in api
    # names that share a description have an entry each, and formulas are code
    assert re.search(r"<b>(<code>)?(<span[^>]*>|<a[^>]*>)*gain_neg", api)
    assert re.search(r"<pre>.*?g_s = 1\[u_s", api, re.DOTALL)
    for text in pages.values():
        assert not re.search(r'<(script|link)[^>]+(src|href)="https?://(?!arxiv)', text)
