"""The pages on other SAEs, signed and plain, say what results/ shows."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.support.tables import gaps_of, json_of, result_page, table_of

ROOT = Path(__file__).parent.parent
OTHERS, SIGNED = result_page("other_saes"), result_page("signed_saes")
WHICH = (ROOT / "docs" / "which.md").read_text()


def ends(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"


MARGIN = 0.002


def four_others() -> dict[str, dict[str, list[float]]]:
    """The gaps to the SAEs that were asked for L0 8, 32 and 128; Gated has its coefficient's."""
    table = gaps_of("equal_width_others")
    del table["SAELens's `gated`"]
    assert len(table) == 4
    return table


def test_no_sae_of_saelens_is_ahead_of_the_best_signed_one() -> None:
    head, *rows = table_of("equal_width_best")
    assert head[1:] == ["L0 8", "L0 32", "L0 128"]
    found = {
        (place, l0): re.fullmatch(r"(`.*`.*?) ([+-]\d\.\d{4}) to (.*)", field)
        for place, *fields in rows
        for l0, field in zip(head[1:], fields, strict=True)
    }
    gaps = {at: float(match[2]) for at, match in found.items() if match}
    assert len(gaps) == len(found) == 18
    assert min(gaps.values()) > -MARGIN - 5e-5  # the lowest rounds to the margin
    ahead = {at for at, gap in gaps.items() if gap > MARGIN}
    of_mlp = {at for at in gaps if at[0].endswith("mlp_out")}
    assert ahead == of_mlp | {("SmolLM2, resid", "L0 128")}
    said = f"ahead in {len(ahead)} of 18 cases, and level in {18 - len(ahead)}."
    assert said in result_page("equal_width")
    readme = (ROOT / "README.md").read_text()
    assert f"ahead in {len(ahead)}, and level in {18 - len(ahead)}." in readme
    said = f"ahead in {len(ahead)} of these 18 cases, and level in {18 - len(ahead)}."
    assert said in result_page("summary")
    best = [match[1].partition(",")[0] for match in found.values() if match]
    assert max(best, key=best.count) == "`bi_jumprelu`"
    assert best.count("`bi_jumprelu`") > 9


def test_bi_topk_is_as_the_pages_say() -> None:
    table = gaps_of("equal_width_bi_topk")
    assert [len(row) for of in table.values() for row in of.values()] == [3] * 18
    at = "SmolLM2, attn_out"
    of_topk, of_abstopk = table["SAELens's `topk`"], table["SAELens's `abstopk`, signed"]
    of_jump = table["`bi_jumprelu`"]
    assert abs(of_topk[at][0]) < MARGIN
    assert f"[{of_jump[at][0]:.3f} above](results/signed_saes.md#bi_topk)" in WHICH
    on_gemma = -of_jump["Gemma 3, attn_out"][0]
    assert f"On Gemma 3 it is {on_gemma:.3f} below." in WHICH
    every = [gap for row in of_topk.values() for gap in row]
    assert min(every) > -MARGIN
    assert f"from {-min(every):.3f} below to {max(every):.3f} above" in SIGNED
    assert f"R²** is [{-min(every):.3f} below to {max(every):.3f} above]" in WHICH
    at_8 = [row[0] for row in of_abstopk.values()]
    assert f"it is {ends(at_8)} ahead at L0 8." in SIGNED
    assert min(at_8) > MARGIN
    of_resid = of_abstopk["Gemma 3, resid"].pop()
    above = [gap for row in of_abstopk.values() for gap in row[1:]]
    assert min(above) > -MARGIN
    assert f"level or up to {max(above):.3f} ahead, in all cases but one." in SIGNED
    said = "is the residual stream of Gemma 3 at L0 128. There it is"
    assert f"{said} {-of_resid:.3f} behind AbsTopK." in SIGNED
    best = of_jump[at].pop(0)
    assert f"**Against `bi_jumprelu`** it is {best:.3f} ahead at L0 8 of SmolLM2's" in SIGNED
    assert all(abs(gap) <= MARGIN for gap in of_jump.pop("Gemma 3, resid"))
    behind = ends([-gap for row in of_jump.values() for gap in row])
    assert f"Elsewhere it is {behind} behind." in SIGNED
    assert f"it is {behind} below `bi_jumprelu`." in WHICH
    speeds = [size["step_ms"] for size in json_of("speed_topk")["sizes"]]
    assert {f"{ms['topk W, sparse'] / ms['bi_topk W']:.1f}" for ms in speeds} == {"1.9"}


