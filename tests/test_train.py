"""``train``: SAELens's runner from YAML and flags, stopped and resumed, checked beforehand."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from sae_lens import SAE, ActivationsStore, SAETrainer
from torch import Tensor

from sae_lens_signaware.evaluation.saved import read_quality
from sae_lens_signaware.files import only_one
from sae_lens_signaware.training.config import build_runner_config
from sae_lens_signaware.training.runner import train_and_measure
from tests.small_sweep import write_text

D_IN, BATCH = 16, 64
SAES: dict[str, dict[str, Any]] = {
    "sa_gsae": {"target_l0": 4, "dead_after_tokens": 256},
    "bi_jumprelu": {"target_l0": 4, "dead_after_tokens": 256},
    "bi_topk": {"k": 4},
    "bi_batchtopk": {"k": 4, "k_anneal_steps": 15},
    "bi_matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [8, 24]},
}
each_architecture = pytest.mark.parametrize("architecture", SAES)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_text(folder, seed=0)
    return folder


@pytest.fixture
def values(tiny_model: Path, text: Path, tmp_path: Path) -> dict[str, Any]:
    """A config of 20 steps, as YAML has it."""
    return {
        "model_name": str(tiny_model),
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": "transformer.h.0.mlp",
        "dataset_path": str(text),
        "streaming": False,
        "is_dataset_tokenized": False,
        "context_size": 16,
        "device": "cpu",
        "training_tokens": 20 * BATCH,
        "train_batch_size_tokens": BATCH,
        "store_batch_size_prompts": 4,
        "n_batches_in_buffer": 8,
        "n_batches_for_norm_estimate": 4,
        "lr": 3e-3,
        "n_eval_batches": 2,
        "verbose": False,
        "output_path": str(tmp_path / "output"),
        "checkpoint_path": str(tmp_path / "checkpoints"),
        "logger": {"log_to_wandb": False},
        "sae": {"d_in": D_IN, "d_sae": 24, "normalize_activations": "expected_average_only_in"},
    }


def of(values: dict[str, Any], architecture: str, **changes: Any) -> dict[str, Any]:
    sae = {**values["sae"], "architecture": architecture, **SAES[architecture]}
    return {**values, "sae": sae, **changes}


def write(values: dict[str, Any], folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def train(values: dict[str, Any], *flags: str) -> Any:
    """The trained SAE, in Python."""
    return train_and_measure(build_runner_config(values, "test", flags), Console(quiet=True))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sends a signal to this process within the n-th step that is run from now on."""
    real = SAETrainer.step

    def stop(n: int, number: int = signal.SIGINT) -> None:
        count = itertools.count(1)

        def step(self: Any, batch: Tensor) -> Any:
            if next(count) == n:
                os.kill(os.getpid(), number)
            return real(self, batch)

        monkeypatch.setattr(SAETrainer, "step", step)

    return stop


