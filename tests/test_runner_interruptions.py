"""SAELens's language-model runner, killed or interrupted, leaves a checkpoint to resume from."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from transformer_lens import HookedTransformer

from sae_lens_signaware.training.runner import SignawareTrainingRunner, find_checkpoint
from tests.support.models import tiny_model_config, tokens
from tests.support.runners import runner_config
from tests.support.saes import (
    asking_for,
    each_variant_in_a_process,
    inference_classes,
    training_config,
)

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
    deadline = time.monotonic() + 120
    while len(list(folder.rglob("runner_cfg.json"))) < n:
        assert child.poll() is None, "the child ended early"
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.05)


@each_variant_in_a_process
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
    running = sae.l0_control[1] if hasattr(sae, "l0_control") else sae.topk_threshold
    assert running > 0
    loaded = SAE.load_from_disk(tmp_path / "resumed" / "out")
    assert type(loaded) is inference_classes(architecture)[0]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_a_whole_checkpoint_with_weights(
    stop: signal.Signals, tmp_path: Path
) -> None:
    child = start_child("sa_gsae", "full", tmp_path)
    wait_for_checkpoints(tmp_path, 1, child)
    child.send_signal(stop)
    out, _ = child.communicate(timeout=120)
    path = Path(out.strip().splitlines()[-1].removeprefix("checkpoint "))
    assert find_checkpoint(path) == path
    state = torch.load(path / "trainer_state.pt", weights_only=True)
    assert state["n_training_samples"] == int(path.name)
    assert not (tmp_path / "out").exists()
