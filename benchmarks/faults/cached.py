"""Faults while training on cached activations: kill -9, SIGTERM, a NaN batch.

The training that is killed runs in a child (see children.py). A fault comes at a point of the
child's processor time, not of the clock, so that a busy machine moves nothing. Each function runs
one kind of fault and returns what it saw. It raises AssertionError where a saved file is broken, or
where a resumed run does not end as an undisturbed one.
"""

import contextlib
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from sae_lens import TrainingSAE
from sae_lens.config import SAETrainerConfig
from torch import Tensor

from sae_lens_signaware.training import cached as cached_training
from sae_lens_signaware.training.cache import ShuffledEpochs
from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache

from .children import Child, strike, undisturbed
from .small import D_IN, asking_for, training_config

N_STEPS, BATCH = 120, 64


def activations() -> Tensor:
    return torch.randn(1000, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5


def train_cached(architecture: str, tying: str, folder: Path) -> Any:
    """Train on cached activations, as the package does, and save the SAE in ``folder/sae``."""
    cfg = SAETrainerConfig(
        total_training_samples=N_STEPS * BATCH,
        train_batch_size_samples=BATCH,
        lr=3e-3,
        lr_end=3e-3,
        dead_feature_window=5,
        n_batches_for_norm_estimate=4,
    )
    sae_cfg = training_config(
        architecture,
        tying,
        **asking_for(architecture, 5.0),
        normalize_activations="expected_average_only_in",
    )
    sae, _ = train_on_cache(sae_cfg, cfg, activations(), seed=1, checkpoint=folder / "checkpoint")
    sae.save_model(folder / "sae")
    return sae


def equal(sae: Any, other: Any) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in sae.state_dict().items())


ENDS = {
    -signal.SIGKILL: "kill -9",
    3: "SIGTERM",
    0: "ended first",
}


def kill_cached(
    architecture: str, tying: str, folder: Path, n_kills: int, seed: int
) -> dict[str, int]:
    """SIGTERM or kill -9 at random; kill -9 also while the checkpoint of a SIGTERM is written.

    The last run is left alone. It has to end bit for bit where an undisturbed one does.
    """
    rng = random.Random(seed)
    seconds = undisturbed(partial(train_cached, architecture, tying, folder / "whole"))
    whole = TrainingSAE.load_from_disk(folder / "whole" / "sae")
    run = folder / "killed"
    work = partial(train_cached, architecture, tying, run)
    seen = {"kill -9": 0, "SIGTERM": 0, "ended first": 0, "checkpoints resumed": 0}

    def require_same_end() -> None:
        assert equal(TrainingSAE.load_from_disk(run / "sae"), whole), "not where it should end"
        assert not list(run.glob(".*")), "half-written files"
        shutil.rmtree(run)

    while seen["kill -9"] < n_kills:
        seen["checkpoints resumed"] += (run / "checkpoint").exists()
        child = Child(work)
        after = rng.uniform(0, 0.7 * seconds)
        if rng.random() < 0.5:
            code = strike(child, after, signal.SIGKILL)
        else:  # 0 to 40 ms after the signal: before, in the middle of and after the save
            wait = rng.choice((None, rng.uniform(0, 0.04)))
            code = strike(child, after, signal.SIGTERM, wait)
        assert code in ENDS, f"it ended with exit code {code}"
        seen[ENDS[code]] += 1
        if code == 0:
            require_same_end()
    undisturbed(work)
    require_same_end()
    return seen


@contextlib.contextmanager
def serving(step: int, fault: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass the batch of that step through ``fault`` within this context."""

    class Faulty(ShuffledEpochs):
        def __next__(self) -> Tensor:
            batch = super().__next__()
            return fault(batch) if self.n_served == step else batch

    with mock.patch.object(cached_training, "ShuffledEpochs", Faulty):
        yield


def interrupt(_: Tensor) -> Tensor:
    raise KeyboardInterrupt


def nan_batch(folder: Path) -> dict[str, int]:
    """Stop at a NaN in the middle, then resume from the checkpoint before it.

    The resumed run has to end bit for bit where an undisturbed one does.
    """
    whole = train_cached("sa_gsae", "none", folder / "whole")
    run = folder / "poisoned"
    for step, fault, error in (
        (60, interrupt, InterruptedTraining),
        (70, lambda batch: batch * torch.nan, RuntimeError),
    ):
        try:
            with serving(step, fault):
                train_cached("sa_gsae", "none", run)
        except error:
            continue
        raise AssertionError("trained on")
    assert equal(train_cached("sa_gsae", "none", run), whole)
    return {"stopped at its step": 1, "resumed bit for bit": 1}
