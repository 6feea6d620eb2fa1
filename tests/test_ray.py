"""A sweep under Ray: the results of this process, also where workers are killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.sweep.executors import run_ray
from tests.small_sweep import measured, sweep, sweep_values, write_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray with two cores; a worker takes ten seconds to start."""
    ray = pytest.importorskip("ray", reason="needs the [ray] extra")
    try:
        ray.init(num_cpus=2, log_to_driver=False)
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def data(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), tiny_model)


def workers() -> list[int]:
    """The processes that run a group of a sweep."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes().startswith(b"ray::_group_task"):
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def test_the_results_are_those_of_one_process_though_workers_are_killed(
    data: Path, tmp_path: Path
) -> None:
    values = sweep_values(data)
    local, out = tmp_path / "local", tmp_path / "ray"
    sweep(values, local)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 150
        # the first one can write a checkpoint, the second cannot
        for number, n_results in ((signal.SIGTERM, 2), (signal.SIGKILL, 7)):
            while len(list((out / "runs").rglob("*.json"))) < n_results or not workers():
                time.sleep(0.02)
                if time.monotonic() > deadline:
                    return
            os.kill(workers()[0], number)
            killed.append(number)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        summary = sweep(values, out, run_ray)
    finally:
        killer.join()
    assert killed
    assert not summary.failures
    assert measured(out) == measured(local)


def test_what_a_task_finds_wrong_is_one_line(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    values["cells"]["mlp"]["d_in"] = 21
    with pytest.raises(InvalidInputError, match=r"cells\.mlp\.d_in must be 16"):
        sweep(values, tmp_path, run_ray)


def test_an_interrupted_sweep_leaves_no_worker_at_work(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    values["runner"]["training_tokens"] = 10**7  # more than a worker trains on until then

    def interrupt() -> None:
        deadline = time.monotonic() + 100
        while not workers() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(4)
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=interrupt)
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        sweep(values, tmp_path, run_ray)
    stopper.join()
    assert not workers()
    assert not list((tmp_path / "runs").rglob("*.json"))
    assert list((tmp_path / "checkpoints").rglob("checkpoint_complete.json"))
