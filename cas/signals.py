"""SIGINT, SIGTERM and SIGHUP: noted while something is being delivered, else raised."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal came while nothing was being delivered. No error: nothing catches it but the end of the process."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


class Signals:
    """Signals while deliveries are under way: noted, so that the run ends between two steps.

    A second one ends the process at once. That too is safe: the next run finds whatever step it was at.
    """

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self._woken = threading.Event()

    def pause(self, seconds: float) -> None:
        """Wait; a signal ends it."""
        self._woken.wait(seconds)

    def noted(self) -> AbstractContextManager[None]:
        """Note signals, instead of ending at the first."""
        return _handled(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.caught:
            os._exit(128 + number)
        self.caught = signal.Signals(number)
        # Not through sys.stderr: the signal may have come while it was being written to.
        os.write(2, b"interrupted: ending after the step that is under way; once more ends it at once\n")
        self._woken.set()


def raised() -> AbstractContextManager[None]:
    """Have signals raise Interrupted, so that whatever was opened is closed on the way out."""
    return _handled(_raise)


def _raise(number: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted(number)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.getsignal(number)) for number in STOPPING]
    for number, standing in before:
        if standing is not signal.SIG_IGN:  # nohup, or a shell's background job
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, standing in before:
            signal.signal(number, standing)
