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
    alone = attn["bi_jumprelu-1e-3-26k-start-1.5-rate-0.003"] - by_default
    assert f"- **The larger start alone** gains it {alone:.3f}." in page
    said = "it is {:.4f} below with both, and {:.3f} below by default."
    assert said.format(plain - larger, plain - by_default) in page
    more = l0["bi_jumprelu-1e-3-rate-0.003-minus-0-start-1.5"] / l0["batchtopk-1e-3-26k"] - 1
    assert f"Its L0 is {more:.1%} higher" in page
    assert f"is {plain - larger:.4f} below, at {more:.1%} more active latents" in which
    assert 0 < plain - attn["bi_batchtopk-1e-3-minus-0"] < 0.002  # level
    ahead = attn["bi_batchtopk-3e-4-minus-0"] - attn["batchtopk-3e-4"]
    assert f"both sides open is {ahead:.3f} above BatchTopK. " in page
    missed = l0["bi_jumprelu-3e-4-rate-0.001-minus-0-start-1.5"] / 32 - 1
    assert f"with the larger start misses its L0 by {missed:.0%} there" in page
    by_attempt = (
        l0[f"bi_jumprelu-3e-4-{name}"]
        for name in ("rate-0.002-minus-0-start-1.5", "rate-0.001-minus-0-start-2")
    )
    said = "0.002 it ends at L0 {:.0f}, and with a threshold of 2 at the start at L0 {:.0f}."
    assert said.format(*by_attempt) in page
    costs = (
        attn["batchtopk-1e-3-26k"] - attn["batchtopk-1e-3-norm-1"],
        attn["batchtopk-3e-4"] - attn["batchtopk-3e-4-norm-1"],
    )
    assert "has {:.4f} less at 1e-3, and {:.4f} less at 3e-4.".format(*costs) in page
    lower = (
        attn[f"bi_batchtopk-{rate}-minus-0"] - attn[f"bi_batchtopk-{rate}-minus-0-norm-1"]
        for rate in ("1e-3", "3e-4")
    )
    assert "R² is {:.4f} lower then at 1e-3, and {:.4f} lower at 3e-4.".format(*lower) in page
    above = attn["bi_batchtopk-3e-4-minus-0-norm-1"] - attn["batchtopk-3e-4"]
    assert f"it is {above:.3f} above BatchTopK with them." in page
    revived = [r for r in held if r[1].startswith("bi_batchtopk-") and r[1].endswith("-norm-1")]
    assert [r[7] for r in revived] == [0, 0]
    assert abs(resid["bi_batchtopk-1e-3-minus-0"] - resid["batchtopk-1e-3-26k"]) < 0.002
    started = resid["bi_jumprelu-1e-3-26k-start-1.5-rate-0.003"] - resid["batchtopk-1e-3-26k"]
    below = resid["batchtopk-1e-3-26k"] - resid["bi_jumprelu-1e-3-26k-rate-0.003"]
    said = f"at 1e-3: {started:.4f} above. By default it is {below:.3f} below."
    assert f"alone brings `bi_jumprelu` level with BatchTopK {said}" in page
    assert started < 0.002
    assert f"level with BatchTopK, and on attention it gains {alone:.3f}." in which
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


def on_gemma(place: str) -> dict[str, list[float]]:
    """SAE of the search -> its L0 and R² at a hook point of Gemma 3."""
    return {r[1]: r[5:7] for r in json_of("search_gemma3")["runs"] if r[0] == place}


def gains_on_gemma(place: str) -> dict[str, float]:
    """SAE -> R² at 1e-3 minus R² at 3e-3, of those with an L0 within 2% of 32 at both."""
    runs = {sae: run for sae, run in on_gemma(place).items() if abs(run[0] / 32 - 1) < 0.02}
    slow = ((sae, sae.replace("-3e-3-", "-1e-3-")) for sae in runs if "-3e-3-" in sae)
    return {
        sae.split("-")[0]: runs[other][1] - runs[sae][1] for sae, other in slow if other in runs
    }


