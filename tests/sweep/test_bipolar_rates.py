"""benchmarks/bipolar_rates.py: by hand, and on a small sweep."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_lens_signaware.evaluation import BipolarCensus
from sae_lens_signaware.evaluation.results import Provenance
from tests.support.tables import fields_of

PER_SAE = ["rare_share", "bipolar_of_rare", "bipolar_of_others"]
PER_TOKEN = ["activity_of_rare", "activity_of_bipolar"]


@pytest.fixture
def script(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("bipolar_rates")


def census_of(positive: list[float], negative: list[float]) -> BipolarCensus:
    """Of latents with these firing rates on their two sides."""
    pos, neg = (torch.tensor(rates, dtype=torch.float64) for rates in (positive, negative))
    min_share = torch.minimum(pos, neg) / (pos + neg)
    unused: Tensor = torch.full_like(pos, torch.nan)
    return BipolarCensus(Provenance(10, {}, {}), pos, neg, unused, unused, min_share, unused)


def test_rates_by_hand(script: Any) -> None:
    # two rare latents, one of them bipolar; three others, one of them bipolar; one is dead
    census = census_of([0.4, 0.8, 0.1, 0.1, 0.0, 0.9], [0.2, 0.0, 0.1, 0.0, 0.0, 0.0])
    rates = script.bipolar_rates(census, rare=0.3)
    assert rates.rare_share == pytest.approx(2 / 5)
    assert rates.bipolar_of_rare == pytest.approx(1 / 2)
    assert rates.bipolar_of_others == pytest.approx(1 / 3)
    assert rates.activity_of_rare == pytest.approx(0.3 / 2.6)
    assert rates.activity_of_bipolar == pytest.approx(0.8 / 2.6)


def test_a_rate_at_the_limit_is_not_rare(script: Any) -> None:
    assert script.bipolar_rates(census_of([0.3], [0.0]), rare=0.3).rare_share == 0


def test_without_an_active_latent_every_share_is_zero(script: Any) -> None:
    rates = script.bipolar_rates(census_of([0.0, 0.0], [0.0, 0.0]))
    assert [getattr(rates, name) for name in (*PER_SAE, *PER_TOKEN)] == [0] * 5


def test_the_command_measures_the_signed_saes_on_disk(
    script: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rates.json"
    options = ["--root", str(source.parent), "--value", "0.1", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["bipolar_rates.py", str(source), *options])
    script.main()
    written = json.loads(out.read_text())
    rows = [
        dict(zip(written["columns"], row, strict=True)) for row in written["sweeps"]["s"]["runs"]
    ]
    # "full" is a plain SAE
    expected = {("mlp", "half", 0), ("mlp", "half", 1), ("resid", "half", 0)}
    assert {(row["cell"], row["sae"], row["seed"]) for row in rows} == expected
    for row in rows:
        # the share of bipolar latents that the sweep measured is that of both groups together
        rare = row["rare_share"]
        share = rare * row["bipolar_of_rare"] + (1 - rare) * row["bipolar_of_others"]
        assert row["d_sae"] == 24
        assert row["bipolar_share"] == pytest.approx(share, abs=2e-4)


def test_a_table_of_rates(script: Any) -> None:
    columns = ["cell", "sae", "seed", "d_sae", *PER_SAE, *PER_TOKEN, "bipolar_share"]
    runs = [
        ["mlp_out", "a-16", 0, 9216, 0.75, 0.5, 0.07, 0.074, 0.542, 0.392],
        ["mlp_out", "b-8", 0, 4608, 0.56, 0.3, 0.05, 0.031, 0.578, 0.182],
    ]
    measured = {"columns": columns, "sweeps": {"s": {"runs": runs}}}
    table = script.bipolar_rates_table(measured, {"s": "X"}, {"b-8": "B, 8", "a-16": "A, 16"})
    assert fields_of(table)[1:] == [
        ["X", "B, 8", "4,608", "18%", "56%", "30%", "5%", "3%", "58%"],
        ["X", "A, 16", "9,216", "39%", "75%", "50%", "7%", "7%", "54%"],
    ]
