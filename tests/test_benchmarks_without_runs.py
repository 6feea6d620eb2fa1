"""A script of ``benchmarks/`` that finds no run of a sweep leaves the results as they are."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("name", "options"), [("sweep_rows", ["--command", "none"]), ("dead_latents", [])]
)
def test_results_stay(
    name: str,
    options: list[str],
    benchmark_script: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "held.json"
    out.write_text("held")
    folder = str(tmp_path / "none")
    monkeypatch.setattr(sys, "argv", [name, folder, "--json", str(out), *options])
    with pytest.raises(SystemExit, match="none"):
        benchmark_script(name).main()
    assert out.read_text() == "held"
