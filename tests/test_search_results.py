"""The log and the pages say of the search of settings what results/search.json shows."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from tests.support.tables import fields_of, json_of, result_page, result_section, table_of

ROOT = Path(__file__).parent.parent
HEADING = "### SAELens's own settings of JumpReLU"
OTHER_PLACES = "### The learning rate on attention and the residual stream"


def runs_of(name: str) -> list[list[Any]]:
    """Rows (cell, SAE, seed, swept field, value, L0, R², dead, bipolar) of SmolLM2's MLP output."""
    held = json_of(name)
    held = held.get("sweeps", {}).get("equal-width-smollm2-135m", held)
    return [run for run in held["runs"] if run[0] == "mlp_out" and run[2] == 0]


def tables_of_the_log(heading: str = HEADING) -> list[list[list[str]]]:
    log = (ROOT / "docs" / "log.md").read_text()
    entry = log[log.index(heading) :]
    entry = entry[: entry.index("\n### ")]
    blocks = [block.strip() for block in entry.split("\n\n") if block.lstrip().startswith("|")]
    return [fields_of("\n".join(line.strip() for line in b.splitlines())) for b in blocks]


def test_jumprelu_is_held_against_its_frontier_of_the_comparison() -> None:
    frontier = sorted((r[5], r[6]) for r in runs_of("equal_width") if r[1] == "jumprelu-full")

    def r2_at(l0: float) -> float:
        (a, low), (b, high) = next((p, q) for p, q in pairwise(frontier) if p[0] <= l0 <= q[0])
        return low + (high - low) * math.log(l0 / a) / math.log(b / a)

    searched = {(r[1], r[4]): r for r in runs_of("search")}
    on_both = searched["jumprelu-bandwidth-0.5-3e-3", 2]
    loss = r2_at(on_both[5]) - on_both[6]
    assert f"less {loss:.4f}." in (ROOT / "docs" / "log.md").read_text()
    table, _ = tables_of_the_log()
    names = ["default", "default", "tanh", "tanh", "quadratic"]
    behind: dict[str, list[float]] = {}
    for name, (_, value, *fields) in zip(names, table[1:], strict=True):
        _, sae, _, _, _, l0, r2, dead, _ = searched[f"jumprelu-{name}-3e-3", float(value)]
        expected = r2_at(l0) - loss
        assert fields == [f"{l0:.1f}", f"{r2:.4f}", f"{dead:.1%}", f"{expected:.4f}"], sae
        behind.setdefault(name, []).append(expected - r2)
    assert max(map(abs, behind.pop("default"))) < 0.0011
    others = [gap for gaps in behind.values() for gap in gaps]
    said = f"{min(others):.3f} to {max(others):.3f}"
    for page in ("docs/log.md", "docs/results/equal_width.md"):
        assert f"{said} behind" in (ROOT / page).read_text()


def test_the_rate_of_the_comparison_is_the_better_one_but_for_the_two_matryoshkas() -> None:
    r2 = {r[1]: (r[6], r[5]) for r in runs_of("search")}
    _, table = tables_of_the_log()
    assert len(table) == 1 + 6
    for sae, *fields in table[1:]:
        name = "paper-gated" if "Gated" in sae else sae.split("`")[1]
        (high, l0), (low, other_l0) = (r2[f"{name}-{rate}-26k"] for rate in ("3e-3", "1e-3"))
        # five digits are kept, which may have been rounded up to a 5
        assert [float(field) for field in fields] == pytest.approx([high, low], abs=5.1e-5)
        assert (high > low) == ("matryoshka" not in name)
        assert abs(l0 / other_l0 - 1) < 0.01


def test_the_rates_at_the_other_hook_points_are_as_the_pages_say() -> None:
    runs = {(r[0], r[1]): r[4:] for r in json_of("search")["runs"] if r[0] != "mlp_out"}
    (table,) = tables_of_the_log(OTHER_PLACES)
    names = {"jumprelu": "jumprelu-bandwidth-0.5-{}", "bi_jumprelu": "bi_jumprelu-{}-26k"}
    assert len(table) == 1 + 7
    at_low = {}
    for place, sae, *fields in table[1:]:
        architecture = sae.split("`")[1]
        name = names.get(architecture, architecture + "-{}-26k")
        slower = "-rate-0.003" if architecture == "bi_jumprelu" else ""
        high, low = runs[place, name.format("3e-3")], runs[place, name.format("1e-3") + slower]
        for field, (_, l0, r2, *_) in zip(fields, (high, low), strict=True):
            said_r2, _, said_l0 = field.partition(" at ")
            assert float(said_r2) == pytest.approx(r2, abs=5.1e-5)
            assert float(said_l0) == pytest.approx(l0, abs=0.051)
        assert high[2] > low[2]
        at_low[place, architecture] = low[2]
    assert runs["attn_out", "jumprelu-bandwidth-0.5-1e-3"][3] == 0
    dead = runs["attn_out", "jumprelu-bandwidth-0.5-3e-3"][3]
    assert f"At 3e-3 {dead:.1%} of the latents" in (ROOT / "docs" / "log.md").read_text()
    ahead = [
        at_low[place, "batchtopk"] - at_low[place, "bi_jumprelu"] for place in ("attn_out", "resid")
    ]
    said = "at that rate too, by {:.3f} and {:.3f}.".format(*ahead)
    assert said in (ROOT / "docs" / "which.md").read_text()


