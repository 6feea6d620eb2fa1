"""Faults while training on cached activations: kill -9, SIGTERM, a NaN batch.

The training that is killed runs in a forked child. A fault comes at a point of the child's
processor time, not of the clock, so that a busy machine moves nothing. Each function runs one kind
of fault and returns what it saw. It raises AssertionError where a saved file is broken, or where a
resumed run does not end as an undisturbed one.
"""

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from sae_lens import TrainingSAE
from sae_lens.config import SAETrainerConfig
from torch import Tensor
from tqdm.auto import tqdm

from sae_lens_signaware.training import cached as cached_training
from sae_lens_signaware.training.cache import ShuffledEpochs
from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache

from .small import D_IN, asking_for, training_config

N_STEPS, BATCH = 120, 64


def fork(work: Callable[[], object]) -> int:
    """Run ``work`` in a child, silent; exit code 0 where it returns, 3 on any exception."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        torch.set_num_threads(1)
        # tqdm's monitor, a thread of the parent's alone, may have held its lock at the fork
        tqdm.set_lock(threading.RLock())
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        work()
        code = 0
    finally:
        os._exit(code)  # nothing of the parent's is flushed or cleaned up here


def _used(pid: int) -> float | None:
    """Processor seconds of a child, None once it ended.

    The clock is the one that clock_getcpuclockid(3) names.
    """
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        return None
    return time.clock_gettime((~pid << 3) | 2)


def _wait_until(pid: int, used: float) -> None:
    while (now := _used(pid)) is not None and now < used:
        time.sleep(0.0005)


def strike(pid: int, after: float, number: int, then_kill: float | None = None) -> int:
    """Signal the child once it has used ``after`` seconds of processor time.

    Args:
        then_kill: kill it so many seconds later.

    Returns:
        Its exit code, negative where a signal ended it; 0 where it had ended before.
    """
    _wait_until(pid, after)
    os.kill(pid, number)  # an ended child is there until waitpid
    if then_kill is not None:
        _wait_until(pid, (_used(pid) or 0.0) + then_kill)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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


def undisturbed(work: Callable[[], object]) -> float:
    """Run ``work`` in a child that is left alone, and return its processor seconds."""
    _, status, usage = os.wait4(fork(work), 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


ENDS = {
    -signal.SIGKILL: "kill -9",
    3: "SIGTERM",
    -signal.SIGTERM: "SIGTERM",  # before the child's handler was there
    0: "ended first",
}


def kill_cached(
    architecture: str, tying: str, folder: Path, n_kills: int, seed: int
) -> dict[str, int]:
    """SIGTERM or kill -9 at random; kill -9 also while the checkpoint of a SIGTERM is written.

    The last run is left alone. It has to end bit for bit where an undisturbed one does.
    """
    rng = random.Random(seed)
    seconds = undisturbed(lambda: train_cached(architecture, tying, folder / "whole"))
    whole = TrainingSAE.load_from_disk(folder / "whole" / "sae")
    run = folder / "killed"
    seen = {"kill -9": 0, "SIGTERM": 0, "ended first": 0, "checkpoints resumed": 0}

    def require_same_end() -> None:
        assert equal(TrainingSAE.load_from_disk(run / "sae"), whole), "not where it should end"
        assert not list(run.glob(".*")), "half-written files"
        shutil.rmtree(run)

    while seen["kill -9"] < n_kills:
        seen["checkpoints resumed"] += (run / "checkpoint").exists()
        pid = fork(lambda: train_cached(architecture, tying, run))
        after = rng.uniform(0, 0.7 * seconds)
        if rng.random() < 0.5:
            code = strike(pid, after, signal.SIGKILL)
        else:  # 0 to 40 ms after the signal: before, in the middle of and after the save
            wait = rng.choice((None, rng.uniform(0, 0.04)))
            code = strike(pid, after, signal.SIGTERM, wait)
        seen[ENDS[code]] += 1
        if code == 0:
            require_same_end()
    undisturbed(lambda: train_cached(architecture, tying, run))
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
