"""What the pages say of wider SAEs is what results/ shows."""

from pathlib import Path

import pytest

from sae_lens_signaware.experiments.sweep.frontier import Point, interpolate
from tests.support.tables import json_of, result_page, table_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

ROOT = Path(__file__).parent.parent
SMOLLM2, GEMMA3 = "SmolLM2, mlp_out", "Gemma 3, mlp_out"
SUMMARY = "docs/results/summary.md"
WINDOW = "bi_jumprelu-window-307200"
WIDTHS = {
    SMOLLM2: ["1,152", "2,304", "4,608", "9,216"],
    GEMMA3: ["1,280", "2,560", "5,120", "10,240"],
}

WIDEST = ("4,608", "5,120"), ("9,216", "10,240")


def rows_of(table: str, cell: str) -> list[list[str]]:
    rows = [row for row in table_of(table)[1:] if row[0] == cell]
    assert [row[1] for row in rows] == WIDTHS[cell]
    return rows


def r2(field: str) -> float:
    return float(field.split()[0])


def test_the_lead_in_wider_saes_is_as_the_pages_say() -> None:
    rows = rows_of("widths", SMOLLM2)
    leads = [float(row[4]) for row in rows]
    of_jumprelu = [r2(row[2]) - r2(row[5]) for row in rows]
    assert of_jumprelu == sorted(of_jumprelu, reverse=True)
    assert of_jumprelu[2] > 0 > of_jumprelu[3]
    behind = f"{-of_jumprelu[3]:.4f}"
    page = result_page("generality")
    assert f"less at each doubling of the width, and is {behind} behind at 16 times." in page
    assert leads[:3] == sorted(leads[:3])
    assert 0.4 < leads[3] / leads[2] < 0.6  # "about half as large"
    summary, which = ((ROOT / name).read_text() for name in (SUMMARY, "docs/which.md"))
    at_widths = f"{leads[2]:.4f} at eight times `d_in` and {leads[3]:.4f} at 16 times."
    assert f"the lead over BatchTopK is {at_widths}" in summary
    assert (
        "it is {:.4f} at four times and {:.4f} at eight times.".format(*of_jumprelu[1:3]) in summary
    )
    assert f"At 16 times `bi_jumprelu` is {behind} behind JumpReLU." in summary
    assert f"is [{leads[2]:.4f}](results/generality.md#wider)" in which
    other = rows_of("widths", GEMMA3)[2]
    on_gemma = float(other[4]), r2(other[2]) - r2(other[5])
    assert f"of SmolLM2, and {on_gemma[0]:.4f} on that of Gemma 3." in which
    assert f"Over JumpReLU it is {of_jumprelu[2]:.4f} and {on_gemma[1]:.4f}." in which
    assert f"BatchTopK is {leads[3]:.4f}, and JumpReLU is {behind} ahead." in which


def test_the_lead_on_the_second_model_is_as_the_pages_say() -> None:
    rows = rows_of("widths", GEMMA3)
    leads = [float(row[4]) for row in rows]
    over = [r2(row[2]) - r2(row[5]) for row in rows]
    assert leads[3] < leads[0] < leads[2] < leads[1]
    assert over[3] < over[0] < over[2] < over[1]
    page = result_page("generality")
    assert "On Gemma 3 both leads grow from two to four times `d_in`, and fall at eight" in page
    assert f"There `bi_jumprelu` is {leads[2]:.4f} ahead of BatchTopK, and level with" in page
    assert f"level with JumpReLU at {over[2]:.4f} above it." in page
    assert over[2] < 0.00205
    runs = json_of("widths")["sweeps"]["widths-gemma3-270m"]["runs"]
    assert {f"{run[7]:.0%}" for run in runs if run[1] == "jumprelu-8"} == {"11%"}
    assert "On Gemma 3 11% of JumpReLU's are at eight times." in page
    both = f"{leads[1]:.4f} at four times and {leads[2]:.4f} at eight times."
    said = f"the lead over BatchTopK is {both}"
    assert all(said in (ROOT / name).read_text() for name in (SUMMARY, "CHANGELOG.md"))


def on_gemma3() -> dict[str, list[Point]]:
    """SAE -> its runs."""
    runs: dict[str, list[Point]] = {}
    for run in json_of("widths")["sweeps"]["widths-gemma3-270m"]["runs"]:
        runs.setdefault(run[1], []).append(Point(run[5], run[6], run[7], 10_240))
    return runs


