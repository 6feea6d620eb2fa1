"""The page on half width says what results/ shows."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.tables import gaps_of, json_of, result_page, table_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

ROOT = Path(__file__).parent.parent


def counted(gaps: list[float]) -> str:
    """How many, and between which two, as the table of the paper's pair has it."""
    ends = sorted({f"{abs(gap):.3f}" for gap in gaps})
    return f"{len(gaps)}, by {' to '.join(ends[:: max(len(ends) - 1, 1)])}" if gaps else "0"


def test_the_papers_own_pair_is_as_the_pages_say() -> None:
    page = result_page("half_width")
    rows = table_of("half_width_paper")
    l0s = [int(name.removeprefix("L0 ")) for name in rows[0][2:]]
    assert (len(rows), l0s) == (1 + 6, [8, 32, 64, 128])
    for i, l0 in enumerate(l0s):
        gaps = [float(row[2 + i]) for row in rows[1:]]
        ahead, behind = [g for g in gaps if g > 0.002], [g for g in gaps if g < -0.002]
        level = 6 - len(ahead) - len(behind)
        assert f"| {l0} | {counted(ahead)} | {level} | {counted(behind)} |" in page
    summary = result_page("summary")
    at_32 = [-float(row[3]) for row in rows[1:] if float(row[3]) < 0]
    assert len(at_32) == 5
    assert f"At L0 32 it is behind at five, by {min(at_32):.3f} to {max(at_32):.3f}." in summary
    assert f"is behind in five cells, by {min(at_32):.3f} to {max(at_32):.3f}." in page


def test_bi_jumprelu_of_half_width_against_gated_is_as_the_page_says() -> None:
    (gaps,) = gaps_of("half_width_paper_bi_jumprelu").values()
    assert [len(row) for row in gaps.values()] == [4] * 6
    assert min(gaps["SmolLM2, attn_out"]) > 0.002
    assert min(gaps["Gemma 3, attn_out"]) > -0.002
    at_128 = [row[-1] for row in gaps.values()]
    assert sum(gap > 0.002 for gap in at_128) == 5
    assert min(at_128) > -0.002


def test_few_latents_of_gated_are_dead(figures: Any) -> None:
    dead = [row.dead_share for row in figures.one_pass() if row.sae == "paper-gated"]
    assert len(dead) == 6 * 4
    page = result_page("half_width")
    assert f"and at most {max(dead):.1%} in Gated, on attention at L0 8 (" in page


def test_sa_gsae_of_half_width_against_batchtopk_is_as_the_page_says() -> None:
    page = result_page("half_width")
    (table,) = gaps_of("half_width_sa_gsae").values()
    assert sum(row[-1] > -0.002 for row in table.values()) == 5
    few = {place: [-gap for gap in row[:-1]] for place, row in table.items()}
    *of_attention, level = few.pop("SmolLM2, attn_out")
    assert abs(level) < 0.002
    behind = [*of_attention, *(gap for gaps in few.values() for gap in gaps)]
    said = f"**Below that** it is {min(behind):.3f} to {max(behind):.3f} behind"
    assert f"{said}, but level on the attention of SmolLM2 at L0 64." in page


@pytest.mark.parametrize(
    ("name", "said", "of_gemma"),
    [
        ("half_width_seeds", "**Three seeds agree.**", 0.0021),
        ("half_width_seeds_sa_gsae", "Three seeds agree here too.", 0.0039),
    ],
)
def test_half_width_agrees_over_seeds(name: str, said: str, of_gemma: float) -> None:
    spreads = []
    for place, _, *fields in table_of(name)[1:]:
        for field in fields:
            low, high = map(float, re.findall(r"[+-]\d\.\d{4}", field)[1:])
            assert field.endswith(", n = 3")
            assert high - low < (of_gemma if "Gemma" in place else 0.002), (place, field)
            spreads.append(high - low)
    assert len(spreads) == 6 * 3
    page = result_page("half_width")
    assert f"{said} Their gaps differ by at most {max(spreads):.4f}." in page


