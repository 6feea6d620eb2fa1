"""The report in a real browser: charts, their controls, print."""

import base64
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.report.chromium import as_screen, complaints, opened, until
from tests.report.pages import NO_CHARTS, SAES, Parsed

# names of the SAEs that every chart of the first sweep shows; empty while charts differ
SHOWN = (
    "return (charts => charts.every(c => c === charts[0]) ? charts[0] : '')"
    "([...document.querySelectorAll('#sweep-0 [data-figure]')].map(div => [...new Set("
    "div._fullData.filter(t => t.visible === true).map(t => t.meta))].join(' ')))"
)


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
    expected = {name: len(v["data"]) for name, v in parsed.data.items() if name not in NO_CHARTS}
    assert {name: n for name, n, _ in drawn} == expected
    # rows of three charts, and of one, use the width
    width = chromium.execute_script("return document.querySelector('main').clientWidth")
    assert width > 1000
    widths = {name: w for name, _, w in drawn}
    assert widths["sweep-0-frontier-0"] == pytest.approx((width - 2 * 24) / 3, abs=2)
    assert widths["sweep-1-frontier-0"] == pytest.approx(width, abs=2)
    # an SAE whose name is HTML keeps its name in a legend
    legends = chromium.execute_script(
        "return [...document.querySelectorAll('.legendtext')].map(e => e.textContent)"
    )
    assert 'odd <b>"name"</b> · target_l0-32' in legends
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
@pytest.mark.parametrize("by", ["box", "legend"])
def test_an_sae_goes_from_all_charts_of_its_sweep_and_its_bands_go_too(
    by: str, chromium: Any, page: Path
) -> None:
    if by == "legend":  # which a chart has where there is place for it
        as_screen(chromium, 1720)
        opened(chromium, page)

    def visible() -> set[tuple[str, str]]:
        return {
            tuple(pair)
            for pair in chromium.execute_script(
                "return [...document.querySelectorAll('.sweep [data-figure]')]"
                ".flatMap(div => div._fullData.filter(t => t.visible === true)"
                ".map(t => [div.dataset.figure, t.meta]))"
            )
        }

    def bands(chart: str = "sweep-0-frontier-1") -> list[bool]:
        return chromium.execute_script(
            "return document.querySelector(`[data-figure='${arguments[0]}']`)"
            "._fullLayout.shapes.map(s => s.visible)",
            chart,
        )

    def toggle() -> None:
        if by == "box":
            chromium.find_elements("css selector", "#sweep-0-boxes input")[2].click()
            return
        entry = chromium.find_elements(
            "css selector", "[data-figure='sweep-0-frontier-0'] .legendtoggle"
        )[2]
        chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", entry)
        entry.click()

    before = visible()
    assert bands() == [True, True]
    toggle()
    until(chromium, f"{SHOWN} === 'sa_gsae-half gated-full'")
    gone = before - visible()
    assert {sae for _, sae in gone} == {SAES[2]}
    assert {name for name, _ in gone} == {
        f"sweep-0-{kind}-{i}" for kind in ("frontier", "dead") for i in range(3)
    }
    # the one comparison with that SAE has no grey band any more
    assert [bands(f"sweep-0-frontier-{i}") for i in range(3)] == [[True, False]] * 3
    box = chromium.find_elements("css selector", "#sweep-0-boxes input")[2]
    assert not box.is_selected()
    time.sleep(1)  # plotly takes two clicks on a legend within 300 ms for a double click
    toggle()
    until(chromium, f"{SHOWN} === 'sa_gsae-half gated-full ' + arguments[0]", SAES[2])
    assert visible() == before
    assert bands() == [True, True]
