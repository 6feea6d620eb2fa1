"""The report: one page that holds all it needs, shows what is in the files, and reads no name or
token as HTML; the figure of one latent."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.report import write_report
from studies.pretrained.latent_figure import latent_figure

HOSTILE = "<u onx='1'>\"'</u></script>&amp;"
VOID = ("meta", "input", "br")
SVG = "{http://www.w3.org/2000/svg}"


def quality(l0: float, r2: float, dead: float, d_sae: int = 100) -> dict[str, Any]:
    return {
        "l0": l0, "explained_variance": r2, "dead_share": dead, "bipolar_share": 0.5,
        "n_tokens": 12_345, "architecture": "sa_gsae", "d_sae": d_sae, "tokens_from": "speeches",
        "loss_recovered": 0.987,
    }  # fmt: skip


def run(sae: str, seed: int, value: float, measured: dict[str, Any], cell: str = "mlp") -> dict:
    return {
        "cell": cell, "seed": seed, "sae": sae, "field": "target_l0", "value": value,
        "quality": measured, "l0_pos": 3.25, "l0_neg": 4.5, "bipolar_share": 0.625,
        "seconds_per_step": 0.0125,
    }  # fmt: skip


SWEEP: dict[str, Any] = {
    "command": "sae-lens-signaware sweep c.yaml",
    "config": {},
    "versions": {"torch": "2.99"},
    "n_runs": 6,
    "results": [
        run("half", 0, 16, quality(16, 0.7, 0.04)),
        run("half", 0, 8, quality(8, 0.6, 0.0)),
        run("half", 1, 8, quality(9.5, 0.61, 0.02)),  # asked for 8
        run("full", 0, 8, quality(8, 0.55, 0.02)),
        run("half", 0, 8, quality(7.5, 0.4, 0.01), cell="attn"),
    ],
    "comparisons": [
        {
            "cell": "mlp", "a": "half", "b": "full", "verdict": "better", "smallest_gap": 0.0123,
            "smallest_gap_sd": 0.004, "largest_gap": 0.05, "mean_gap": -0.02,
            "l0_range": [8.0, 16.0], "dead_share_ratio": 0.4, "seeds": [0, 1],
        },
        {
            "cell": "attn", "a": "half", "b": "full", "seeds": [0], "dead_share_ratio": 1.0,
        },  # no overlap
    ],
    "failures": [{"run": "attn/full/0", "error": "the loss is not finite"}],
}  # fmt: skip

PAGE: dict[str, Any] = {
    "latent": 7, "firing_rate_pos": 0.03, "firing_rate_neg": 0.01, "energy_pos": 2.0,
    "energy_neg": 1.0, "min_share": 0.25, "gain_pos": 1.02, "gain_neg": None,
    "histogram": {"edges": [-4.0, -2.0, 0.0, 2.0, 4.0], "counts": [3, 0, 9, 1]},
    "logits_pos": [[" up", 1.5], ["<b>", 1.0]], "logits_neg": [[" down", 2.0]],
    "examples_pos": [
        {"tokens": ["a", " <i>", "\n", "c"], "acts": [-1.0, 4.0, 2.0, 0.0], "peak": 1}
    ],
    "examples_neg": [],
    "dial": {"c": [-2.0, 0.0, 2.0], "metric": [-1.0, 0.0, 3.0], "name": "logit of up"},
}  # fmt: skip


def latents(*pages: dict[str, Any], **more: Any) -> dict[str, Any]:
    origin = {"n_tokens": 100, "sae_cfg": {}, "versions": {}}
    shown = {"name": "mlp, half", "hook_name": "layer.15.mlp"}
    return {"provenance": origin, **shown, "pages": [PAGE, *pages], **more}


def written(folder: Path, sweep: object = None, of_latents: object = None) -> Path:
    if sweep is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.json").write_text(json.dumps(sweep))
    if of_latents is not None:
        (folder / "latents").mkdir(parents=True, exist_ok=True)
        (folder / "latents" / "mlp-half.json").write_text(json.dumps(of_latents))
    return folder


class Parsed(HTMLParser):
    """A page as a tree, without the sources of its scripts but for JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.builder, self.in_code = ET.TreeBuilder(), False
        self.feed(text)
        self.tree: Any = self.builder.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        self.in_code = tag == "script" and not attrs
        if tag in VOID:
            self.builder.end(tag)

    def handle_endtag(self, tag: str) -> None:
        self.builder.end(tag)
        self.in_code = False

    def handle_data(self, data: str) -> None:
        if not self.in_code:
            self.builder.data(data)

    def all(self, path: str) -> list[Any]:
        return self.tree.findall(f".//{path}")

    def texts(self, path: str) -> list[str]:
        return [" ".join("".join(e.itertext()).split()) for e in self.all(path)]

    @property
    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(e.text) for e in self.all("script[@type='application/json']")]


