"""R² at one L0 against training time: the runs that count, and the figure's points."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from tests.support.tables import fields_of, json_of, result_page

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs/equal-time-smollm2-135m.yaml"
WIDTHS = (576, 1152, 2304)
COST = 2 * 512 * 576 * 1152


@pytest.fixture
def script(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("equal_time")


@pytest.fixture
def figure(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("equal_time_figure")


def values_of(points: list[list[Any]], costs: list[list[Any]]) -> dict[str, Any]:
    return {"points": points, "step_costs": costs}


def test_points_of_two_coefficients_are_read_at_the_l0_between_them(figure: Any) -> None:
    points = [
        ["mlp_out", "jumprelu", 8, 100, 24.0, 0.5, 0.0],
        ["mlp_out", "jumprelu", 8, 100, 128 / 3, 0.7, 0.0],
    ]
    (reached,) = figure.reached_of(values_of(points, [["jumprelu", 8, 0.5, 3]]))
    assert reached.r2 == pytest.approx(0.6)  # 32 is half-way in log L0
    assert reached.l0 == 32
    assert (reached.seconds, reached.flops) == (50.0, 300.0)


@pytest.mark.parametrize(
    ("l0", "read_at"),
    [(31.0, 31.0), (40.0, 32.0)],  # 40 is too far from 32 to count
)
def test_points_of_two_coefficients_are_read_at_the_l0_of_batchtopk(
    figure: Any, l0: float, read_at: float
) -> None:
    line = {24.0: 0.5, 48.0: 0.7}
    points = [["mlp_out", "jumprelu", 8, 100, at, r2, 0.0] for at, r2 in line.items()]
    points.append(["mlp_out", "batchtopk", 8, 100, l0, 0.6, 0.0])
    points.append(["mlp_out", "batchtopk", 16, 100, 30.0, 0.6, 0.0])  # another width
    (reached,) = figure.reached_of(values_of(points, [["jumprelu", 8, 0.5, 3]]))
    assert reached.l0 == read_at
    assert reached.r2 == pytest.approx(0.5 + 0.2 * math.log2(read_at / 24))


@pytest.mark.parametrize(("l0", "counts"), [(32.0, True), (34.0, True), (40.0, False)])
def test_one_point_counts_where_its_l0_is_met(figure: Any, l0: float, counts: bool) -> None:
    points = [["mlp_out", "batchtopk", 8, 100, l0, 0.5, 0.0]]
    reached = figure.reached_of(values_of(points, [["batchtopk", 8, 0.5, 3]]))
    assert bool(reached) is counts
    assert all((p.l0, p.r2) == (l0, 0.5) for p in reached)


@pytest.mark.parametrize("l0s", [(8.0, 16.0), (16.0, 64.0)], ids=["below", "far"])
def test_two_points_that_do_not_reach_the_l0_do_not_count(figure: Any, l0s: Any) -> None:
    points = [["mlp_out", "jumprelu", 8, 100, l0, 0.5, 0.0] for l0 in l0s]
    assert not figure.reached_of(values_of(points, [["jumprelu", 8, 0.5, 3]]))


def test_best_so_far_leaves_out_what_costs_as_much_and_reaches_less(figure: Any) -> None:
    at = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.6), (3.0, 0.7), (4.0, 0.7)]
    points = [figure.Reached("mlp_out", "a", 8, 1, 32.0, r2, cost, cost) for cost, r2 in at]
    best = figure.best_so_far(points, lambda point: point.seconds)
    assert [(p.seconds, p.r2) for p in best] == [(1.0, 0.5), (3.0, 0.7)]


def test_the_table_has_the_best_within_each_time(figure: Any) -> None:
    reached = [
        figure.Reached("mlp_out", "ours", 8, 100, 32.0, 0.5, 9.0, 1.0),
        figure.Reached("mlp_out", "ours", 16, 200, 32.0, 0.75, 39.0, 1.0),
        figure.Reached("mlp_out", "theirs", 8, 100, 32.0, 0.625, 19.0, 1.0),
        figure.Reached("mlp_out", "theirs", 8, 300, 32.0, 0.875, 79.0, 1.0),
    ]
    names = {"ours": "O", "theirs": "T", "absent": "A"}
    rows = fields_of(figure.equal_time_table(reached, ["mlp_out"], names))
    assert rows[0][2:5] == ["20 s", "40 s", "80 s"]
    ours, theirs = (row[1:5] for row in rows[1:3])
    assert ours == ["O", "0.5000; 8, 100", "**0.7500**; 16, 200", "0.7500; 16, 200"]
    assert theirs == ["T", "**0.6250**; 8, 100", "0.6250; 8, 100", "**0.8750**; 8, 300"]
    assert len(rows) == 3


def test_the_table_of_equal_steps_has_one_width(figure: Any) -> None:
    reached = [
        figure.Reached("mlp_out", "ours", 8, 1000, 32.0, 0.5, 9.0, 1.0),
        figure.Reached("mlp_out", "ours", 8, 250, 32.0, 0.25, 9.0, 1.0),
        figure.Reached("mlp_out", "ours", 16, 250, 32.0, 0.75, 9.0, 1.0),  # another width
        figure.Reached("mlp_out", "theirs", 8, 1000, 32.0, 0.625, 9.0, 1.0),
        figure.Reached("attn_out", "theirs", 8, 1000, 34.0, 0.375, 9.0, 1.0),
        figure.Reached("mlp_out", "unnamed", 8, 1000, 32.0, 0.875, 9.0, 1.0),
    ]
    names = {"ours": "O", "theirs": "T", "absent": "A"}
    rows = fields_of(figure.equal_steps_table(reached, ["mlp_out", "attn_out"], names, 8))
    assert rows == [
        ["hook point", "SAE", "250 steps", "1,000 steps"],
        ["mlp_out", "O", "**0.2500**", "0.5000"],
        ["mlp_out", "T", "", "**0.6250**"],
        ["attn_out", "T", "", "**0.3750** at 34.0"],
    ]


def test_a_step_has_five_products_and_a_gated_one_seven(script: Any) -> None:
    _, runs = load_sweep_config(CONFIG)
    by_sae = {run.sae: run for run in runs if run.cfg.sae.d_sae == 1152}
    assert script.step_flops(by_sae["batchtopk-250"]) == 5 * COST
    assert script.step_flops(by_sae["sa_gsae-250"]) == 7 * COST


def test_a_run_that_is_gone_keeps_its_row_and_steps_keep_their_times(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ["mlp_out", "batchtopk-250", 0, "d_sae", 576, 32.0, 0.5, 0.0, 0.0]
    cost = ["batchtopk", 576, 0.25, 10]
    kept = {
        "sweeps": {CONFIG.stem: {"runs": [row]}},
        "timed_on": {"cpu": "x"},
        "step_costs": [cost],
    }
    path = tmp_path / "small.json"
    path.write_text(json.dumps(kept))
    args = [str(CONFIG), "--root", str(tmp_path), "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["equal_time.py", *args])
    script.main()
    values = json.loads(path.read_text())
    assert values["points"] == [["mlp_out", "batchtopk", 576, 250, 32.0, 0.5, 0.0]]
    assert values["step_costs"] == [cost]


def test_without_times_of_steps_the_results_are_left(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [str(CONFIG), "--root", str(tmp_path), "--json", str(tmp_path / "new.json")]
    monkeypatch.setattr(sys, "argv", ["equal_time.py", *args])
    with pytest.raises(SystemExit, match=r"^--time-steps: .*new\.json has no times of steps yet"):
        script.main()
    assert not (tmp_path / "new.json").exists()


def test_a_time_that_is_added_is_in_seconds_of_the_known_ones(script: Any) -> None:
    cost = script.StepCost
    known = [cost("a", 8, 1.0, 5), cost("a", 16, 2.0, 10)]
    asked: list[set[tuple[str, int]]] = []

    def measure(wanted: set[tuple[str, int]]) -> list[Any]:
        asked.append(wanted)  # today all takes half as long again
        return [cost("a", 16, 3.0, 10), cost("b", 16, 6.0, 20)]

    found = script.with_missing_costs(known, {("a", 8), ("a", 16), ("b", 16)}, measure)
    assert asked == [{("a", 16), ("b", 16)}]
    assert found == [*known, cost("b", 16, 4.0, 20)]
    assert script.with_missing_costs(known, {("a", 8)}, measure) == known
    assert len(asked) == 1  # nothing is trained where nothing is missing


def test_of_another_sweep_only_the_saes_of_the_same_settings_count(script: Any) -> None:
    def rows(config: Path, *found: tuple[str, str, float]) -> Any:
        loaded, runs = load_sweep_config(config)
        by_run = {
            run.name: ["mlp_out", sae, 0, swept, value, 32.0, 0.5, 0.0, 0.0]
            for sae, swept, value in found
            for run in runs
            if (run.cell, run.sae, run.seed, run.value) == ("mlp_out", sae, 0, value)
        }
        assert len(by_run) == len(found)
        return SimpleNamespace(config=loaded, runs=runs, rows=SimpleNamespace(by_run=by_run))

    first = rows(CONFIG, ("batchtopk-250", "d_sae", 576))
    equal_width = ROOT / "configs/equal-width-smollm2-135m.yaml"
    more = rows(
        equal_width,
        ("bi_jumprelu-full", "target_l0", 32),
        ("bi_jumprelu-warm-up-400-full", "target_l0", 32),
        ("paper-gated-full", "target_l0", 32),  # of architecture sa_gsae
        ("bi_jumprelu-full", "target_l0", 128),
    )
    longer = rows(
        ROOT / "configs/longer-smollm2-135m.yaml",
        ("jumprelu-8000", "l0_coefficient", 2.0),
        ("bi_jumprelu-8000-warm-up-800", "d_sae", 1152),
    )
    wider = rows(
        ROOT / "configs/widths-smollm2-135m.yaml",
        ("jumprelu-4", "l0_coefficient", 1.6),
        ("bi_jumprelu-4", "target_l0", 32),  # with another warm-up
    )
    points = [point[1:4] for point in script.points_of([first, more, longer, wider])]
    assert points == [
        ("batchtopk", 576, 250),
        ("bi_jumprelu", 1152, 4000),
        ("jumprelu", 1152, 8000),
        ("jumprelu", 2304, 4000),
    ]
    # a run that is in two sweeps is one point
    assert script.points_of([first, more, more]) == script.points_of([first, more])


def test_the_page_says_what_the_results_show(figure: Any) -> None:
    page = result_page("equal_time")
    values = json_of("equal_time")
    reached = figure.reached_of(values)
    (n_runs,) = (len(sweep["runs"]) for sweep in values["sweeps"].values())
    assert f"All {n_runs} runs of the first sweep are done." in page
    assert n_runs == 189

    def best(architecture: str, cell: str, seconds: float) -> float:
        mine = [p for p in reached if (p.architecture, p.cell) == (architecture, cell)]
        return max((p.r2 for p in mine if p.seconds <= seconds), default=0.0)

    for seconds in (40, 80, 160, 320):
        lead = best("bi_batchtopk", "mlp_out", seconds) - best("batchtopk", "mlp_out", seconds)
        assert 0.02 < lead < 0.054
    assert best("bi_batchtopk", "mlp_out", 92) > 0.683 > best("batchtopk", "mlp_out", 600)
    assert best("bi_batchtopk", "attn_out", 120) > best("batchtopk", "attn_out", 120) + 0.002
    assert abs(best("bi_batchtopk", "attn_out", 320) - best("batchtopk", "attn_out", 320)) < 0.004
    for architecture in ("bi_batchtopk", "batchtopk"):
        reaching = [
            p.seconds
            for p in reached
            if (p.architecture, p.cell) == (architecture, "mlp_out") and p.r2 >= 0.68
        ]
        assert (
            f"{min(reaching):.0f} s" in page.split("To reach an R² of 0.68")[1].split("<figure")[0]
        )
    leads = [
        best("bi_batchtopk", "mlp_out", s) - best("jumprelu", "mlp_out", s)
        for s in (40, 80, 160, 320)
    ]
    said = f"{min(leads):.3f} to {max(leads):.3f} behind `bi_batchtopk` on the MLP output from 40 s"
    assert said in page
    on_attention = {s: best("jumprelu", "attn_out", s) for s in (40, 80, 160, 320, 640)}
    behind = {s: best("bi_batchtopk", "attn_out", s) - r2 for s, r2 in on_attention.items()}
    assert f"is {behind.pop(40):.3f} behind at 40 s, and level from 80 s on." in page
    assert all(abs(gap) <= 0.002 for gap in behind.values())
    for n_steps in (4000, 8000):
        r2_of = {p[:3]: p.r2 for p in reached if p.n_steps == n_steps}
        wide = [key for key in r2_of if key[0] == "attn_out" and key[2] == 2304]
        assert len(wide) == 5
        assert all(r2_of[key] <= r2_of[(*key[:2], 1152)] for key in wide)
    ranges = []
    for cell in ("mlp_out", "attn_out"):
        gaps = [best("bi_batchtopk", cell, s) - best("sa_gsae", cell, s) for s in on_attention]
        ranges.append(f"{min(gaps):.3f} to {max(gaps):.3f}")
    assert "by {} of R² on the MLP output and by {} on attention".format(*ranges) in page
    names = ("bi_jumprelu", "bi_batchtopk", "batchtopk", "sa_gsae", "jumprelu")
    for n_steps in (4000, 8000):
        dead = [
            [p[6] for p in values["points"] if p[:4] == ["attn_out", name, 2304, n_steps]]
            for name in names
        ]
        shown = [
            ", ".join(f"{share:.1%}" if share < 0.1 else f"{share:.0%}" for share in sorted(shares))
            for shares in dead
        ]
        assert f"| {n_steps:,} steps | " + " | ".join(shown) + " |" in page
        if n_steps == 4000:
            said = f"At four times `d_in` {shown[3]} of `sa_gsae` [are dead]"
            assert said in result_page("summary")


def test_the_page_says_what_more_steps_give(figure: Any) -> None:
    page, values = result_page("equal_time"), json_of("equal_time")
    reached = figure.reached_of(values)
    r2 = {(p.architecture, p.d_sae, p.n_steps): p.r2 for p in reached if p.cell == "mlp_out"}
    tops = {name: r2[name, 2304, 8000] for name in ("jumprelu", "bi_jumprelu")}
    assert sorted(r2.values())[-2:] == sorted(tops.values())
    assert "JumpReLU has {:.4f} there and `bi_jumprelu` {:.4f}.".format(*tops.values()) in page
    assert abs(tops["jumprelu"] - tops["bi_jumprelu"]) < 0.002  # "level"
    for name in ("batchtopk", "bi_batchtopk"):
        assert f"has {r2[name, 2304, 8000]:.4f}, after" in page
    assert abs(r2["batchtopk", 2304, 8000] - r2["bi_batchtopk", 2304, 8000]) < 0.002
    for n_steps in (4000, 8000):
        gaps = [r2["bi_jumprelu", d, n_steps] - r2["batchtopk", d, n_steps] for d in WIDTHS]
        shown = " | ".join(f"{gap:+.4f}" for gap in gaps)
        assert f"| {n_steps:,} | 31.5 at each | {shown} |" in page
    lost = [r2["sa_gsae", d, 4000] - r2["sa_gsae", d, 8000] for d in WIDTHS]
    assert f"it is {min(lost):.4f} to {max(lost):.4f} lower than after 4,000 on the MLP" in page
    of_attention = {tuple(p[1:4]): p[5] for p in values["points"] if p[0] == "attn_out"}
    lost = [of_attention["sa_gsae", d, 4000] - of_attention["sa_gsae", d, 8000] for d in WIDTHS]
    assert f"and {min(lost):.4f} to {max(lost):.4f} on attention." in page
    ((_, _, _, shorter, *_),) = json_of("trials_2026_12_01")["sa_gsae_longer"]["rows"]
    assert f"gives {shorter - r2['sa_gsae', 576, 8000]:.3f} more." in page
    log = (ROOT / "docs" / "log.md").read_text()
    for n_steps, warm_up, of in (
        (4000, 800, r2["sa_gsae", 576, 4000]),
        (8000, 1600, r2["sa_gsae", 576, 8000]),
        (8000, 400, shorter),
    ):
        assert f"    | {n_steps:,} | {warm_up:,} | {of:.4f} |" in log
    wide = [r2["bi_jumprelu", 2304, n] - r2["batchtopk", 2304, n] for n in (8000, 4000)]
    for name in ("docs/results/summary.md", "docs/results/generality.md"):
        said = "it is {:.3f} in place of {:.3f}".format(*wide)
        assert said in (ROOT / name).read_text()


def test_the_page_on_speed_has_the_step_times_of_topk() -> None:
    page = result_page("speed")
    measured = json_of("speed_topk")
    assert f"    {measured['command']}" in page.splitlines()
    small, large = (size["step_ms"] for size in measured["sizes"])
    labels = {
        "bi_topk W": "`bi_topk`",
        "bi_batchtopk W": "`bi_batchtopk`",
        "topk W, sparse": "SAELens's TopK, sparse activations",
        "abstopk W": "SAELens's AbsTopK",
        "batchtopk W": "SAELens's BatchTopK",
    }
    for name, label in labels.items():
        assert f"| {label} | {small[name]:,.1f} | {large[name]:,.1f} |" in page


def test_the_page_on_speed_has_the_step_times_of_jumprelu() -> None:
    costs = json_of("equal_time")["step_costs"]
    ms = {(name, width): f"{1000 * seconds:.1f}" for name, width, seconds, _ in costs}
    page = result_page("speed")
    for name, called in (
        ("jumprelu", "SAELens's JumpReLU"),
        ("bi_jumprelu", "`bi_jumprelu`"),
        ("sa_gsae", "`sa_gsae`"),
    ):
        assert f"| {called} | {ms[name, 576]} | {ms[name, 1152]} |" in page
        for width in (576, 1152):
            assert float(ms["jumprelu", width]) <= float(ms[name, width])  # "takes less"