def test_the_rates_on_attention_are_as_the_page_says() -> None:
    head, *rows = table_of("search_attn_out")
    assert head == [
        "SAE",
        "as compared",
        "learning rate 1e-3",
        "window of 76,800",
        "window of 307,200",
    ]
    assert len(rows) == 12
    high, low = ({row[0]: float(row[i].split()[0].rstrip(",")) for row in rows} for i in (1, 2))
    page = result_page("search")
    assert all(high[sae] > low[sae] for sae in high)
    batchtopk, ours = "SAELens's `batchtopk`", "`bi_jumprelu`"
    jumprelu = "SAELens's `jumprelu`"
    assert max(high, key=lambda sae: high[sae]) == jumprelu
    assert abs(high[ours] - high[batchtopk]) < 0.002
    assert "at a higher L0 and with 6.1% of its latents dead." in page
    assert "0.8391 at 32.7, 6.1% dead" in [row[1] for row in rows]
    assert max(low, key=lambda sae: low[sae]) == batchtopk
    behind = low[batchtopk] - low["`bi_batchtopk`"], low[batchtopk] - low[ours]
    said = "`bi_batchtopk` is {:.3f} behind BatchTopK and `bi_jumprelu` {:.3f}."
    assert said.format(*behind) in page
    costs = {sae: high[sae] - low[sae] for sae in high}
    small = {sae for sae, cost in costs.items() if cost < 0.00305}
    assert small == {
        *(batchtopk, "`bi_batchtopk`", "`bi_matryoshka_batchtopk`"),
        *("SAELens's `matryoshka_batchtopk`", "SAELens's `abstopk`, signed"),
    }
    large = costs[ours], costs["`sa_gsae`"], costs["Gated as its paper trains it"]
    said = "`bi_jumprelu` loses {:.3f}, `sa_gsae` {:.3f} and Gated as its paper trains it {:.3f}."
    assert said.format(*large) in page


def test_the_window_on_attention_is_as_the_page_says(
    benchmark_script: Callable[[str], Any],
) -> None:
    runs = {(r[0], r[1]): r[6:8] for r in json_of("search")["runs"]}
    page = result_page("search")
    saes = benchmark_script("search_table").WITH_WINDOW
    before, between, after = (
        {sae: runs["attn_out", f"{sae}-3e-3-{window}"] for sae in saes}
        for window in ("26k", "77k", "307k")
    )
    gains = {sae: after[sae][0] - before[sae][0] for sae in saes}
    positive = {sae: gain for sae, gain in gains.items() if gain > 0}
    assert max(between[sae][0] - before[sae][0] for sae in saes) < max(positive.values())
    assert positive.keys() == {"sa_gsae", "bi_jumprelu"}
    assert f"gains no SAE more than {max(positive.values()):.4f}.**" in page
    said = "`sa_gsae` has {:.4f} more of R² and `bi_jumprelu` {:.4f} more."
    assert said.format(positive["sa_gsae"], positive["bi_jumprelu"]) in page
    lost = min(gains.values())
    assert gains["matryoshka_batchtopk"] == lost
    assert f"SAELens's Matryoshka loses most, {-lost:.4f}." in page
    dead = [after[sae][1] for sae in saes]
    assert f"{min(dead):.0%} to {max(dead):.0%} are dead, in every SAE that has one." in page
    some = [between[sae][1] for sae in saes]
    said = "With 76,800 tokens {:.0%} to {:.0%} are, and with 25,600 at most {:.1%}."
    assert said.format(min(some), max(some), max(before[sae][1] for sae in saes)) in page