def test_at_l0_32_the_other_saes_are_as_far_behind_as_the_page_says() -> None:
    rows = [
        row
        for row in table_of("equal_width_peers")[1:]
        if not re.search("`(batchtopk|jumprelu)`", row[0])
    ]
    of_smollm2 = [float(field.split()[0]) for row in rows for field in row[1:4]]
    assert len(of_smollm2) == 5 * 3
    assert f"On SmolLM2 they are {ends(of_smollm2)} behind." in OTHERS
    of_gemma = {row[0]: [float(f.split()[0]) for f in row[4:]] for row in rows if all(row[4:])}
    matryoshka = of_gemma.pop("SAELens's `matryoshka_batchtopk`")
    assert f"On Gemma 3 Matryoshka is {ends(matryoshka)} behind." in OTHERS
    assert len(of_gemma) == 3
    of_two = ends([gap for *others, _ in of_gemma.values() for gap in others])
    said = "On Gemma 3 TopK, AbsTopK and Gated as its paper trains it are"
    assert f"{said} {of_two} behind, and level on the residual stream." in OTHERS
    assert all(abs(resid) < 0.002 for *_, resid in of_gemma.values())


def test_four_others_are_behind_at_other_l0s_too_but_for_one_field_of_topk() -> None:
    table = four_others()
    for of_sae in table.values():
        assert [len(row) for row in of_sae.values()] == [3] * 6
    topk = table["SAELens's `topk`"]
    best, *topk["SmolLM2, attn_out"] = topk["SmolLM2, attn_out"]
    assert best < -0.002
    assert f"of SmolLM2's attention** is {-best:.3f} ahead of `bi_jumprelu`" in OTHERS
    behind = topk["Gemma 3, attn_out"][0]
    assert f"**TopK on the attention of Gemma 3** is {behind:.3f} behind at that L0." in OTHERS

    def of(place: str) -> list[float]:
        return [gap for of_sae in table.values() for gap in of_sae[place]]

    on_mlp = [*of("SmolLM2, mlp_out"), *of("Gemma 3, mlp_out")]
    assert f"`bi_jumprelu` is ahead of all five at all three L0s, by {ends(on_mlp)}." in OTHERS
    on_attention = [*of("SmolLM2, attn_out"), *of("Gemma 3, attn_out")]
    span = f"{min(on_attention):.4f} to {max(on_attention):.4f}"
    assert f"- **Attention.** It is {span} ahead of Matryoshka, AbsTopK, TopK and" in OTHERS
    on_resid = of("SmolLM2, resid")
    assert f"SmolLM2.** `bi_jumprelu` is {ends(on_resid)} ahead." in OTHERS
    assert min(on_mlp + on_attention + on_resid) > 0.002


def test_saelens_s_gated_is_behind_wherever_it_has_a_run_near() -> None:
    gaps = gaps_of("equal_width_others")["SAELens's `gated`"]
    of_gemma = [gap for place, row in gaps.items() if "Gemma" in place for gap in row]
    assert len(of_gemma) == 3
    assert f"on Gemma 3 it is {ends(of_gemma)} behind where there is one." in OTHERS
    assert min(gap for row in gaps.values() for gap in row) > MARGIN
    of_attention = [gap for place, row in gaps.items() if "attn" in place for gap in row]
    assert f"SAELens's Gated is {ends(of_attention)} behind." in OTHERS
    of_mlp = [gap for place, row in gaps.items() if "mlp" in place for gap in row]
    assert 0.005 < min(of_mlp) < max(of_mlp) < 0.05  # within the range of the other four


