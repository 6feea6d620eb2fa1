"""The report: made-up results through their real files to the page."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.sweep.comparison import compare_on
from sae_lens_signaware.experiments.sweep.summary import SweepSummary, point_of
from tests.report.pages import (
    CELLS,
    NO_CHARTS,
    SAES,
    Parsed,
    context,
    run_result,
    sae_latents,
    sweep_summary,
)
from tests.support.cli import assert_one_line_error, invoke

pytest.importorskip("plotly", reason="needs the [report] extra")
from sae_lens_signaware import report
from sae_lens_signaware.report import figures
from sae_lens_signaware.report.colours import COLOURS, DARK, styles
from sae_lens_signaware.report.load import read_results


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
    expected = "sweep-0 sweep-1 census calibration audit protocol-0 latents"
    assert sections == expected.split()
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
        "Grey: the L0 range in which two frontiers are compared",
        "−3",
    ):
        assert words in parsed.text


def test_audits_of_two_sweeps_stand_beside_each_other(tmp_path: Path) -> None:
    for sweep, n in (("one", 3), ("two", 777)):
        counts = {"n_pairs": n, "freed_width": n, "n_pairs_that_fire_together": 0}
        held = dataclasses.replace(sae_latents(0, 0), audit={"-0.9": counts})
        (tmp_path / sweep / "latents").mkdir(parents=True)
        held.write(tmp_path / sweep / "latents" / "a.json")
    report.write_report(tmp_path, tmp_path / "r.html")
    text = Parsed((tmp_path / "r.html").read_text()).text
    for sweep, n in (("one", "3"), ("two", "777")):
        assert f"mlp_out · {sweep}{sae_latents(0, 0).plain_run}−0.9{n}{n}0" in text


def test_verdicts_and_ablations_are_those_of_the_results(parsed: Parsed) -> None:
    first = sweep_summary().comparisons[0]
    gap = first.summary.smallest_gap_mean
    assert gap is not None
    assert gap > 0
    assert f"{gap:+.4f} ± {first.summary.smallest_gap_std:.4f}ahead 3 of 3" in parsed.text
    full, other = run_result(0, 0, 0, 16).quality, run_result(0, 0, 1, 16).quality
    change = f"{other.explained_variance - full.explained_variance:+.4f}".replace("-", "−")
    assert f"no-auxtarget_l0 160{other.explained_variance:.4f}{change}" in parsed.text


def test_a_page_says_why_there_is_no_verdict_and_which_l0_was_missed(tmp_path: Path) -> None:
    a, b = ([run_result(0, 0, sae, value) for value in (8, 64)] for sae in (0, 1))
    b[0] = dataclasses.replace(b[0], quality=dataclasses.replace(b[0].quality, l0=58.24))
    frontiers = {(CELLS[0], 0, runs[0].sae): [point_of(r) for r in runs] for runs in (a, b)}
    comparison = compare_on(CELLS[0], a[0].sae, b[0].sae, [0], frontiers, frontiers)
    assert comparison is not None
    SweepSummary(4, a + b, {}, [comparison]).write(tmp_path, "x")
    page = report.write_report(tmp_path, tmp_path / "r.html").read_text(encoding="utf-8")
    parsed = Parsed(page)
    for words in (
        "58.2 to 64.0–no verdict 1 of 1",
        "seed 0: no verdict: the overlap, L0 58.2 to 64.0, is narrower than a factor of 1.5",
        "Hollow: the run misses the L0 it was asked for",
        "58.24 !",
        "! mlp_out, gated-full, seed 0: asked for L0 8, measured 58.2",
        "by more than 0.002 at every point",
    ):
        assert words in parsed.text
    assert "Grey" not in parsed.text  # no verdict, no L0 range of one
    frontier = parsed.data["sweep-0-frontier-0"]
    assert frontier["layout"]["shapes"] == []
    symbols = [trace["marker"]["symbol"] for trace in frontier["data"]]
    assert symbols == [["circle", "circle"], ["square-open", "square"]]
    assert "L0 58.24, asked for L0 8, measured 58.2<br>" in frontier["data"][1]["text"][0]


def test_a_page_without_a_missed_l0_does_not_speak_of_one(tmp_path: Path) -> None:
    SweepSummary(1, [run_result(0, 0, 0, 8)], {}, []).write(tmp_path, "x")
    page = report.write_report(tmp_path, tmp_path / "r.html").read_text(encoding="utf-8")
    parsed = Parsed(page)
    assert "Hollow: the run" not in parsed.text
    assert "8.00" in parsed.text
    assert "8.00 !" not in parsed.text
    assert "asked for" not in parsed.text


def test_hostile_texts_are_text_everywhere(page: Path, parsed: Parsed) -> None:
    # of no tag that a token, a name or a reason holds is there more than the page's own
    assert sum(tag == "script" for tag, _ in parsed.tags) == len(parsed.data) + 3
    assert not {tag for tag, _ in parsed.tags} & {"img", "i", "dials", "speeches"}
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    # outside of plotly.js, which is one script, each script ends where this page ends it
    scripts = [attrs for tag, attrs in parsed.tags if tag == "script"]
    assert sum("type" not in attrs for attrs in scripts) == 3
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

    charts = {name: v for name, v in parsed.data.items() if name not in NO_CHARTS}
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
    # each band knows the two SAEs that it compares
    assert frontier["layout"]["meta"]["bands"] == [[SAES[0], SAES[1]], [SAES[0], SAES[2]]]
    # plotly reads some HTML in a name, so it is escaped there
    assert frontier["data"][-1]["name"] == 'odd &lt;b&gt;"name"&lt;/b&gt;'


def test_every_colour_of_a_chart_has_one_in_the_dark_scheme(parsed: Parsed) -> None:
    def colours(value: object, key: str = "") -> set[str]:
        if isinstance(value, dict):
            return set().union(*(colours(item, name) for name, item in value.items()))
        if isinstance(value, list):
            return set().union(*(colours(item, key) for item in value))
        return {value} if isinstance(value, str) and key.endswith("color") else set()

    assert parsed.data["dark-colours"] == DARK
    charts = [v for name, v in parsed.data.items() if name not in NO_CHARTS]
    found = set().union(*map(colours, charts))
    assert len(found) > 8
    assert found <= set(DARK)
    assert set(COLOURS) <= set(DARK)
    assert len(set(DARK.values())) == len(DARK)


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
    figure = figures.census([dataclasses.replace(one, latents=long)], styles([one.sae]))
    ranks = figure["data"][0]["x"]
    assert (ranks[0], ranks[-1]) == (1, 20_000)
    assert len(ranks) <= figures.MAX_CURVE_POINTS


def test_a_sweep_folder_alone_will_do(results: Path, tmp_path: Path) -> None:
    page = Parsed(
        report.write_report(results / "ablations", tmp_path / "r.html").read_text(encoding="utf-8")
    )
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["sweep-0"]
    assert "8 runs of 4 SAEs on 1 cell (mlp_out), 1 seed;" in page.text
    assert "Each thin line is one seed." in page.text
    assert "Grey" not in page.text  # nothing is compared there


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
    dial = latents.pages[0].dial
    assert dial is not None
    dial = dataclasses.replace(dial, logit_tokens=("\ud83d", "x"))
    first = dataclasses.replace(latents.pages[0], dial=dial)
    dataclasses.replace(latents, run="\ud83d", pages=(first,)).write(
        tmp_path / "latents" / "a.json"
    )
    out = report.write_report(tmp_path, tmp_path / "r.html")
    data = Parsed(out.read_text(encoding="utf-8")).data["latents-data"]
    assert data[0]["pages"][0]["dial"]["logit_tokens"] == ["\ud83d", "x"]


QUALITY = {
    "l0": 2.5, "explained_variance": 0.5, "dead_share": 0.0, "bipolar_share": 0.25,
    "n_tokens": 100, "architecture": "sa_gsae", "d_sae": 24, "tokens_from": "noise",
}  # fmt: skip
RESULT = {
    "cell": "mlp", "seed": 1, "sae": "half", "field": "k", "value": 3.0, "quality": QUALITY,
    "l0_pos": 1.0, "l0_neg": 1.0, "seconds_per_step": None,
}  # fmt: skip
SUMMARY = json.dumps(
    {"n_runs": 1, "results": [RESULT], "failures": {}, "comparisons": [], "command": "sweep"}
)


def test_a_summary_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(SUMMARY)
    assert report.write_report(tmp_path, tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "RESULTS: must be a folder that a sweep wrote, got"),
        ({}, "holds no sweep.json, latents/*.json or protocol-*.json"),
        ({"a/sweep.json": "{"}, "a/sweep.json: not the summary of a sweep"),
        ({"sweep.json": '{"results": []}'}, "sweep.json: not the summary of a sweep"),
        ({"sweep.json": "[]"}, "sweep.json: not the summary of a sweep"),
        ({"latents/x.json": "{}"}, "latents/x.json: not the latents of an SAE"),
        (
            {"sweep.json": SUMMARY.replace("0.5", "null")},
            "explained_variance must be a number, got",
        ),
        ({"sweep.json": SUMMARY.replace("24", "0")}, "d_sae must be at least 1, got 0"),
        ({"sweep.json": SUMMARY.replace("2.5", "Infinity")}, "l0 must be a number, got inf"),
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
    result = invoke("report", str(results), "--out", str(tmp_path))
    assert_one_line_error(result, 2, f"out: {tmp_path} is a folder; name a file")
    with pytest.raises(ConfigError, match="out: must be a file to write, got the folder"):
        report.write_report(results, tmp_path)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r"pip install 'sae-lens-signaware\[report\]'"):
        report.write_report(tmp_path / "none", tmp_path / "r.html")  # before anything is read


def test_an_unfinished_sweep_without_a_result_has_a_page(tmp_path: Path) -> None:
    SweepSummary(4, [], {"a/b": "RuntimeError: no"}, []).write(tmp_path, "x")
    text = Parsed(
        report.write_report(tmp_path, tmp_path / "r.html").read_text(encoding="utf-8")
    ).text
    assert "0 of 4 runs are finished." in text
    assert "RuntimeError: no" in text