def test_the_window_on_the_residual_stream_is_as_the_page_says(
    benchmark_script: Callable[[str], Any],
) -> None:
    runs = {(r[0], r[1]): r[6:8] for r in json_of("search")["runs"]}
    page = result_section("search", "On the residual stream")
    saes = benchmark_script("search_table").WITH_WINDOW
    gains = {
        window: {
            sae: runs["resid", f"{sae}-3e-3-{window}"][0] - runs["resid", f"{sae}-3e-3-26k"][0]
            for sae in saes
        }
        for window in ("77k", "307k")
    }
    for of_window in gains.values():
        assert {sae for sae, gain in of_window.items() if gain > 1e-4} == {"bi_jumprelu"}
        assert f"`bi_jumprelu` gains {of_window['bi_jumprelu']:.4f} by either" in page
    assert f"gains no SAE more than {gains['77k']['bi_jumprelu']:.4f}.**" in page
    ours, plain = "bi_matryoshka_batchtopk", "matryoshka_batchtopk"
    assert sorted(gains["307k"], key=lambda sae: gains["307k"][sae])[:2] == [plain, ours]
    lost = -gains["307k"][plain], -gains["307k"][ours]
    assert "the two Matryoshkas lose most, SAELens's {:.4f} and ours {:.4f}.".format(*lost) in page
    dead = {sae: runs["resid", f"{sae}-3e-3-307k"][1] for sae in saes}
    said = f"{dead.pop(plain):.0%} and {dead.pop(ours):.0%} of the latents of these two are dead."
    assert f"{said} In the other SAEs at most {max(dead.values()):.1%} are." in page


def test_the_rates_on_the_residual_stream_are_as_the_page_says() -> None:
    head, *rows = table_of("search_resid")
    assert head == table_of("search")[0]
    assert len(rows) == 12
    high, low = ({row[0]: float(row[i].split()[0].rstrip(",")) for row in rows} for i in (1, 2))
    assert all(high[sae] > low[sae] for sae in high)
    page = result_page("search")
    batchtopk, ours, other = "SAELens's `batchtopk`", "`bi_jumprelu`", "`bi_batchtopk`"
    three = [high[sae] for sae in (batchtopk, ours, other)]
    assert max(three) - min(three) < 0.002  # level
    above = {row[0] for row in rows if high[row[0]] > max(three)}
    assert above == {"SAELens's `jumprelu`", "SAELens's `gated`"}
    assert all(" at " in row[1] for row in rows if row[0] in above)
    assert abs(low[other] - low[batchtopk]) < 0.002
    assert f"`bi_jumprelu` is {low[batchtopk] - low[ours]:.3f} behind.**" in page
    costs = {sae: high[sae] - low[sae] for sae in high.keys() - above}
    small = {sae for sae, cost in costs.items() if cost < 0.00105}
    assert small == {"`bi_matryoshka_batchtopk`", "SAELens's `matryoshka_batchtopk`"}
    others = {sae: cost for sae, cost in costs.items() if sae not in small}
    assert min(others, key=lambda sae: others[sae]) == batchtopk
    assert max(others, key=lambda sae: others[sae]) == "`bi_topk`"
    said = "BatchTopK loses least, {:.3f}, and `bi_topk` most, {:.3f}."
    assert said.format(others[batchtopk], others["`bi_topk`"]) in page


def test_gated_is_better_at_the_higher_rate_at_the_same_l0_too() -> None:
    runs = {(r[0], r[1]): r[5:7] for r in json_of("search")["runs"]}
    frontiers = json_of("equal_width")["sweeps"]["equal-width-smollm2-135m"]["runs"]
    for place, heading in (("attn_out", "On attention"), ("resid", "On the residual stream")):
        ends = sorted(r[5:7] for r in frontiers if (r[0], r[1]) == (place, "gated-full"))[:2]
        slope = (ends[1][1] - ends[0][1]) / math.log(ends[1][0] / ends[0][0])
        high, low = runs[place, "gated-3e-3"], runs[place, "gated-1e-3"]
        assert ends[0][0] < low[0] < high[0] < ends[1][0]
        lost = high[1] - slope * math.log(high[0] / low[0]) - low[1]
        section = result_section("search", heading)
        assert f"SAELens's `gated` loses about {lost:.3f} at the same L0." in section


def test_the_config_says_how_many_runs_of_the_search_are_done() -> None:
    runs = json_of("search")["runs"]
    assert len(runs) == 173
    config = (ROOT / "configs" / "search-smollm2-135m.yaml").read_text()
    assert f"# All {len(runs)} of these runs are done: results/search.json." in config
    assert f"Of the sweep all {len(runs)} runs are done." in result_page("search")
    _, planned = load_sweep_config(ROOT / "configs" / "search-smollm2-135m.yaml")
    done = sorted((run[0], run[1], run[4]) for run in runs)
    assert sorted((run.cell, run.sae, run.value) for run in planned) == done


