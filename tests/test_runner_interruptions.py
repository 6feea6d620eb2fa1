"""SAELens's language-model runner, killed or interrupted, leaves a checkpoint to resume from."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from sae_lens import SAE, LoggingConfig
from safetensors.torch import load_file
from transformer_lens import HookedTransformer

from sae_lens_signaware.saes.sa_gsae import SAGatedTrainingSAE
from sae_lens_signaware.training.runner import SignawareTrainingRunner, find_checkpoint
from tests.support.checked_runs import make_runner
from tests.support.models import tiny_model_config, tokens
from tests.support.runners import runner_config, running_state
from tests.support.saes import (
    asking_for,
    inference_classes,
    training_config,
)

PATIENCE = 280  # seconds; a test waits twice at most, and pytest stops it after 600
CHILD = """
    import sys, torch
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.test_runner_interruptions import *
    torch.set_num_threads(1)
    sae_cfg = training_config({architecture!r}, {tying!r}, **asking_for({architecture!r}, 4.0))
    cfg = runner_config(sae_cfg, Path({folder!r}), training_tokens=64 * 100_000, n_checkpoints=3000)
    runner = SignawareTrainingRunner(
        cfg, override_model=HookedTransformer(tiny_model_config()), override_dataset=tokens()
    )
    print("ready", flush=True)
    try:
        runner.run()
    except BaseException as error:
        print("checkpoint", runner.last_checkpoint, flush=True)
        raise
"""


def start_child(architecture: str, tying: str, folder: Path) -> subprocess.Popen[str]:
    root = str(Path(__file__).parent.parent)
    code = textwrap.dedent(CHILD).format(
        root=root, architecture=architecture, tying=tying, folder=str(folder)
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def wait_for_checkpoints(folder: Path, n: int, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(list(folder.rglob("runner_cfg.json"))) < n:
        assert child.poll() is None, "the child ended early"
        assert time.monotonic() < deadline, f"no checkpoint in {PATIENCE} s"
        time.sleep(0.05)


# a process takes seconds: by default test_resumed_runs.py resumes in this one, all architectures
@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "tying"), [("sa_gsae", "none"), ("bi_matryoshka_batchtopk", "full")]
)
def test_resume_after_kill_9(architecture: str, tying: str, tmp_path: Path) -> None:
    child = start_child(architecture, tying, tmp_path / "killed")
    try:
        wait_for_checkpoints(tmp_path / "killed", 3, child)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    checkpoint = find_checkpoint(tmp_path / "killed")
    n_samples = int(checkpoint.name)
    cfg = runner_config(
        training_config(architecture, tying, **asking_for(architecture, 4.0)),
        tmp_path / "resumed",
        training_tokens=n_samples + 64 * 5,
        resume_from_checkpoint=str(tmp_path / "killed"),
    )
    model = HookedTransformer(tiny_model_config())
    runner = SignawareTrainingRunner(cfg, override_model=model, override_dataset=tokens())
    sae: Any = runner.run()
    assert running_state(sae)[-1] > 0
    loaded = SAE.load_from_disk(tmp_path / "resumed" / "out")
    assert type(loaded) is inference_classes(architecture)[0]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow  # by default a test raises the signal in this process
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_a_whole_checkpoint_with_weights(
    stop: signal.Signals, tmp_path: Path
) -> None:
    child = start_child("sa_gsae", "full", tmp_path)
    wait_for_checkpoints(tmp_path, 1, child)
    child.send_signal(stop)
    out, _ = child.communicate(timeout=PATIENCE)
    path = Path(out.strip().splitlines()[-1].removeprefix("checkpoint "))
    assert find_checkpoint(path) == path
    state = torch.load(path / "trainer_state.pt", weights_only=True)
    assert state["n_training_samples"] == int(path.name)
    assert not (tmp_path / "out").exists()


@contextlib.contextmanager
def interrupted_in_step(step: int, n_signals: int = 1) -> Iterator[None]:
    """Signals come in a step of every ``sa_gsae``, counted from 1; it is the last one."""
    forward_pass, n_steps = SAGatedTrainingSAE.training_forward_pass, 0

    def interrupted(sae: Any, step_input: Any) -> Any:
        nonlocal n_steps
        n_steps += 1
        for _ in range(n_signals if n_steps == step else 0):
            signal.raise_signal(signal.SIGINT)
        return forward_pass(sae, step_input)

    with (
        mock.patch.object(SAGatedTrainingSAE, "training_forward_pass", interrupted),
        pytest.raises(KeyboardInterrupt),
    ):
        yield
    assert n_steps == step


@pytest.mark.parametrize(
    ("n_signals", "checkpoint_path"),
    [(2, "checkpoints"), (1, None)],  # the second one stops in the middle of a step
)
def test_an_interruption_that_leaves_no_checkpoint(
    n_signals: int, checkpoint_path: str | None, tmp_path: Path
) -> None:
    folder = checkpoint_path and str(tmp_path / checkpoint_path)
    model = HookedTransformer(tiny_model_config())
    runner = make_runner(tmp_path, model, checkpoint_path=folder)
    with interrupted_in_step(3, n_signals):
        runner.run()
    assert runner.last_checkpoint is None
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_interruption_leaves_nothing_of_an_earlier_run_in_its_checkpoint(
    tmp_path: Path,
) -> None:
    # a run of a W&B id of its own writes where the last run of that id did
    one_id = LoggingConfig(log_to_wandb=False, wandb_id="mine")
    for seed, lr in enumerate((1e-3, 3e-3)):
        model = HookedTransformer(tiny_model_config())
        folder = str(tmp_path / "checkpoints")
        runner = make_runner(
            tmp_path, model, checkpoint_path=folder, logger=one_id, seed=seed, lr=lr
        )
        with interrupted_in_step(3):
            runner.run()
        assert runner.last_checkpoint == tmp_path / "checkpoints" / "mine" / str(3 * 64)
        assert find_checkpoint(runner.last_checkpoint, runner.cfg) == runner.last_checkpoint
        weights = load_file(runner.last_checkpoint / "sae_weights.safetensors")
        torch.testing.assert_close(weights["W_enc"], runner.sae.W_enc.data, rtol=0, atol=0)
        state = torch.load(runner.last_checkpoint / "trainer_state.pt", weights_only=True)
        assert state["optimizer"]["param_groups"][0]["initial_lr"] == lr