def test_sixteen_times_on_the_second_model_is_as_the_pages_say() -> None:
    runs = on_gemma3()
    (ours,), (longer,) = runs["bi_jumprelu-16"], runs[f"{WINDOW}-16"]
    of_jumprelu = runs["jumprelu-16"]
    page, log = result_page("generality"), (ROOT / "docs" / "log.md").read_text()
    lost = runs["bi_jumprelu-8"][0].explained_variance - ours.explained_variance
    said = f"has {ours.explained_variance:.4f}, which is {lost:.3f} less than at eight times."
    assert f"- **On Gemma 3 at 16 times `d_in`** `bi_jumprelu` {said}" in page
    theirs = interpolate(of_jumprelu, ours.l0)
    assert {f"{point.dead_share:.0%}" for point in of_jumprelu} == {"39%"}
    assert f"JumpReLU has {theirs:.4f} at that L0, with 39% of its latents dead." in page
    behind, less = (
        f"{interpolate(of_jumprelu, point.l0) - point.explained_variance:.4f}"
        for point in (ours, longer)
    )
    assert f"below it, and {behind} behind JumpReLU." in page
    summary, which, changes = (
        (ROOT / name).read_text() for name in (SUMMARY, "docs/which.md", "CHANGELOG.md")
    )
    for text in (summary, changes):
        assert f"level with BatchTopK there, and JumpReLU is {behind} ahead." in text
    assert f"level with BatchTopK. JumpReLU is {behind} ahead. With those settings" in which
    assert f"JumpReLU is {less} above that, with 39% dead." in log
    (none,), (both,) = runs["bi_jumprelu-no-revival-16"], runs[f"{WINDOW}-warm-up-800-16"]
    assert f"{none.explained_variance:.4f}" == f"{longer.explained_variance:.4f}"  # "the same"
    of_none = f"{none.explained_variance:.4f} at 16 times, with {none.dead_share:.0%} dead."
    assert f"R² is {of_none}" in log
    above = interpolate(of_jumprelu, both.l0) - both.explained_variance
    assert f"{above:.4f} below it on Gemma 3. At eight times they change little." in page
    said = f"{both.explained_variance:.4f}, with {both.dead_share:.0%} dead. JumpReLU is"
    assert f"On Gemma 3 they give an R² of {said} {above:.4f} above that, which is level." in log
    assert abs(above) < 0.002