def test_the_page_of_the_search_says_what_the_results_show(
    benchmark_script: Callable[[str], Any],
) -> None:
    script = benchmark_script("search_table")
    r2 = {r[1]: r[6] for r in runs_of("search")}
    dead = {r[1]: r[7] for r in runs_of("search")}
    page = result_page("search")
    gains = {
        sae: [r2[f"{sae}-3e-3-{window}"] - r2[f"{sae}-3e-3-26k"] for window in ("77k", "307k")]
        for sae in script.WITH_WINDOW
    }
    assert 0 < max(gain for of_sae in gains.values() for gain in of_sae) < 1.5e-4
    losses = [-gains[name][1] for name in ("matryoshka_batchtopk", "bi_matryoshka_batchtopk")]
    said = "SAELens's Matryoshka loses {:.3f} and `bi_matryoshka_batchtopk` {:.3f}."
    assert said.format(*losses) in page
    assert sorted(losses, reverse=True) == losses
    assert min(gain for of_sae in gains.values() for gain in of_sae) == -losses[0]
    assert all(dead[f"{sae}-3e-3-26k"] == 0 for sae in gains)
    late = {sae: dead[f"{sae}-3e-3-307k"] for sae in gains}
    without = {sae for sae, share in late.items() if share == 0}
    assert without == {"bi_jumprelu", "sa_gsae", "bi_topk"}
    assert all(dead[f"{sae}-3e-3-77k"] == 0 for sae in without)
    assert all(abs(gain) < 2e-4 for sae in without for gain in gains[sae])
    some = [share for share in late.values() if share]
    assert f"{min(some):.1%} to {max(some):.1%} are dead in six SAEs" in page
    assert len(some) == 6
    better = {
        sae: r2[f"{sae}-1e-3-26k"] - r2[f"{sae}-3e-3-26k"]
        for sae in (*gains, "paper-gated")
        if r2[f"{sae}-1e-3-26k"] > r2[f"{sae}-3e-3-26k"]
    }
    slow = {"bi_jumprelu": "-rate-0.003"}
    costs = {
        r2[f"{sae}-3e-3-26k"] - r2[f"{sae}-1e-3-26k{slow.get(sae, '')}"]: sae
        for sae in {*gains, "paper-gated"} - better.keys()
    }
    assert (costs[min(costs)], costs[max(costs)]) == ("batchtopk", "bi_jumprelu")
    assert f"least at 1e-3, {min(costs):.3f}, and `bi_jumprelu` most, {max(costs):.3f}" in page
    assert {sae: f"{gain:.4f}" for sae, gain in better.items()} == {
        "bi_matryoshka_batchtopk": "0.0006",
        "matryoshka_batchtopk": "0.0019",
    }
    settings = ("3e-3-26k", "3e-3-77k", "3e-3-307k", "1e-3-26k")
    best = {
        sae: max(r2[f"{sae}-{s}"] for s in settings if f"{sae}-{s}" in r2)
        for sae in (*gains, "paper-gated")
    }
    assert sorted(best, key=lambda sae: best[sae]) == sorted(
        best, key=lambda s: r2[f"{s}-3e-3-26k"]
    )


def test_the_trainings_that_were_repeated_differ_by_what_the_page_says() -> None:
    rows = json_of("trials_2026_11_30")["repeated_on_another_machine"]["rows"]
    gaps = [abs(row[3] - row[5]) for row in rows]
    assert len(gaps) == 4
    assert f"differ by at most {max(gaps):.4f} of R²" in result_page("search")


def test_what_did_not_help_at_lower_rates_is_as_the_log_says() -> None:
    runs = {r[1]: r[6:8] for r in json_of("low_rate")["runs"] if r[0] == "attn_out"}
    ((_, *rows),) = tables_of_the_log("### SAELens's default learning rate")
    names = ["3e-4", "3e-4-decay-0", "1e-3-minus-0", "1e-3-minus-0-anneal-400"]
    for name, (rate, _, r2, dead) in zip([*names, "1e-3-minus-0-auxk-32"], rows, strict=True):
        assert name.startswith(rate)
        expected = runs[f"bi_batchtopk-{name}"]
        assert [r2, dead] == [f"{expected[0]:.4f}", f"{expected[1]:.1%}"]
