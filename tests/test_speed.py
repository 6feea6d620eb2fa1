"""``benchmarks/speed.py``: its devices, its file of results, its rows, a small run on the CPU."""

import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks import devices
from sae_lens_signaware.checks import InvalidInputError

DAY = date(2026, 11, 6)
CPU = torch.device("cpu")


@pytest.fixture
def speed(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("speed")


@pytest.mark.parametrize(
    ("card", "name"),
    [
        (None, "speed.json"),
        ("NVIDIA H100 80GB HBM3", "speed_nvidia-h100-80gb-hbm3_2026-11-06.json"),
        ("AMD Radeon (TM) Pro W7900/", "speed_amd-radeon-tm-pro-w7900_2026-11-06.json"),
    ],
)
def test_results_are_named_by_card_and_day(card: str | None, name: str) -> None:
    assert devices.results_file("speed", card, DAY) == Path("results") / name


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_does_not_compute_is_an_error_of_one_line(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"--device must be .* got '{name}': ") as error:
        devices.checked_device(name)
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_device_ends_the_program_with_code_2(
    speed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed.py", "--device", "cuda:99"])
    with pytest.raises(SystemExit) as end:
        speed.main()
    assert end.value.code == 2
    said = capsys.readouterr()
    assert "got 'cuda:99'" in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_the_cpu_has_no_card() -> None:
    assert devices.checked_device("cpu") == CPU
    assert devices.card(CPU) == {}


def test_times_end_when_the_device_is_idle_again() -> None:
    # a stand-in for a card: what was asked of it is done only when it is waited for
    done: list[str] = []
    with mock.patch.object(
        torch.accelerator, "synchronize", lambda device: done.append(f"waited for {device}")
    ):
        devices.milliseconds(lambda: done.append("asked"), torch.device("cuda:0"))
        assert done == ["waited for cuda:0", "asked", "waited for cuda:0"]
        devices.milliseconds(lambda: done.append("asked"), CPU)
    assert len(done) == 4


def test_memory_is_what_a_later_call_adds() -> None:
    calls: list[int] = []

    class Card:
        """Holds 1 MiB from the first call on; every call adds 5 MiB for a while."""

        peak = 0

        def memory_allocated(self, device: object) -> int:
            return len(calls) and devices.MIB

        def reset_peak_memory_stats(self, device: object) -> None:
            self.peak = self.memory_allocated(device)

        def max_memory_allocated(self, device: object) -> int:
            return self.peak

        def run(self) -> None:
            calls.append(1)
            self.peak = max(self.peak, 6 * devices.MIB)

    card, device = Card(), torch.device("cuda:0")
    with (
        mock.patch.object(torch, "get_device_module", return_value=card),
        mock.patch.object(torch.accelerator, "synchronize"),
    ):
        assert devices.added_mib(card.run, device) == 5.0
    with mock.patch.object(torch, "get_device_module", return_value=object()):
        assert devices.added_mib(card.run, device) is None


def test_off_the_cpu_no_row_repeats_another(speed: Any) -> None:
    assert speed.names_on(CPU) == list(speed.SAES)
    there = speed.names_on(torch.device("cuda:0"))
    assert "sa_gsae W" in there
    assert {name for name in speed.SAES if "dense" in name}.isdisjoint(there)
    assert set(speed.SAES) - set(there) == {name for name in speed.SAES if "dense" in name}


def test_a_small_table(speed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, names = tmp_path / "speed.json", ["sa_gsae W", "topk W, sparse"]
    arguments = ["--sizes", "8:16:32:4", "--runs", "1", "--json", str(path), "--only", *names]
    monkeypatch.setattr(sys, "argv", ["speed.py", *arguments])
    monkeypatch.setattr(speed, "memory", lambda *args: None)
    speed.main()
    result = json.loads(path.read_text())
    assert "cpu" in result["machine"]
    assert "card" not in result["machine"]
    (size,) = result["sizes"]
    assert set(names) < set(size["step_ms"])
    assert {"decoder bags", "decoder product"} < set(size["decode_ms"])
    assert size["l0"]["topk W, sparse"] == 4.0
    assert size["memory_mib"] == {}
