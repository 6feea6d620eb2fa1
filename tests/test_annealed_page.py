"""The pages say of an annealed k what results/k_anneal.json and its control show."""

from pathlib import Path
from typing import Any

from tests.support.tables import gaps_of, json_of, result_page

ROOT = Path(__file__).parent.parent
ANNEALED = "-anneal-400"
PLACES = [
    f"{model}, {cell}"
    for model in ("SmolLM2", "Gemma 3")
    for cell in ("mlp_out", "attn_out", "resid")
]
PLAIN_ANNEALED = "SAELens's `batchtopk`, annealed k"


def r2s() -> dict[tuple[str, str, float], list[Any]]:
    """Cell, SAE and L0 asked for -> R², dead share and bipolar share, on validation text."""
    (trials,) = json_of("k_anneal")["sweeps"].values()
    control = json_of("annealed_batchtopk")["sweeps"]["annealed_batchtopk"]
    return {(r[0], r[1], r[4]): r[6:] for r in trials["runs"] + control["runs"]}


def test_the_log_has_the_mlp_output_on_validation_text() -> None:
    runs = r2s()
    log = (ROOT / "docs" / "log.md").read_text()
    for sae, label in (("bi_batchtopk", "`bi_batchtopk`"), ("batchtopk", "SAELens's `batchtopk`")):
        at = [f"{runs['mlp_out', sae, k][0]:.4f}" for k in (8, 32)]
        then = [f"{runs['mlp_out', sae + ANNEALED, k][0]:.4f}" for k in (8, 32)]
        assert f"| {label} | {at[0]} | {then[0]} | {at[1]} | {then[1]} |" in log
    with_warm_up = runs["mlp_out", "bi_jumprelu-warm-up-400", 8][0]
    assert f"| `bi_jumprelu`, warm-up 400 | | {with_warm_up:.4f} | | |" in log


def test_the_log_has_every_trial_on_attention() -> None:
    log = (ROOT / "docs" / "log.md").read_text()
    for (cell, sae, _), (r2, dead, bipolar) in r2s().items():
        if cell == "attn_out":
            digits = 0 if dead > 0.01 else 1
            assert f"| {r2:.4f} | {dead:.{digits}%} | {bipolar:.0%} |" in log, sae


def test_every_training_of_the_control_is_done() -> None:
    for name, n_runs in (("annealed_smollm2", 18), ("annealed_gemma3", 9)):
        sweep = json_of("annealed_batchtopk")["sweeps"][name]
        assert len(sweep["runs"]) == sweep["n_runs"] == n_runs


def test_what_is_left_of_the_lead_is_as_the_pages_say() -> None:
    left = gaps_of("equal_width_warm_up")[PLAIN_ANNEALED]
    assert list(left) == PLACES
    of_mlp = left["SmolLM2, mlp_out"] + left["Gemma 3, mlp_out"]
    assert [gap > 0.002 for gap in of_mlp] == [True, True, True, True, False, True]
    assert of_mlp[4] > 0
    lead = f"its lead on MLP outputs is {sorted(of_mlp)[1]:.3f} to {max(of_mlp):.3f} in five of six"
    assert lead in (ROOT / "README.md").read_text()
    summary = result_page("summary")
    assert lead in summary
    behind = -min(left["Gemma 3, resid"])
    assert f"but up to {behind:.3f} behind on the residual stream of Gemma 3" in summary
    level = [*left["SmolLM2, attn_out"], *left["Gemma 3, attn_out"], *left["SmolLM2, resid"][:2]]
    assert max(map(abs, level)) <= 0.002
    assert left["SmolLM2, resid"][2] > 0.002
    assert [gap < -0.002 for gap in left["Gemma 3, resid"]] == [True, False, True]
    narrow = gaps_of("equal_width_narrow")[PLAIN_ANNEALED]
    assert max(map(abs, narrow["Gemma 3, resid"])) <= 0.002
    page = result_page("annealed_k")
    for said in (
        "`bi_jumprelu` stays ahead, by less. At L0 32 of Gemma 3 it is level.",
        "It is level on both models, at all three L0s.",
        "It is level up to L0 32, and keeps its lead at L0 128.",
        "It is behind at the lowest and the highest L0. At L0 32 it is {:.4f} below,",
    ):
        assert said.format(-left["Gemma 3, resid"][1]) in page


def test_what_an_annealed_k_gains_is_as_the_log_says() -> None:
    runs = json_of("equal_width")["sweeps"]
    control = json_of("annealed_batchtopk")["sweeps"]
    gained = []
    for sweep, annealed in (
        ("equal-width-smollm2-135m", "annealed_smollm2"),
        ("equal-width-gemma3-270m", "annealed_gemma3"),
    ):
        rows = [run for run in runs[sweep]["runs"] if run[1:3] == ["batchtopk-full", 0]]
        before = {(run[0], run[4]): run[6] for run in rows}
        for run in control[annealed]["runs"]:
            if run[1] == "batchtopk-anneal-400":
                gained.append(run[6] - before[run[0], run[4]])
    assert len(gained) == 18
    said = f"gains up to {max(gained):.4f} of R², and loses nowhere more than {-min(gained):.4f}"
    assert said in (ROOT / "docs" / "log.md").read_text()


def test_a_sign_in_a_batchtopk_is_as_the_pages_say() -> None:
    table = gaps_of("equal_width_annealed")
    of_sign = table[PLAIN_ANNEALED]
    assert list(of_sign) == PLACES
    smol, gemma = of_sign["SmolLM2, mlp_out"], of_sign["Gemma 3, mlp_out"]
    which = (ROOT / "docs" / "which.md").read_text()
    assert f"is {min(smol):.3f} to {max(smol):.3f} ahead on the MLP output of SmolLM2" in which
    assert min(smol) > 0.002
    assert max(map(abs, gemma[:2])) <= 0.002 < gemma[2]
    for model in ("SmolLM2", "Gemma 3"):
        on_attention = of_sign[f"{model}, attn_out"]
        assert on_attention[0] < -0.002 <= round(min(on_attention[1:]), 3)
        assert max(on_attention[1:]) <= 0.002
    residual = [*of_sign["SmolLM2, resid"][:2], *of_sign["Gemma 3, resid"]]
    assert max(map(abs, residual)) <= 0.002 < of_sign["SmolLM2, resid"][2]
    gained = [gap for row in table["`bi_batchtopk`"].values() for gap in row]
    ends = f"by {min(gained):.3f} to +{max(gained):.3f}.".replace("-", "−")
    assert ends in which
    assert max(table["`bi_batchtopk`"]["Gemma 3, mlp_out"]) == max(gained)
    falls = table["`bi_batchtopk`"]["SmolLM2, mlp_out"][2]
    assert falls == min(gained) < 0
