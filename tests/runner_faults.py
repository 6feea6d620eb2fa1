"""SAELens's runner, as ``train`` uses it, under kill -9 and SIGTERM (see tests/faults.py)."""

import contextlib
import random
import signal
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sae_lens import SAE, LanguageModelSAERunnerConfig, LoggingConfig, TrainingSAE
from transformer_lens import HookedTransformer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.runner import (
    CHECKPOINT_FILES,
    SignawareTrainingRunner,
    find_checkpoint,
)
from tests.faults import BATCH, N_STEPS, activations, fork, strike, undisturbed
from tests.support.models import tiny_model_config
from tests.support.saes import training_config


def runner_config(folder: Path, **kwargs: Any) -> LanguageModelSAERunnerConfig[Any]:
    values: dict[str, Any] = {
        "sae": training_config("sa_gsae", "none", target_l0=5.0),
        "model_name": "tiny",
        "hook_name": "blocks.0.hook_mlp_out",
        "dataset_path": "tiny",
        "context_size": 16,
        "training_tokens": N_STEPS * BATCH,
        "train_batch_size_tokens": BATCH,
        "store_batch_size_prompts": 4,
        "n_batches_in_buffer": 8,
        "lr": 1e-3,
        "n_checkpoints": N_STEPS // 4,
        "logger": LoggingConfig(log_to_wandb=False),
        "output_path": str(folder / "out"),
        "checkpoint_path": str(folder / "checkpoints"),
        "verbose": False,
        **kwargs,
    }
    return LanguageModelSAERunnerConfig(**values)


def train_runner(folder: Path, **kwargs: Any) -> Any:
    """SAELens's runner as ``train`` uses it, from the newest whole checkpoint below ``folder``."""
    with contextlib.suppress(InvalidInputError):
        kwargs["resume_from_checkpoint"] = str(find_checkpoint(folder))
    ids = torch.randint(0, 64, (600, 16), generator=torch.Generator().manual_seed(5))
    return SignawareTrainingRunner(
        runner_config(folder, **kwargs),
        override_model=HookedTransformer(tiny_model_config()),
        override_dataset=Dataset.from_dict({"tokens": ids.tolist()}),
    ).run()


def checkpoints(folder: Path) -> list[Path]:
    return [
        path.parent
        for path in folder.rglob("runner_cfg.json")
        if all((path.parent / name).exists() for name in CHECKPOINT_FILES)
    ]


def require_loadable(folder: Path) -> int:
    """Every whole checkpoint loads: weights, config, and trainer state without a pickle."""
    found = checkpoints(folder)
    for path in found:
        TrainingSAE.load_from_disk(path)
        torch.load(path / "trainer_state.pt", weights_only=True)
    return len(found)


def within_a_step(checkpoint: Path) -> bool:
    """Its samples are counted, its step is not done: SAELens alone raises wherever the code is."""
    state = torch.load(checkpoint / "trainer_state.pt", weights_only=True)
    return state["n_training_samples"] != state["n_training_steps"] * BATCH


def kill_runner(folder: Path, n_kills: int, seed: int) -> dict[str, int]:
    """kill -9 at random points of a run with a checkpoint every four steps, each resumed from the newest."""
    rng = random.Random(seed)
    seconds = undisturbed(lambda: train_runner(folder / "whole"))
    seen = {
        "kill -9": 0,
        "ended first": 0,
        "whole checkpoints loaded": 0,
        "half-written, passed over": 0,
    }
    run = folder / "killed"
    while seen["kill -9"] < n_kills:
        code = strike(
            fork(lambda run=run: train_runner(run)), rng.uniform(0.1, 0.6) * seconds, signal.SIGKILL
        )
        assert code in (0, -signal.SIGKILL), code
        seen["kill -9" if code else "ended first"] += 1
        assert not (run / "out").exists() or code == 0, "an SAE of an unfinished run"
        if code == 0:
            run = run.with_name(run.name + "+")  # a run of its own for the kills still to come
    undisturbed(lambda: train_runner(run))
    for path in folder.glob("killed*"):
        seen["whole checkpoints loaded"] += require_loadable(path)
        folders = {p.parent for p in path.rglob("sae_weights.safetensors")} - {path / "out"}
        seen["half-written, passed over"] += len(folders - set(checkpoints(path)))
    TrainingSAE.load_from_disk(run / "out")
    return seen


def terminate_runner(folder: Path, n: int, seed: int) -> dict[str, int]:
    """SIGTERM at random points: a whole checkpoint, taken between two steps, resumed to the end."""
    rng = random.Random(seed)
    seconds = undisturbed(lambda: train_runner(folder / "whole", n_checkpoints=0))
    seen = {"SIGTERM": 0, "before training": 0, "ended first": 0, "whole checkpoints loaded": 0}
    for i in range(n):
        run = folder / f"terminated-{i}"
        pid = fork(lambda run=run: train_runner(run, n_checkpoints=0))
        code = strike(pid, rng.uniform(0.3, 0.9) * seconds, signal.SIGTERM)
        assert code in (0, 3), code
        found = require_loadable(run)
        seen["SIGTERM" if found else "before training" if code else "ended first"] += 1
        assert not ((run / "out").exists() and code), "an SAE of an unfinished run"
        seen["whole checkpoints loaded"] += found
        assert not any(map(within_a_step, checkpoints(run))), "a checkpoint of half a step"
        undisturbed(lambda run=run: train_runner(run))
    return seen


def resume_gap(folder: Path) -> dict[str, float]:
    """How far a resumed run of SAELens's runner ends from an undisturbed one: its activation store
    starts its shuffle buffer afresh, so that the batches after a resume are others."""
    whole, resumed = folder / "whole", folder / "resumed"
    seconds = undisturbed(lambda: train_runner(whole))
    strike(fork(lambda: train_runner(resumed)), 0.7 * seconds, signal.SIGKILL)
    undisturbed(lambda: train_runner(resumed))
    x = activations()
    wanted, got = (SAE.load_from_disk(run / "out")(x) for run in (whole, resumed))
    return {
        "relative distance of outputs": round(((got - wanted).norm() / wanted.norm()).item(), 4)
    }
