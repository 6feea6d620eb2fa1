"""Tables of equal width, and grids of coefficients by their L0 (``benchmarks``)."""

import importlib
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sae_lens_signaware.experiments.sweep.config import load_sweep_config

SWEPT = Path(__file__).parent / "fixtures/swept_by_0_1_0"
COMMAND = "# sae-lens-signaware sweep configs/small.yaml --out out"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the output of the small sweep, and its config."""
    shutil.copytree(SWEPT / "out", tmp_path / "out")
    write_config(tmp_path)
    return tmp_path


def write_config(root: Path, first_line: str = COMMAND, **changes: Any) -> Path:
    values = yaml.safe_load((SWEPT / "sweep.yaml").read_text()) | changes
    path = root / "small.yaml"
    path.write_text(first_line + "\n" + yaml.safe_dump(values, sort_keys=False))
    return path


def run(root: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[dict[str, Any], str]:
    paths = [str(root / name) for name in ("small.yaml", "small.json", "small.md")]
    args = ["equal_width.py", paths[0], "--root", str(root), "--json", paths[1]]
    monkeypatch.setattr(sys, "argv", [*args, "--tables", paths[2], *more])
    importlib.import_module("equal_width").main()
    return json.loads(Path(paths[1]).read_text()), Path(paths[2]).read_text()


@pytest.mark.usefixtures("benchmark_script")
def test_results_of_a_sweep_that_is_not_named_stay(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = json.dumps({"sweeps": {"small": {"runs": []}, "large": {"runs": []}}})
    (root / "small.json").write_text(held)
    with pytest.raises(SystemExit, match=r"small\.json has large too; name their configs"):
        run(root, monkeypatch)
    assert (root / "small.json").read_text() == held
    assert not (root / "small.md").exists()


def with_more_seeds(root: Path) -> None:
    """Seed 1 has one value of each SAE, under a name of its own."""
    saes = yaml.safe_load((SWEPT / "sweep.yaml").read_text())["saes"]
    for name in ("half", "full"):
        saes[f"{name}-more-seeds"] = saes[name] | {"l1_coefficient": [0.1], "seeds": [1]}
        saes[name]["seeds"] = [0]
        of_seed_0 = root / "out/runs/mlp/seed-0" / name / "l1_coefficient-0.1.json"
        values = json.loads(of_seed_0.read_text()) | {"seed": 1, "sae": f"{name}-more-seeds"}
        values["identity"]["seed"] = 1
        of_seed_1 = root / f"out/runs/mlp/seed-1/{name}-more-seeds/l1_coefficient-0.1.json"
        of_seed_1.parent.mkdir(parents=True)
        of_seed_1.write_text(json.dumps(values))
    write_config(root, seeds=[0, 1], saes=saes)


@pytest.mark.usefixtures("benchmark_script")
def test_seeds_of_another_name_are_compared_under_the_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_more_seeds(root)
    values, tables = run(root, monkeypatch)
    block = values["sweeps"]["small"]
    assert (len(block["runs"]), block["n_runs"]) == (6, 6)
    (comparison,) = block["comparisons"]
    assert (comparison["a"], comparison["b"]) == ("half", "full")
    assert set(comparison["outcome_by_seed"]) == {"0", "1"}
    assert "more-seeds" not in tables
    assert "## Means over seeds, small" in tables
    assert "| small | mlp | half |" in tables


@pytest.mark.usefixtures("benchmark_script")
def test_what_is_not_done_yet_is_left_out_and_what_was_done_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(root, monkeypatch)[0]
    shutil.rmtree(root / "out")
    assert run(root, monkeypatch)[0] == whole
    (root / "small.json").unlink()
    values, tables = run(root, monkeypatch)
    assert values["sweeps"]["small"]["runs"] == values["sweeps"]["small"]["comparisons"] == []
    assert "## Verdicts" not in tables
    shutil.copytree(SWEPT / "out", root / "out")
    (root / "out/sweep.json").unlink()
    (root / "out/runs/mlp/seed-0/full/l1_coefficient-1.json").unlink()
    block = run(root, monkeypatch)[0]["sweeps"]["small"]
    assert len(block["runs"]) == 3
    assert block["comparisons"] == []  # a part of a frontier is none


@pytest.mark.usefixtures("benchmark_script")
def test_a_config_without_its_command_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(root, first_line="# a sweep")
    with pytest.raises(SystemExit, match=r"the first line must be .*, got 'a sweep'"):
        run(root, monkeypatch)


@pytest.mark.usefixtures("benchmark_script")
def test_an_architecture_of_another_module_is_registered_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "PYTHONPATH=benchmarks sae-lens-signaware --import own sweep small.yaml --out out"
    saes = yaml.safe_load((SWEPT / "sweep.yaml").read_text())["saes"]
    saes["own"] = {"architecture": "annealed_batchtopk", "d_sae": 32, "k": [4], "k_anneal_steps": 1}
    write_config(root, first_line=f"# {command}", saes=saes)
    values, _ = run(root, monkeypatch, "--import", "annealed_batchtopk")
    block = values["sweeps"]["small"]
    assert (block["command"], len(block["runs"])) == (command, 4)
    assert block["n_runs"] == 5  # that of the other module is not done


@pytest.mark.usefixtures("benchmark_script")
@pytest.mark.parametrize("slope", [-0.5, -1.0, -2.0])
def test_a_coefficient_is_found_by_its_l0(slope: float) -> None:
    grids = importlib.import_module("l0_grids")
    measured: list[float] = []

    def l0_of(coefficient: float) -> float:
        measured.append(coefficient)
        return 200 / (1 + (5 * coefficient) ** -slope)  # bends, as that of a real SAE does

    known = {1.0: l0_of(1.0)}
    for wanted in (128, 64, 32, 16, 8):
        found = grids.coefficient_for(wanted, known, l0_of)
        assert abs(math.log(l0_of(found) / wanted)) <= grids.TOLERANCE
    assert len(measured) <= 1 + 5 * (grids.MAX_TRAININGS + 1)


@pytest.mark.usefixtures("benchmark_script")
def test_a_short_training_has_the_schedule_of_the_long_one() -> None:
    grids = importlib.import_module("l0_grids")
    config = Path(__file__).parents[1] / "configs/equal-width-smollm2-135m.yaml"
    _, runs = load_sweep_config(config)
    of_jumprelu = next(r for r in runs if r.sae == "jumprelu-full")
    short = grids.shortened(of_jumprelu, 1000).cfg
    assert short.training_tokens == 512_000
    assert (short.lr_decay_steps, short.sae.l0_warm_up_steps) == (750, 200)
    assert grids.shortened(of_jumprelu, 9000).cfg.training_tokens == 2_048_000