def parsed(folder: Path) -> Parsed:
    return Parsed(write_report(folder, folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    second = {**PAGE, "latent": 9, "min_share": 0.5, "examples_pos": [], "dial": None}
    return written(tmp_path_factory.mktemp("r") / "out", SWEEP, latents(second))


@pytest.fixture(scope="module")
def page(folder: Path) -> Parsed:
    return parsed(folder)


def test_it_loads_nothing_from_anywhere(page: Parsed) -> None:
    for element in page.tree.iter():
        assert not {"src", "srcset", "data", "action"} & set(element.keys())
        assert element.get("href", "#").startswith("#")
    policy = page.all("meta[@http-equiv='Content-Security-Policy']")[0].get("content")
    assert policy.startswith("default-src 'none'")


def line(figure: dict[str, Any], sae: str, number: int = 0) -> dict[str, Any]:
    return [trace for trace in figure["data"] if trace["meta"] == sae][number]


def test_a_frontier_is_a_line_for_each_sae_and_seed_in_order_of_l0(page: Parsed) -> None:
    assert page.texts("figcaption") == ["mlp", "attn"] * 2
    figure = page.figures[0]
    assert [trace["meta"] for trace in figure["data"]] == ["half", "half", "full"]
    assert line(figure, "half")["x"] == [8, 16]
    assert line(figure, "half")["y"] == [0.6, 0.7]
    assert line(figure, "half", 1)["y"] == [0.61]


def test_a_run_that_misses_its_l0_is_hollow_and_compared_ranges_are_grey(page: Parsed) -> None:
    seeds = [line(page.figures[0], "half", i)["marker"]["symbol"] for i in (0, 1)]
    assert [[s.endswith("-open") for s in symbols] for symbols in seeds] == [[False] * 2, [True]]
    shapes = [figure["layout"]["shapes"] for figure in page.figures[:2]]
    assert [[(s["x0"], s["x1"]) for s in of_cell] for of_cell in shapes] == [[(8, 16)], []]


def test_no_dead_latent_is_half_a_one_and_hollow(page: Parsed) -> None:
    trace = line(page.figures[2], "half")
    assert trace["y"] == [0.005, 0.04]  # 0 of 100
    assert [s.endswith("-open") for s in trace["marker"]["symbol"]] == [True, False]


def test_verdicts_are_a_table(page: Parsed) -> None:
    verdicts = page.all("div[@aria-label='Verdicts']")[0]
    rows = [["".join(td.itertext()) for td in tr] for tr in verdicts.findall(".//tbody/tr")]
    first = ["mlp", "half", "full", "better", "+0.0123 ± 0.0040", "−0.0200", "8 to 16", "0.40", "2"]
    assert rows[0] == first
    assert rows[1][3:7] == ["no overlap", "–", "–", "–"]


def test_all_runs_are_a_table(page: Parsed) -> None:
    runs = page.all("div[@aria-label='Runs']")[0]
    rows = [["".join(td.itertext()) for td in tr] for tr in runs.findall(".//tbody/tr")]
    assert len(rows) == 5
    assert rows[2] == [
        "mlp", "half", "sa_gsae", "target_l0 8", "1", "100", "9.50 !", "3.25", "4.50", "0.6100",
        "2.00%", "62.5%", "0.9870", "12,345", "12.5",
    ]  # fmt: skip


def test_what_failed_and_is_missing_is_said(page: Parsed) -> None:
    (warning,) = page.texts("div[@class='warning']")
    assert warning == "5 of 6 runs are finished. attn/full/0: the loss is not finite"


def test_a_sweep_without_a_finished_run_has_a_page(tmp_path: Path) -> None:
    page = parsed(written(tmp_path, {**SWEEP, "results": [], "comparisons": []}))
    assert page.figures == []
    assert len(page.texts("div[@class='warning']")) == 1


def test_sweeps_of_several_folders_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("a/main", "b/main"):
        written(tmp_path / name, SWEEP, latents())
    page = parsed(tmp_path)
    assert page.texts("h2") == ["Sweep a/main", "Sweep b/main", "Latents"]
    options = page.texts("select[@id='sae']/option")
    assert options == ["a/main · mlp, half", "b/main · mlp, half"]


def test_a_folder_of_latents_alone_gives_a_small_page(folder: Path, tmp_path: Path) -> None:
    out = write_report(folder / "latents", tmp_path / "new" / "latents.html")
    assert out.stat().st_size < 100_000
    assert Parsed(out.read_text(encoding="utf-8")).texts("h2") == ["Latents"]


def article(page: Parsed, latent: int = 7) -> Any:
    return page.all(f"article[@id='sae-0-latent-{latent}']")[0]


def test_tokens_are_coloured_by_sign_and_strength(page: Parsed) -> None:
    (context,) = article(page).findall(".//span[@class='context']")
    assert [token.text for token in context] == ["a", " <i>", "⏎", "c"]
    classes = [token.get("class", "") for token in context]
    assert classes == ["token on-neg", "token on-pos peak", "token on-pos", ""]
    assert [token.get("title") for token in context] == ["−1", "+4", "+2", None]
    strengths = [float(token.get("style", "--s:0").split(":")[1]) for token in context]
    assert strengths[1] > strengths[2] > strengths[0] > strengths[3] == 0


def test_each_side_has_its_numbers_and_tokens(page: Parsed) -> None:
    pos, neg = (article(page).find(f".//div[@class='side {side}']") for side in ("pos", "neg"))
    said = ["".join(side.find("p").itertext()) for side in (pos, neg)]
    assert said[0] == "fires on 3% of tokens; energy 2; gain 1.02"
    assert said[1] == "fires on 1% of tokens; energy 1; gain –"
    promoted = ["".join(item.itertext()) for item in pos.findall("ul/li")]
    assert promoted == [" up +1.5", "<b> +1"]
    assert "".join(neg.find("ol").itertext()).strip() == "none of the prompts searched"


def test_bars_have_their_side_and_logarithmic_heights(page: Parsed) -> None:
    bars = article(page).findall("svg[@class='histogram']/rect")
    assert [bar.get("class") for bar in bars] == ["neg", "pos", "pos"]
    assert bars[0].find("title").text == "−4 to −2: 3 tokens"
    heights = [float(bar.get("height")) for bar in bars]
    # log 4, log 10 and log 2, the largest 70 high
    assert heights == pytest.approx([42.1, 70, 21.1], abs=0.1)


def test_the_dial_is_drawn_upwards(page: Parsed) -> None:
    points = article(page).findall(".//svg[@class='dial']/circle")
    places = [(float(p.get("cx")), float(p.get("cy"))) for p in points]
    assert places == [(0, 170), (200, 127.5), (400, 0)]
    assert article(page, 9).find(".//svg[@class='dial']") is None


@pytest.mark.parametrize(
    ("token", "shown"),
    [("\r\n", "⏎"), ("\u2028", "⏎"), ("\t", "⇥"), ("", "∅"), ("\x00", "\ufffd"), ("é語", "é語")],
)
def test_what_cannot_be_seen_is_made_visible(token: str, shown: str, tmp_path: Path) -> None:
    example = {"tokens": [token], "acts": [1.0], "peak": 0}
    page = parsed(written(tmp_path, None, latents(pages=[{**PAGE, "examples_pos": [example]}])))
    assert article(page).find(".//span[@class='context']/span").text == shown


def hostile(value: Any) -> Any:
    """The same with HTML at the end of every text that is no name of a setting."""
    if isinstance(value, dict):
        return {k: v if k in ("kind", "verdict") else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value


def test_no_name_and_no_token_is_read_as_html(page: Parsed, tmp_path: Path) -> None:
    bad = parsed(written(tmp_path, hostile(SWEEP), hostile(latents())))
    good_tags, bad_tags = ({element.tag for element in p.tree.iter()} for p in (page, bad))
    assert bad_tags <= good_tags
    assert not any(name.startswith("on") for e in bad.tree.iter() for name in e.attrib)
    assert f"half{HOSTILE}" in bad.texts("label[@class='box']")[0]
    # plotly reads tags: it gets them escaped
    assert "<u" not in bad.figures[0]["data"][0]["name"] + bad.figures[0]["data"][0]["text"][0]


@pytest.mark.parametrize(
    ("sweep", "of_latents"),
    [
        (None, None),  # no folder
        ("text", None),
        ({"results": []}, None),
        (None, {"pages": []}),
    ],
)
def test_wrong_files_are_one_line_and_leave_the_old_page(
    sweep: Any, of_latents: Any, tmp_path: Path
) -> None:
    out, folder = tmp_path / "report.html", written(tmp_path / "in", sweep, of_latents)
    out.write_text("old")
    with pytest.raises(InvalidInputError, match=re.escape(str(folder))) as caught:
        write_report(folder, out)
    assert "\n" not in str(caught.value)
    assert out.read_text() == "old"


def test_a_folder_is_no_file_to_write(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="out"):
        write_report(folder, tmp_path)


# The figure of one latent


def figure_of(**more: Any) -> Any:
    return ET.fromstring(latent_figure("mlp, half", PAGE | more))


def tokens_of(svg: Any) -> list[tuple[str, float, float]]:
    """Text, x and width of every token."""
    found = [e for e in svg.iter(f"{SVG}text") if "mono" in e.get("class", "")]
    return [(e.text, float(e.get("x")), float(e.get("textLength"))) for e in found]


def test_the_figure_has_both_sides_with_their_tokens() -> None:
    svg = figure_of()
    texts = ["".join(e.itertext()) for e in svg.iter(f"{SVG}text")]
    assert {"Latent 7", "+ side", "− side", "fires on 3% of tokens", "+4"} <= set(texts)
    assert [t for t, _, _ in tokens_of(svg)] == ["up", "<b>", "a", "<i>", "⏎", "c", "down"]
    assert any("none of the prompts" in text for text in texts)  # of the other side
    assert "prefers-color-scheme:dark" in svg.find(f"{SVG}style").text


@pytest.mark.parametrize("word", ["word", " x", "語語", "e\u0301", "\x00", "w" * 60])
def test_contexts_are_aligned_at_their_peak_and_stay_inside(word: str) -> None:
    contexts = [
        {"tokens": [word] * n + ["PEAK"] + [word] * 30, "acts": [0.5] * (n + 31), "peak": n}
        for n in (0, 3, 30)
    ]
    contexts.append({"tokens": [word] * 3, "acts": [0.5] * 3, "peak": 1})
    svg = figure_of(examples_pos=contexts)
    places = tokens_of(svg)
    assert len({x for text, x, _ in places if text == "PEAK"}) == 1
    width = float(svg.get("viewBox").split()[2])
    assert all(x >= 0 and x + length <= width for _, x, length in places)
    boxes = [e for e in svg.iter(f"{SVG}rect") if e.get("fill-opacity")]
    assert all(float(e.get("x")) + float(e.get("width")) <= width for e in boxes)
