"""Which checkpoint SAELens's language-model runner goes on from, and what of it counts."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from sae_lens import ActivationsStore
from safetensors.torch import load_file, save_file
from transformer_lens import HookedTransformer

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.training import runner as runner_module
from sae_lens_signaware.training.checkpoints import _training_of
from sae_lens_signaware.training.runner import SignawareTrainingRunner, find_checkpoint
from tests.support.models import tiny_model_config, tokens
from tests.support.runners import runner_config
from tests.support.saes import (
    make_training_sae,
    training_config,
)


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., Any]:
    """Runs SAELens's runner on a small model, with its checkpoints in one folder for all."""

    def run(folder: str, architecture: str = "bi_jumprelu", **kwargs: Any) -> Any:
        sae_cfg = training_config(architecture, normalize_activations="expected_average_only_in")
        cfg = runner_config(
            sae_cfg, tmp_path / folder, **{"n_batches_for_norm_estimate": 3, **kwargs}
        )
        cfg.checkpoint_path = str(tmp_path / "checkpoints" / folder)
        model = HookedTransformer(tiny_model_config())
        return SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens()).run()

    return run


@pytest.mark.parametrize("n_bytes", [0, 1, 100, -1])
def test_a_checkpoint_that_ends_within_its_last_file_is_passed_over(
    small_run: Callable[..., Any], tmp_path: Path, n_bytes: int
) -> None:
    # where kill -9 came while SAELens wrote runner_cfg.json
    small_run("mine", n_checkpoints=2)
    newest = find_checkpoint(tmp_path / "checkpoints")
    cut = newest / "runner_cfg.json"
    cut.write_bytes(cut.read_bytes()[:n_bytes])
    older = find_checkpoint(tmp_path / "checkpoints")
    assert int(older.name) < int(newest.name)
    with pytest.raises(ConfigError, match=r"no whole checkpoint at or below .*/mine/"):
        find_checkpoint(newest)
    small_run("resumed", training_tokens=64 * 30, resume_from_checkpoint=str(newest.parent))


