"""benchmarks/side_use.py: by hand, and on a small sweep."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation import AntipodalAudit, BipolarCensus, load_sae
from sae_lens_signaware.evaluation.results import Provenance
from tests.support.tables import fields_of

SAVED_FROM = Provenance(10, {}, {})


@pytest.fixture
def script(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("side_use")


def census_of(positive: list[float], negative: list[float]) -> BipolarCensus:
    """Of latents with these firing rates on their two sides."""
    pos, neg = (torch.tensor(rates, dtype=torch.float64) for rates in (positive, negative))
    min_share = torch.minimum(pos, neg) / (pos + neg)
    unused = torch.full_like(pos, torch.nan)
    return BipolarCensus(SAVED_FROM, pos, neg, unused, unused, min_share, unused)


def audit_of(*pairs: tuple[int, int]) -> AntipodalAudit:
    """Of decoder rows with these antipodal pairs."""
    a, b = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    unused = torch.full((len(pairs),), torch.nan, dtype=torch.float64)
    return AntipodalAudit(SAVED_FROM, a, b, unused - 1, *[unused] * 4, len(pairs), -0.9)


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["of-none", "of-all"])
def test_the_command_loses_no_run_whose_sae_is_gone(
    there: bool, script: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "use.json"
    runs = [["mlp", "half", 0, "l1_coefficient", 0.1, 0.5]]
    held = json.dumps({"sweeps": {"s": {"runs": [*runs, ["gone", *runs[0][1:]]]}}})
    out.write_text(held)
    root = source.parent if there else tmp_path / "none"
    options = ["--root", str(root), "--values", "0.1", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["side_use.py", str(source), *options])
    said = r"has 1 runs of s whose SAEs" if there else r"^--root: no SAE of s is on disk there$"
    with pytest.raises(SystemExit, match=said):
        script.main()
    assert out.read_text() == held


def test_other_sweeps_of_the_results_are_named_before_anything_is_measured(
    script: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "use.json"
    out.write_text(json.dumps({"sweeps": {"other": {"runs": []}}}))
    monkeypatch.setattr(script, "measure", None)
    monkeypatch.setattr(sys, "argv", ["side_use.py", str(source), "--json", str(out)])
    with pytest.raises(SystemExit, match="has other too; name their configs or another file"):
        script.main()


def test_activations_that_another_sweep_has_written_are_not_measured_on(
    script: Any, source: Path
) -> None:
    (cache,) = (source.parent / "out").rglob("mlp.safetensors")
    marker = cache.with_suffix(".json")
    held = json.loads(marker.read_text())
    marker.write_text(json.dumps(held | {"hook_name": "blocks.0.hook_resid_post"}))
    with pytest.raises(ConfigError, match="does not hold the activations of this sweep any more"):
        script.measure(source, source.parent, [0.1])


def test_use_of_the_sides_by_hand(script: Any) -> None:
    # two rare latents, one of them bipolar; three others, one of them bipolar; one is dead
    census = census_of([0.4, 0.8, 0.1, 0.1, 0.0, 0.9], [0.2, 0.0, 0.1, 0.0, 0.0, 0.0])
    use = script.side_use(census, audit_of((1, 5), (1, 3)), frequent=3, rare=0.3)
    assert use.n_pairs == 2
    assert use.frequent_in_pairs == pytest.approx(2 / 3)  # 5 and 1, not 0
    assert use.frequent_bipolar == pytest.approx(1 / 3)
    assert use.rare_share == pytest.approx(2 / 5)
    assert use.bipolar_of_rare == pytest.approx(1 / 2)
    assert use.bipolar_of_others == pytest.approx(1 / 3)
    assert use.activity_of_rare == pytest.approx(0.3 / 2.6)
    assert use.activity_of_bipolar == pytest.approx(0.8 / 2.6)


def test_a_rate_at_the_limit_is_not_rare(script: Any) -> None:
    assert script.side_use(census_of([0.3], [0.0]), audit_of(), rare=0.3).rare_share == 0


def test_without_an_active_latent_every_share_is_zero(script: Any) -> None:
    use = script.side_use(census_of([0.0, 0.0], [0.0, 0.0]), audit_of((0, 1)))
    assert dataclasses.astuple(use) == (1, *[0] * 7)


def test_the_command_measures_the_saes_on_disk(
    script: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "use.json"
    options = ["--root", str(source.parent), "--values", "0.1", "1", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["side_use.py", str(source), *options])
    script.main()
    rows = script.rows_in(json.loads(out.read_text()), "s")
    assert len(rows) == 2 * 2 * 2 * 2 - 1  # cells, seeds, SAEs, values; one SAE is not there
    for row in rows:
        # the share of bipolar latents that the sweep measured is that of both groups together
        rare = row["rare_share"]
        share = rare * row["bipolar_of_rare"] + (1 - rare) * row["bipolar_of_others"]
        assert row["bipolar_share"] == pytest.approx(share, abs=2e-4)
        assert row["d_sae"] == {"half": 24, "full": 48}[row["sae"]]
        name = f"{row['cell']}/seed-{row['seed']}/{row['sae']}/l1_coefficient-{row['value']:g}"
        audit = signaware.antipodal_audit(load_sae(source.parent / "out/saes" / name), None, -0.9)
        assert row["n_pairs"] == audit.n_pairs


def test_a_table_of_the_use_of_sides(script: Any) -> None:
    rows = [
        {"cell": "X, mlp", "sae": "a-16", "d_sae": 9216, "n_pairs": 1062, "rare_share": 0.75},
        {"cell": "X, mlp", "sae": "b-8", "d_sae": 4608, "n_pairs": 0, "rare_share": 0.0},
    ]
    table = script.side_use_table(
        rows,
        ["X, mlp", "X, attn"],
        {"b-8": "B, 8", "c": "C", "a-16": "A, 16"},
        {"n_pairs": "pairs", "rare_share": "rare"},
    )
    assert fields_of(table) == [
        ["hook point", "SAE", "width", "pairs", "rare"],
        ["X, mlp", "B, 8", "4,608", "0", "0%"],
        ["X, mlp", "A, 16", "9,216", "1,062", "75%"],
    ]
