"""The report in a real browser."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.pages import SAES, Parsed, context, latent_page


def start_chromium(width: int = 1366, height: int = 900) -> Any:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(chromedriver))


def opened(driver: Any, page: Path) -> Any:
    """The page, after all charts are drawn; logs hold nothing from before."""
    from selenium.webdriver.support.ui import WebDriverWait

    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(page.resolve().as_uri())
    WebDriverWait(driver, 60).until(
        lambda d: d.execute_script("return document.documentElement.dataset.ready") == "yes"
    )
    return driver


def complaints(driver: Any) -> list[str]:
    """What the console holds, and every request that leaves the page."""
    found = [entry["message"] for entry in driver.get_log("browser")]
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:")):
                found.append(url)
    return found


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    started = start_chromium()
    yield started
    started.quit()


@pytest.fixture
def chromium(driver: Any, page: Path) -> Iterator[Any]:
    """A browser at the page; after each test nothing has left the page and nothing complained."""
    yield opened(driver, page)
    assert complaints(driver) == []


def focused(driver: Any) -> str:
    return driver.execute_script("return document.activeElement.id")


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


@pytest.mark.slow
def test_the_watch_over_requests_and_console_sees_both(
    driver: Any, page: Path, tmp_path: Path
) -> None:
    text = page.read_text(encoding="utf-8")
    leak = text.replace("<body>", '<body><img src="http://leak.invalid/x.png">')
    (tmp_path / "blocked.html").write_text(leak, encoding="utf-8")
    opened(driver, tmp_path / "blocked.html")
    assert any("Content Security Policy" in words for words in complaints(driver))
    leak = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", leak)
    (tmp_path / "free.html").write_text(leak, encoding="utf-8")
    opened(driver, tmp_path / "free.html")
    assert "http://leak.invalid/x.png" in complaints(driver)


@pytest.mark.slow
def test_it_renders(chromium: Any, parsed: Parsed) -> None:
    drawn = chromium.execute_script(
        "return [...document.querySelectorAll('[data-figure]')].map(div => "
        "[div.dataset.figure, div.querySelectorAll('.trace').length, div.clientWidth])"
    )
    expected = {name: len(v["data"]) for name, v in parsed.data.items() if name != "latents-data"}
    assert {name: n for name, n, _ in drawn} == expected
    assert all(400 < width <= 640 for _, _, width in drawn)
    # an SAE whose name is HTML keeps its name in a legend
    legends = chromium.execute_script(
        "return [...document.querySelectorAll('.legendtext')].map(e => e.textContent)"
    )
    assert 'odd <b>"name"</b>' in legends
    # the overlap is where its ends say
    shape, *ends = chromium.execute_script(
        "const div = document.querySelector('[data-figure=sweep-0-frontier-0]');"
        "const box = div.querySelector('.shapelayer path').getBBox();"
        "const axis = div._fullLayout.xaxis, s = div.layout.shapes[0];"
        "return [[box.x, box.x + box.width], ...[s.x0, s.x1].map(v => axis._offset + axis.d2p(v))]"
    )
    assert shape == pytest.approx(ends, abs=1)
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= 1366
    from PIL import Image

    image = Path(str(chromium.current_url).removeprefix("file://")).with_suffix(".png")
    assert chromium.save_screenshot(str(image))
    assert len(Image.open(image).convert("RGB").resize((200, 130)).getcolors(30_000) or []) > 50


@pytest.mark.slow
def test_tokens_are_text_coloured_by_sign_and_strength(chromium: Any) -> None:
    tokens = chromium.execute_script(
        "return [...document.querySelector('#side-pos-contexts .context').children].map(e => "
        "[e.textContent, e.title, e.style.backgroundColor, e.className, e.children.length])"
    )
    shown = context(100, 0, 1.0)
    words = [t.replace("\n", "⏎").replace("\t", "⇥") or "∅" for t in shown.tokens]
    assert [token[0] for token in tokens] == words
    assert "<script>alert(1)</script>" in words
    assert all(token[4] == 0 for token in tokens)
    assert chromium.execute_script("return document.querySelectorAll('img').length") == 0

    def colour(i: int) -> list[float]:
        return [float(x) for x in re.findall(r"[\d.]+", tokens[i][2])]

    assert tokens[9][3] == "token peak"
    assert tokens[9][1] == "+103"
    assert colour(9)[:3] == [0, 114, 178]
    assert colour(2)[:3] == [213, 94, 0]
    assert tokens[2][1] == "−20.6"
    assert colour(9)[3] > colour(6)[3] > colour(0)[3] > 0
    assert tokens[1][2] == ""  # 0: shut
    quoted = chromium.execute_script(
        "return [...document.querySelectorAll('.quoted')].map(e => e.textContent)"
    )
    assert quoted == ["<b>yes</b>", "⏎", "<i>up</i>", " down"]


@pytest.mark.slow
def test_the_browser_works_by_keyboard(chromium: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def which() -> str:
        return chromium.find_element("id", "which").text

    assert which().startswith("Latent 100: 1 of 4")
    chromium.execute_script("document.getElementById('browser').focus()")
    visited = []
    for _ in range(6):
        press(chromium, Keys.TAB)
        visited.append(focused(chromium))
    # "previous" is disabled at the first latent, and so left out
    assert visited[:5] == ["choose-sae", "choose-latent", "choose-order", "next", "show-values"]
    assert not chromium.find_element("id", "previous").is_enabled()
    outline = chromium.execute_script(
        "document.getElementById('next').focus({focusVisible: true});"
        "return getComputedStyle(document.activeElement).outlineWidth"
    )
    assert outline == "3px"
    press(chromium, Keys.ENTER)
    assert which().startswith("Latent 101: 2 of 4")
    press(chromium, Keys.ARROW_RIGHT)
    press(chromium, Keys.ARROW_RIGHT)
    assert which().startswith("Latent 103: 4 of 4")
    # the focus does not get lost as "next" is disabled
    press(chromium, Keys.ARROW_LEFT)
    assert which().startswith("Latent 102: 3 of 4")
    press(chromium, Keys.ARROW_RIGHT)
    assert "This side fired in none" in chromium.find_element("id", "side-neg-contexts").text
    assert "never fires" in chromium.find_element("id", "side-neg-numbers").text
    assert not chromium.find_element("id", "dial").is_displayed()
    chromium.find_element("id", "choose-latent").send_keys(Keys.HOME)
    assert which().startswith("Latent 100: 1 of 4")
    assert chromium.find_element("id", "dial").is_displayed()
    chromium.find_element("id", "choose-sae").send_keys(Keys.END)
    assert which().startswith("Latent 100: 1 of 4")
    chromium.find_element("id", "choose-order").send_keys(Keys.END)
    shares = chromium.execute_script(
        "return [...document.querySelectorAll('#choose-latent option')].map(o => o.textContent)"
    )
    assert [s.split()[0] for s in shares] == ["102", "101", "100", "103"]
    values = chromium.find_element("id", "show-values")
    values.send_keys(Keys.SPACE)
    assert chromium.execute_script(
        "return getComputedStyle(document.querySelector('.token.peak'), '::after').content"
    ) == '"+105"'  # fmt: skip


@pytest.mark.slow
def test_the_dial_has_the_latent_and_the_plain_pair(chromium: Any) -> None:
    chromium.find_element("id", "next").click()
    traces = chromium.execute_script(
        "return document.getElementById('dial-plot').data.map(t => [t.name, t.x, t.y])"
    )
    page = latent_page(101)
    assert page.dial is not None
    assert page.pair_dial is not None
    assert [t[0] for t in traces] == ["latent 101", "plain latents 3 (+), 900 (−)"]
    for trace, one in zip(traces, (page.dial, page.pair_dial), strict=True):
        assert trace[1] == one.coefficients
        assert trace[2] == pytest.approx(one.effect, rel=1e-4)
    verdicts = chromium.find_element("id", "dial-verdicts").text
    assert "Latent 101: monotone, sign-changing, symmetry 0.90" in verdicts
    assert "mlp_out/seed-0/gated-full/l1-2" in verdicts
    assert "not sign-changing" in verdicts


@pytest.mark.slow
def test_a_box_toggles_an_sae_in_all_charts_of_its_sweep(chromium: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def visible() -> set[tuple[str, str]]:
        return {
            tuple(pair)
            for pair in chromium.execute_script(
                "return [...document.querySelectorAll('.sweep [data-figure]')]"
                ".flatMap(div => div._fullData.filter(t => t.visible === true)"
                ".map(t => [div.dataset.figure, t.meta]))"
            )
        }

    before = visible()
    box = chromium.find_elements("css selector", "#sweep-0-boxes input")[2]
    box.send_keys(Keys.SPACE)
    gone = before - visible()
    assert {sae for _, sae in gone} == {SAES[2]}
    assert {name for name, _ in gone} == {
        f"sweep-0-{kind}-{i}" for kind in ("frontier", "dead") for i in range(3)
    }
    box.send_keys(Keys.SPACE)
    assert visible() == before


@pytest.mark.slow
def test_print_has_no_controls_and_cuts_no_chart(chromium: Any) -> None:
    chromium.execute_script("dispatchEvent(new Event('beforeprint'))")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not chromium.find_element("id", "next").is_displayed()
    widths = chromium.execute_script(
        "return [...document.querySelectorAll('.main-svg')]"
        ".map(e => e.getBoundingClientRect().width)"
    )
    assert 0 < max(widths) <= 620  # of 688 on A4 with these margins
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    chromium.execute_script("dispatchEvent(new Event('afterprint'))")
    pdf = base64.b64decode(chromium.print_page())
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5


@pytest.mark.slow
def test_a_narrow_screen_stacks_the_sides(page: Path) -> None:
    # 500 pixels is the least that a window of Chromium has
    driver = opened(start_chromium(width=500), page)
    try:
        plus, minus = (
            driver.find_element("css selector", f".side.{side}").rect for side in ("pos", "neg")
        )
        assert minus["y"] >= plus["y"] + plus["height"]
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 500
        assert complaints(driver) == []
    finally:
        driver.quit()