def test_batchtopk_at_sixteen_times_on_the_second_model_is_as_the_pages_say() -> None:
    runs = on_gemma3()
    (plain,), (both,) = runs["batchtopk-16"], runs[f"{WINDOW}-warm-up-800-16"]
    lead = float(rows_of("widths", GEMMA3)[-1][4].replace("−", "-"))
    assert -0.002 < lead < 0
    page, log = result_page("generality"), (ROOT / "docs" / "log.md").read_text()
    assert f"it is level with BatchTopK, {-lead:.4f} below it" in page
    ahead = f"{both.explained_variance - plain.explained_variance:.4f}"
    assert f"on both models, by 0.0100 and {ahead}. With both" in page
    for name in (SUMMARY, "docs/which.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        assert "level with BatchTopK" in text
        assert f"{ahead} ahead of BatchTopK" in text
    dead = f"{plain.explained_variance:.4f}, with {plain.dead_share:.1%} dead."
    assert f"BatchTopK has {dead}" in log


def test_what_changes_from_eight_to_sixteen_times_is_as_the_page_says() -> None:
    page = result_page("generality")
    at_8, at_16 = (map(r2, (row[2], row[3], row[5])) for row in rows_of("widths", SMOLLM2)[2:])
    ours, *plain = [a - b for a, b in zip(at_8, at_16, strict=True)]
    assert f"R² of `bi_jumprelu` is {ours:.3f} lower than at eight times." in page
    assert max(map(abs, plain)) < 0.0005  # "the same"
    runs = json_of("widths")["sweeps"]["widths-smollm2-135m"]["runs"]
    l0s, dead = {}, {}
    for times in (8, 16):
        of_jumprelu = sorted((run[5], run[7]) for run in runs if run[1] == f"jumprelu-{times}")
        l0s[times], dead[times] = zip(*of_jumprelu, strict=True)
    said = "At eight times `d_in` its two runs have an L0 of {:.1f} and of {:.1f}, and at 16 times"
    both = f"{said} of {{:.1f}} and of {{:.1f}}."
    assert both.format(*l0s[8], *l0s[16]) in page
    assert "{:.0%} and {:.0%} of the latents of JumpReLU's".format(*sorted(dead[16])) in page
    assert {f"{share:.0%}" for share in dead[8]} == {"3%"}
    assert "are dead, and 3% at eight times. None of `bi_jumprelu` is." in page
    bipolar = {run[1]: run[8] for run in runs if run[1].startswith("bi_jumprelu")}
    eight, sixteen = (f"{bipolar[f'bi_jumprelu-{times}']:.0%}" for times in (8, 16))
    said = f"{sixteen} of the latents of `bi_jumprelu` are bipolar, and {eight} at eight times."
    assert said in page
    revived = [run for run in runs if run[1] in ("bi_jumprelu-8", "bi_jumprelu-16")]
    assert [run[7] for run in revived] == [0, 0]


def test_what_a_longer_window_and_warm_up_give_is_as_the_pages_say() -> None:
    runs = json_of("widths")["sweeps"]["widths-smollm2-135m"]["runs"]
    (alone, both) = (
        run for end in ("-16", "-warm-up-800-16") for run in runs if run[1] == WINDOW + end
    )
    page, log = result_page("generality"), (ROOT / "docs" / "log.md").read_text()
    assert f"At 16 times R² is {alone[6]:.4f}, and {alone[7]:.0%} of the latents are dead." in log
    assert f"an R² of {both[6]:.4f} on SmolLM2, with {both[7]:.0%} dead." in log
    (of_gemma3,) = on_gemma3()[f"{WINDOW}-warm-up-800-16"]
    dead = f"With both settings {both[7]:.0%} of the latents are dead at 16 times"
    assert f"{dead} `d_in` on SmolLM2, and {of_gemma3.dead_share:.0%} on Gemma 3." in page
    head, *rows = table_of("widths_windows")
    assert head[5] == "307,200, 800 steps"
    eight, sixteen = ([row for row in rows if row[1] in widths] for widths in WIDEST)
    over = []
    for row in sixteen:
        assert float(row[5]) == max(float(field) for field in row[2:6] if field)
        over.append([float(field.replace("−", "-")) for field in row[6:]])
    ahead, of_jumprelu = zip(*over, strict=True)
    said = "ahead of BatchTopK on both models, by {:.4f} and {:.4f}."
    assert said.format(*ahead) in page
    assert "it is level with JumpReLU: {:.4f} above it on SmolLM2".format(*of_jumprelu) in page
    assert all(abs(gap) <= 0.002 for gap in of_jumprelu)
    assert all(abs(float(row[5]) - float(row[3] or row[2])) < 0.0006 for row in eight)
    summary, which = ((ROOT / name).read_text() for name in (SUMMARY, "docs/which.md"))
    assert "{:.4f} and {:.4f} ahead of BatchTopK at 16 times, and level".format(*ahead) in summary
    assert f"of a fifth of the steps, the lead is {ahead[0]:.4f}." in which


def test_which_warm_up_is_best_is_as_the_page_says() -> None:
    rows = rows_of("widths_warm_ups", SMOLLM2)
    assert r2(rows[0][2]) > r2(rows[0][3])
    gains = [r2(row[3]) - r2(row[2]) for row in rows[1:]]
    low, high = (f"{gain:.3f}" for gain in (min(gains), max(gains)))
    assert f"800 steps are {low} to {high} better." in result_page("generality")
    assert f"[{low} to {high}](results/generality.md" in (ROOT / "docs/which.md").read_text()
    assert f"gains {low} to {high} on SmolLM2" in (ROOT / "CHANGELOG.md").read_text()
    assert abs(float(rows[3][6].replace("−", "-"))) < 0.002  # level with JumpReLU
    of_gemma3 = [row for row in table_of("widths_warm_ups")[1:] if row[0] == GEMMA3]
    assert [row[1] for row in of_gemma3] == ["1,280", "2,560"]
    assert all(abs(r2(row[2]) - r2(row[3])) < 0.002 for row in of_gemma3)
