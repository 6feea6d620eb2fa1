"""``benchmarks/wandb_page.py``: a log of W&B's, as its own client writes it and by hand."""

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the [demo] extra")
wandb = pytest.importorskip("wandb", reason="comes with sae-lens")


@pytest.fixture
def page(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("wandb_page")


def part(kind: int, data: bytes) -> bytes:
    return struct.pack("<IHB", 0, len(data), kind) + data


def test_records_are_joined_across_blocks(page: Any) -> None:
    header = b":W&B" + bytes(3)
    first = part(1, b"whole")
    room = page.BLOCK - len(header) - len(first) - 7
    cut = part(2, b"a" * room) + part(3, b"b" * (page.BLOCK - 7)) + part(4, b"c")
    records = list(page.log_records(header + first + cut + part(1, b"next")))
    assert records == [b"whole", b"a" * room + b"b" * (page.BLOCK - 7) + b"c", b"next"]


def test_the_rest_of_a_block_that_holds_no_header_is_passed_over(page: Any) -> None:
    header = b":W&B" + bytes(3)
    first = part(1, b"a" * (page.BLOCK - len(header) - 7 - 3))
    records = list(page.log_records(header + first + bytes(3) + part(1, b"next")))
    assert [len(record) for record in records] == [page.BLOCK - 17, 4]


def test_a_record_that_is_not_whole_yet_is_left_out(page: Any) -> None:
    log = b":W&B" + bytes(3) + part(1, b"whole") + part(1, b"next")
    assert list(page.log_records(log)) == [b"whole", b"next"]
    for missing in (1, 4, 5, 10):
        assert list(page.log_records(log[:-missing])) == [b"whole"]


def test_another_file_is_no_log(page: Any) -> None:
    with pytest.raises(ValueError, match="not a W&B log"):
        list(page.log_records(b"{}"))


def test_a_run_of_the_real_client(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with wandb.init(mode="offline", project="p", dir=str(tmp_path)) as run:
        for step in range(3):
            run.log({"details/l0_pos": 1.5 * step, "other": 1}, step=10 * step)
    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    # W&B's own process writes the log, and may do so after the run has ended for this one
    deadline = time.monotonic() + 60
    while len(steps := page.history(log)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [step["_step"] for step in steps] == [0, 10, 20]
    assert page.signed_history(steps) == {"l0_pos": [[0, 0.0], [10, 1.5], [20, 3.0]]}
