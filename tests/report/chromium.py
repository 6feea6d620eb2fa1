"""A real browser: start it, open a page in it as a screen of some width and scheme, watch it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def start_chromium(width: int = 1366, height: int = 900) -> Any:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
    ):
        options.add_argument(flag)
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(chromedriver))


def as_screen(driver: Any, width: int | None = None, scheme: str = "light") -> None:
    """Be a screen of that width, whose system prefers that scheme; None is the window's width."""
    if width is None:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    else:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})


def opened(driver: Any, page: Path, address: str = "") -> Any:
    """The page, after all charts are drawn; logs and storage hold nothing from before."""
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get("about:blank")  # another fragment alone would not load the page again
    driver.get(page.resolve().as_uri() + address)
    until(driver, "return document.documentElement.dataset.ready === 'yes'")
    return driver


def until(driver: Any, script: str, *args: Any) -> None:
    """Wait until a script returns true."""
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(driver, 60)
    wait.until(lambda d: d.execute_script(script, *args), message=script)


def complaints(driver: Any) -> list[str]:
    """What the console holds, and every request that leaves the page."""
    found = [entry["message"] for entry in driver.get_log("browser")]
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                found.append(url)
    return found


def focused(driver: Any) -> str:
    return driver.execute_script("return document.activeElement.id")


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()
