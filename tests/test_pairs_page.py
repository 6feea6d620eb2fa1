"""What the pages say of antipodal pairs and bipolar latents is what results/side_use.json has."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tables import json_of, result_page, table_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

ROOT = Path(__file__).parent.parent
MLP, ATTN, GEMMA3 = "SmolLM2, mlp_out", "SmolLM2, attn_out", "Gemma 3, mlp_out"
PLAIN = ("batchtopk", "jumprelu")
BOTH_SIDES = "bi_jumprelu-both-sides"
# SAE -> the first word of the sweeps that trained it
OTHERS = ("sa_gsae", "bi_matryoshka_batchtopk", "bi_batchtopk")


@pytest.fixture
def use(benchmark_script: Callable[[str], Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Hook point and SAE -> its row."""
    rows = benchmark_script("pairs_page").of_pairs(json_of("side_use"))
    return {(row["cell"], row["sae"]): row for row in rows}


@pytest.fixture
def page() -> str:
    return result_page("pairs")


def test_plain_saes_have_pairs(use: Any, page: str) -> None:
    plain = [use[cell, sae] for cell in (MLP, ATTN) for sae in PLAIN]
    pairs = sorted(row["n_pairs"] for row in plain)
    least = min(row["frequent_in_pairs"] for row in plain)
    assert f"BatchTopK and JumpReLU have {pairs[0]} to {pairs[-1]} pairs." in page
    assert f"At least {least:.0%} of their frequent latents are in one." in page
    n_frequent = json_of("side_use")["frequent"]
    n_least = round(least * n_frequent)
    assert f"at least {n_least} of the {n_frequent} most active latents of a plain SAE" in page
    assert use[GEMMA3, "batchtopk"]["frequent_in_pairs"] < least - 0.2  # "fewer"
    readme = (ROOT / "README.md").read_text()
    assert f"at least {n_least} of the {n_frequent} most active latents of BatchTopK are" in readme
    signed = [use[ATTN, sae]["n_pairs"] for sae in ("bi_jumprelu", "bi_batchtopk")]
    assert "`bi_batchtopk` still have {} and {} pairs.".format(*signed) in page


def test_signed_saes_have_few(use: Any, page: str) -> None:
    default, both = use[MLP, "bi_jumprelu"], use[MLP, BOTH_SIDES]
    busy = f"{default['frequent_bipolar']:.0%} of its frequent latents are bipolar."
    assert f"`bi_jumprelu` has {default['n_pairs']} pairs, and {busy}" in page
    assert use[MLP, "sa_gsae"]["n_pairs"] == both["n_pairs"] == 0
    assert f"is {both['r2']:.4f}, and that of the default {default['r2']:.4f}, which is" in page
    on_attention, opened = use[ATTN, "bi_jumprelu"], use[ATTN, BOTH_SIDES]
    few = f"{on_attention['frequent_bipolar']:.0%} of its frequent latents are bipolar."
    assert f"has {on_attention['n_pairs']} pairs there, and {few}" in page
    assert (opened["n_pairs"], opened["frequent_bipolar"]) == (0, 1)
    assert use[ATTN, "sa_gsae"]["n_pairs"] == 0
    assert f"then {opened['r2']:.4f} in place of {on_attention['r2']:.4f}, which is" in page
    losses = [a["r2"] - b["r2"] for a, b in ((on_attention, opened), (default, both))]
    assert max(losses) < 0.002
    assert use[ATTN, "sa_gsae"]["r2"] < use[ATTN, "batchtopk"]["r2"] - 0.002


