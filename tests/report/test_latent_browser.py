"""The browser of latents in a real browser."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.experiments.sweep.latent_results import LatentPage
from sae_lens_signaware.report import write_report
from tests.report.chromium import complaints, focused, opened, press
from tests.report.pages import SPECIAL, context, latent_page, sae_latents


def which(driver: Any) -> str:
    return driver.find_element("id", "which").text


@pytest.mark.slow
def test_tokens_are_text_coloured_by_sign_and_strength(chromium: Any) -> None:
    tokens = chromium.execute_script(
        "return [...document.querySelector('#side-pos-contexts .context').children].map(e => "
        "[e.textContent, e.title, getComputedStyle(e).backgroundColor, e.className, "
        "e.children.length])"
    )
    shown = context(100, 0, 1.0)
    words = [t.replace("\n", "⏎").replace("\t", "⇥") or "∅" for t in shown.tokens]
    assert [token[0] for token in tokens] == words
    assert "<script>alert(1)</script>" in words
    assert all(token[4] == 0 for token in tokens)
    assert chromium.execute_script("return document.querySelectorAll('img').length") == 0

    def colour(i: int) -> list[float]:
        assert tokens[i][2].startswith("color(srgb ")
        return [float(x) for x in re.findall(r"[\d.]+", tokens[i][2])]

    assert tokens[9][3] == "token peak on-plus"
    assert tokens[9][1] == "+103"
    assert colour(9)[:3] == pytest.approx([0, 114 / 255, 178 / 255], abs=1e-3)
    assert colour(2)[:3] == pytest.approx([213 / 255, 94 / 255, 0], abs=1e-3)
    assert tokens[2][1] == "−20.6"
    assert colour(9)[3] > colour(6)[3] > colour(0)[3] > 0
    assert tokens[1][2] == "rgba(0, 0, 0, 0)"  # inactive
    # a special token is marked as such
    special = [i for i, token in enumerate(tokens) if "special" in token[3].split()]
    assert [words[i] for i in special] == [SPECIAL]
    assert tokens[special[0]][1].endswith("special token")
    quoted = chromium.execute_script(
        "return [...document.querySelectorAll('.quoted')].map(e => e.textContent)"
    )
    assert quoted == ["<b>yes</b>", "⏎", "<i>up</i>", " down"]


@pytest.mark.slow
def test_the_browser_works_by_keyboard(chromium: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    assert which(chromium).startswith("Latent 100: 1 of 4")
    chromium.execute_script("document.getElementById('browser').focus()")
    visited = []
    for _ in range(7):
        press(chromium, Keys.TAB)
        visited.append(focused(chromium))
    # "previous" is disabled at the first latent, and so left out
    expected = "choose-sae choose-latent next jump filter choose-order show-values"
    assert visited == expected.split()
    assert not chromium.find_element("id", "previous").is_enabled()
    outline = chromium.execute_script(
        "document.getElementById('next').focus({focusVisible: true});"
        "return getComputedStyle(document.activeElement).outlineWidth"
    )
    assert outline == "3px"
    press(chromium, Keys.ENTER)
    assert which(chromium).startswith("Latent 101: 2 of 4")
    press(chromium, Keys.ARROW_RIGHT)
    press(chromium, Keys.ARROW_RIGHT)
    assert which(chromium).startswith("Latent 103: 4 of 4")
    # the focus does not get lost as "next" is disabled
    press(chromium, Keys.ARROW_LEFT)
    assert which(chromium).startswith("Latent 102: 3 of 4")
    press(chromium, Keys.ARROW_RIGHT)
    assert "This side fired in none" in chromium.find_element("id", "side-neg-contexts").text
    assert "never fires" in chromium.find_element("id", "side-neg-numbers").text
    assert not chromium.find_element("id", "dial").is_displayed()
    chromium.find_element("id", "choose-latent").send_keys(Keys.HOME)
    assert which(chromium).startswith("Latent 100: 1 of 4")
    assert chromium.find_element("id", "dial").is_displayed()
    chromium.find_element("id", "choose-sae").send_keys(Keys.END)
    assert which(chromium).startswith("Latent 100: 1 of 4")
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
    titles = chromium.execute_script(
        "return [...document.querySelectorAll('#dial-plot title')].map(e => e.textContent)"
    )
    page = latent_page(101)
    assert page.dial is not None
    assert page.pair_dial is not None
    # the latent's own curve is drawn last, above the other
    names = ("plain latents 3 (+), 900 (−)", "Latent 101")
    points = [
        (name, c, effect)
        for name, dial in zip(names, (page.pair_dial, page.dial), strict=True)
        for c, effect in zip(dial.coefficients, dial.effect, strict=True)
    ]
    assert len(titles) == len(points) == 14
    for title, (name, c, effect) in zip(titles, points, strict=True):
        found = re.fullmatch(r"(.*): c (\S+), effect (\S+)", title)
        assert found is not None
        assert found[1] == name
        numbers = [float(found[i].replace("−", "-")) for i in (2, 3)]
        assert numbers == pytest.approx([c, effect], rel=5e-3)
    # the higher the effect, the higher the point
    heights = chromium.execute_script(
        "return [...document.querySelectorAll('#dial-plot circle')].map(e => +e.getAttribute('cy'))"
    )
    assert len(heights) == 7
    assert heights == sorted(heights, reverse=True)
    verdicts = chromium.find_element("id", "dial-verdicts").text
    assert "Latent 101: monotone, sign-changing, symmetry 0.90" in verdicts
    assert "mlp_out/seed-0/gated-full/l1-2" in verdicts
    assert "not sign-changing" in verdicts


@pytest.mark.slow
def test_top_logits_and_histograms_of_both_sides(chromium: Any) -> None:
    page = latent_page(100)
    assert page.top_logits is not None
    assert page.histogram is not None
    for side, logits, counts in (
        ("pos", page.top_logits.pos, page.histogram.pos),
        ("neg", page.top_logits.neg, page.histogram.neg),
    ):
        shown = chromium.execute_script(
            f"return [...document.querySelectorAll('#side-{side}-promoted .token')]"
            ".map(e => e.textContent)"
        )
        words = [t.replace("\n", "⏎").replace("\t", "⇥") or "∅" for t, _ in logits]
        assert shown == words
        bars = chromium.execute_script(
            f"return [...document.querySelectorAll('#side-{side}-bars rect')]"
            ".map(e => [e.textContent, +e.getAttribute('height')])"
        )
        filled = [n for n in counts if n]
        assert [int(re.findall(r": (\d+) tokens", text)[0]) for text, _ in bars] == filled
        heights = [height for _, height in bars]
        assert heights == sorted(heights, reverse=True)
        assert (
            f"tallest bar: {max(counts)}" in chromium.find_element("id", f"side-{side}-bars").text
        )
    assert "0 to 0.250: 900 tokens" in chromium.execute_script(
        "return document.querySelector('#side-pos-bars rect').textContent"
    )


def typed(driver: Any, field: str, *keys: str) -> None:
    driver.find_element("id", field).clear()
    driver.find_element("id", field).send_keys(*keys)


@pytest.mark.slow
def test_a_latent_is_jumped_to(chromium: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    typed(chromium, "jump", "102", Keys.ENTER)
    assert which(chromium).startswith("Latent 102: 3 of 4")
    assert chromium.current_url.endswith("#sae=0&latent=102")
    typed(chromium, "jump", "7", Keys.ENTER)
    found = chromium.find_element("id", "found").text
    assert found == "Latent 7 is not here: this page has 4 of the 576 latents of this SAE."
    assert which(chromium).startswith("Latent 102")
    # also to one that the filter leaves out; the filter is emptied
    typed(chromium, "filter", "up100")
    assert which(chromium).startswith("Latent 100: 1 of 1")
    typed(chromium, "jump", "101", Keys.ENTER)
    assert which(chromium).startswith("Latent 101: 2 of 4")
    assert chromium.find_element("id", "filter").get_property("value") == ""
    # the address leads to a latent of an SAE
    opened(chromium, page, "#sae=3&latent=103")
    assert which(chromium).startswith("Latent 103: 4 of 4")
    assert chromium.find_element("id", "choose-sae").get_property("selectedIndex") == 3


@pytest.mark.slow
def test_the_filter_leaves_the_latents_with_a_token(chromium: Any) -> None:
    def listed() -> list[str]:
        return chromium.execute_script(
            "return [...document.querySelectorAll('#choose-latent option')]"
            ".map(o => o.textContent.split(' ')[0])"
        )

    # in top logits alone, whatever the case
    typed(chromium, "filter", "UP102")
    assert listed() == ["102"]
    assert which(chromium).startswith("Latent 102: 1 of 1")
    assert "1 of 4 latents have “UP102”" in chromium.find_element("id", "found").text
    matched = "return [...document.querySelectorAll('.token.match')].map(e => e.textContent)"
    assert chromium.execute_script(matched) == [" up102"]
    # an inactive token does not count: it finds what the tokens' own values say
    typed(chromium, "filter", "<img")
    expected = [
        str(page.latent)
        for page in map(latent_page, (100, 101, 102, 103))
        if any("<img" in token for token in active_tokens(page))
    ]
    assert listed() == expected
    assert expected
    assert set(chromium.execute_script(matched)) == {"<img src=x onerror=alert(2)>"}
    typed(chromium, "filter", "<b>nowhere</b>")
    assert listed() == []
    assert chromium.find_element("id", "found").text.startswith("0 of 4 latents have “<b>nowhere")
    for name in ("which", "sides", "dial"):
        assert not chromium.find_element("id", name).is_displayed()
    typed(chromium, "filter", "x")
    typed(chromium, "filter", "\ue003")  # backspace
    assert listed() == ["100", "101", "102", "103"]
    assert chromium.find_element("id", "sides").is_displayed()


def active_tokens(page: LatentPage) -> set[str]:
    """Tokens by which the filter finds a latent."""
    contexts = [*page.examples_pos, *page.examples_neg]
    active = {
        token
        for c in contexts
        for token, value in zip(c.tokens, c.activations, strict=True)
        if value
    }
    logits = page.top_logits
    return active | ({token for token, _ in logits.pos + logits.neg} if logits else set())


@pytest.mark.slow
def test_a_file_without_logits_histogram_and_special_tokens_is_shown(
    driver: Any, tmp_path: Path
) -> None:
    latents = sae_latents(0, 0)
    old = dataclasses.replace(latents.pages[0], top_logits=None, histogram=None)
    latents = dataclasses.replace(latents, pages=(old,), special_tokens=())
    latents.write(tmp_path / "latents" / "a.json")
    out = write_report(tmp_path, tmp_path / "g.html", latents_only=True)
    opened(driver, out)
    assert which(driver).startswith("Latent 100: 1 of 1")
    for side in ("pos", "neg"):
        assert driver.find_element("id", f"side-{side}-contexts").is_displayed()
        for part in ("histogram", "logits"):
            assert not driver.find_element("id", f"side-{side}-{part}").is_displayed()
    assert driver.find_elements("css selector", ".token.special") == []
    assert complaints(driver) == []
