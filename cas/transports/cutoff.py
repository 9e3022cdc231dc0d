"""Cutting an attempt off: no peer keeps a run from ending, whatever it answers. One thread for each attempt.

Every wait has a bound of its own, but a peer can answer without end. So an attempt as a whole is bounded in seconds and
in bytes received, and ends some grace after HALT or a signal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from cas.errors import CasError, TransferError
from cas.transports.attempt import Stop

GRACE = 4.0
"""Seconds from HALT, or the first signal, to the end of a connection: for the step that is under way."""
LOOK_EVERY = 0.25
MOST_BYTES = 64 << 20
"""Bytes received in an attempt, beside what the messages have; a folder with 200,000 receipts lists in half of that."""


def longest(timeout: float, deliveries: int, size: int) -> float:
    """Seconds that an attempt may take, for so many deliveries of so many bytes; `timeout` bounds each wait in it.

    A peer at 1 KiB a second, with ten times the longest wait for everything else, still gets there.
    """
    return 10 * timeout + 5 * deliveries + size / 1024


class Cutoff:
    """Closes what was attached once an attempt has to end; `reason` says why. A context, around the attempt."""

    def __init__(self, seconds: float, stop: Stop, size: int = 0) -> None:
        self.reason: CasError | None = None
        self._end = time.monotonic() + seconds
        self._seconds, self._stop = seconds, stop
        self._room = MOST_BYTES + 4 * size
        self._closers: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Cutoff:
        threading.Thread(target=self._watch, name="cas-cutoff", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def attach(self, close: Callable[[], object]) -> None:
        """Have something closed when the attempt has to end; at once, if that is so already."""
        with self._lock:
            self._closers.append(close)
        if self.reason:
            self._close()

    def check(self) -> None:
        """Raise the reason for which the attempt has to end, if there is one."""
        if self.reason:
            raise self.reason

    def received(self, count: int) -> None:
        """Count bytes received. Ends the attempt where there are too many."""
        self._room -= count
        if self._room < 0:
            self._cut(_flood())

    def _watch(self) -> None:
        halted: float | None = None
        while not self._over.wait(LOOK_EVERY):
            now = time.monotonic()
            if now > self._end:
                self._cut(_too_long(self._seconds))
                return
            if error := self._stop():
                halted = halted or now
                if now - halted > GRACE:
                    self._cut(error)
                    return

    def _cut(self, reason: CasError) -> None:
        self.reason = self.reason or reason
        self._close()

    def _close(self) -> None:
        with self._lock:
            closers, self._closers = self._closers, []
        for close in closers:
            with suppress(Exception):  # it may be closed, or be opening, in another thread
                close()


def _too_long(seconds: float) -> TransferError:
    return TransferError(
        f"the attempt did not end within {seconds:.0f} s",
        code="attempt-too-long",
        permanent=False,
        hint="see what the other machine is busy with; a larger `timeout` under `retry` allows for slow ones",
    )


def _flood() -> TransferError:
    return TransferError(
        "the other machine sent far more than an attempt can need",
        code="peer-flood",
        permanent=True,
        hint="see what answers there: cas peers check",
    )
