"""The page of latents alone, and the figure of one latent: made-up results through real files."""

import dataclasses
import random
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import latent_figure as benchmark
from sae_lens_signaware import report
from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.evaluation.examples import Context
from sae_lens_signaware.evaluation.histograms import Histogram
from sae_lens_signaware.experiments.sweep.latent_results import SAELatents
from sae_lens_signaware.report.browser import bars
from sae_lens_signaware.report.colours import DARK, MINUS, PLUS
from sae_lens_signaware.report.latent_figure import N_COLUMNS, latent_figure
from tests.report.pages import SPECIAL, TOKENS, Parsed, context, latent_page, sae_latents
from tests.support.cli import assert_one_line_error, invoke


def test_bars_by_hand() -> None:
    # log(1 + n) against log(1 + 7): 1 is a third of the way, 3 two thirds
    assert bars(Histogram(0.5, (7, 0, 1), (3, 0, 0))) == {
        "pos": [(0, 1.0, 7), (2, pytest.approx(1 / 3), 1)],
        "neg": [(0, pytest.approx(2 / 3), 3)],
    }
    assert bars(Histogram(0.0, (0, 0), (0, 0))) == {"pos": [], "neg": []}


def test_the_command_writes_the_browser_alone_without_plotly(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    out = tmp_path / "gallery.html"
    result = invoke("report", str(results), "--latents-only", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    text = out.read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert "Plotly" not in text
    assert list(parsed.data) == ["latents-data"]
    assert len(parsed.data["latents-data"]) == 6
    first = parsed.data["latents-data"][0]
    assert first["special_tokens"] == [SPECIAL]
    assert first["d_sae"] == 576
    assert first["pages"][0]["top_logits"]["pos"][0] == [" up100", 2]
    assert first["pages"][0]["histogram"]["pos"][0] == [0, 1, 900]
    assert first["pages"][3]["histogram"] is None
    assert "24 latents of 6 SAEs" in parsed.text
    # the folder of the latents will do as well
    report.write_report(results / "main_sweep" / "latents", tmp_path / "same.html", True)
    assert (tmp_path / "same.html").read_text(encoding="utf-8") == text


def test_hostile_texts_are_text_in_it(results: Path, tmp_path: Path) -> None:
    out = report.write_report(results, tmp_path / "g.html", latents_only=True)
    text = out.read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert [tag for tag, _ in parsed.tags].count("script") == 3
    assert text.count("</script>") == 3
    assert not {tag for tag, _ in parsed.tags} & {"img", "i"}
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    tokens = parsed.data["latents-data"][0]["pages"][0]["examples_pos"][0]["tokens"]
    assert tokens == list(context(100, 0, 1.0).tokens)


def full_size(rng: random.Random, n: int) -> SAELatents:
    """As of a real model: n latents, 8 contexts of 25 tokens on each side."""

    def one(sign: int) -> Context:
        words = [" " + "".join(rng.choices("abcdefghij", k=5)) for _ in range(25)]
        values = [sign * rng.random() * 9 if rng.random() < 0.3 else 0.0 for _ in words]
        values[16] = sign * 9.87654321
        return Context(tuple(words), tuple(values), 16, rng.randrange(256), rng.randrange(128))

    base = latent_page(100)
    counts = tuple(rng.randrange(1, 5000) for _ in range(24))
    pages = tuple(
        dataclasses.replace(
            base,
            latent=i,
            examples_pos=tuple(one(1) for _ in range(8)),
            examples_neg=tuple(one(-1) for _ in range(8)),
            histogram=Histogram(0.123456, counts, counts[::-1]),
        )
        for i in range(n)
    )
    return dataclasses.replace(sae_latents(0, 0), pages=pages)


def test_a_page_of_three_saes_with_sixty_latents_has_at_most_two_megabytes(tmp_path: Path) -> None:
    rng = random.Random(0)
    for i in range(3):
        full_size(rng, 60).write(tmp_path / "latents" / f"{i}.json")
    out = report.write_report(tmp_path, tmp_path / "g.html", latents_only=True)
    assert 500_000 < out.stat().st_size <= 2_000_000


@pytest.mark.parametrize("empty", [False, True])
def test_no_latents_is_an_error(empty: bool, tmp_path: Path) -> None:
    if empty:
        dataclasses.replace(sae_latents(0, 0), pages=()).write(tmp_path / "latents" / "a.json")
    result = invoke("report", str(tmp_path), "--latents-only", "--out", str(tmp_path / "g.html"))
    assert_one_line_error(result, 2, "holds no latents/*.json with a latent in it")
    assert not (tmp_path / "g.html").exists()


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_figure_has_both_sides_of_the_latent() -> None:
    svg = latent_figure(sae_latents(0, 0), 100)
    words = texts(svg)
    for expected in (
        "Latent 100", "mlp_out, sa_gsae of 576 latents", "+ side", "− side",
        "fires on 5% of tokens", "fires on 1.23% of tokens", "up100", "+103", "−72.1", SPECIAL,
    ):  # fmt: skip
        assert expected in words
    assert words.count("+103") == 4
    assert words.count("−72.1") == 3
    # hostile tokens are text
    assert "<script>alert(1)</script>" in words
    assert "<script" not in svg
    assert "<img" not in svg
    assert len(svg.encode()) < 100_000
    # both schemes, and nothing from anywhere
    light, dark = svg.split("@media (prefers-color-scheme:dark)")
    for colour in (PLUS, MINUS):
        assert colour in light
        assert DARK[colour] in dark
    assert svg.count("http") == 1  # the name of SVG


def test_a_figure_without_contexts_does_not_say_that_there_are_none() -> None:
    words = texts(latent_figure(sae_latents(0, 0), 100, n_contexts=0))
    assert "+103" not in words
    assert "fired in none of the prompts searched" not in words


def test_tokens_of_the_figure_stand_in_their_columns() -> None:
    tokens = ("ab", " c", "日本", "e\u0301", "\ud83d", "\x1b", "")
    wide = Context(tokens, (0.0,) * 2 + (2.0,) + (0.0,) * 4, 2, 0, 0)
    page = dataclasses.replace(latent_page(100), examples_pos=(wide,), top_logits=None)
    svg = latent_figure(dataclasses.replace(sae_latents(0, 0), pages=(page,)), 100)
    root = ET.fromstring(svg)
    tokens = {
        "".join(e.itertext()): (float(e.attrib["x"]), float(e.attrib["textLength"]) / 7.2)
        for e in root.iter("{http://www.w3.org/2000/svg}text")
        if "textLength" in e.attrib
    }
    (start, width), column = tokens["日本"], 7.2
    assert width == pytest.approx(4, abs=0.02)
    assert tokens["e\u0301"][1] == pytest.approx(1, abs=0.02)
    assert tokens["e\u0301"][0] == pytest.approx(start + 4 * column, abs=0.11)
    # a space is one column, before the text of its token
    assert tokens["c"][0] == pytest.approx(start - column, abs=0.11)
    assert tokens["ab"][0] == pytest.approx(start - 4 * column, abs=0.11)
    # what XML cannot hold is one mark each
    assert "\ufffd" in tokens
    assert "∅" in tokens
    assert {"<!--", "</script>"} <= set(TOKENS)


def test_a_long_context_is_cut_to_the_figure() -> None:
    words = tuple(f" token{i}" for i in range(100))
    long = Context(words, tuple(1.0 for _ in words), 50, 0, 0)
    page = dataclasses.replace(latent_page(100), examples_pos=(long,), examples_neg=())
    svg = latent_figure(dataclasses.replace(sae_latents(0, 0), pages=(page,)), 100)
    shown = [w for w in texts(svg) if w.startswith("token")]
    assert "token50" in shown
    assert N_COLUMNS / 8 - 3 <= len(shown) <= N_COLUMNS / 8
    root = ET.fromstring(svg)
    boxes = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    assert all(0 <= float(b.attrib["x"]) <= 820 - float(b.attrib["width"]) for b in boxes)
    assert "fired in none of the prompts searched" in texts(svg)


def test_a_figure_of_an_older_file_has_contexts_alone() -> None:
    page = dataclasses.replace(latent_page(100), top_logits=None, histogram=None)
    words = texts(latent_figure(dataclasses.replace(sae_latents(0, 0), pages=(page,)), 100))
    assert "+103" in words
    assert not any("promotes" in w or "size" in w for w in words)


def test_the_script_of_the_figure(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = results / "main_sweep" / "latents" / "0-0.json", tmp_path / "new" / "latent.svg"

    def call(*more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["latent_figure.py", *more, "--out", str(out)])
        benchmark.main()

    call(str(file), "--latent", "101", "--title", "a <title>", "--contexts", "1")
    words = texts(out.read_text(encoding="utf-8"))
    assert {"Latent 101", "a <title>"} <= set(words)
    assert words.count("+104") == 1
    with pytest.raises(SystemExit, match="latent: must be one of 100, 101, 102, 103, got 7"):
        call(str(file), "--latent", "7")
    with pytest.raises(SystemExit, match=r"absent\.json"):
        call(str(tmp_path / "absent.json"), "--latent", "7")
    with pytest.raises(ConfigError, match="not the latents of an SAE"):
        report.write_latent_figure(results / "protocol-c.json", 1, out)
    with pytest.raises(ConfigError, match="out: must be a file to write, got the folder"):
        report.write_latent_figure(file, 101, tmp_path)
    with pytest.raises(InvalidInputError, match="n_contexts must be at least 1, got -1"):
        report.write_latent_figure(file, 101, out, n_contexts=-1)


@pytest.mark.parametrize("width", [1, 2])
def test_a_peak_that_is_wider_than_its_place_is_cut(width: int) -> None:
    words = ("a", ("-" if width == 1 else "日") * 64, "b")
    wide = Context(words, (0.0, 1.0, 0.0), 1, 0, 0)
    page = dataclasses.replace(latent_page(100), examples_pos=(wide,), examples_neg=())
    root = ET.fromstring(latent_figure(dataclasses.replace(sae_latents(0, 0), pages=(page,)), 100))
    (shown,) = [
        e
        for e in root.iter("{http://www.w3.org/2000/svg}text")
        if "".join(e.itertext()).startswith(words[1][:20]) and "bold" in e.attrib["class"]
    ]
    assert "".join(shown.itertext()).endswith("…")
    assert float(shown.attrib["x"]) + float(shown.attrib["textLength"]) <= 820
