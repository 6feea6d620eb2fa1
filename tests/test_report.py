"""The report: made-up results through their real files to the page, and the page in a real browser."""

import base64
import dataclasses
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.config import ConfigError
from sae_lens_signaware.evaluation.examples import Context
from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments.frontier import compare_frontiers, summarise_seeds
from sae_lens_signaware.experiments.latent_results import Dial, LatentPage, SAELatents
from sae_lens_signaware.experiments.protocols.result import ProtocolResult
from sae_lens_signaware.experiments.summary import Comparison, SweepSummary, point_of
from sae_lens_signaware.experiments.sweep import RunResult
from tests.test_cli import assert_one_line_error, invoke

pytest.importorskip("plotly", reason="needs the [report] extra")
from sae_lens_signaware import report
from sae_lens_signaware.report import figures
from sae_lens_signaware.report.load import read_results

CELLS = ("mlp_out", "attn_out", "resid <&>")
SAES = ("sa_gsae-half", "gated-full", 'odd <b>"name"</b>')
TOKENS = [
    " the", "\n", "<script>alert(1)</script>", "</script>", "&amp;", '"', "'", "<img src=x onerror=alert(2)>",
    " of", "\t", " parliament", "", " tax", "es", "<!--",
]  # fmt: skip


def run_result(cell: int, seed: int, sae: int, value: float, name: str | None = None) -> RunResult:
    l0 = value * (1 + 0.07 * sae + 0.01 * seed)
    quality = SAEQuality(
        l0=l0,
        explained_variance=0.35 + 0.08 * math.log2(l0) - 0.03 * sae + 0.005 * seed - 0.04 * cell,
        dead_share=0.0 if sae == 0 and value > 50 else 0.02 * (1 + sae) * 16 / value,
        bipolar_share=0.4 / (1 + sae),
        n_tokens=45_000,
        architecture="sa_gsae",
        d_sae=576 * (1 + sae),
        tokens_from="held-out <speeches>",
    )
    return RunResult(
        cell=CELLS[cell],
        seed=seed,
        sae=name or SAES[sae],
        field="target_l0",
        value=value,
        quality=quality,
        l0_pos=0.6 * l0,
        l0_neg=0.4 * l0,
        seconds_per_step=None if sae else 0.012,
        identity={"long": "and in the run's own file"},
    )


def sweep_summary() -> SweepSummary:
    results = [
        run_result(cell, seed, sae, value)
        for cell in range(3)
        for seed in range(3)
        for sae in range(3)
        for value in (8, 16, 32, 64, 128)
    ]
    comparisons = []
    for cell in CELLS:
        for b in SAES[1:]:
            frontiers = {
                (seed, name): [
                    point_of(r) for r in results if (r.cell, r.seed, r.sae) == (cell, seed, name)
                ]
                for seed in range(3)
                for name in (SAES[0], b)
            }
            verdicts = {
                seed: compare_frontiers(frontiers[seed, SAES[0]], frontiers[seed, b])
                for seed in range(3)
            }
            summary = summarise_seeds(list(verdicts.values()))
            comparisons.append(Comparison(cell, SAES[0], b, verdicts, summary))
    failures = {"resid/seed-2/x": "RuntimeError: <b>out of luck</b>"}
    return SweepSummary(len(results) + 1, results, failures, comparisons)


def ablations_summary() -> SweepSummary:
    names = ("full", "no-aux", "one-sided", "no-resets")
    results = [
        run_result(0, 0, min(i, 2), value, name)
        for i, name in enumerate(names)
        for value in (16, 64)
    ]
    return SweepSummary(len(results), results, {}, [])


def context(latent: int, i: int, sign: float) -> Context:
    tokens = tuple(TOKENS[(latent + i + k) % len(TOKENS)] for k in range(18))
    values = [0.0 if k % 3 else sign * (3 + latent) / (1 + abs(k - 9)) for k in range(18)]
    values[2] = -0.2 * values[9]
    return Context(tokens, tuple(values), peak=9, prompt=10 * i + latent, position=40 + i)


def dial(pair: tuple[int, int], strength: float) -> Dial:
    coefficients = [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]
    effect = [strength * c + 0.02 * c * c for c in coefficients]
    return Dial(pair, coefficients, effect, 0.25, True, strength > 0.1, 0.9, -1.0)


