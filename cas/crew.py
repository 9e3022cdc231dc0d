"""The crew: batches at work, so many at once, and those that rest between two attempts. Threads; decides nothing.

A batch that rests holds no place: all that do are attended by one thread, which looks for HALT meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from cas.errors import HaltError
from cas.transports.attempt import Stop

LOOK_EVERY = 0.25
"""Seconds between two looks for HALT while batches rest."""


class Batch(Protocol):
    def step(self) -> int | None:
        """Make the next attempt; the seconds to rest before the one after it, None where nothing is left to do."""

    def give_up(self, error: HaltError) -> None:
        """End, while resting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A batch has come to its end, by the number under which it was taken; `error`: a fault of cas that it met."""

    number: int
    error: BaseException | None


@dataclass(slots=True)
class _Resting:
    number: int
    batch: Batch
    seconds: float


class Crew:
    """Takes batches, and has each go on until it ends; `ended` is told of it, from any thread.

    `places`: how many are at work at once. To be closed, as a context, by whoever made it: that waits for all.
    """

    def __init__(
        self,
        places: int,
        *,
        stop: Stop,
        pause: Callable[[float], None],
        ended: Callable[[Ended], None],
    ) -> None:
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="cas-attempt")
        self._stop, self._pause, self._ended = stop, pause, ended
        self._resting: list[_Resting] = []
        self._under_way = 0
        self._changed = threading.Condition()
        self._attendant: threading.Thread | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)
        self._pool.shutdown()

    def take(self, number: int, batch: Batch) -> None:
        """Have a batch begin as soon as there is a place."""
        with self._changed:
            self._under_way += 1
        self._pool.submit(self._work, number, batch)

    def _work(self, number: int, batch: Batch) -> None:
        try:
            seconds = batch.step()
        except BaseException as error:
            self._end(number, error)
            return
        if seconds is None:
            self._end(number, None)
        else:
            self._rest(_Resting(number, batch, seconds))

    def _end(self, number: int, error: BaseException | None) -> None:
        self._ended(Ended(number=number, error=error))
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def _rest(self, one: _Resting) -> None:
        with self._changed:
            self._resting.append(one)
            if self._attendant is None:
                self._attendant = threading.Thread(target=self._attend, name="cas-attendant")
                self._attendant.start()

    def _attend(self) -> None:
        """As long as any batch rests; each look is at HALT first, then at whose time has come."""
        while True:
            error = self._stop()
            with self._changed:
                ready = [one for one in self._resting if error or one.seconds <= 0]
                self._resting = [one for one in self._resting if not (error or one.seconds <= 0)]
                resting = list(self._resting)
                if not resting:
                    self._attendant = None
            for one in ready:
                if error:
                    self._give_up(one, error)
                else:
                    self._pool.submit(self._work, one.number, one.batch)
            if not resting:
                return
            self._pause(LOOK_EVERY)
            for one in resting:
                one.seconds -= LOOK_EVERY

    def _give_up(self, one: _Resting, error: HaltError) -> None:
        try:
            one.batch.give_up(error)
        except BaseException as bug:
            self._end(one.number, bug)
        else:
            self._end(one.number, None)
