"""The pages on equal width, dead latents and presets say what results/ shows."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tables import fields_of, json_of, result_page, table_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")

ROOT = Path(__file__).parent.parent
PLACES = ("mlp_out", "attn_out", "resid")


def test_the_page_on_dead_latents_says_what_the_results_show(figures: Any) -> None:
    page = result_page("dead_latents")
    log = (ROOT / "docs" / "log.md").read_text()
    for name, text in (
        (figures.MODELS["SmolLM2"], "in each of the {} runs on SmolLM2-135M"),
        (figures.MODELS["Gemma 3"], "the {} runs that are done on Gemma 3 270M"),
    ):
        signed = [row for row in figures.rows_of(figures.read(name)) if row.sae in figures.SIGNED]
        assert text.format(len(signed)) in log
        assert max(row.dead_share for row in signed) < 0.01
    assert "Under 1% were dead" in log
    for sae, text in (
        ("bi_jumprelu", "at most {:.2%} of the latents of `bi_jumprelu`"),
        ("sa_gsae", "{:.2%} of those of\n`sa_gsae`"),
    ):
        variants = [name for name in (sae, figures.SHORT) if name.startswith(sae)]
        dead = [row.dead_share for row in figures.one_pass() if row.sae in variants]
        assert text.format(max(dead)) in page
        assert f"{max(dead):.2%} in {len(dead)} runs of `{sae}`" in page
        assert f"{max(dead):.2%} of `{sae}`" in result_page("summary")
    by_size = ("bi_batchtopk", "bi_matryoshka_batchtopk", "bi_topk")
    most, rest = [], []
    for row in figures.one_pass():
        if row.sae in by_size:
            is_worst = (row.cell, row.value) == ("Gemma 3, attn_out", 8)
            (most if is_worst else rest).append(row.dead_share)
    assert len(most) == len(by_size)
    said = f"at most {max(rest):.2%} are, except on the attention of Gemma 3. There"
    assert f"{said} {min(most):.0%} to {max(most):.0%} are at L0 8." in page
    before = figures.rows_of(figures.read("dead_latents_recipe.json"))
    (one,) = [run for run in before if run.dead_share >= 0.01]
    assert (one.cell, one.sae, one.value) == ("attn_out", "bi_matryoshka_batchtopk", 8)
    assert f"{one.dead_share:.0%} were dead" in log


def test_the_readme_says_how_many_latents_are_bipolar(figures: Any) -> None:
    summary = result_page("summary")
    for sae, n_runs, said in (
        (figures.SHORT, 18, "{} to {} of the latents of `bi_jumprelu` are *bipolar*"),
        ("bi_jumprelu", 6, "as in `pretrained/`, {} to {} are."),
    ):
        shares = [
            row.bipolar_share
            for row in figures.one_pass()
            if row.sae == sae and (row.swept, row.value) == ("target_l0", 32)
        ]
        assert len(shares) == n_runs
        assert said.format(f"{min(shares):.0%}", f"{max(shares):.0%}") in summary


def test_a_preset_is_the_signed_sae_that_came_out_best(figures: Any) -> None:
    models = {"SmolLM2": "smollm2-135m", "Gemma 3": "gemma3-270m"}
    narrow = {"jumprelu_bandwidth": 0.1, "l0_coefficient": 0.03}
    (both_sides,) = figures.OF_BOTH_SIDES
    settings: dict[str, dict[str, float]] = {
        **{name: {} for name in figures.SIGNED},
        "bi_jumprelu": {"l0_warm_up_steps": 800},
        figures.SHORT: {"l0_warm_up_steps": 400},
        figures.ANNEALED: {"k_anneal_steps": 400},
        figures.NARROW: {"l0_warm_up_steps": 800, **narrow},
        figures.NARROW_SHORT: {"l0_warm_up_steps": 400, **narrow},
        both_sides: {"l0_warm_up_steps": 400, "minus_bias_init": 0},
    }
    page = (ROOT / "docs" / "which.md").read_text()
    of_first_seed = [row for row in figures.one_pass() + figures.both_sides() if row.seed == 0]
    cells = {row.cell for row in of_first_seed}
    assert len(cells) == 6
    for cell in cells:
        model, place = cell.split(", ")
        r2 = {
            sae: row.r2
            for sae in (*settings, "batchtopk")
            for row in importlib.import_module("result_rows").means(of_first_seed, cell, sae)
            if row.value == 32
        }
        best = max(r2.keys() & set(settings), key=lambda sae: r2[sae])
        path = ROOT / "configs" / f"best-{models[model]}-{place}.yaml"
        sae = yaml.safe_load(path.read_text())["sae"]
        assert sae["architecture"] == best.partition("-")[0]
        assert {name: sae[name] for name in settings[best]} == settings[best]
        assert ("jumprelu_bandwidth" in sae) == ("jumprelu_bandwidth" in settings[best])
        assert ("k_anneal_steps" in sae) == (best == figures.ANNEALED)
        assert ("minus_bias_init" in sae) == (best == both_sides)
        of_both = f"{r2[best]:.4f}", f"{r2['batchtopk']:.4f}"
        assert "# R² there: {}, and {} of SAELens's batchtopk".format(*of_both) in path.read_text()
        options = {figures.ANNEALED: ", annealed k", both_sides: ", `minus_bias_init: 0`"}
        shown = f"`{sae['architecture']}`" + options.get(best, "")
        assert f"| `configs/{path.name}` | {shown} | {of_both[0]} | {of_both[1]} |" in page


def test_the_page_on_equal_width_says_what_the_results_show() -> None:
    def gaps(name: str) -> dict[tuple[str, str], list[str]]:
        table = table_of(name)
        return {(row[0], row[1]): row[2:] for row in table if "`" in row[1]}

    def known(fields: list[str]) -> list[float]:
        return [float(field) for field in fields if field]

    table, narrow = gaps("equal_width_gaps"), gaps("equal_width_narrow")
    assert len({place for place, _ in table}) == 6
    of_batchtopk = {place: known(row) for (place, sae), row in table.items() if "batch" in sae}
    # level with both plain SAEs or ahead: everywhere; two are at the edge, and one of them, Gemma's
    # residual stream, is within it by the narrower bandwidth
    edges = {"Gemma 3, resid": "batchtopk", "Gemma 3, attn_out": "jumprelu"}
    for (place, sae), row in table.items():
        is_edge = edges.get(place, "none") in sae
        assert min(known(row)) >= (-0.0021 if is_edge else -0.0019)
    assert all(min(known(row)) > -0.002 for row in narrow.values())
    for place in ("SmolLM2, mlp_out", "Gemma 3, mlp_out"):
        assert 0.005 <= min(of_batchtopk[place]) <= max(of_batchtopk[place]) < 0.0165
    at_128 = [float(row[-1]) for (_, sae), row in table.items() if "batch" in sae]
    assert sum(gap > 0.002 for gap in at_128) == 5


AHEAD, LEVEL, EDGE_AHEAD, EDGE_BEHIND = "ahead", "level", "0.002 ahead", "0.002 behind"
NARROWER = (
    "[a narrower bandwidth](annealed_k.md#a-narrower-bandwidth-on-the-residual-stream-of-gemma-3)"
)
VERDICTS = {  # what a field of the page's table of verdicts says at L0 8, 16, 32, 64, 128
    "ahead": [AHEAD] * 5,
    "level": [LEVEL] * 5,
    "level up to L0 32, ahead above": [LEVEL] * 3 + [AHEAD] * 2,
    "level, ahead at L0 128": [LEVEL] * 4 + [AHEAD],
    "ahead, but level at L0 32 and 64": [AHEAD, AHEAD, LEVEL, LEVEL, AHEAD],
    "ahead at L0 8 and 128; between them 0.002 ahead, at the margin of level": [
        *[AHEAD, EDGE_AHEAD, EDGE_AHEAD, EDGE_AHEAD, AHEAD]
    ],
    "0.0020 behind at L0 8, at the margin; level elsewhere near the L0s of JumpReLU's runs": [
        *[EDGE_BEHIND, None, LEVEL, LEVEL, LEVEL]  # JumpReLU has no run near L0 16
    ],
    "0.001 to 0.002 below, at the margin of level": ["-0.001 to -0.002"] * 5,
    # the last part is of other settings, which the page that it names has
    f"ahead up to L0 32, level above; level at L0 32 where both have {NARROWER}": [
        *[AHEAD, AHEAD, AHEAD, LEVEL, LEVEL]
    ],
}


def test_the_table_of_verdicts_is_that_of_the_gaps() -> None:
    page = result_page("equal_width")
    start = page.index("| hook point | `bi_jumprelu` against BatchTopK |")
    said = {row[0]: row[1:] for row in fields_of(page[start : page.index("\n\n", start)])[1:]}
    gaps = [row for row in table_of("equal_width_gaps") if "`" in row[1]]
    assert len(gaps) == 2 * len(said) == 12
    for place, baseline, *fields in gaps:
        words = said[place]["jumprelu" in baseline]
        for claim, field in zip(VERDICTS[words], fields, strict=True):
            gap = float(field)
            holds = {
                AHEAD: gap > 0.002,
                LEVEL: abs(gap) <= 0.002,
                EDGE_AHEAD: round(gap, 3) == 0.002 >= gap,
                EDGE_BEHIND: round(gap, 3) == -0.002 <= gap,
                "-0.001 to -0.002": round(gap, 3) in (-0.001, -0.002),
                None: True,
            }
            assert holds[claim], (place, baseline, claim, gap)


def test_bi_batchtopk_is_as_the_pages_say(figures: Any) -> None:
    rows = [[*row[:2], *map(float, row[2:])] for row in table_of("equal_width_bi_batchtopk")[1:]]
    of_batchtopk = [row for row in rows if "`batchtopk`" in row[1]]
    assert len(of_batchtopk) == 6
    assert sum(row[-1] > 0.002 for row in of_batchtopk) == 5
    assert all(row[-1] > -0.002 for row in rows)
    behind = [row for row in of_batchtopk if row[2] < -0.002]
    assert [row[0] for row in behind] == [
        "SmolLM2, attn_out",
        "Gemma 3, mlp_out",
        "Gemma 3, attn_out",
    ]
    which = (ROOT / "docs" / "which.md").read_text()
    ends = sorted(-row[2] for row in behind)
    assert f"At L0 8** it is {ends[0]:.3f} to {ends[-1]:.3f} behind BatchTopK" in which
    at_32 = [row[3] for row in of_batchtopk]
    ends_at_32 = f"[{-min(at_32):.3f} below to {max(at_32):.3f} above]"
    assert f"{ends_at_32}(results/signed_saes.md)" in which
    assert sum(row[2] < -0.002 for row in rows if "`bi_jumprelu`" in row[1]) == 5
    dead = {
        row.sae: row.dead_share
        for row in figures.one_pass()
        if (row.cell, row.value, row.seed) == ("Gemma 3, attn_out", 8, 0)
    }
    page = result_page("dead_latents")
    for sae in ("bi_batchtopk", "bi_matryoshka_batchtopk", "batchtopk", "matryoshka_batchtopk"):
        assert f"`{sae}` | {dead[sae]:.0%} |\n" in page


def test_on_other_text_the_lead_is_as_the_pages_say() -> None:
    rows = [
        (*row[:2], *(float(f.split()[0]) for f in row[3:])) for row in table_of("other_text")[1:]
    ]

    def gaps(place: str, l0: str) -> list[float]:
        return [gap for cell, at, *found in rows if place in cell and at == l0 for gap in found]

    assert sum(gap > 0.002 for gap in gaps("mlp_out", "32")) == 7
    assert [gap > 0.002 for gap in gaps("mlp_out", "8")] == [True, False, True, True]
    assert all(0.022 < gap < 0.033 for gap in gaps("mlp_out", "128"))
    assert all(-0.0045 < gap < 0.002 for gap in gaps("attn_out", "32"))
    assert all(gap < -0.002 for gap in gaps("attn_out", "8"))
    assert all(gap > 0.002 for gap in gaps("attn_out", "128"))
    behind = {l0: [-gap for gap in gaps("resid", l0)] for l0 in ("8", "32", "128")}
    page, summary = result_page("generality"), result_page("summary")
    every = [gap for found in behind.values() for gap in found[-4:]]  # of Gemma 3
    assert f"at every L0**, by {min(every):.3f} to {max(every):.3f}." in page
    of_smollm2 = behind["32"][:4]
    assert 0.001 < min(of_smollm2) < max(of_smollm2) < 0.0023
    assert f"level or up to {max(behind['32']):.3f} behind" in summary.replace("\n", " ")


def test_the_other_seeds_of_jumprelu_are_as_near_as_the_page_says() -> None:
    sweeps = json_of("equal_width")["sweeps"]
    r2s, l0s, places = [], [], set()
    for name, sweep in sweeps.items():
        first = {(r[0], r[4]): r for r in sweep["runs"] if r[1:3] == ["jumprelu-full", 0]}
        for run in sweep["runs"]:
            if run[1] == "jumprelu-full-more-seeds":
                of_first = first[run[0], run[4]]
                places.add((name, run[0], run[2]))
                l0s.append(abs(run[5] / of_first[5] - 1))
                r2s.append(abs(run[6] - of_first[6]))
    assert len(places) == 6 * 2
    page = result_page("equal_width")
    assert f"by at most {max(r2s):.4f}, and their L0 by at most {max(l0s):.1%}." in page


def test_after_twice_the_steps_the_lead_is_as_the_pages_say() -> None:
    rows = table_of("longer")
    on_mlp, on_attention = (
        {row[1]: (float(row[3]), float(row[5])) for row in rows[1:] if row[3] and cell in row[0]}
        for cell in ("mlp_out", "attn_out")
    )
    ours, plain = "`bi_jumprelu`, warm-up of a tenth", "SAELens's `jumprelu`"
    before, after = on_mlp[ours]
    summary, page = result_page("summary"), result_page("generality")
    assert f"its lead is {after:.3f} in place of {before:.3f}, in one run of each." in summary
    assert abs(on_mlp["`bi_jumprelu`, warm-up of a fifth"][1]) < 0.002
    to_jumprelu = [mine - its for mine, its in zip(on_mlp[ours], on_mlp[plain], strict=True)]
    assert "to JumpReLU falls from {:.4f} to {:.4f}.".format(*to_jumprelu) in page
    assert to_jumprelu[1] < 0.002 < to_jumprelu[0]
    assert all(abs(gap) < 0.002 for gaps in on_attention.values() for gap in gaps)
    moved = max(abs(was - now) for was, now in on_mlp.values())
    assert f"those to BatchTopK change by up to {moved:.4f}." in page
    was, now = on_attention.pop(plain)
    moved = max(abs(was - now) for was, now in on_attention.values())
    assert f"they change by at most {moved:.4f}. Only that of JumpReLU changes more," in page
    assert f"and falls by {was - now:.4f}." in page


def test_after_twice_the_steps_latents_of_jumprelu_are_dead_as_the_page_says() -> None:
    (sweep,) = json_of("longer")["sweeps"].values()
    assert len(sweep["runs"]) == sweep["n_runs"] == 12
    of_attention = [run for run in sweep["runs"] if run[0] == "attn_out"]
    dead = sorted(run[7] for run in of_attention if run[1].startswith("jumprelu"))
    others = [run[7] for run in of_attention if not run[1].startswith("jumprelu")]
    page = result_page("generality")
    assert "{:.0%} and {:.0%} of the latents of its two runs are dead".format(*dead) in page
    assert f"and at most {max(others):.1%} of the other SAEs" in page


def test_seeds_agree_on_what_is_ahead_and_what_is_level() -> None:
    rows = table_of("equal_width_seeds")[1:]
    ahead = {  # at L0 8, 32 and 128; None is at the edge
        "SmolLM2, mlp_out": (True, True, True),
        "SmolLM2, attn_out": (False, False, True),
        "SmolLM2, resid": (False, False, True),
        "Gemma 3, mlp_out": (True, True, True),
        "Gemma 3, attn_out": (None, None, True),
        "Gemma 3, resid": (None, False, None),
    }
    assert [row[:2] for row in rows] == [[cell, "SAELens's `batchtopk`"] for cell in ahead]
    spreads = []
    for cell, _, *fields in rows:
        for field, is_ahead in zip(fields, ahead[cell], strict=True):
            assert field.endswith(", n = 3")
            low, high = map(float, re.findall(r"[+-]\d\.\d{4}", field)[1:])
            spreads.append(high - low)
            if is_ahead is None:
                assert 0.0015 <= min(abs(low), abs(high)) <= max(abs(low), abs(high)) < 0.0035
            else:
                assert low > 0.002 if is_ahead else -0.002 < low <= high < 0.002, (cell, field)
    page = result_page("equal_width")
    assert f"The largest spread of a gap over seeds is {max(spreads):.4f}" in page


def test_the_page_on_equal_width_says_how_many_runs_are_done(figures: Any) -> None:
    page = result_page("equal_width")
    for name in ("equal_width", "longer", "widths", "both_sides"):
        for sweep, held in figures.read(f"{name}.json")["sweeps"].items():
            assert f"| `{sweep}.yaml` | {len(held['runs'])} of {held['n_runs']} |" in page
