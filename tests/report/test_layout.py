"""The pages on wide and narrow screens, in both schemes, in a real browser."""

import re
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.report import write_report
from tests.report.chromium import as_screen, complaints, opened, until

WIDTHS, SCHEMES = (1280, 400), ("light", "dark")
each_screen = pytest.mark.parametrize(
    ("width", "scheme"), [(width, scheme) for width in WIDTHS for scheme in SCHEMES]
)


@pytest.fixture(scope="module")
def gallery(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gallery") / "gallery.html"
    return write_report(results, out, latents_only=True)


@pytest.fixture(params=["report", "gallery"])
def either(request: pytest.FixtureRequest, page: Path, gallery: Path) -> Path:
    return page if request.param == "report" else gallery


def colours(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"[\d.]+", text)][:3]


def is_dark(driver: Any) -> bool:
    """Whether the paper is dark and the ink is light."""
    paper, ink = driver.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    dark = max(colours(paper)) < 60 and min(colours(ink)) > 200
    light = min(colours(paper)) > 200 and max(colours(ink)) < 60
    assert dark != light
    return dark


@pytest.mark.slow
@each_screen
def test_nothing_overflows_and_nothing_complains(
    width: int, scheme: str, either: Path, driver: Any
) -> None:
    as_screen(driver, width, scheme)
    opened(driver, either)
    assert driver.execute_script("return innerWidth") == width
    # also with all that can be opened, and with values under tokens
    driver.execute_script(
        "document.querySelectorAll('details').forEach(e => { e.open = true; });"
        "document.getElementById('show-values').click()"
    )
    for _ in range(3):
        assert driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        ) == 0  # fmt: skip
        driver.find_element("id", "next").click()
    assert is_dark(driver) == (scheme == "dark")
    assert complaints(driver) == []


@pytest.mark.slow
def test_a_wide_table_scrolls_and_breaks_no_word(page: Path, driver: Any) -> None:
    as_screen(driver, 400)
    opened(driver, page)
    driver.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    scrolling, broken = driver.execute_script(
        "const lines = e => { const r = document.createRange(); r.selectNodeContents(e);"
        " return new Set([...r.getClientRects()].map(b => Math.round(b.top))).size; };"
        "const cells = [...document.querySelectorAll('td, th')];"
        "return [[...document.querySelectorAll('.table')].filter(e => e.scrollWidth > "
        "e.clientWidth).length, cells.filter(e => !/\\s/.test(e.textContent.trim()) && "
        "lines(e) > 1).map(e => e.textContent)]"
    )
    assert scrolling >= 4
    assert broken == []


@pytest.mark.slow
def test_contents_stay_in_view_and_mark_the_section(page: Path, driver: Any) -> None:
    as_screen(driver, 1280)
    opened(driver, page)
    for name in ("census", "latents"):
        driver.execute_script(f"document.getElementById('{name}').scrollIntoView()")
        until(
            driver,
            "return document.querySelector('nav a[aria-current]').getAttribute('href')"
            " === arguments[0]",
            f"#{name}",
        )
        top, bottom = driver.execute_script(
            "const b = document.querySelector('nav').getBoundingClientRect();"
            "return [b.top, b.bottom]"
        )
        assert 0 <= top < bottom <= 900


CHART = (
    "const div = document.querySelector('[data-figure=sweep-0-frontier-0]');"
    "return [div.querySelector('.main-svg').style.background,"
    " div._fullData[0].line.color, div._fullLayout.font.color]"
)


@pytest.mark.slow
def test_the_toggle_turns_the_page_and_its_charts_and_is_remembered(
    page: Path, driver: Any
) -> None:
    as_screen(driver, 1280, "light")
    opened(driver, page)
    light = driver.execute_script(CHART)
    assert not is_dark(driver)
    button = driver.find_element("id", "scheme")
    assert "Dark" in button.text
    button.click()
    assert is_dark(driver)
    assert "Light" in button.text
    until(
        driver,
        "const div = document.querySelector('[data-figure=sweep-0-frontier-0]');"
        "return div._fullLayout.font.color === '#e4e7eb'",
    )
    dark = driver.execute_script(CHART)
    assert max(colours(dark[0])) < 60 < 200 < min(colours(light[0]))
    assert all(a != b for a, b in zip(light, dark, strict=True))
    opened(driver, page)
    assert is_dark(driver)
    driver.find_element("id", "scheme").click()
    assert not is_dark(driver)
    driver.execute_script("localStorage.clear()")
    # paper is light, whatever the screen is
    as_screen(driver, 1280, "dark")
    opened(driver, page)
    assert is_dark(driver)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": [
        {"name": "prefers-color-scheme", "value": "dark"}]})  # fmt: skip
    assert not is_dark(driver)
    assert complaints(driver) == []


@pytest.mark.slow
def test_the_address_asks_for_a_scheme(gallery: Path, driver: Any) -> None:
    as_screen(driver, 1280, "light")
    opened(driver, gallery, "?scheme=dark")
    assert is_dark(driver)
    opened(driver, gallery, "?scheme=other")
    assert not is_dark(driver)
    # as a page that embeds it may
    driver.execute_script("document.documentElement.dataset.scheme = 'dark'")
    assert is_dark(driver)


@pytest.mark.slow
def test_a_narrow_screen_stacks_the_sides(gallery: Path, driver: Any) -> None:
    as_screen(driver, 400)
    opened(driver, gallery)
    plus, minus = (
        driver.find_element("css selector", f".side.{side}").rect for side in ("pos", "neg")
    )
    assert minus["y"] >= plus["y"] + plus["height"]
