"""The page of the search says of lower rates, and of Gemma 3, what the results show."""

import math
from pathlib import Path

from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from tests.support.tables import json_of, result_page, result_section

ROOT = Path(__file__).parent.parent


def test_lower_rates_are_as_the_pages_say() -> None:
    held = json_of("search")["runs"] + json_of("low_rate")["runs"]
    r2 = {place: {r[1]: r[6] for r in held if r[0] == place} for place in ("attn_out", "resid")}
    l0 = {r[1]: r[5] for r in held if r[0] == "attn_out"}
    page, which = result_page("search"), (ROOT / "docs" / "which.md").read_text()
    attn, resid = r2["attn_out"], r2["resid"]
    lost = [
        attn["batchtopk-3e-3-26k"] - attn["batchtopk-3e-4"],
        attn["bi_batchtopk-3e-3-26k"] - attn["bi_batchtopk-3e-4"],
        resid["batchtopk-3e-3-26k"] - resid["batchtopk-3e-4"],
        resid["bi_batchtopk-3e-3-26k"] - resid["bi_batchtopk-3e-4"],
    ]
    assert f"have {min(lost):.3f} to {max(lost):.3f} less of R² there than at 3e-3." in page
    said = "`bi_jumprelu` ends at L0 {:.0f}, and at {:.0f} with the default `target_l0_rate`. "
    assert said.format(l0["bi_jumprelu-3e-4-rate-0.001"], l0["bi_jumprelu-3e-4"]) in page
    assert f"JumpReLU ends at {l0['jumprelu-3e-4']:.0f}" in page
    plain, by_default = attn["batchtopk-1e-3-26k"], attn["bi_jumprelu-1e-3-26k-rate-0.003"]
    both = attn["bi_jumprelu-1e-3-rate-0.003-minus-0"]
    larger = attn["bi_jumprelu-1e-3-rate-0.003-minus-0-start-1.5"]
    said = "gains `bi_jumprelu` {:.3f}, and the larger start {:.3f} more"
    assert said.format(both - by_default, larger - both) in page
    said = f"it is {plain - larger:.4f} below then, and {plain - by_default:.3f} below by default."
    assert said in page
    more = l0["bi_jumprelu-1e-3-rate-0.003-minus-0-start-1.5"] / l0["batchtopk-1e-3-26k"] - 1
    assert f"Its L0 is {more:.1%} higher" in page
    assert f"is {plain - larger:.4f} below, at {more:.1%} more active latents" in which
    assert 0 < plain - attn["bi_batchtopk-1e-3-minus-0"] < 0.002  # level
    ahead = attn["bi_batchtopk-3e-4-minus-0"] - attn["batchtopk-3e-4"]
    assert f"both sides open is {ahead:.3f} above BatchTopK. " in page
    missed = l0["bi_jumprelu-3e-4-rate-0.001-minus-0-start-1.5"] / 32 - 1
    assert f"with the larger start misses its L0 by {missed:.0%} there" in page
    assert abs(resid["bi_batchtopk-1e-3-minus-0"] - resid["batchtopk-1e-3-26k"]) < 0.002
    opened, as_made = (
        resid["batchtopk-3e-4"] - resid[name]
        for name in ("bi_batchtopk-3e-4-minus-0", "bi_batchtopk-3e-4")
    )
    assert f"At 3e-4 it is {opened:.3f} below, and by default {as_made:.4f} below." in page


def test_the_config_says_how_many_runs_of_the_lower_rates_are_done() -> None:
    path, n = ROOT / "configs" / "low-rate-smollm2-135m.yaml", len(json_of("low_rate")["runs"])
    _, planned = load_sweep_config(path)
    assert f"# {n} of these {len(planned)} runs are done" in path.read_text()
    assert f"Of the lower rates {n} of {len(planned)} are" in result_page("search")
    assert {(r[0], r[1]) for r in json_of("low_rate")["runs"]} <= {(r.cell, r.sae) for r in planned}


