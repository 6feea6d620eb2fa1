"""What README's first screen and its table of questions say is what results/ shows."""

import re
from pathlib import Path
from typing import Any

from tests.support.tables import gaps_of, json_of, result_page, table_of

README = (Path(__file__).parent.parent / "README.md").read_text()
BATCHTOPK = "SAELens's `batchtopk`"


def gaps_at(kind: str) -> dict[str, list[float]]:
    """Model -> R² of bi_jumprelu minus that of BatchTopK at all L0s, of one kind of hook point."""
    gaps = gaps_of("equal_width_gaps")[BATCHTOPK]
    return {place.split(",")[0]: of for place, of in gaps.items() if place.endswith(f", {kind}")}


def test_the_first_table_is_of_the_gaps_to_batchtopk() -> None:
    for kind, label, advice in (
        ("mlp_out", "MLP", "`bi_jumprelu`"),
        ("attn_out", "attention", "either"),
    ):
        gaps = [gap for of_model in gaps_at(kind).values() for gap in of_model]
        assert len(gaps) == 10
        row = f"| {label} output | {min(gaps):.3f} to {max(gaps):.3f} above | {advice} |"
        assert row in README
    smollm2, gemma = gaps_at("resid").values()
    *lower, highest = smollm2
    assert max(map(abs, [*lower, *gemma])) <= 0.002
    assert f"| within 0.002, but {highest:.4f} above at the highest L0 of one model |" in README


def test_at_l0_32_no_other_sae_is_ahead_of_bi_jumprelu() -> None:
    head, *rows = table_of("equal_width_at_32")
    assert head[1] == "`bi_jumprelu`"
    assert len(rows) == 6
    for _, *fields in rows:
        assert fields[0].startswith("**")
        r2s = [float(field.strip("*")) for field in fields]
        # what rounds to the margin may be on either side of it
        bold = [field.startswith("**") for field in fields]
        assert all(
            r2 >= max(r2s) - 0.00205 for r2, is_bold in zip(r2s, bold, strict=True) if is_bold
        )
        assert all(
            r2 <= max(r2s) - 0.00195 for r2, is_bold in zip(r2s, bold, strict=True) if not is_bold
        )


def test_its_l0s_are_near_those_of_the_runs() -> None:
    own: dict[str, Any] = json_of("equal_width")["sweeps"]
    l0s = [
        run[5]
        for sweep in own.values()
        for run in sweep["runs"]
        if run[1:5] == ["bi_jumprelu-warm-up-400-full", 0, "target_l0", 32]
    ]
    assert len(l0s) == 6
    assert 31.5 < min(l0s) < max(l0s) < 32.6  # "near L0 32"


def test_the_short_answers_are_those_of_the_pages() -> None:
    at_32 = [float(row[3]) for row in table_of("half_width_paper")[1:]]
    at_128 = [float(row[-1]) for row in table_of("half_width_paper")[1:]]
    assert sum(gap < -0.002 for gap in at_32) == 5
    assert min(at_128) > -0.002
    assert "is behind Gated of full width at five of six hook points." in README
    leads = [row[4].replace("−", "-") for row in table_of("widths")[1:]]
    *to_eight, at_16 = map(float, leads[:4])
    *to_eight_of_gemma, at_16_of_gemma = map(float, leads[4:])
    assert min(*to_eight, *to_eight_of_gemma, at_16) > 0.002 > at_16_of_gemma
    assert "does up to eight times `d_in`. At 16 times it takes [two other settings]" in README


def test_bipolar_shares_and_links_are_those_of_the_summary() -> None:
    summary = result_page("summary")
    for shares in ("1% to 18%", "11% to 66%"):
        assert shares in README
        assert shares in summary
    for link in re.findall(r"\]\(docs/results/([^)]+)\)", README):
        page, _, anchor = link.partition("#")
        headings = re.findall(r"^#+ (.+)$", result_page(page.removesuffix(".md")), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not anchor or anchor in slugs, link