def test_the_rates_on_gemma_are_as_the_pages_say() -> None:
    runs = on_gemma("mlp_out")
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
    gains = gains_on_gemma("mlp_out")
    nested = [gains[f"{which}matryoshka_batchtopk"] for which in ("", "bi_")]
    assert {f"{gain:.3f}" for gain in nested} == {"0.005"}
    assert "The two Matryoshkas gain 0.005, and stay behind." in page
    behind = [r2[sae] for sae in r2 if "matryoshka" in sae]
    assert max(behind) < min(r2[plain], r2[slow_plain]) - 0.002
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
    runs = on_gemma("attn_out")
    page = result_section("search", "On Gemma 3")
    (l0, ours), (l0_fast, fast), (l0_slow, slow) = (
        runs[name] for name in ("bi_jumprelu-3e-3-26k", "batchtopk-3e-3-26k", "batchtopk-1e-3-26k")
    )
    assert abs(l0_fast / l0 - 1) < 0.002
    assert abs(l0_slow / l0 - 1) < 0.002
    assert f"On attention at 3e-3** `bi_jumprelu` is {ours - fast:.4f} above BatchTopK at" in page
    assert f"Each at its better rate** it is {ours - slow:.4f} above BatchTopK there, and" in page
    assert fast < slow
    assert ours - slow < 0.002 < ours - fast  # level, and ahead
    slow_ours = runs["bi_jumprelu-1e-3-26k-rate-0.003"][1]
    assert f"On attention at 1e-3** it is {slow - slow_ours:.3f} below BatchTopK." in page
    assert slow_ours < ours
    best_other = runs["bi_batchtopk-1e-3-26k"][1]
    assert f"above BatchTopK there, and {ours - best_other:.4f} above `bi_batchtopk`." in page
    assert 0 < ours - best_other < 0.002
    gains = gains_on_gemma("attn_out")
    most, losing = gains["bi_batchtopk"], gains.pop("bi_topk")
    said = f"gains most** there by the lower rate, {most:.4f}. BatchTopK gains {slow - fast:.4f}. "
    assert f"{said}`sa_gsae` loses {-gains['sa_gsae']:.4f}." in page
    by_topk = [gain for sae, gain in gains.items() if "topk" in sae]
    assert most == max(gains.values()) == max(by_topk)
    said = f"{min(by_topk):.3f} to {most:.3f} by the lower rate."
    gaining = f"six of the seven SAEs with a TopK or a BatchTopK gain {said[:-1]}, and `bi_topk` "
    assert f"{gaining}loses {-losing:.3f}." in page
    assert len(by_topk) == 6
    assert f"- **They gain** {said}" in (ROOT / "docs" / "which.md").read_text()
    assert min(by_topk) > 0
    for path in ("docs/results/equal_width.md", "CHANGELOG.md"):
        assert f"{slow - fast:.4f}" in (ROOT / path).read_text()


def test_the_rates_on_the_residual_stream_of_gemma_are_as_the_pages_say() -> None:
    runs, gains = on_gemma("resid"), gains_on_gemma("resid")
    page = result_section("search", "On Gemma 3")
    lost = [
        -gains_on_gemma(place)[sae]
        for place in ("mlp_out", "attn_out", "resid")
        for sae in ("bi_topk", "paper")
    ]
    said = f"lose {min(lost):.3f} to {max(lost):.3f} at the three hook points."
    assert f"- **`bi_topk` and Gated as its paper trains it** {said}" in page
    assert max(gains.values()) < 0.001
    assert "**On the residual stream none that meets its L0 gains 0.001, and at 3e-3" in page
    most = max(abs(gains[sae]) for sae in ("batchtopk", "bi_batchtopk"))
    said = f"the two BatchTopKs change by {most:.4f} or less. `sa_gsae` loses"
    assert f"{said} {-gains['sa_gsae']:.4f} at the lower rate." in page
    plain, ours, gated = (
        runs[f"{sae}-3e-3-26k"][1] for sae in ("batchtopk", "bi_jumprelu", "sa_gsae")
    )
    said = f"`bi_jumprelu` is {plain - ours:.4f} below BatchTopK, and `sa_gsae` {plain - gated:.4f}"
    assert said in page
    assert max(plain - ours, plain - gated) < 0.002  # level
    missed = runs["bi_jumprelu-1e-3-26k-rate-0.003"][0] / 32 - 1
    assert f"`bi_jumprelu` misses its L0 by {missed:.0%}, with" in page


def test_at_the_lower_rate_the_batchtopks_are_level_on_gemma_as_the_pages_say() -> None:
    below = []
    for place in ("mlp_out", "attn_out", "resid"):
        runs = {sae: run[1] for sae, run in on_gemma(place).items() if "-1e-3-" in sae}
        ours, other = runs["bi_jumprelu-1e-3-26k-rate-0.003"], runs["bi_batchtopk-1e-3-26k"]
        below.append(runs["batchtopk-1e-3-26k"] - other)
        assert ours < other
    assert 0 < min(below) <= max(below) < 0.002
    which, page = (ROOT / "docs" / "which.md").read_text(), result_section("search", "On Gemma 3")
    assert f"`bi_batchtopk` is at most {max(below):.4f} below BatchTopK at all three" in which
    assert f"at all three hook points: at most {max(below):.4f} below." in page


def test_who_gains_by_the_lower_rate_on_gemma_is_as_equal_width_says() -> None:
    gaining = {
        (place, sae)
        for place in ("mlp_out", "attn_out", "resid")
        for sae, gain in gains_on_gemma(place).items()
        if gain > 0.002
    }
    assert gaining == {
        *(("mlp_out", "matryoshka_batchtopk"), ("mlp_out", "bi_matryoshka_batchtopk")),
        *(("attn_out", "bi_batchtopk"), ("attn_out", "bi_matryoshka_batchtopk")),
    }
    said = "on the MLP output by the two Matryoshkas, and on attention by `bi_batchtopk` and"
    assert said in result_page("equal_width")


def test_the_config_says_how_many_runs_on_gemma_are_done() -> None:
    path, runs = ROOT / "configs" / "search-gemma3-270m.yaml", json_of("search_gemma3")["runs"]
    _, planned = load_sweep_config(path)
    assert f"# All {len(runs)} of these runs are done: " in path.read_text()
    assert f"On Gemma 3 all {len(runs)} are." in result_page("search")
    assert sorted((r[0], r[1], r[4]) for r in runs) == sorted(
        (run.cell, run.sae, run.value) for run in planned
    )