def test_on_gemmas_residual_stream_the_others_are_mostly_level() -> None:
    at = {sae: of["Gemma 3, resid"] for sae, of in four_others().items()}
    *level, ahead = at.pop("SAELens's `abstopk`, signed")
    matryoshka = at.pop("SAELens's `matryoshka_batchtopk`")
    assert "It is level with TopK and with Gated as its paper trains it." in OTHERS
    assert f"It is {ends(matryoshka)} ahead of Matryoshka, and of SAELens's Gated" in OTHERS
    assert f"At the highest L0 it is {-ahead:.3f} ahead of `bi_jumprelu`" in OTHERS
    assert min(matryoshka) > 0.002
    assert ahead < -0.002
    assert all(abs(gap) < 0.002 for row in [level, *at.values()] for gap in row)


def test_the_trials_of_topk_are_as_the_log_says() -> None:
    trials = json_of("trials_2026_11_30")
    log = (ROOT / "docs" / "log.md").read_text()
    for _, *read in trials["token_budget"]["rows"]:
        assert f"| {' | '.join(f'{r2:.4f}' for r2 in read)} |" in log
    gemma, smollm2 = (row[3] for row in trials["two_sided_topk"]["rows"])
    assert f"**On SmolLM2** it has an R² of {smollm2:.4f}" in log
    assert f"on validation text, it has {gemma:.4f}" in log


def test_sa_gsae_is_mostly_ahead_of_gated() -> None:
    (table,) = gaps_of("equal_width_sa_gsae_gated").values()
    assert [len(row) for row in table.values()] == [4] * 6
    behind = {
        place: [i for i, gap in enumerate(row) if gap < -0.002] for place, row in table.items()
    }
    assert {place: at for place, at in behind.items() if at} == {
        "SmolLM2, attn_out": [0],
        "Gemma 3, attn_out": [1, 2],
    }
    assert "or level with it, in all cases but three of attention." in SIGNED


def test_a_sign_in_a_matryoshka_is_as_the_pages_say() -> None:
    table = gaps_of("equal_width_matryoshka")
    of_batchtopk = {place: row[-1] for place, row in table["SAELens's `batchtopk`"].items()}
    assert [place for place, gap in of_batchtopk.items() if gap < -0.002] == ["Gemma 3, resid"]
    of_sign = table["SAELens's `matryoshka_batchtopk`"]
    of_gemmas_resid = of_sign.pop("Gemma 3, resid")
    assert max(map(abs, of_gemmas_resid)) < 0.002
    level, ahead, further = of_sign.pop("SmolLM2, resid")
    assert abs(level) < 0.002
    said = "SmolLM2** the two are level at the lowest L0. Above it, it is {:.3f} and {:.3f} ahead."
    assert said.format(ahead, further) in SIGNED
    at_8, at_32, at_128 = zip(*of_sign.values(), strict=True)
    assert len(at_128) == 4
    assert f"**At L0 128** it is {ends(at_128)} ahead on MLP outputs and attention." in SIGNED
    assert f"**At L0 8** it is {ends([-gap for gap in at_8])} behind on both." in SIGNED
    on_mlp = [row[1] for place, row in of_sign.items() if place.endswith("mlp_out")]
    assert f"**At L0 32** it is {ends(on_mlp)} ahead on MLP outputs, and level" in SIGNED
    assert max(abs(gap) for gap in at_32 if gap not in on_mlp) < 0.002
    every = [*at_32, ahead, of_gemmas_resid[1]]
    below_and_above = f"{-min(every):.3f} below to {max(every):.3f} above, over six hook points"
    assert f"R² at L0 32 is {below_and_above}" in WHICH
    assert f"At L0 128 it is {ends(at_128)} above on MLP outputs and attention." in WHICH
    lowest = f"At L0 8 it is {ends([-gap for gap in at_8])} below on MLP outputs and attention"
    assert f"{lowest}, and level on residual streams." in WHICH
    price = ends([-row[1] for row in table["SAELens's `batchtopk`"].values()])
    assert f"At L0 32 its R² is {price} below that of BatchTopK." in WHICH
    assert f"At L0 32 `bi_matryoshka_batchtopk` is {price} below BatchTopK" in SIGNED