@pytest.fixture
def batch_number(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes the n-th batch of a store the same in every run; holds the number of the next one."""
    number = [0]

    def batch(self: ActivationsStore) -> Tensor:
        generator = torch.Generator().manual_seed(number[0])
        number[0] += 1
        return torch.randn(BATCH, D_IN, generator=generator) + 0.3

    monkeypatch.setattr(ActivationsStore, "__next__", batch)
    return number


@each_architecture
def test_a_yaml_and_flags_train_and_measure(architecture, values, command, tmp_path) -> None:
    config = write(of(values, architecture), tmp_path)
    code, out, err = command("train", config, "--d_sae", "40", "--lr=1e-3", "--n_checkpoints", "1")
    assert code == 0, err
    sae = SAE.load_from_disk(tmp_path / "output")
    assert sae.cfg.d_sae == 40
    assert sae.cfg.metadata.hook_name == values["hook_name"]
    assert sae.cfg.metadata.training_architecture == architecture
    assert json.loads((tmp_path / "output/runner_cfg.json").read_text())["lr"] == 1e-3
    quality = read_quality(tmp_path / "output")
    assert (quality.d_sae, quality.n_tokens) == (40, 2 * 4 * 16)
    assert "after the tokens trained on" in quality.tokens_from
    assert f"L0 {quality.l0:.1f}" in out
    assert f"{quality.explained_variance:.4f}" in out
    assert len(list((tmp_path / "checkpoints").rglob("trainer_state.pt"))) >= 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_seed_gives_other_weights_and_the_same_one_the_same(values) -> None:
    values = of(values, "bi_topk", output_path=None, checkpoint_path=None)
    a, b, c = (train(values, "--seed", seed).W_dec for seed in ("1", "1", "2"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@each_architecture
def test_a_resumed_run_ends_where_an_undisturbed_one_does(
    architecture, values, stop_at, batch_number, tmp_path
) -> None:
    values = of(values, architecture, lr_warm_up_steps=3, lr_decay_steps=8, output_path=None)
    whole = train(values).state_dict()
    batch_number[0] = 0
    stop_at(12)
    with pytest.raises(KeyboardInterrupt):
        train(values)
    batch_number[0] = 4 + 12  # those of the estimated scale, and those of the steps
    resumed = train(values, "--resume_from_checkpoint", str(tmp_path / "checkpoints"))
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(
    number, values, command, stop_at, tmp_path
) -> None:
    config = write(of(values, "bi_jumprelu"), tmp_path)
    stop_at(7, number)
    code, _, err = command("train", config)
    assert code == 130
    # SAELens gives each run a folder of its own
    (checkpoint,) = (tmp_path / "checkpoints").glob(f"*/{7 * BATCH}")
    assert f"--resume_from_checkpoint {checkpoint}" in err
    assert not (tmp_path / "output").exists()
    stop_at(14)  # more steps than are left
    code, _, err = command("train", config, "--resume_from_checkpoint", checkpoint)
    assert code == 0, err
    assert SAE.load_from_disk(tmp_path / "output").cfg.d_sae == 24


def test_a_checkpoint_that_was_cut_off_is_passed_over(values, stop_at, command, tmp_path) -> None:
    config = write(of(values, "bi_topk"), tmp_path)
    for n in (5, 3):
        stop_at(n)
        assert command("train", config)[0] == 130
    (newer,) = (tmp_path / "checkpoints").glob(f"*/{3 * BATCH}")
    os.utime(newer / "trainer_state.pt")
    (newer / "runner_cfg.json").write_text('{"sae": ')
    stop_at(15 + 1)  # so many are left from the older one
    resume = ("--resume_from_checkpoint", tmp_path / "checkpoints")
    assert command("train", config, *resume)[0] == 0


@pytest.mark.slow  # a process of its own takes ten seconds to start
def test_a_run_that_was_killed_goes_on(values, command, tmp_path) -> None:
    long = of(values, "bi_batchtopk", training_tokens=3000 * BATCH, n_checkpoints=300)
    config, checkpoints = write(long, tmp_path), tmp_path / "checkpoints"
    words = [sys.executable, "-m", "sae_lens_signaware", "train", str(config)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len(list(checkpoints.rglob("runner_cfg.json"))) < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "output").exists()
    code, _, err = command("train", config, "--resume_from_checkpoint", checkpoints)
    assert code == 0, err
    assert SAE.load_from_disk(tmp_path / "output").cfg.d_sae == 24


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hook_name": "transformer.h.0.mpl"}, "hook_name: the model has no"),
        ({"hook_name": "transformer.h.0.mpl"}, "did you mean 'transformer.h.0.mlp'"),
        ({"sae": {"d_in": 8}}, "sae.d_in must be 16"),
        ({"model_name": "nowhere/at-all"}, "model_name: nowhere/at-all"),
        ({"dataset_path": "nowhere/at-all"}, "dataset_path: nowhere/at-all"),
        ({"dataset_path": "broken"}, "dataset_path: broken"),
        ({"from_pretrained_path": "nowhere"}, "from_pretrained_path: nowhere"),
        ({"output_path": "config.yaml/output"}, "output_path: config.yaml/output"),
        ({"checkpoint_path": "config.yaml/c"}, "checkpoint_path: config.yaml/c"),
        ({"resume_from_checkpoint": "nowhere"}, "resume_from_checkpoint: "),
        ({"lr": "fast"}, "lr: "),
        ({"hook_nam": "x"}, "hook_nam: unknown field; did you mean 'hook_name'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_one_line_before_the_training(
    changes, named, values, refuses, monkeypatch, tmp_path, hub
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SAETrainer, "step", None)  # no step is reached
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.parquet").write_text("no parquet")
    values = of(values, "bi_topk")
    config = write({**values, **changes, "sae": values["sae"] | changes.get("sae", {})}, tmp_path)
    refuses(tmp_path, named, "train", config)


def test_a_taken_output_is_left_as_it_is_without_overwrite(
    values, command, refuses, tmp_path
) -> None:
    config = write(of(values, "bi_topk"), tmp_path)
    assert command("train", config, "--d_sae", "20")[0] == 0
    refuses(tmp_path, "output_path must be", "train", config)
    before = contents(tmp_path / "output")
    assert command("train", config, "--overwrite")[0] == 0
    after = contents(tmp_path / "output")
    assert after.keys() == before.keys()
    assert SAE.load_from_disk(tmp_path / "output").cfg.d_sae == 24


def test_two_trainings_into_one_output_do_not_run_at_once(values, refuses, tmp_path) -> None:
    config = write(of(values, "bi_topk"), tmp_path)
    with only_one("output_path", str(tmp_path / "output")):
        refuses(tmp_path, "output_path: another process", "train", config)


def test_a_missed_target_l0_and_tokens_that_were_trained_on_warn(
    values, command, tmp_path, caplog
) -> None:
    config = write(of(values, "sa_gsae", training_tokens=80 * BATCH), tmp_path)
    code, out, _ = command("train", config, "--target_l0", "20", "--lr", "1e-6")
    assert code == 0
    warnings = [line for line in out.splitlines() if line.startswith("Warning: ")]
    assert any(re.search("target_l0: 20 .* L0 is", text) for text in caplog.messages)
    assert any("trained on too" in line for line in warnings)  # the text has 2,400 tokens
    assert "trained on too" in read_quality(tmp_path / "output").tokens_from


def test_a_loss_that_is_not_finite_stops_the_training(values, command, tmp_path) -> None:
    config = write(of(values, "bi_jumprelu"), tmp_path)
    code, _, err = command("train", config, "--lr", "1e30", "--n_checkpoints", "0")
    assert code == 1, err
    assert "finite" in err
    assert not (tmp_path / "output").exists()