def test_the_rates_on_gemma_are_as_the_pages_say() -> None:
    runs = {r[1]: r[5:7] for r in json_of("search_gemma3")["runs"] if r[0] == "mlp_out"}
    page = result_section("search", "On Gemma 3")
    l0, r2 = ({sae: run[i] for sae, run in runs.items()} for i in (0, 1))
    ours, plain, other = "bi_jumprelu-3e-3-26k", "batchtopk-3e-3-26k", "bi_batchtopk-3e-3-26k"
    slow_ours = "bi_jumprelu-1e-3-26k-rate-0.003"
    slow_plain, slow_other = (name.replace("3e-3", "1e-3") for name in (plain, other))
    assert f"`bi_jumprelu` is {r2[ours] - r2[plain]:.4f} above BatchTopK" in page
    more = l0[slow_ours] / l0[slow_plain] - 1
    said = f"it is {r2[slow_plain] - r2[slow_ours]:.3f} below BatchTopK, with an L0 that is"
    assert f"{said} {more:.0%} higher." in page
    assert abs(r2[slow_other] - r2[slow_plain]) < 0.002  # level
    costs = r2[ours] - r2[slow_ours], r2[plain] - r2[slow_plain]
    assert min(costs) > 0
    assert "`bi_jumprelu` loses {:.3f} and BatchTopK {:.3f}.".format(*costs) in page
    gain = r2[slow_other] - r2[other]
    assert f"`bi_batchtopk` gains {gain:.4f}, which is level." in page
    assert max(costs[1], gain) < 0.002
    jumprelu = [l0[f"jumprelu-bandwidth-0.5-{rate}"] for rate in ("3e-3", "1e-3")]
    assert min(jumprelu) > 1.05 * 32
    frontier = json_of("equal_width")["sweeps"]["equal-width-gemma3-270m"]["runs"]
    (a, low), (b, high) = sorted(
        (r[5], r[6]) for r in frontier if r[:2] == ["mlp_out", "jumprelu-full"] and 15 < r[5] < 40
    )
    slope = (high - low) / math.log(b / a)
    at_ours = r2["jumprelu-bandwidth-0.5-3e-3"] - slope * math.log(jumprelu[0] / l0[ours])
    assert abs(at_ours - r2[ours]) < 0.002


def test_the_rates_on_the_attention_of_gemma_are_as_the_pages_say() -> None:
    runs = {r[1]: r[5:7] for r in json_of("search_gemma3")["runs"] if r[0] == "attn_out"}
    page = result_section("search", "On Gemma 3")
    (l0, ours), (l0_fast, fast), (l0_slow, slow) = (
        runs[name] for name in ("bi_jumprelu-3e-3-26k", "batchtopk-3e-3-26k", "batchtopk-1e-3-26k")
    )
    assert abs(l0_fast / l0 - 1) < 0.002
    assert abs(l0_slow / l0 - 1) < 0.002
    assert f"On attention BatchTopK gains {slow - fast:.4f} by the lower rate." in page
    assert f"On attention at 3e-3** `bi_jumprelu` is {ours - fast:.4f} above BatchTopK at" in page
    assert f"Each at its better rate** it is {ours - slow:.4f} above BatchTopK there." in page
    assert fast < slow
    assert ours - slow < 0.002 < ours - fast  # level, and ahead
    slow_ours = runs["bi_jumprelu-1e-3-26k-rate-0.003"][1]
    assert f"On attention at 1e-3** it is {slow - slow_ours:.3f} below BatchTopK." in page
    assert slow_ours < ours
    for path in ("docs/results/equal_width.md", "CHANGELOG.md"):
        assert f"{slow - fast:.4f}" in (ROOT / path).read_text()


def test_the_config_says_how_many_runs_on_gemma_are_done() -> None:
    path, runs = ROOT / "configs" / "search-gemma3-270m.yaml", json_of("search_gemma3")["runs"]
    _, planned = load_sweep_config(path)
    assert f"# {len(runs)} of these {len(planned)} runs are done, none on resid" in path.read_text()
    assert f"On Gemma 3 {len(runs)} of {len(planned)} are." in result_page("search")
    assert {(r[0], r[1]) for r in runs} <= {(run.cell, run.sae) for run in planned}
    assert {run[0] for run in runs} == {"mlp_out", "attn_out"}
