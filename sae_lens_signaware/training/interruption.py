"""SIGINT and SIGTERM that wait for the end of a training step."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from sae_lens import SAETrainer
from torch import Tensor

Trainer = SAETrainer[Any, Any]


class BetweenSteps(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised where no step is half done."""


class Steps:
    """The steps of a trainer: their number, the time of the first, and a stop between two."""

    def __init__(self, trainer: Trainer) -> None:
        self.n = 0
        self.started: float | None = None
        self.stop_asked = False
        self._step = trainer.step

    def __call__(self, batch: Tensor) -> Any:
        if self.stop_asked:
            raise BetweenSteps
        self.started = self.started or time.perf_counter()
        output = self._step(batch)
        self.n += 1
        return output

    def note_signal(self, *_: object) -> None:
        """A signal handler: the first one waits for the end of a step, a second one does not."""
        if self.stop_asked:
            raise KeyboardInterrupt
        self.stop_asked = True


@contextlib.contextmanager
def stopping_between_steps(trainer: Trainer) -> Iterator[Steps]:
    """Within, SIGINT and SIGTERM make ``trainer.fit`` raise :class:`BetweenSteps`.

    In the middle of an optimiser's step, a checkpoint would not resume to where an undisturbed
    training ends.
    """
    steps = Steps(trainer)
    trainer.step = steps  # type: ignore[method-assign]
    # Python gives signals to the main thread alone
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.signal(number, steps.note_signal) for number in numbers}
    try:
        yield steps
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ready_to_go_on(trainer: Trainer) -> None:
    """Put right what SAELens 6.54 leaves wrong in a trainer whose state is of a checkpoint.

    It counts the samples of a step before it writes a checkpoint and the step after it; it would
    write again the checkpoints that are there; and it divides by 0 in a window of firings that has
    just begun.
    """
    trainer.n_training_steps = trainer.n_training_samples // trainer.cfg.train_batch_size_samples
    thresholds = trainer.checkpoint_thresholds
    trainer.checkpoint_thresholds = [n for n in thresholds if n >= trainer.n_training_samples]
    if trainer.n_training_steps:
        trainer.n_frac_active_samples = max(1, trainer.n_frac_active_samples)