def test_opening_both_sides_costs_at_l0_8_alone(page: str) -> None:
    which = (ROOT / "docs" / "which.md").read_text()
    gaps: dict[str, list[list[float]]] = {}  # to the default, BatchTopK and JumpReLU
    for cell, _, *fields in table_of("both_sides")[1:]:
        gaps.setdefault(cell, []).append([float(field) for field in fields])
    assert [len(of) for of in gaps.values()] == [3, 3, 3]
    default = {cell: gaps[cell][0] for cell in (MLP, ATTN)}
    on_gemma, _, to_jumprelu = gaps[GEMMA3]
    assert to_jumprelu[1] > 0.002
    for at_8, *rest in default.values():
        assert at_8 < -0.002
        assert max(map(abs, rest)) < 0.002
    most = f"costs at most {-min(min(rest) for _, *rest in default.values()):.4f} of R²]"
    assert most in which
    assert most in result_page("summary")
    assert on_gemma[1] > 0.002 > max(abs(on_gemma[0]), abs(on_gemma[2]))
    said = f"by {-default[ATTN][0]:.4f}, and on the MLP output of SmolLM2 by {-default[MLP][0]:.4f}"
    assert f"- **At L0 8** it is behind on attention, {said}. On that of Gemma 3 it is" in page
    assert f"it is {on_gemma[1]:.4f} ahead at L0 32, and level at L0 128." in page
    assert f"- **On the MLP output of Gemma 3** at L0 32 it is {on_gemma[1]:.4f} ahead." in which
    costs = f"{-default[ATTN][0]:.4f} on the attention of SmolLM2, and {-default[MLP][0]:.4f}"
    assert f"it costs {costs} on its MLP output." in which
    (best,) = (row[2] for row in table_of("equal_width_best") if row[0] == GEMMA3)
    lead = re.match(r"`bi_jumprelu`, `minus_bias_init: 0` \+(\S+) to SAELens's `batchtopk`,", best)
    assert lead
    said = f"level, and with `minus_bias_init: 0` the lead is {float(lead[1]):.3f}."
    assert said in result_page("summary")
    half = [abs(float(gap)) for row in table_of("both_sides_half")[1:] for gap in row[2:]]
    assert len(half) == 4
    assert max(half) < 0.002


def test_opening_both_sides_makes_more_latents_bipolar(
    benchmark_script: Callable[[str], Any], page: str
) -> None:
    rows = benchmark_script("figure_rows")
    saes = (BOTH_SIDES, rows.SHORT)
    cells = (MLP, ATTN, "Gemma 3, mlp_out")
    shares: dict[tuple[str, bool], list[float]] = {}
    for row in rows.both_sides() + rows.one_pass():
        if row.sae in saes and row.cell in cells and row.seed == 0 and row.value in (8, 32, 128):
            at = row.cell.rpartition(" ")[2], row.sae == BOTH_SIDES
            shares.setdefault(at, []).append(row.bipolar_share)
    at_32 = [
        row.bipolar_share
        for row in rows.both_sides()
        if row.sae == BOTH_SIDES and row.value == 32 and row.seed == 0
    ]
    said = f"With `minus_bias_init: 0` it is {min(at_32):.0%} to {max(at_32):.0%} on the three"
    assert len(at_32) == 3
    assert said in result_page("summary")
    ends = {at: f"{min(of):.0%} to {max(of):.0%}" for at, of in shares.items()}
    assert [len(of) for of in shares.values()] == [3, 6, 6, 3]
    on_attention = f"{ends['attn_out', True]} of the latents are bipolar on attention"
    assert f"With it {on_attention}, and {ends['attn_out', False]} by default." in page
    assert f"On MLP outputs {ends['mlp_out', True]} are" in page
    assert f"are, and {ends['mlp_out', False]} by default." in page


def test_other_seeds_agree(benchmark_script: Callable[[str], Any], page: str) -> None:
    rows = benchmark_script("figure_rows")
    saes: dict[str, list[str]] = {BOTH_SIDES: [], rows.SHORT: []}
    for row in rows.both_sides() + rows.one_pass():
        sae = row.sae.removesuffix("-more-seeds").removesuffix("-full")
        if (row.cell, row.value) == (GEMMA3, 32) and row.seed > 0 and sae in saes:
            saes[sae].append(f"{row.r2:.4f}")
    both, (first, second) = (sorted(of) for of in saes.values())
    assert both == [both[0]] * 2
    said = f"With two other seeds R² there is {both[0]}, and {first} and {second} by default."
    assert said in page


