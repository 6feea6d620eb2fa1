"""What the page of the search says of other settings of JumpReLU and `bi_jumprelu`."""

import math

from tests.support.tables import json_of, result_page, result_section, table_of


def test_other_settings_of_jumprelu_are_as_the_pages_say() -> None:
    rows = {setting: fields for setting, *fields in table_of("search_jumprelu")[1:]}
    page = result_section("search", "Other settings of JumpReLU")
    gaps = {s: [float(f.split()[0].replace("−", "-")) for f in rows[s]] for s in rows}
    assert all(len(found) == 3 for found in gaps.values())
    defaults, narrow, wide, tanh, quadratic = gaps.values()
    assert max(gap for found in gaps.values() for gap in found) < 0.001
    most = max(map(abs, defaults + narrow))
    assert f"0.5 of the comparison changes R² by at most {most:.4f}." in page
    assert most < 0.001
    assert "of those used here, within 0.001." in result_page("equal_width")
    assert f"**A bandwidth of 2** is {-max(wide):.3f} to {-min(wide):.3f} behind." in page
    said = "the tanh recipe by {:.3f} to {:.3f}, and the quadratic loss by {:.3f} to {:.3f}."
    assert said.format(-max(tanh), -min(tanh), -max(quadratic), -min(quadratic)) in page
    on_attention = [rows[s][1].split(", ") for s in rows if "tanh" in s or "quadratic" in s]
    dead = [float(share.removesuffix("% dead")) for _, share in on_attention]
    said = "On attention {:.0f}% of the latents are dead with the tanh recipe, and {:.0f}% with"
    assert said.format(*dead) in page


def test_other_settings_of_bi_jumprelu_are_as_the_page_says() -> None:
    r2 = {(r[0], r[1]): r[6] for r in json_of("search")["runs"]}
    page = result_section("search", "Other settings of `bi_jumprelu`")
    changes = [
        abs(r2[place, "bi_jumprelu-bandwidth-0.1-3e-3"] - r2[place, "bi_jumprelu-3e-3-26k"])
        for place in ("mlp_out", "resid", "attn_out")
    ]
    mlp_out, resid, attn_out = (f"{change:.4f}" for change in changes)
    said = f"by {mlp_out} on the MLP output and the residual stream, and by {attn_out} on attention"
    assert said in page
    assert mlp_out == resid


def test_the_starts_of_bi_jumprelu_are_as_the_page_says() -> None:
    stem = "bi_jumprelu-1e-3-26k"
    held = json_of("search")["runs"]
    runs = {(r[0], r[1].removeprefix(stem)): r[5:7] for r in held if r[1].startswith(stem)}
    page = result_section("search", "Other settings of `bi_jumprelu`")
    places = "mlp_out", "attn_out", "resid"
    off = {run: abs(l0 / 32 - 1) for run, (l0, _) in runs.items()}
    for place in places:
        met = {name: runs[at, name][1] for at, name in runs if at == place and off[at, name] < 0.03}
        assert max(met, key=lambda name: met[name]) == "-start-1.5-rate-0.003"
    assert all(miss < 0.03 for run, miss in off.items() if run[1].endswith("-rate-0.003"))
    default = [runs[place, ""][0] for place in places]
    assert f"By default the L0 ends at {min(default):.0f} to {max(default):.0f}." in page
    alone = {run: miss for run, miss in off.items() if "start" in run[1] and "rate" not in run[1]}
    missed = [miss for (place, _), miss in alone.items() if place == "mlp_out"]
    assert all(miss < 0.03 for (place, _), miss in alone.items() if place != "mlp_out")
    assert f"it misses it by {min(missed):.0%} to {max(missed):.0%}." in page
    # along log L0 attention gains about 0.012 for a tenth more
    (l0, r2), (other_l0, other) = (
        runs["attn_out", f"-start-{start}-rate-0.003"] for start in ("1.5", "1")
    )
    gained = 0.012 * math.log(l0 / other_l0) / math.log(1.1)
    assert abs(r2 - other - gained) < 0.002
