"""The page on robustness says what results/robustness.json holds."""

from collections import Counter
from pathlib import Path

from tests.support.tables import json_of

ROOT = Path(__file__).parent.parent


def test_the_page_says_what_the_results_show() -> None:
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    found = json_of("robustness")
    fuzz, faults = found["fuzz"], found["faults"]
    assert f"{fuzz['mutated_files']:,} mutated files\nand {fuzz['loads']:,} loads" in page
    loads: Counter[str] = sum(map(Counter, fuzz["by_kind"].values()), Counter())
    assert loads.total() == fuzz["loads"]
    table = [line for line in page.splitlines() if line.startswith("| ") and "loads |" not in line]
    outcomes = ("right", "ours", "saelens", "saelens_long", "bad")
    for line, outcome in zip(table[1:], outcomes, strict=False):
        assert line.endswith(f" | {loads[outcome]:,} |"), outcome
    assert all(fault["holds"] for fault in faults.values())
    of_cached = [fault for name, fault in faults.items() if name.startswith("cached")]
    kills, terms = (sum(fault[kind] for fault in of_cached) for kind in ("kill -9", "SIGTERM"))
    assert f"{kills} kills and {terms} SIGTERM at random points" in page
    killed = faults["SAELens's runner: kill -9, resumed from the newest whole checkpoint"]
    whole, half = killed["whole checkpoints loaded"], killed["half-written, passed over"]
    assert f"{killed['kill -9']} kills; {whole} whole checkpoints, all load; {half} half" in page
    distance = faults["SAELens's runner: resumed against undisturbed"].popitem()[1]
    assert f"were {distance:.1%} from those" in page