@pytest.mark.parametrize(
    ("sae", "said"),
    [
        ("bi_jumprelu-warm-up-400-half", "**At most {:.1%} of the latents of half width are dead"),
        ("sa_gsae-half", "At most {:.1%} of these latents are dead in any run."),
    ],
)
def test_few_latents_of_half_width_are_dead(sae: str, said: str) -> None:
    sweeps = json_of("equal_width")["sweeps"]
    runs = [run for sweep in sweeps.values() for run in sweep["runs"] if run[1].startswith(sae)]
    assert len(runs) == 6 * (5 + 2 * 3)
    page = result_page("half_width")
    assert said.format(max(run[7] for run in runs)) in page


def test_the_page_on_half_width_says_what_the_results_show(figures: Any) -> None:
    rows = table_of("half_width_gaps")
    columns = [int(name.removeprefix("L0 ")) for name in rows[0][2:]]
    gaps = {
        row[0]: {l0: float(g) for l0, g in zip(columns, row[2:], strict=True) if g}
        for row in rows
        if "batchtopk" in row[1]
    }
    assert len(gaps) == 6
    attention = [g for cell in gaps if "attn_out" in cell for g in gaps[cell].values()]
    few = [g for cell in gaps if "attn_out" not in cell for l0, g in gaps[cell].items() if l0 < 128]
    behind = f"{-max(few):.3f} to {-min(few):.3f}"
    assert f"it is behind, by {behind}.**" in result_page("half_width")
    summary = result_page("summary")
    assert f"of half the width is {behind} behind at L0 8 to 64." in summary
    elsewhere = [g for cell in gaps if "attn_out" not in cell for g in gaps[cell].values()]
    page = result_page("half_width")
    between = f"between {min(attention):+.4f} and {max(attention):+.4f}".replace("-", "−")
    assert between in page
    assert f"costs up to {-min(elsewhere):.3f}" in (ROOT / "docs" / "which.md").read_text()
    assert sum(of_cell[128] > 0 for of_cell in gaps.values()) == 5
    assert sum(of_cell[32] > -0.01 for of_cell in gaps.values()) == 3
    assert all(of_cell[128] > -0.01 for of_cell in gaps.values())


def test_what_a_plain_sae_loses_by_halving_its_width_is_as_the_pages_say() -> None:
    plain, ours, back = (
        {row[0]: float(row[i]) for row in table_of("half_width_plain")[1:]} for i in (1, 2, 3)
    )
    assert len(plain) == 6
    assert all(abs(ours[place] - plain[place] - back[place]) < 2e-4 for place in plain)
    page = result_page("half_width")
    mlp, attention, resid = (
        [place for place in plain if place.endswith(cell)]
        for cell in ("mlp_out", "attn_out", "resid")
    )
    assert {f"{-plain[place]:.3f}" for place in mlp} == {"0.028"}
    gained = sorted(back[place] for place in mlp)
    assert "gets {:.3f} to {:.3f} of that back.".format(*gained) in page
    lost = max(-plain[place] for place in attention)
    assert round(lost, 3) <= 0.003
    at_32, at_which = "at most 0.003 by halving its width", "BatchTopK at most 0.003, at L0 32"
    assert at_32 in page
    assert at_32 in result_page("summary")
    assert at_which in (ROOT / "docs" / "which.md").read_text()
    smollm2, gemma = resid
    assert f"gets back {back[smollm2]:.3f} of {-plain[smollm2]:.3f} on SmolLM2" in page
    assert back[gemma] < 0
    lead = gaps_of("equal_width_gaps")["SAELens's `batchtopk`"]
    off = max(abs(back[place] - lead[place][2]) for place in plain)
    assert f"within {off:.4f}." in page


def test_the_share_of_bipolar_latents_of_half_width_is_as_the_page_says() -> None:
    page = result_page("half_width")
    runs = [
        run
        for sweep in json_of("equal_width")["sweeps"].values()
        for run in sweep["runs"]
        if run[1] == "bi_jumprelu-warm-up-400-half" and run[2] == 0
    ]
    on_mlp = [run[8] for run in runs[:5] if run[0] == "mlp_out" and run[4] in (8, 32, 128)]
    assert "{:.0%}, {:.0%} and {:.0%} of the latents of half width".format(*on_mlp) in page
    at_32 = [run[8] for run in runs if run[4] == 32]
    assert at_32.pop(0) == on_mlp[1]
    assert f"{min(at_32):.0%} to {max(at_32):.0%} at the other hook points." in page
