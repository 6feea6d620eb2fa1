"""Sweeps under Ray: the same results, and workers that die."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.sweep import executors
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.store import SweepStore
from tests.support.cli import invoke
from tests.support.configs import write
from tests.sweep.examples import last_line, measured, sweep_values


def workers() -> list[int]:
    """The processes that run a group of a sweep."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = status.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::_group_task"):
            found.append(int(status.parent.name))
    return found


def test_a_worker_that_dies_before_its_first_run_fails_that_run(
    config: Path, tmp_path: Path
) -> None:
    exceptions = pytest.importorskip("ray.exceptions", reason="needs the [ray] extra")
    values, runs = load_sweep_config(config)
    store, group = SweepStore(values, tmp_path), runs[:3]
    left = executors._note_crash(store, group, exceptions.WorkerCrashedError())
    assert left == group[1:]
    with store.in_progress(group[2]):
        assert executors._note_crash(store, left, exceptions.NodeDiedError("gone")) == [group[1]]
        assert not store.is_in_progress(group[2])
    assert [store.failure_of(run) is None for run in group] == [False, True, False]
    with pytest.raises(ConfigError, match="wrong"):
        executors._note_crash(store, group, ConfigError("wrong"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray, with a node whose workers stay from test to test: one takes ten seconds to start."""
    ray = pytest.importorskip("ray", reason="needs the [ray] extra")
    try:
        ray.init(num_cpus=2, num_gpus=1, log_to_driver=False)
        yield ray
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_that_no_node_can_run_is_noted(cluster: Any, config: Path) -> None:
    values, _ = load_sweep_config(config)
    nodes = cluster.nodes()

    def note(num_cpus: float, num_gpus: float) -> str | None:
        update = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        return executors._note_on_nodes(nodes, values.model_copy(update=update))

    assert note(2, 1) is None
    assert note(1, 0) is None
    assert note(3, 0) == (
        "no node of the Ray cluster has num_cpus 3 and num_gpus 0; waiting for one that joins"
    )
    assert "num_gpus 1.5; waiting" in str(note(0.5, 1.5))
    nodes[0]["Alive"] = False
    assert note(1, 0) is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
def test_ray_says_in_one_line_what_a_task_found(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    values["n_cached_tokens"] = 10**6
    path = str(write(values, tmp_path / "s.yaml"))
    result = invoke("sweep", path, "--out", str(tmp_path / "out"), "--executor", "ray")
    assert result.exit_code == 2
    assert last_line(result).startswith("Error: n_cached_tokens, n_heldout_tokens: ")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
def test_an_interrupted_sweep_leaves_no_worker_at_work(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", executors.ProgressView.update

    def interrupted(view: executors.ProgressView) -> None:
        real(view)
        if list((out / "running").rglob("l1*")):  # a worker is in a run
            raise KeyboardInterrupt

    monkeypatch.setattr(executors.ProgressView, "update", interrupted)
    values = sweep_values(Path(load_sweep_config(config)[0].runner["model_name"]).parent)
    values["runner"]["training_tokens"] = 10**6  # more than a worker trains on until then
    values["num_cpus"] = 2  # one group at a time
    path = str(write(values, tmp_path / "long.yaml"))
    result = invoke("sweep", path, "--out", str(out), "--executor", "ray")
    assert not workers()
    assert result.exit_code == 130, result.stderr
    assert not list((out / "runs").rglob("*.json"))
    assert len(list((out / "checkpoints").rglob("sae_weights.safetensors"))) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_with_a_killed_worker_gives_the_results_of_the_local_executor(
    whole: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray", reason="needs the [ray] extra")
    ray.shutdown()  # the cluster of the tests before
    out = tmp_path / "out"
    killed: list[int] = []

    def kill_workers() -> None:
        deadline = time.monotonic() + 300
        # the first one can write a checkpoint, the second cannot
        for number, n_results in ((signal.SIGTERM, 3), (signal.SIGKILL, 7)):
            while len(list((out / "runs").rglob("*.json"))) < n_results or not workers():
                time.sleep(0.05)
                if time.monotonic() > deadline:
                    return
            os.kill(workers()[0], number)
            killed.append(number)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        result = invoke("sweep", str(config), "--out", str(out), "--executor", "ray")
    finally:
        killer.join()
        ray.shutdown()
    assert result.exit_code == 0, result.stderr
    assert killed == [signal.SIGTERM, signal.SIGKILL]
    assert measured(out) == measured(whole[0])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_notes_a_run_whose_worker_dies_every_time_and_the_others_go_on(
    whole: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs the [ray] extra")
    ray.shutdown()  # the cluster of the tests before
    monkeypatch.setattr(executors, "MAX_RETRIES", 1)  # a worker takes ten seconds to start
    out, deaths = tmp_path / "out", tmp_path / "deaths"
    deadly, n_deaths = "mlp/seed-0/half/l1_coefficient-1", str(deaths)

    def dies_in_one_run() -> None:  # in every worker, before its first task
        from sae_lens_signaware.experiments.sweep import runs

        real = runs.run_one

        def run_one(store: Any, run: Any, *args: Any) -> Any:
            if run.name == deadly:
                with open(n_deaths, "a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)
            return real(store, run, *args)

        runs.run_one = run_one

    try:
        hook = {"worker_process_setup_hook": dies_in_one_run}
        ray.init(num_cpus=1, log_to_driver=False, runtime_env=hook)
        result = invoke("sweep", str(config), "--out", str(out), "--executor", "ray")
    finally:
        ray.shutdown()
    assert result.exit_code == 1, result.stderr
    assert deaths.read_text() == "xx"
    summary = json.loads((out / "sweep.json").read_text())
    assert list(summary["failures"]) == [deadly]
    assert summary["failures"][deadly].startswith("WorkerCrashedError: ")
    assert f"failed: {deadly}: WorkerCrashedError" in result.stderr
    assert "15 of 16 runs" in result.stdout
    # those that come after it in its group as well
    results = {k: v for k, v in measured(whole[0]).items() if deadly not in k}
    assert {k: v for k, v in measured(out).items() if deadly not in k} == results
    assert not list((out / "running").rglob("l1*"))
