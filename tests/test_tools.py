"""SAEBench, sae-dashboard and delphi, each the real package, on the split of signed SAEs."""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.saes import SAVED_AS_THEMSELVES, each_saved_architecture, make_sae
from tests.tools.environments import CACHE, ROOT, environment, run_logged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TOOLS = Path(__file__).parent / "tools"


@pytest.fixture(scope="module")
def prepared() -> Path:
    """Model, text, SAEs and their splits, made anew: they are of this code."""
    folder = CACHE / "prepared"
    # SAEBench finds its activations of an earlier run there, and then draws other random numbers
    shutil.rmtree(folder, ignore_errors=True)
    run_logged([sys.executable, "-m", "tests.tools.prepare", str(folder)], ROOT, 900)
    return folder


def run_tool(script: str, python: Path, prepared: Path, out: Path) -> dict[str, Any]:
    """What the script measured in the tool's environment."""
    start = time.monotonic()
    run_logged([str(python), str(TOOLS / script), str(out)], prepared, 900)
    result = json.loads(out.read_text()) | {"seconds": time.monotonic() - start}
    if "SIGNAWARE_TOOLS_RESULTS" in os.environ:
        keep(out.stem, result, Path(os.environ["SIGNAWARE_TOOLS_RESULTS"]))
    return result


def keep(tool: str, result: dict[str, Any], path: Path) -> None:
    """The result of a tool, without what it says of every latent, in the file of all tools."""
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(held | {tool: short(result)}, indent=2) + "\n")


def short(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if k != "page"}  # a path of this machine
    return {k: short(v) for k, v in kept.items() if not isinstance(v, list) or len(v) < 8}


