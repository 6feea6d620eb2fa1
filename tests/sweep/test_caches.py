"""The activations of a sweep's cells, that several sweeps may share."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from rich.progress import Progress
from transformers import GPT2LMHeadModel

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.sweep import cache
from sae_lens_signaware.experiments.sweep import runs as sweep
from sae_lens_signaware.experiments.sweep import store as stores
from sae_lens_signaware.experiments.sweep.cache import make_caches
from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.store import SweepStore
from tests.support.cli import invoke
from tests.support.configs import write
from tests.support.models import EOS
from tests.sweep.examples import last_line, sweep_values


@pytest.mark.parametrize("heldout", ["what follows", "its own"])
@pytest.mark.parametrize(
    "selection",
    [{}, {"exclude_special_tokens": True}, {"seqpos_slice": [2, -3]}, {"prepend_bos": False}],
    ids=str,
)
def test_a_cache_holds_the_activations_of_the_text_in_its_order(
    selection: dict[str, Any], heldout: str, data: Path, tmp_path: Path
) -> None:
    values = sweep_values(data)
    values["runner"] |= selection
    if heldout == "what follows":
        values["heldout_dataset_path"] = None
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    store, cfg = SweepStore(config, tmp_path / "out"), runs[0].cfg
    with Progress(disable=True) as progress:
        make_caches(store, runs, progress)
    gpt2, seen = GPT2LMHeadModel.from_pretrained(data / "model").eval(), []
    gpt2.transformer.h[0].mlp.register_forward_hook(lambda *args: seen.append(args[2]))
    hooked = cache.load_hooked_model(cfg, [cfg.hook_name])
    for text in ("train", "heldout"):
        source = cache.make_store(hooked, cfg, str(data / text), {cfg.hook_name: 16})
        ids = torch.cat([source.get_batch_tokens() for _ in range(20)])
        with torch.no_grad():
            gpt2(ids)
        part = slice(*cfg.seqpos_slice)
        keep = ids[:, part] != EOS if cfg.exclude_special_tokens else ids[:, part] >= 0
        seen[-1] = seen[-1][:, part][keep]
    n_train, n_heldout = config.n_cached_tokens, config.n_heldout_tokens
    held_out = seen[0][n_train:] if heldout == "what follows" else seen[1]
    cached = store.load_cache(runs[0])
    torch.testing.assert_close(cached.train, seen[0][:n_train])
    torch.testing.assert_close(cached.heldout, held_out[:n_heldout])


def test_a_cache_that_cannot_be_read_fails_the_runs_of_its_cell(
    config: Path, tmp_path: Path
) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    store.cache_path(runs[0].cell).write_bytes(b"cut")
    sweep.run_group(store, runs[:2])
    assert all("SafetensorError" in (store.failure_of(run) or "") for run in runs[:2])


def test_a_cache_that_was_cut_is_made_again(config: Path, tmp_path: Path) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, tmp_path / "out")
    path = store.cache_path(runs[0].cell)
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert not store.has_cache(runs[0])
        make_caches(store, runs[:1], progress)
    assert path.read_bytes() == whole


def test_a_cache_that_another_sweep_has_written_over_is_not_trained_on(
    data: Path, tmp_path: Path
) -> None:
    values, out = sweep_values(data), tmp_path / "out"
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    values["cells"]["mlp"]["hook_name"] = "transformer.h.1.mlp"
    values["cache_folder"] = str(out / "cache")
    other, other_runs = load_sweep_config(write(values, tmp_path / "other.yaml"))
    store = SweepStore(config, out)
    with Progress(disable=True) as progress:
        make_caches(store, runs, progress)
        assert len(store.load_cache(runs[0]).train) == config.n_cached_tokens
        make_caches(SweepStore(other, tmp_path / "elsewhere"), other_runs, progress)
    with pytest.raises(ConfigError, match="does not hold the activations of this sweep any more"):
        sweep.run_group(store, runs[:1])


def test_an_sae_of_another_config_is_not_that_of_the_earlier_result(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, out = sweep_values(data), tmp_path / "out"
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    store = SweepStore(config, out)
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    sweep.run_group(store, runs[:1])
    assert store.finished(runs[0]) is not None
    values["saes"]["half"]["threshold_init"] = 0.01
    other, other_runs = load_sweep_config(write(values, tmp_path / "other.yaml"))

    def full(*args: Any) -> None:
        raise OSError("No space left on device")

    # its SAE takes the place of the first one's, and its result cannot be written
    monkeypatch.setattr(sweep, "write_json", full)
    sweep.run_group(SweepStore(other, out), other_runs[:1])
    assert store.finished(runs[0]) is None


def test_the_threads_of_a_process_are_those_of_the_config(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, asked = load_sweep_config(config)[0], []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for threads in (3, None):
        store = SweepStore(values.model_copy(update={"threads": threads}), tmp_path / "out")
        sweep.run_group(store, [])
    assert asked == [3, 2]  # then as before, since the process is the user's


def test_a_result_is_of_the_activations_it_was_trained_on_whatever_comes_into_their_place(
    data: Path, tmp_path: Path
) -> None:
    values = sweep_values(data) | {"cache_folder": str(tmp_path / "cache")}
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    longer = values | {"n_cached_tokens": 2 * values["n_cached_tokens"]}
    other, other_runs = load_sweep_config(write(longer, tmp_path / "other.yaml"))
    store = SweepStore(config, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
        cached = store.load_cache(runs[0])
        make_caches(SweepStore(other, tmp_path / "elsewhere"), other_runs[:1], progress)
    sweep.run_one(store, runs[0], cached)
    assert store.finished(runs[0]) is not None
    assert SweepStore(other, tmp_path / "out").finished(other_runs[0]) is None


def test_activations_that_are_replaced_while_they_are_read_are_not_taken(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, runs = load_sweep_config(write(sweep_values(data), tmp_path / "s.yaml"))
    store, real = SweepStore(config, tmp_path / "out"), stores.load_file
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    marker = store.cache_path(runs[0].cell).with_suffix(".json")

    def another_comes(path: Path) -> Any:
        marker.write_text(marker.read_text().replace("transformer.h.0.mlp", "transformer.h.1.mlp"))
        return real(path)

    monkeypatch.setattr(stores, "load_file", another_comes)
    with pytest.raises(ConfigError, match="does not hold the activations of this sweep any more"):
        store.load_cache(runs[0])


def test_a_cache_is_not_taken_for_the_one_that_it_was_to_replace(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = sweep_values(data) | {"cache_folder": str(tmp_path / "cache")}
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    other, other_runs = load_sweep_config(
        write(values | {"n_cached_tokens": 256}, tmp_path / "other.yaml")
    )
    store = SweepStore(config, tmp_path / "out")
    store.write_cache(runs[0], {"train": torch.zeros(512, 16), "heldout": torch.zeros(256, 16)})
    assert store.has_cache(runs[0])

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    later = SweepStore(other, tmp_path / "elsewhere")
    monkeypatch.setattr(stores, "write_json", killed)  # what is written after the activations
    with pytest.raises(KeyboardInterrupt):
        later.write_cache(other_runs[0], {"train": torch.ones(256, 16)})
    assert not store.has_cache(runs[0])
    assert not later.has_cache(other_runs[0])


def test_an_identity_that_cannot_be_read_is_that_of_no_cache(config: Path, tmp_path: Path) -> None:
    values, runs = load_sweep_config(config)
    store = SweepStore(values, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs[:1], progress)
    assert store.has_cache(runs[0])
    store.cache_path(runs[0].cell).with_suffix(".json").write_text("")
    assert not store.has_cache(runs[0])


def test_two_sweeps_at_once_write_one_cache_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = sweep_values(data) | {"cache_folder": str(tmp_path / "cache")}
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    loaded: list[str] = []
    load_model, acquire = cache.load_hooked_model, FileLock.acquire
    writes, waits = threading.Event(), threading.Event()

    def counted(*args: Any) -> Any:
        loaded.append(threading.current_thread().name)
        writes.set()
        assert waits.wait(60)  # the other one is at the lock by then
        return load_model(*args)

    def acquired(lock: FileLock, *args: Any, **kwargs: Any) -> Any:
        if writes.is_set():
            waits.set()
        return acquire(lock, *args, **kwargs)

    def one(name: str) -> None:
        if name == "b":
            assert writes.wait(60)
        with Progress(disable=True) as progress:
            make_caches(SweepStore(config, tmp_path / name), runs, progress)

    monkeypatch.setattr(cache, "load_hooked_model", counted)
    monkeypatch.setattr(FileLock, "acquire", acquired)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, ("a", "b")))
    assert len(loaded) == 1
    cached = SweepStore(config, tmp_path / "b").load_cache(runs[0])
    assert len(cached.train) == config.n_cached_tokens
    assert len(cached.heldout) == config.n_heldout_tokens


def test_two_cells_of_one_hook_point_have_a_cache_each(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    values["cells"]["resid"] = values["cells"]["mlp"]
    config, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    store = SweepStore(config, tmp_path / "out")
    with Progress(disable=True) as progress:
        make_caches(store, runs, progress)
    mlp, resid = (store.load_cache(run) for run in (runs[0], runs[-1]))
    assert (runs[0].cell, runs[-1].cell) == ("mlp", "resid")
    assert mlp.train.equal(resid.train)
    assert mlp.heldout.equal(resid.heldout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heldout_dataset_path": "{data}/heldoutt"}, "heldout_dataset_path: no text is there"),
        ({"n_heldout_tokens": 10**6}, "n_cached_tokens, n_heldout_tokens: {data}/heldout has only"),
    ],
)
def test_a_wrong_held_out_text_is_said_before_the_long_one_is_read(
    change: dict[str, Any],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    make_store = cache.make_store

    def noted(model: Any, cfg: Any, dataset: str, d_ins: Any) -> Any:
        read.append(dataset)
        return make_store(model, cfg, dataset, d_ins)

    monkeypatch.setattr(cache, "make_store", noted)
    values = sweep_values(data) | {
        key: value.format(data=data) if isinstance(value, str) else value
        for key, value in change.items()
    }
    result = invoke(
        "sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(tmp_path / "out")
    )
    assert result.exit_code in (1, 2)
    assert message.format(data=data) in last_line(result)
    assert read == [values["heldout_dataset_path"]]


def test_a_model_folder_that_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    values["runner"]["model_name"] = str(data / "modle")
    result = invoke(
        "sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(tmp_path / "out")
    )
    assert result.exit_code == 1
    assert f"model_name: '{data / 'modle'}' is no folder here, and the Hub" in last_line(result)


@pytest.mark.parametrize("kind", [ConfigError, OSError])
def test_an_error_of_the_held_out_text_names_its_field(kind: type[Exception]) -> None:
    with (
        pytest.raises(kind, match=r"^context_size, heldout_dataset_path: the dataset_path x$"),
        cache._of_heldout_text(),
    ):
        raise kind("context_size, dataset_path: the dataset_path x")
    with pytest.raises(kind, match=r"^model_name: the dataset_path x$"), cache._of_heldout_text():
        raise kind("model_name: the dataset_path x")
