"""Child processes to be killed, at a point of their processor time, not of the clock.

They are forked from a server that has no thread and holds no lock. Forked from the tests' process,
a child would share tqdm's lock with it, and if it is killed while it holds that lock, every
progress bar of the tests' process waits for ever.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from tqdm.auto import tqdm

LIMIT = 120.0  # seconds, of a child that uses less than one

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["sae_lens_signaware.training.runner"])  # what takes long to import


def _run(work: Callable[[], object], clock: Connection) -> None:
    """Run ``work`` silently; exit code 0 where it returns, 3 on any exception.

    Its processor clock is sent before and after it.
    """
    code = 3
    try:
        # where it hangs, it shows where, and ends with code 1
        faulthandler.dump_traceback_later(LIMIT, exit=True, file=os.dup(2))
        torch.set_num_threads(1)
        tqdm.set_lock(threading.RLock())  # tqdm's own is a semaphore, which a kill would leave
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        clock.send(time.process_time())
        work()
        clock.send(time.process_time())
        code = 0
    finally:
        os._exit(code)


class Child:
    """A process that does ``work``, which has to be picklable: a partial, not a lambda."""

    def __init__(self, work: Callable[[], object]):
        self._clock, sender = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_run, args=(work, sender))
        self._process.start()
        sender.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._start: float = self._clock.recv()

    def used(self) -> float | None:
        """Processor seconds since ``work`` began, None once it ended.

        The clock is the one that clock_getcpuclockid(3) names.
        """
        if self._process.exitcode is not None:
            return None
        try:
            return time.clock_gettime((~self.pid << 3) | 2) - self._start
        except OSError:  # it ended since
            return None

    def wait_until(self, used: float) -> None:
        """Wait until it used so many processor seconds, or ended."""
        while (now := self.used()) is not None and now < used:
            time.sleep(0.0005)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def exit_code(self) -> int:
        """Wait for its end; negative where a signal ended it."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def seconds(self) -> float:
        """Wait until ``work`` is done, and return the processor seconds that it took."""
        assert self.exit_code() == 0
        return self._clock.recv() - self._start


def strike(child: Child, after: float, number: int, then_kill: float | None = None) -> int:
    """Signal the child once it has used ``after`` seconds of processor time.

    Args:
        then_kill: kill it so many seconds later.

    Returns:
        Its exit code, negative where a signal ended it; 0 where it had ended before.
    """
    child.wait_until(after)
    child.signal(number)
    if then_kill is not None:
        child.wait_until((child.used() or 0.0) + then_kill)
        child.signal(signal.SIGKILL)
    return child.exit_code()


def undisturbed(work: Callable[[], object]) -> float:
    """Run ``work`` in a child that is left alone, and return its processor seconds."""
    return Child(work).seconds()
