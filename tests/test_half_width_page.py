"""The page on half width says what results/ shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.tables import table_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

ROOT = Path(__file__).parent.parent


def test_the_papers_own_pair_is_as_the_pages_say() -> None:
    def first_row(name: str) -> list[float]:
        return [float(field.split()[0]) for field in table_of(name)[1][1:]]

    ours = first_row("half_width_paper")
    assert len(ours) == 6
    behind = [-gap for gap in ours if gap < 0]
    assert [gap > 0 for gap in ours] == [False, True, False, False, False, False]
    said = f"{min(behind):.3f} to {max(behind):.3f} behind"
    page = (ROOT / "docs" / "results" / "half_width.md").read_text()
    assert f"ahead of\n  Gated of full width on the attention of SmolLM2, and {said} it in" in page
    assert f"and {said} in the others" in (ROOT / "README.md").read_text()
    assert sum(gap < 0.005 for gap in behind) == 2
    _, smollm2, _, _, gemma3, _ = first_row("half_width_paper_bi_jumprelu")
    assert smollm2 > 0.002 > gemma3 > 0
    table = table_of("half_width_sa_gsae")
    at_128 = [float(row[-1]) for row in table[1:]]
    assert sum(gap > -0.002 for gap in at_128) == 5
    few = {tuple(row[:1]): [-float(gap) for gap in row[2:-1]] for row in table[1:]}
    *of_attention, level = few.pop(("SmolLM2, attn_out",))
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
    page = (ROOT / "docs" / "results" / "half_width.md").read_text()
    assert f"{said} Their gaps differ by at most {max(spreads):.4f}." in page


@pytest.mark.parametrize(
    ("sae", "said"),
    [
        ("bi_jumprelu-warm-up-400-half", "**At most {:.1%} of the latents of half width are dead"),
        ("sa_gsae-half", "At most {:.1%} of these latents are dead in any run."),
    ],
)
def test_few_latents_of_half_width_are_dead(sae: str, said: str) -> None:
    sweeps = json.loads((ROOT / "results" / "equal_width.json").read_text())["sweeps"]
    runs = [run for sweep in sweeps.values() for run in sweep["runs"] if run[1].startswith(sae)]
    assert len(runs) == 6 * (5 + 2 * 3)
    page = (ROOT / "docs" / "results" / "half_width.md").read_text()
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
    assert f"it is behind, by {behind}.**" in (ROOT / "docs/results/half_width.md").read_text()
    assert f"residual stream it is {behind} behind" in (ROOT / "README.md").read_text()
    elsewhere = [g for cell in gaps if "attn_out" not in cell for g in gaps[cell].values()]
    page = (ROOT / "docs" / "results" / "half_width.md").read_text()
    between = f"between {min(attention):+.4f} and {max(attention):+.4f}".replace("-", "−")
    assert between in page
    assert f"costs up to {-min(elsewhere):.3f}" in (ROOT / "docs" / "which.md").read_text()
    assert sum(of_cell[128] > 0 for of_cell in gaps.values()) == 5
    assert sum(of_cell[32] > -0.01 for of_cell in gaps.values()) == 3
    assert all(of_cell[128] > -0.01 for of_cell in gaps.values())