def test_bipolar_latents_are_few_and_busy(use: Any, page: str) -> None:
    row = use[MLP, "bi_jumprelu"]
    busy = f"{row['activity_of_bipolar']:.0%}"
    assert (
        f"{row['bipolar_share']:.0%} of the latents of `bi_jumprelu` are bipolar. They are" in page
    )
    assert f"They are {busy} of the active latents of a token." in page
    on_attention = f"{use[ATTN, 'bi_jumprelu']['activity_of_bipolar']:.0%}"
    said = f"[{busy} of the active latents](pairs.md) of a token, and on attention"
    assert f"{said} {on_attention}." in result_page("summary")


def test_the_second_model(use: Any, page: str) -> None:
    rows = sorted((use[GEMMA3, sae] for sae in PLAIN), key=lambda row: row["n_pairs"])
    pairs = " and ".join(str(row["n_pairs"]) for row in rows)
    shares = " and ".join(f"{row['frequent_in_pairs']:.0%}" for row in rows)
    assert f"have {pairs} pairs, with {shares} of the frequent latents." in page
    signed = use[GEMMA3, "bi_jumprelu"]
    assert f"`bi_jumprelu` has {signed['n_pairs']}. Only {signed['frequent_bipolar']:.0%}" in page


def test_rare_latents_of_wide_saes(benchmark_script: Callable[[str], Any], page: str) -> None:
    rows = benchmark_script("side_use").rows_in(json_of("side_use"), "widths-smollm2-135m")
    found = {row["sae"]: row for row in rows}
    row = found["bi_jumprelu-16"]
    assert f"At 16 times `d_in` {row['rare_share']:.0%} of the latents of `bi_jumprelu` are" in page
    assert 0.45 < row["bipolar_of_rare"] < 0.55  # "half of these"
    assert (
        f"The rare ones are {row['activity_of_rare']:.0%} of the active latents of a token." in page
    )
    at_8, at_16 = (found[f"bi_jumprelu-warm-up-800-{n}"]["activity_of_bipolar"] for n in (8, 16))
    assert at_16 < at_8
    assert "their share does not grow with the width." in page


def test_retrained_saes_are_those_of_equal_width(page: str) -> None:
    name = "equal-width-smollm2-135m"
    before = {tuple(run[:5]): run[6] for run in json_of("equal_width")["sweeps"][name]["runs"]}
    runs = json_of("side_use")["sweeps"][name]["runs"]
    most = max(abs(run[6] - before[tuple(run[:5])]) for run in runs)
    assert most < 0.0005
    assert "Their R² differs by at most 0.0005 from the ones there." in page


def test_open_sides_at_l0_8_against_three_other_signed_saes(figures: Any) -> None:
    both, equal = json_of("both_sides")["sweeps"], json_of("equal_width")["sweeps"]

    def field(model: str, cell: str, sae: str) -> str:
        sweep = both[f"pairs-{model}"] if sae == BOTH_SIDES else equal[f"equal-width-{model}"]
        (row,) = (
            row
            for row in figures.rows_of(sweep)
            if (row.cell, row.sae, row.seed, row.value) == (cell, f"{sae}-full", 0, 8)
        )
        assert row.l0 == pytest.approx(8, rel=0.03)
        return f"{row.r2:.3f}, {row.bipolar_share:.0%}"

    which = (ROOT / "docs" / "which.md").read_text()
    cells = {MLP: ("smollm2-135m", "mlp_out"), ATTN: ("smollm2-135m", "attn_out")}
    for name, (model, cell) in (cells | {GEMMA3: ("gemma3-270m", "mlp_out")}).items():
        fields = [field(model, cell, sae) for sae in (BOTH_SIDES, *OTHERS)]
        assert f"    | {name} | {' | '.join(fields)} |\n" in which
        assert max(fields) == fields[-1 if name == ATTN else 0]
