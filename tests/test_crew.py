"""The crew: places, rests that hold none, HALT while resting, and faults that come out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from cas.crew import Crew, Ended
from cas.errors import HaltError


class Steps:
    """A batch that rests as often as it is told to, and notes what happens to it."""

    def __init__(self, rests: Sequence[int] = (), fault: type[Exception] | None = None) -> None:
        self._rests, self._fault = list(rests), fault
        self.done = 0
        self.given_up: HaltError | None = None

    def step(self) -> int | None:
        self.done += 1
        if self._fault:
            raise self._fault("a bug")
        return self._rests.pop(0) if self._rests else None

    def give_up(self, error: HaltError) -> None:
        self.given_up = error


def crewed(*batches: object, places: int = 4, halt: HaltError | None = None) -> tuple[list[Ended], list[float]]:
    ended: list[Ended] = []
    naps: list[float] = []
    with Crew(places, stop=lambda: halt, pause=naps.append, ended=ended.append) as crew:
        for number, batch in enumerate(batches):
            crew.take(number, batch)  # type: ignore[arg-type]
    return ended, naps


def test_a_batch_goes_on_until_it_ends():
    batch = Steps(rests=[5, 30])

    ended, naps = crewed(batch)

    assert ended == [Ended(number=0, error=None)]
    assert (batch.done, sum(naps)) == (3, 35)


def test_a_rest_of_no_seconds_is_no_rest():
    batch = Steps(rests=[0, 0])

    _, naps = crewed(batch)

    assert (batch.done, naps) == (3, [])


def test_those_that_rest_do_so_together():
    all_rest = threading.Barrier(101)
    naps: list[float] = []

    class Waiting(Steps):
        def step(self) -> int | None:
            if not self.done:
                threading.Thread(target=all_rest.wait).start()
            return super().step()

    def nap(seconds: float) -> None:
        if not naps:
            all_rest.wait(30)
        naps.append(seconds)

    with Crew(4, stop=lambda: None, pause=nap, ended=lambda _: None) as crew:
        for number in range(100):
            crew.take(number, Waiting(rests=[60]))

    assert sum(naps) < 5 * 60  # one by one: a hundred times as much


def test_ten_thousand_that_rest_hold_no_thread():
    before = most = threading.active_count()

    def nap(_: float) -> None:
        nonlocal most
        most = max(most, threading.active_count())

    with Crew(4, stop=lambda: None, pause=nap, ended=lambda _: None) as crew:
        for number in range(10_000):
            crew.take(number, Steps(rests=[1, 1]))

    assert before < most < before + 10


def test_halt_ends_those_that_rest():
    halt = HaltError("HALT is set", code="halt")
    batch = Steps(rests=[120])

    ended, naps = crewed(batch, halt=halt)

    assert (batch.given_up, batch.done, naps) == (halt, 1, [])
    assert ended == [Ended(number=0, error=None)]


def test_a_bug_is_told_and_the_others_go_on():
    good = Steps(rests=[1])

    ended, _ = crewed(Steps(fault=ZeroDivisionError), good)

    assert {one.number: type(one.error) for one in ended} == {0: ZeroDivisionError, 1: type(None)}
    assert good.done == 2


def test_a_bug_in_giving_up_is_told():
    class Bad(Steps):
        def give_up(self, error: HaltError) -> None:
            raise KeyError("a bug")

    ended, _ = crewed(Bad(rests=[1]), halt=HaltError("HALT", code="halt"))

    assert isinstance(ended[0].error, KeyError)


def test_no_more_are_at_work_than_there_are_places():
    at_work, most, lock = 0, 0, threading.Lock()

    class Working(Steps):
        def step(self) -> int | None:
            nonlocal at_work, most
            with lock:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.01)
            with lock:
                at_work -= 1
            return super().step()

    crewed(*(Working(rests=[1]) for _ in range(20)), places=3)

    assert most == 3
