"""The pages say of an annealed k what results/k_anneal.json and its control show."""

import json
from pathlib import Path
from typing import Any

from tests.support.tables import fields_of

ROOT = Path(__file__).parent.parent
ANNEALED = "-anneal-400"


def read(name: str) -> Any:
    return json.loads((ROOT / "results" / name).read_text())


def r2s() -> dict[tuple[str, str, float], list[Any]]:
    """Cell, SAE and L0 asked for -> R², dead share and bipolar share, on validation text."""
    (trials,) = read("k_anneal.json")["sweeps"].values()
    control = read("annealed_batchtopk.json")["validation"]
    return {(r[0], r[1], r[4]): r[6:] for r in trials["runs"] + control["runs"]}


def test_both_pages_have_the_mlp_output() -> None:
    runs = r2s()
    page = (ROOT / "docs" / "results" / "equal_width.md").read_text()
    log = (ROOT / "docs" / "log.md").read_text()
    for sae, label in (("bi_batchtopk", "`bi_batchtopk`"), ("batchtopk", "SAELens's `batchtopk`")):
        at = [f"{runs['mlp_out', sae, k][0]:.4f}" for k in (8, 32)]
        then = [f"{runs['mlp_out', sae + ANNEALED, k][0]:.4f}" for k in (8, 32)]
        assert f"| {label} | {at[0]} | {at[1]} |" in page
        assert f"| {label}, k annealed in 400 steps | {then[0]} | {then[1]} |" in page
        assert f"| {label} | {at[0]} | {then[0]} | {at[1]} | {then[1]} |" in log
    with_warm_up = runs["mlp_out", "bi_jumprelu-warm-up-400", 8][0]
    assert f"`bi_jumprelu`, warm-up 400 | {with_warm_up:.4f} | |" in page
    ends = [with_warm_up - runs["mlp_out", f"batchtopk{end}", 8][0] for end in (ANNEALED, "")]
    assert f"| 8 | validation | {ends[1]:.3f} | {ends[0]:.3f} |" in page
    gains = [
        runs["mlp_out", f"batchtopk{ANNEALED}", k][0] - runs["mlp_out", "batchtopk", k][0]
        for k in (8, 32)
    ]
    readme = (ROOT / "README.md").read_text()
    assert f"BatchTopK is {gains[0]:.3f} and {gains[1]:.3f} better" in readme


def test_the_log_has_every_trial_on_attention() -> None:
    log = (ROOT / "docs" / "log.md").read_text()
    for (cell, sae, _), (r2, dead, bipolar) in r2s().items():
        if cell == "attn_out":
            digits = 0 if dead > 0.01 else 1
            assert f"| {r2:.4f} | {dead:.{digits}%} | {bipolar:.0%} |" in log, sae


def test_on_held_out_text_the_pages_say_what_it_gains() -> None:
    table = (ROOT / "results" / "equal_width_annealed.md").read_text().replace("−", "-")
    gaps = {(row[0], row[1]): [*map(float, row[2:])] for row in fields_of(table)[1:]}
    gained = [gap for (_, sae), row in gaps.items() if sae == "`bi_batchtopk`" for gap in row]
    assert min(gained) > -0.002
    of_mlp = gaps["Gemma 3, mlp_out", "SAELens's `batchtopk`"]
    which = (ROOT / "docs" / "which.md").read_text()
    assert f"on Gemma 3 by up to {max(gained):.3f}. " in which
    assert f"{of_mlp[0]:.3f} and {of_mlp[1]:.3f} above BatchTopK at L0 8 and 32" in which


def test_at_the_highest_l0_a_lead_is_left() -> None:
    (run,) = read("annealed_batchtopk.json")["heldout"]["runs"]
    rows = read("equal_width.json")["sweeps"]["equal-width-gemma3-270m"]["runs"]
    r2 = {r[1]: r[6] for r in rows if r[0] == "mlp_out" and r[2] == 0 and r[4] == 128}
    plain, signed = r2["batchtopk-full"], r2["bi_jumprelu-warm-up-400-full"]
    page = (ROOT / "docs" / "results" / "equal_width.md").read_text()
    annealed = r2["bi_batchtopk-anneal-400-full"]
    assert f"| SAELens's `batchtopk` | {plain:.4f} |\n" in page
    assert f"| SAELens's `batchtopk`, k annealed in 400 steps | {run[6]:.4f} |\n" in page
    assert f"| `bi_batchtopk`, k annealed in 400 steps | {annealed:.4f} |\n" in page
    assert f"| `bi_jumprelu`, warm-up 400 | {signed:.4f} |\n" in page
    assert f"| 128 | held-out | {signed - plain:.3f} | {signed - run[6]:.3f} |" in page