def latent_page(latent: int) -> LatentPage:
    silent = latent == 103  # on its - side, and it has no dial
    return LatentPage(
        latent=latent,
        firing_rate_pos=0.05,
        firing_rate_neg=0.0 if silent else 0.0123,
        energy_pos=2.0 / latent,
        energy_neg=0.5 / latent,
        min_share=0.0 if silent else (latent % 7) / 14,
        gain_pos=1.02,
        gain_neg=None if silent else 1.1,
        examples_pos=tuple(context(latent, i, 1.0) for i in range(4)),
        examples_neg=() if silent else tuple(context(latent, i, -0.7) for i in range(3)),
        logit_tokens=None if silent else ("<b>yes</b>", "\n"),
        dial=None if silent else dial((latent, latent), 0.5),
        pair_dial=None if silent else dial((3, 900), 0.05),
    )


def sae_latents(cell: int, sae: int) -> SAELatents:
    n = 576
    return SAELatents(
        cell=CELLS[cell],
        run=f"{CELLS[cell]}/seed-0/{SAES[sae]}/target_l0-32",
        architecture="sa_gsae",
        d_sae=n,
        n_tokens=45_000,
        l0=32.5,
        explained_variance=0.8123,
        dead_share=0.01,
        l0_pos=20.0,
        l0_neg=12.5,
        bipolar_share=0.4,
        bipolar_share_by_energy_rank=[
            0.5 + 0.5 * math.cos((1 + sae) * math.log(k)) / k**0.3 for k in range(1, n + 1)
        ],
        gain_pos=[1 + 0.05 * math.sin(i * (1 + cell)) + 0.02 * sae for i in range(n)],
        gain_neg=[None if i % 4 else 1.1 + 0.1 * math.sin(i) for i in range(n)],
        plain_run="mlp_out/seed-0/gated-full/l1-2",
        audit={"-0.9": {"n_pairs": 3, "freed_width": 3, "n_pairs_that_fire_together": 1}},
        pages=tuple(latent_page(i) for i in (100, 101, 102, 103)),
    )


PROTOCOL = ProtocolResult(
    title="Protocol C: <dials>",
    question="Is one latent a dial, and a pair of plain ones not?",
    columns=["cell", "share", "share sd", "of"],
    rows=[["mlp_out", 0.8125, 0.0312, 24], ["<i>x</i>", None, None, -3]],
    notes=["A note & a half."],
    command="sae-lens-signaware protocol c",
    versions={"torch": "2.99"},
    config={},
)


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
    return report.write_report(results, tmp_path_factory.mktemp("page") / "new" / "report.html")


