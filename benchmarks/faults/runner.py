"""Faults while SAELens's runner trains as ``train`` uses it: kill -9, SIGTERM (see cached.py)."""

import contextlib
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE, TrainingSAE
from transformer_lens import HookedTransformer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.runner import (
    CHECKPOINT_FILES,
    SignawareTrainingRunner,
    find_checkpoint,
)

from .cached import BATCH, N_STEPS, activations
from .children import Child, strike, undisturbed
from .small import runner_config, tiny_model_config, tokens, training_config


def train_runner(folder: Path, **kwargs: Any) -> Any:
    """SAELens's runner as ``train`` uses it, from the newest whole checkpoint below ``folder``."""
    values: dict[str, Any] = {
        "training_tokens": N_STEPS * BATCH,
        "train_batch_size_tokens": BATCH,
        "n_checkpoints": N_STEPS // 4,
        **kwargs,
    }
    with contextlib.suppress(InvalidInputError):
        values["resume_from_checkpoint"] = str(find_checkpoint(folder))
    return SignawareTrainingRunner(
        runner_config(training_config("sa_gsae", "none", target_l0=5.0), folder, **values),
        override_model=HookedTransformer(tiny_model_config()),
        override_dataset=tokens(600),
    ).run()


def checkpoints(folder: Path) -> list[Path]:
    return [
        path.parent
        for path in folder.rglob("runner_cfg.json")
        if all((path.parent / name).exists() for name in CHECKPOINT_FILES)
    ]


def require_loadable(folder: Path) -> int:
    """Load every whole checkpoint: weights, config, and trainer state without a pickle."""
    whole = checkpoints(folder)
    for path in whole:
        TrainingSAE.load_from_disk(path)
        trainer_state(path)
    return len(whole)


def trainer_state(checkpoint: Path) -> Any:
    return torch.load(checkpoint / "trainer_state.pt", weights_only=True)


def within_a_step(checkpoint: Path) -> bool:
    """Whether its samples are counted but its step is not done."""
    state = trainer_state(checkpoint)
    return state["n_training_samples"] != state["n_training_steps"] * BATCH


def ended(run: Path, code: int) -> bool:
    """Whether its SAE is there, whole; a signal may come after that, before the process ends.

    The checkpoints of such a run go to its last four steps, or there are none.
    """
    if not (run / "out").exists():
        assert code, "ended without an SAE"
        return False
    TrainingSAE.load_from_disk(run / "out")
    states = map(trainer_state, checkpoints(run))
    n_seen = max((state["n_training_samples"] for state in states), default=N_STEPS * BATCH)
    assert n_seen >= (N_STEPS - 4) * BATCH, "an SAE of an unfinished run"
    return True


def kill_runner(folder: Path, n_kills: int, seed: int) -> dict[str, int]:
    """Kill a run with a checkpoint every four steps at random points; resume from the newest."""
    rng = random.Random(seed)
    seconds = undisturbed(partial(train_runner, folder / "whole"))
    seen = {
        "kill -9": 0,
        "ended first": 0,
        "whole checkpoints loaded": 0,
        "half-written, passed over": 0,
    }
    run = folder / "killed"
    while seen["kill -9"] < n_kills:
        code = strike(
            Child(partial(train_runner, run)), rng.uniform(0.1, 0.6) * seconds, signal.SIGKILL
        )
        assert code in (0, -signal.SIGKILL), code
        done = ended(run, code)
        seen["ended first" if done else "kill -9"] += 1
        if done:
            run = run.with_name(run.name + "+")  # a run of its own for the kills still to come
    undisturbed(partial(train_runner, run))
    for path in folder.glob("killed*"):
        seen["whole checkpoints loaded"] += require_loadable(path)
        folders = {p.parent for p in path.rglob("sae_weights.safetensors")} - {path / "out"}
        seen["half-written, passed over"] += len(folders - set(checkpoints(path)))
    TrainingSAE.load_from_disk(run / "out")
    return seen


def terminate_runner(folder: Path, n: int, seed: int) -> dict[str, int]:
    """SIGTERM at random points: a whole checkpoint between two steps, which resumes to the end."""
    rng = random.Random(seed)
    seconds = undisturbed(partial(train_runner, folder / "whole", n_checkpoints=0))
    seen = {"SIGTERM": 0, "before training": 0, "ended first": 0, "whole checkpoints loaded": 0}
    for i in range(n):
        run = folder / f"terminated-{i}"
        child = Child(partial(train_runner, run, n_checkpoints=0))
        code = strike(child, rng.uniform(0.3, 0.9) * seconds, signal.SIGTERM)
        assert code in (0, 3), code
        done, n_whole = ended(run, code), require_loadable(run)
        seen["ended first" if done else "SIGTERM" if n_whole else "before training"] += 1
        seen["whole checkpoints loaded"] += n_whole
        assert not any(map(within_a_step, checkpoints(run))), "a checkpoint of half a step"
        undisturbed(partial(train_runner, run))
    return seen


def resume_gap(folder: Path) -> dict[str, float]:
    """Measure how far a resumed run of SAELens's runner ends from an undisturbed one.

    The runner's activation store starts its shuffle buffer afresh, so that a resumed run sees
    other batches.
    """
    whole, resumed = folder / "whole", folder / "resumed"
    seconds = undisturbed(partial(train_runner, whole))
    strike(Child(partial(train_runner, resumed)), 0.7 * seconds, signal.SIGKILL)
    undisturbed(partial(train_runner, resumed))
    x = activations()
    expected, got = (SAE.load_from_disk(run / "out")(x) for run in (whole, resumed))
    distance = ((got - expected).norm() / expected.norm()).item()
    return {"relative distance of outputs": round(distance, 4)}
