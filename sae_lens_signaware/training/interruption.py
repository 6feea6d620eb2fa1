"""Interruptions that wait for the end of a training step."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from sae_lens import SAETrainer, TrainingSAE, TrainingSAEConfig

# what SAELens raises on SIGTERM; it has no public name
from sae_lens.training._interruption import InterruptedException as InterruptedException
from torch import Tensor

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Trainer = SAETrainer[TrainingSAE[TrainingSAEConfig], TrainingSAEConfig]


class SignalCount:
    """Signal handler that counts, and raises KeyboardInterrupt from the second signal on."""

    count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt

    def pass_on(self) -> None:
        """Hand a signal that was counted to the handler of now; KeyboardInterrupt if there is none.

        A SignalCount around this one counts it, and the caller saves what is done first.
        """
        if self.count:
            handler = signal.getsignal(signal.SIGINT)
            if not isinstance(handler, SignalCount):
                raise KeyboardInterrupt
            handler()

    @contextlib.contextmanager
    def told_on_error(self) -> Iterator[None]:
        """Let the SignalCount around this one count its signal where an error ends the training.

        Else the error hides Ctrl-C, and a sweep notes it and goes on.
        """
        try:
            yield
        except Exception:
            around = signal.getsignal(signal.SIGINT)
            if isinstance(around, SignalCount):
                around.count = max(around.count, self.count)
            raise


def stop_on_signal(signals: SignalCount, data: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield from ``data``; raise KeyboardInterrupt in place of the batch that follows a signal."""
    while not signals.count:
        try:
            yield next(data)
        except StopIteration:
            return
    raise KeyboardInterrupt


@contextlib.contextmanager
def restoring_handlers() -> Iterator[None]:
    """Put back what Ctrl-C and SIGTERM called before; SAELens leaves its own handlers there."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python gives signals to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def counting_signals(signals: SignalCount) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM to ``signals``, so that training ends between two steps.

    Raised anywhere, an interruption would fall into the middle of an optimiser step, and a
    checkpoint of half a step does not resume to where an undisturbed training ends.
    """
    with restoring_handlers():
        if threading.current_thread() is threading.main_thread():
            around = signal.getsignal(signal.SIGINT)
            if isinstance(around, SignalCount):
                signals.count += around.count  # before the first step as well
            for number in SIGNALS:
                signal.signal(number, signals)
        yield


def restart_firing_window(trainer: Trainer) -> None:
    """Let a resumed training log its window of firings before the first step.

    SAELens would divide 0 by 0 in a window that has just begun, and stop there. Before the first
    step of all there is nothing to log.
    """
    if trainer.n_training_steps:
        trainer.n_frac_active_samples = max(1, trainer.n_frac_active_samples)