@pytest.mark.parametrize(
    "setting",
    [
        {"seqpos_slice": (1, -2)},
        {"exclude_special_tokens": [1, 2]},
        {"prepend_bos": False},
        {"dead_feature_window": 7},
        {"autocast": True},
        {"disable_concat_sequences": True},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_resume_takes_no_checkpoint_of_a_run_on_other_activations(
    setting: dict[str, Any], small_run: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "checkpoints"
    small_run("mine", n_checkpoints=1)
    mine = find_checkpoint(root)
    small_run("other", n_checkpoints=1, training_tokens=64 * 22, **setting)
    other = find_checkpoint(root / "other")
    sae_cfg = training_config("bi_jumprelu", normalize_activations="expected_average_only_in")
    assert find_checkpoint(root, runner_config(sae_cfg, tmp_path)) == mine
    with_it = runner_config(sae_cfg, tmp_path, training_tokens=64 * 22, **setting)
    assert find_checkpoint(root, with_it) == other
    (name,) = setting
    with pytest.raises(ConfigError, match=f"{name} is .* there, and .* in the config; name this"):
        find_checkpoint(root / "other", runner_config(sae_cfg, tmp_path))


def test_a_resume_takes_no_checkpoint_of_a_run_with_another_setting(
    small_run: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "checkpoints"
    small_run("mine", n_checkpoints=1)
    sae_cfg = training_config("bi_jumprelu", normalize_activations="expected_average_only_in")
    mine, cfg = find_checkpoint(root), runner_config(sae_cfg, tmp_path)
    assert find_checkpoint(root, cfg) == mine
    small_run("other_seed", n_checkpoints=1, seed=7)
    assert find_checkpoint(root) != mine
    assert find_checkpoint(root, cfg) == mine
    cfg.sae.l0_coefficient *= 2
    with pytest.raises(ConfigError, match=r"sae.l0_coefficient is .* there, and .*; name this"):
        find_checkpoint(root, cfg)
    assert find_checkpoint(mine, cfg) == mine  # named itself: on purpose


def test_a_resume_takes_no_checkpoint_of_another_run(
    small_run: Callable[..., Any], tmp_path: Path
) -> None:
    small_run("mine", n_checkpoints=2)
    newest_of_mine = find_checkpoint(tmp_path / "checkpoints")
    (older,) = {p.parent for p in newest_of_mine.parent.rglob("runner_cfg.json")} - {newest_of_mine}
    (older / "cfg.json").write_text("{")  # what is not taken is not read
    os.utime(older / "runner_cfg.json", (0, 0))
    small_run("other_hook", n_checkpoints=2, hook_name="blocks.0.hook_resid_post")
    small_run("other_architecture", "sa_gsae", n_checkpoints=2)
    seen: list[Path] = []
    with mock.patch.object(
        runner_module, "find_checkpoint", lambda *a: seen.append(find_checkpoint(*a)) or seen[0]
    ):
        resume = str(tmp_path / "checkpoints")
        small_run("resumed", training_tokens=64 * 30, resume_from_checkpoint=resume)
    assert seen == [newest_of_mine]
    with pytest.raises(ConfigError, match=r"sae.architecture is 'sa_gsae' there, and 'bi_jump"):
        small_run("named", resume_from_checkpoint=resume + "/other_architecture")
    with pytest.raises(ConfigError, match=r"hook_name is 'blocks.0.hook_resid_post' there, and"):
        small_run("named", resume_from_checkpoint=resume + "/other_hook")


@pytest.mark.parametrize(
    "field",
    ["hook_head_index", "context_size", "lr_scheduler_name", "n_restart_cycles", "adam_beta1",
     "lr_end", "model_name"],
)  # fmt: skip
def test_a_run_is_another_where_one_of_its_settings_is(field: str) -> None:
    assert _training_of({}, {field: 1}) != _training_of({}, {field: 2})


def test_a_resume_writes_the_checkpoints_that_are_still_to_come(
    small_run: Callable[..., Any], tmp_path: Path
) -> None:
    def written(folder: str) -> dict[int, Path]:
        files = (tmp_path / "checkpoints" / folder).rglob("runner_cfg.json")
        return {int(path.parent.name): path.parent for path in files}

    small_run("mine", n_checkpoints=4)
    folders = written("mine")
    first, *later = sorted(folders)
    small_run("resumed", n_checkpoints=4, resume_from_checkpoint=str(folders[first]))
    assert sorted(written("resumed")) == later


def test_a_bi_jumprelu_of_the_first_version_is_not_resumed(
    small_run: Callable[..., Any], tmp_path: Path
) -> None:
    small_run("mine", n_checkpoints=1)
    folder = find_checkpoint(tmp_path / "checkpoints")
    state = load_file(folder / "sae_weights.safetensors")
    del state["b_mag"]
    save_file(state, folder / "sae_weights.safetensors")
    with pytest.raises(ConfigError, match=r"resume_from_checkpoint: .* has no b_mag, so it is of"):
        small_run("resumed", training_tokens=64 * 30, resume_from_checkpoint=str(folder))


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_resume_reads_on_in_the_text(
    small_run: Callable[..., Any], tmp_path: Path, prefetch: bool
) -> None:
    small_run("mine", n_checkpoints=2)
    resume = find_checkpoint(tmp_path / "checkpoints")
    target = load_file(resume / "activations_store_state.safetensors")["n_dataset_processed"].item()
    assert target > 0
    read: list[int] = []
    get_batch_tokens = ActivationsStore.get_batch_tokens

    def spy(store: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(store.n_dataset_processed)
        return get_batch_tokens(store, *args, **kwargs)

    with mock.patch.object(ActivationsStore, "get_batch_tokens", spy):
        small_run(
            "resumed",
            training_tokens=64 * 30,
            resume_from_checkpoint=str(resume),
            prefetch_llm_batches=prefetch,
        )
    assert min(read) >= target


def test_the_scale_of_a_final_checkpoint_is_not_folded_twice(
    small_run: Callable[..., Any], tmp_path: Path
) -> None:
    small_run("mine", n_checkpoints=0, save_final_checkpoint=True)
    resume = str(tmp_path / "checkpoints")
    with pytest.raises(ConfigError, match=r"normalize_activations is 'none' there, and 'expected"):
        small_run("resumed", training_tokens=64 * 30, resume_from_checkpoint=resume)


@pytest.mark.parametrize(
    "name",
    ["sae_weights.safetensors", "trainer_state.pt", "activations_store_state.safetensors",
     "activation_scaler.json"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_before_the_resume(name: str, tmp_path: Path) -> None:
    make_training_sae("sa_gsae").save_model(tmp_path)
    torch.save({"n_training_steps": 1}, tmp_path / "trainer_state.pt")
    save_file({"n": torch.zeros(1)}, tmp_path / "activations_store_state.safetensors")
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": null}')
    (tmp_path / "runner_cfg.json").write_text("{}")
    assert find_checkpoint(tmp_path) == tmp_path
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:10])
    with pytest.raises(ConfigError, match=f"{name} cannot be read") as error:
        find_checkpoint(tmp_path)
    assert "\n" not in str(error.value)
