"""Activations that are kept in half precision on disk, and what depends on that."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file, save_file

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.sweep import cache
from sae_lens_signaware.experiments.sweep import runs as sweep
from sae_lens_signaware.experiments.sweep.cache import make_caches
from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig, load_sweep_config
from sae_lens_signaware.experiments.sweep.identity import identity_of_cache
from sae_lens_signaware.experiments.sweep.store import SweepStore
from sae_lens_signaware.training.cached import train_on_cache
from tests.support.cli import invoke
from tests.support.configs import write
from tests.support.saes import D_IN, training_config
from tests.support.training import trainer_config
from tests.sweep.examples import last_line, sweep_values

HALVES = ("float16", "bfloat16")


def loaded(values: dict[str, Any], folder: Path, **changes: Any) -> tuple[SweepConfig, list[Run]]:
    return load_sweep_config(write(values | changes, folder / "dtype.yaml"))


def made(config: SweepConfig, runs: list[Run], out: Path) -> SweepStore:
    store = SweepStore(config, out)
    with Progress(disable=True) as progress:
        make_caches(store, runs, progress)
    return store


@pytest.mark.parametrize("dtype", HALVES)
def test_a_cache_in_half_precision_has_the_rounded_activations_in_half_the_bytes(
    dtype: str, data: Path, tmp_path: Path
) -> None:
    config, runs = loaded(sweep_values(data), tmp_path)
    whole = made(config, runs[:1], tmp_path / "whole")
    exact = whole.load_cache(runs[0])
    config, runs = loaded(sweep_values(data), tmp_path, cache_dtype=dtype)
    half = made(config, runs[:1], tmp_path / "half")
    cached = half.load_cache(runs[0])
    assert cached.train.dtype == getattr(torch, dtype)
    assert cached.train.equal(exact.train.to(cached.train.dtype))
    assert cached.heldout.dtype == torch.float32
    assert cached.heldout.equal(exact.heldout.to(cached.train.dtype).float())
    assert not cached.heldout.equal(exact.heldout)
    sizes = [s.cache_path(runs[0].cell).stat().st_size for s in (half, whole)]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.02)


@pytest.mark.parametrize("normalize", ["none", "expected_average_only_in"])
def test_training_on_half_precision_is_training_on_the_rounded_activations(
    normalize: str, tmp_path: Path
) -> None:
    half = (torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0)) + 1).half()
    sae_cfg = training_config("sa_gsae", normalize_activations=normalize)
    cfg = trainer_config(12, n_batches_for_norm_estimate=4)
    saes = [
        train_on_cache(sae_cfg, cfg, activations, 1, tmp_path / "c")[0]
        for activations in (half, half.float())
    ]
    assert saes[0].dtype == torch.float32
    for name, weights in saes[0].state_dict().items():
        assert weights.equal(saes[1].state_dict()[name]), name


def test_the_dtype_is_part_of_the_identity_only_where_it_is_not_the_runners(
    data: Path, tmp_path: Path
) -> None:
    values = sweep_values(data)

    def identity(**changes: Any) -> dict[str, Any]:
        config, runs = loaded(values, tmp_path, **changes)
        return identity_of_cache(config, runs[0], {})

    unset = identity()
    assert "cache_dtype" not in unset
    assert identity(cache_dtype="float32") == unset
    assert [identity(cache_dtype=d) for d in HALVES] == [unset | {"cache_dtype": d} for d in HALVES]
    runner = values["runner"] | {"dtype": "bfloat16"}
    assert "cache_dtype" not in identity(runner=runner, cache_dtype="bfloat16")


def test_a_cell_may_have_a_dtype_of_its_own(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    # of one hook point, which is read once for both
    values["cells"]["resid"] = values["cells"]["mlp"] | {"cache_dtype": "bfloat16"}
    config, runs = loaded(values, tmp_path, cache_dtype="float16")
    store = made(config, runs, tmp_path / "out")
    mlp, resid = (store.load_cache(run).train for run in (runs[0], runs[-1]))
    assert (mlp.dtype, resid.dtype) == (torch.float16, torch.bfloat16)
    torch.testing.assert_close(mlp.float(), resid.float(), rtol=2**-7, atol=1e-6)


def test_a_result_is_that_of_its_dtype(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    config, runs = loaded(values, tmp_path)
    store = made(config, runs[:1], tmp_path / "out")
    sweep.run_one(store, runs[0], store.load_cache(runs[0]))
    for dtype, is_the_same in (("float32", True), ("float16", False)):
        other, other_runs = loaded(values, tmp_path, cache_dtype=dtype)
        result = SweepStore(other, tmp_path / "out").finished(other_runs[0])
        assert (result is not None) is is_the_same


def test_activations_that_overflow_the_dtype_are_one_line(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "model", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["transformer.h.0.mlp.c_proj.bias"][3] = 70_000.0
    save_file(tensors, path, metadata={"format": "pt"})
    values = sweep_values(data)
    values["runner"]["model_name"] = str(tmp_path / "model")
    values["cells"] = {"mlp": values["cells"]["mlp"]}
    config = write(values | {"cache_dtype": "float16"}, tmp_path / "s.yaml")
    result = invoke("sweep", str(config), "--out", str(tmp_path / "out"))
    message = (
        "cells.mlp.cache_dtype: activations of transformer.h.0.mlp reach 70,000, and float16 holds "
        "at most 65,504; use bfloat16 or float32"
    )
    assert result.exit_code == 2
    assert last_line(result) == f"Error: {message}"
    assert not (tmp_path / "out" / "runs").exists()
    wider, runs = loaded(values, tmp_path, cache_dtype="bfloat16")
    assert made(wider, runs[:1], tmp_path / "wider").load_cache(runs[0]).train.isfinite().all()


def test_the_largest_number_of_the_dtype_is_no_overflow_nor_is_an_inf_of_the_model() -> None:
    run: Any = SimpleNamespace(cache_dtype=torch.float16, cfg=SimpleNamespace(hook_name="hook"))
    for largest in (65_504.0, torch.inf):
        cache._require_no_overflow(torch.tensor([[1.0, -largest]]), "mlp", run)
    with pytest.raises(ConfigError, match="reach 65,536, and float16 holds at most 65,504"):
        cache._require_no_overflow(torch.tensor([[1.0, -65_536.0]]), "mlp", run)


def test_a_batch_of_which_no_token_is_kept_overflows_nothing(data: Path, tmp_path: Path) -> None:
    _, runs = loaded(sweep_values(data), tmp_path, cache_dtype="float16")
    cache._require_no_overflow(torch.empty(0, D_IN), "mlp", runs[0])
    with pytest.raises(ConfigError, match="float16 holds at most"):
        cache._require_no_overflow(torch.full((1, D_IN), 1e5), "mlp", runs[0])
