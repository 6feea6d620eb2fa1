"""The report in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.report import write_report
from tests.test_report import PAGE, SWEEP, latents, written


@pytest.fixture
def driver() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    yield started
    started.quit()


@pytest.mark.slow
def test_charts_and_latents_in_both_themes_on_two_screens(driver: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    second = {**PAGE, "latent": 9, "energy_pos": 5.0, "logits_neg": [["onlyhere", 1.0]]}
    page = write_report(written(tmp_path, SWEEP, latents(second)), tmp_path / "report.html")

    def script(words: str) -> Any:
        return driver.execute_script(f"return {words}")

    def shown() -> str:
        return script("[...document.querySelectorAll('article')].filter(a => !a.hidden)[0]?.id")

    def ready(_: Any) -> bool:
        return script("document.documentElement.dataset.ready === 'yes'")

    inks = set()
    for width in (400, 1280):
        for theme in ("light", "dark"):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            feature = {"name": "prefers-color-scheme", "value": theme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            driver.get(page.as_uri())
            WebDriverWait(driver, 30).until(ready)
            assert script("document.documentElement.scrollWidth") <= width
            assert script("document.querySelectorAll('.plot .trace').length") == 8
            inks.add(script("getComputedStyle(document.querySelector('.xtick text')).fill"))
    assert len(inks) == 2  # the text of a chart follows the theme

    driver.find_element("css selector", "fieldset input").click()  # hides the first SAE
    left = "document.querySelectorAll('.plot .trace').length === 2"
    WebDriverWait(driver, 30).until(lambda _: script(left))

    assert shown() == "sae-0-latent-7"
    driver.find_element("css selector", "#order [value=energy]").click()
    assert shown() == "sae-0-latent-9"
    driver.find_element("id", "next").click()
    assert shown() == "sae-0-latent-7"
    assert driver.current_url.endswith("#sae-0-latent-7")
    driver.find_element("css selector", ".list a").send_keys(Keys.ARROW_LEFT)
    assert shown() == "sae-0-latent-9"
    find = driver.find_element("id", "find")
    for words, latent in (("7", "sae-0-latent-7"), ("ONLYHERE", "sae-0-latent-9"), ("zz", None)):
        find.clear()
        find.send_keys(words)
        assert shown() == latent
    driver.get(page.as_uri() + "#sae-0-latent-7")
    WebDriverWait(driver, 30).until(ready)
    assert shown() == "sae-0-latent-7"
    # the console holds refused requests too
    assert [entry["message"] for entry in driver.get_log("browser")] == []