@pytest.fixture(scope="module")
def sae_bench(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = environment("sae-bench")
    out = tmp_path_factory.mktemp("sae-bench") / "sae-bench.json"
    return run_tool("run_sae_bench.py", python, prepared, out)


def core(groups: dict[str, dict[str, float]]) -> dict[str, float]:
    """All numbers of SAEBench's core evaluation of an SAE."""
    return {key: value for group in groups.values() for key, value in group.items()}


@each_saved_architecture
def test_sae_bench_core_measures_what_we_measure(
    sae_bench: dict[str, Any], architecture: str
) -> None:
    split = core(sae_bench["core"][f"{architecture}-split"]["eval_result_metrics"])
    signed = sae_bench["ours"][architecture]
    assert 2 < signed["l0"] < 64
    assert signed["explained_variance"] > 0.2
    # means of one set of tokens, by two programs in float32
    assert split["l0"] == pytest.approx(signed["l0"], rel=1e-4)
    assert split["explained_variance"] == pytest.approx(
        signed["explained_variance_sae_bench"], abs=1e-4
    )
    assert split["ce_loss_without_sae"] == pytest.approx(sae_bench["transformers_loss"], abs=1e-3)


@each_saved_architecture
def test_sae_bench_densities_are_the_firing_rates_of_the_sides(
    sae_bench: dict[str, Any], architecture: str
) -> None:
    ours = sae_bench["ours"][architecture]
    sides = ours["firing_rate_pos"] + ours["firing_rate_neg"]
    details = sae_bench["core"][f"{architecture}-split"]["eval_result_details"]
    assert [d["index"] for d in details] == list(range(2 * ours["d_sae"]))
    assert [d["feature_density"] for d in details] == pytest.approx(sides, abs=1e-3)


@each_saved_architecture
def test_sae_bench_on_the_signed_sae_itself(sae_bench: dict[str, Any], architecture: str) -> None:
    """L0 and reconstruction hold; L1 and a latent's densities do not, so the split is needed."""
    split = core(sae_bench["core"][f"{architecture}-split"]["eval_result_metrics"])
    measured = sae_bench["core_signed"][architecture]
    signed = core(measured["metrics"])
    for name in ("l0", "explained_variance", "ce_loss_score", "mse"):
        assert split[name] == pytest.approx(signed[name], rel=1e-3)
    # the sum of signed latents is no L1, and only firings above zero count as firings
    ours = sae_bench["ours"][architecture]
    assert split["l1"] == pytest.approx(ours["l1"], rel=1e-3)
    assert signed["l1"] == pytest.approx(ours["sum_of_latents"], rel=1e-3)
    assert abs(ours["sum_of_latents"]) < 0.9 * ours["l1"]
    assert measured["feature_density"] == pytest.approx(ours["firing_rate_pos"], abs=1e-3)
    error = "None" if hasattr(make_sae(architecture), "b_enc") else "no attribute 'b_enc'"
    assert error in sae_bench["signed_weight_metrics"][architecture]


@each_saved_architecture
def test_sae_bench_probes_the_sides(sae_bench: dict[str, Any], architecture: str) -> None:
    metrics = sae_bench["probing"][f"{architecture}-split"]["eval_result_metrics"]["sae"]
    # balanced classes: 0.5 is chance
    assert metrics["sae_test_accuracy"] > 0.6
    assert metrics["sae_top_5_test_accuracy"] > 0.5
    sides = sae_bench["probing_sides"][architecture]
    # a pre-activation that is its threshold but for rounding may be active in one of the two
    assert sides["share_that_differs"] < 1e-3
    assert sides["median_difference"] < 1e-6 * sides["max_latent"]


@pytest.fixture(scope="module")
def sae_dashboard(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = environment("sae-dashboard")
    out = tmp_path_factory.mktemp("sae-dashboard") / "sae-dashboard.json"
    return run_tool("run_sae_dashboard.py", python, prepared, out)


@each_saved_architecture
def test_sae_dashboard_writes_the_page_of_both_sides(
    sae_dashboard: dict[str, Any], architecture: str
) -> None:
    result = sae_dashboard[architecture]
    width, latents = result["d_sae"], result["latents"]
    data = json.loads(page_data(Path(result["page"]).read_text()))["DASHBOARD_DATA"]
    assert list(data) == [str(i) for i in (*latents, *[i + width for i in latents])]
    rates = result["firing_rate_pos"] + result["firing_rate_neg"]
    assert min(rates) > 0
    for latent, rate in zip(data, rates, strict=True):
        (histogram,) = data[latent]["actsHistogramData"].values()
        density = float(re.search(r"DENSITY = ([0-9.]+)%", histogram["title"])[1]) / 100  # type: ignore[index]
        # the page's density is over all positions, BOS, which both leave out, included
        assert density == pytest.approx(rate * 127 / 128, abs=1e-4)


def page_data(html: str) -> str:
    """The JSON that the page's script holds."""
    start = html.index("{", html.index("return", html.index("function defineData()")))
    value, _ = json.JSONDecoder().raw_decode(html[start:])
    return json.dumps(value)


@each_saved_architecture
def test_sae_dashboard_logits_of_the_minus_side_are_those_of_the_plus_side_negated(
    sae_dashboard: dict[str, Any], architecture: str
) -> None:
    result = sae_dashboard[architecture]
    assert sae_dashboard["difference_to_transformers"] < 1e-3
    for latent in result["latents"]:
        pos = result["dashboard"][str(latent)]
        neg = result["dashboard"][str(latent + result["d_sae"])]
        assert neg["top_logits"] == pytest.approx([-v for v in pos["bottom_logits"]], abs=1e-4)
        assert max(pos["top_logits"]) > 0


def test_sae_dashboard_refuses_the_signed_sae_itself(sae_dashboard: dict[str, Any]) -> None:
    for architecture in SAVED_AS_THEMSELVES:
        assert sae_dashboard[architecture]["signed_sae"] == "ValueError: Invalid architecture"


@pytest.fixture(scope="module")
def delphi(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = environment("delphi")
    out = tmp_path_factory.mktemp("delphi") / "delphi.json"
    return run_tool("run_delphi.py", python, prepared, out)


@each_saved_architecture
def test_delphi_caches_what_encode_gives(delphi: dict[str, Any], architecture: str) -> None:
    result = delphi[architecture]
    assert result["same_places"]
    assert result["same_values"]
    assert result["cached"] == result["encode_above_1e-5"] > 0
    # a latent that fires by less than delphi's 1e-5 is not cached
    assert result["cached"] == pytest.approx(result["signed_nonzero"], rel=1e-3)
    # the files hold float16
    assert result["max_difference_of_files_to_signed"] < 1e-3 * result["max_latent"]


@each_saved_architecture
def test_delphi_counts_only_the_positive_firings_of_a_signed_sae(
    delphi: dict[str, Any], architecture: str
) -> None:
    result = delphi[architecture]
    assert result["split_firing_counts"] == pytest.approx(result["signed_cached"], rel=1e-3)
    assert result["signed_firing_counts"] == pytest.approx(result["signed_above_1e-5"], rel=1e-3)
    # after 400 steps most latents of bi_topk are active on their + side alone
    most = 1.0 if architecture == "bi_topk" else 0.9
    assert result["signed_firing_counts"] < most * result["signed_cached"]