class Parsed(HTMLParser):
    """Tags with their attributes, the text outside of scripts and styles, and the blocks of data."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.data, self._in = "", {}, ("", {})  # type: ignore[var-annotated]
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._in = (tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._in = ("", {})

    def handle_data(self, data: str) -> None:
        if self._in[0] == "":
            self.text += data
        elif self._in[1].get("type") == "application/json":
            self.data[self._in[1]["id"]] = json.loads(data)


@pytest.fixture(scope="module")
def parsed(page: Path) -> Parsed:
    return Parsed(page.read_text(encoding="utf-8"))


def test_a_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = sweep_summary()
    written.write(tmp_path, "some command")
    read = SweepSummary.read(tmp_path / "sweep.json")
    bare = [dataclasses.replace(r, identity={}) for r in written.results]
    assert read == dataclasses.replace(written, results=bare, command="some command")
    assert read.comparisons[0].overlap == written.comparisons[0].overlap
    # and so a second time
    read.write(tmp_path / "again", read.command)
    assert (tmp_path / "again/sweep.json").read_text() == (tmp_path / "sweep.json").read_text()


def test_the_page_has_every_section_in_order(parsed: Parsed) -> None:
    sections = [attrs["id"] for tag, attrs in parsed.tags if tag == "section"]
    assert sections == ["sweep-0", "sweep-1", "census", "calibration", "audit", "protocol-0", "latents"]  # fmt: skip
    links = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert links == ["#content", *(f"#{name}" for name in sections)]
    for title in ("Sweep main_sweep", "Ablations", "Protocol C: <dials>", "Browser of latents"):
        assert title in parsed.text
    for words in (
        "143 runs of 7 SAEs on 3 cells (mlp_out, attn_out, resid <&>), 3 seeds; measured on 45,000",
        "sae-lens-signaware sweep <main>.yaml",
        "135 of 136 runs are finished.",
        "RuntimeError: <b>out of luck</b>",
        "A note & a half.",
        "0.8125 ± 0.031",
        "Made with torch 2.99.",
        "−3",
    ):
        assert words in parsed.text


def test_verdicts_and_ablations_are_those_of_the_results(parsed: Parsed) -> None:
    first = sweep_summary().comparisons[0]
    gap = first.summary.smallest_gap_mean
    assert gap is not None
    assert gap > 0
    assert f"{gap:+.4f} ± {first.summary.smallest_gap_std:.4f}3 of 3" in parsed.text
    full, other = run_result(0, 0, 0, 16).quality, run_result(0, 0, 1, 16).quality
    change = f"{other.explained_variance - full.explained_variance:+.4f}".replace("-", "−")
    assert f"no-auxtarget_l0 160{other.explained_variance:.4f}{change}" in parsed.text


def test_hostile_texts_are_text_everywhere(page: Path, parsed: Parsed) -> None:
    # of no tag that a token, a name or a reason holds is there more than the page's own
    assert sum(tag == "script" for tag, _ in parsed.tags) == len(parsed.data) + 2
    assert not {tag for tag, _ in parsed.tags} & {"img", "i", "dials", "speeches"}
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    # outside of plotly.js, which is one script, each script ends where this page ends it
    scripts = [attrs for tag, attrs in parsed.tags if tag == "script"]
    assert sum("type" not in attrs for attrs in scripts) == 2
    assert page.read_text(encoding="utf-8").count("</script>") == len(scripts)
    tokens = parsed.data["latents-data"][0]["pages"][0]["examples_pos"][0]["tokens"]
    assert tokens == list(context(100, 0, 1.0).tokens)
    assert 'odd <b>"name"</b>' in parsed.text


def test_the_page_loads_nothing(page: Path, parsed: Parsed) -> None:
    for tag, attrs in parsed.tags:
        assert not {"src", "srcset", "poster", "action"} & set(attrs), (tag, attrs)
        assert attrs.get("href", "#").startswith("#")  # type: ignore[union-attr]
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
    (policy,) = [attrs for _, attrs in parsed.tags if "http-equiv" in attrs]
    assert policy["content"].startswith("default-src 'none'; ")  # type: ignore[union-attr]
    assert not re.search(r"https?:", policy["content"])  # type: ignore[arg-type]
    style = re.search(r"<style>(.*?)</style>", page.read_text(encoding="utf-8"), re.S)
    assert style is not None
    assert not re.search(r"@import|url\(", style[1])


def test_charts_are_valid_plotly_figures_with_a_colour_an_sae(
    results: Path, parsed: Parsed
) -> None:
    import plotly.graph_objects as go

    charts = {name: v for name, v in parsed.data.items() if name != "latents-data"}
    assert len(charts) == 3 * 2 + 2 + 3 + 6
    for figure in charts.values():
        go.Figure(figure)  # refuses unknown properties
    colours: dict[str, set[str]] = {}
    for figure in charts.values():
        for trace in figure["data"]:
            if "meta" in trace:
                colours.setdefault(trace["meta"], set()).add(trace["line"]["color"])
    assert set(colours) == set(read_results(results).sae_names)
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(colours)
    frontier = charts["sweep-0-frontier-0"]
    assert len(frontier["data"]) == 9
    assert sum(trace["showlegend"] for trace in frontier["data"]) == 3
    overlap = sweep_summary().comparisons[0].overlap
    assert overlap is not None
    assert [frontier["layout"]["shapes"][0][end] for end in ("x0", "x1")] == list(overlap)
    # plotly reads some HTML in a name, so it is escaped there
    assert frontier["data"][-1]["name"] == 'odd &lt;b&gt;"name"&lt;/b&gt;'


def test_no_dead_latent_is_drawn_as_half_a_one(parsed: Parsed) -> None:
    trace = parsed.data["sweep-0-dead-0"]["data"][0]
    assert trace["y"][-1] == pytest.approx(0.5 / 576)
    assert trace["marker"]["symbol"][-1] == "circle-open"
    assert trace["marker"]["symbol"][0] == "circle"
    assert trace["y"][0] == pytest.approx(0.04)


def test_every_gain_is_in_a_bar_and_many_ranks_are_thinned(results: Path, parsed: Parsed) -> None:
    plus, minus = parsed.data["calibration-0"]["data"]
    assert sum(plus["y"]) == 576
    assert sum(minus["y"]) == -144
    one = read_results(results).latents[0]
    long = dataclasses.replace(one.latents, bipolar_share_by_energy_rank=[0.5] * 20_000)
    figure = figures.census([dataclasses.replace(one, latents=long)], figures.styles([one.sae]))
    ranks = figure["data"][0]["x"]
    assert (ranks[0], ranks[-1]) == (1, 20_000)
    assert len(ranks) <= figures.MAX_CURVE_POINTS


def test_a_sweep_folder_alone_will_do(results: Path, tmp_path: Path) -> None:
    page = Parsed(
        report.write_report(results / "ablations", tmp_path / "r.html").read_text(encoding="utf-8")
    )
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["sweep-0"]
    assert "8 runs of 4 SAEs on 1 cell (mlp_out), 1 seed;" in page.text


def test_the_command_writes_the_page(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = invoke("report", str(results), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert "report.html" in result.stdout.replace("\n", "")
    assert out.read_text(encoding="utf-8").endswith("</html>\n")
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]
    help_text = invoke("report", "--help").stdout
    assert "Example: sae-lens-signaware report sweep_out --out report.html" in " ".join(
        help_text.split()
    )


def test_a_failed_write_leaves_the_old_page_alone(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")

    def fails(self: Path, target: Path) -> None:
        assert self.stat().st_size > 1_000_000
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        report.write_report(results, out)
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]
    assert out.read_text() == "old"


def test_half_a_surrogate_pair_in_a_token_can_be_written(tmp_path: Path) -> None:
    latents = sae_latents(0, 0)
    first = dataclasses.replace(latents.pages[0], logit_tokens=("\ud83d", "x"))
    dataclasses.replace(latents, run="\ud83d", pages=(first,)).write(
        tmp_path / "latents" / "a.json"
    )
    out = report.write_report(tmp_path, tmp_path / "r.html")
    data = Parsed(out.read_text(encoding="utf-8")).data["latents-data"]
    assert data[0]["pages"][0]["logit_tokens"] == ["\ud83d", "x"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "RESULTS: must be a folder that a sweep wrote, got"),
        ({}, "holds no sweep.json, latents/*.json or protocol-*.json"),
        ({"a/sweep.json": "{"}, "a/sweep.json: not the summary of a sweep"),
        ({"sweep.json": '{"results": []}'}, "sweep.json: not the summary of a sweep"),
        ({"sweep.json": "[]"}, "sweep.json: not the summary of a sweep"),
        ({"latents/x.json": "{}"}, "latents/x.json: not the latents of an SAE"),
        ({"protocol-a.json": '{"title": "x"}'}, "protocol-a.json: "),
        ({"protocol-a.json": "\x00"}, "protocol-a.json: "),
    ],
)
def test_wrong_inputs(files: dict[str, str] | None, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    if files == {}:
        folder.mkdir()
    result = invoke("report", str(folder), "--out", str(tmp_path / "r.html"))
    assert_one_line_error(result, 2, message)
    assert not (tmp_path / "r.html").exists()


def test_wrong_out_and_missing_plotly(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_line_error(invoke("report", str(results), "--out", str(tmp_path)), 2, "out: must be")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r"pip install 'sae-lens-signaware\[report\]'"):
        report.write_report(results, tmp_path / "r.html")


@pytest.mark.parametrize("most", [1, 2, 7, 8, 9, 10, 83, 99, 100, 576, 12_345])
def test_counts_have_round_ticks_on_both_sides(most: int) -> None:
    ticks = figures._count_ticks(most)
    above = [n for n in ticks if n > 0]
    assert 1 <= len(above) <= 7
    assert max(above) <= most
    assert ticks == [*(-n for n in reversed(above)), 0, *above]


@pytest.mark.parametrize("values", [[8, 16, 64], [20, 25], [24.0, 24.0], [17, 40], [0.2, 0.3], []])
def test_an_l0_axis_has_labels_in_a_narrow_range_too(values: list[float]) -> None:
    ticks = figures._log2_ticks(values)
    inside = [t for t in ticks if min(values, default=0) <= t <= max(values, default=0)]
    distinct = len(set(values))
    assert len(inside) >= (2 if distinct > 1 else 0)
    # powers of two are among them, whatever is between
    assert {1.0, 2.0, 16.0} <= set(ticks)


def test_an_unfinished_sweep_without_a_result_has_a_page(tmp_path: Path) -> None:
    SweepSummary(4, [], {"a/b": "RuntimeError: no"}, []).write(tmp_path, "x")
    text = Parsed(
        report.write_report(tmp_path, tmp_path / "r.html").read_text(encoding="utf-8")
    ).text
    assert "0 of 4 runs are finished." in text
    assert "RuntimeError: no" in text


# In a browser


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
    """A browser at the page; whatever a test does there, nothing leaves the page and nothing complains."""
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
    assert quoted == ["<b>yes</b>", "⏎"]


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
                "return [...document.querySelectorAll('.sweep [data-figure]')].flatMap(div => div._fullData"
                ".filter(t => t.visible === true).map(t => [div.dataset.figure, t.meta]))"
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
        "return [...document.querySelectorAll('.main-svg')].map(e => e.getBoundingClientRect().width)"
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
