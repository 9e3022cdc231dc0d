"""Progress: what a terminal shows of a run, at every width and height."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from cas.errors import ExitCode
from cas.events import (
    Attempt,
    AttemptFailed,
    DeliveryFinished,
    DeliveryStarted,
    FilePublished,
    Outcome,
    RunFinished,
    RunStarted,
)
from cas.inventory import Destination
from cas.manifest import Retry
from cas.output.progress import Board
from cas.output.tenths import Tenths
from cas.plan import Delivery, PlannedMessage

NOW = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)


class Clock:
    """A clock that stands where it was put."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def delivery(address: str, number: int = 1) -> Delivery:
    identity = hashlib.sha256(f"{address} {number}".encode()).hexdigest()[:32]
    return Delivery(
        id=f"send-{number}@{address}",
        identity=identity,
        sender="builder",
        lane=f"{address}/c",
        message=PlannedMessage(
            source="m.org", digest="sha256:0", bytes=1, conversation="c", type="request", sequence=number
        ),
        destination=Destination(
            address=address,
            host=None,
            port=None,
            user=None,
            inbox="~/inbox",
            transport="local",
            identity_file=None,
            host_key=None,
        ),
        files=("m.org",),
        sign=None,
        retry=Retry(),
    )


def deliveries(address: str, count: int) -> list[Delivery]:
    return [delivery(address, number) for number in range(count)]


def begin(board: Board | Tenths, items: Iterable[Delivery]) -> None:
    for item in items:
        board.take(DeliveryStarted(time=NOW, id=item.id, identity=item.identity, destination=item.destination.address))


def publish(board: Board | Tenths, items: Iterable[Delivery], file: str = "m.org") -> None:
    for item in items:
        board.take(FilePublished(time=NOW, id=item.id, identity=item.identity, file=file))


def finish(
    board: Board | Tenths,
    items: Iterable[Delivery],
    outcome: Outcome = Outcome.DELIVERED,
    *,
    worker: str | None = None,
) -> None:
    for item in items:
        board.take(
            DeliveryFinished(
                time=NOW,
                id=item.id,
                identity=item.identity,
                destination=item.destination.address,
                outcome=outcome,
                source="m.org",
                where="~/inbox",
                files=item.files,
                worker=worker,
            )
        )


def fail(board: Board, item: Delivery, wait: int | None) -> None:
    attempt = Attempt(attempt=1, time=NOW, error="refused", permanent=wait is None, wait=wait)
    board.take(AttemptFailed(time=NOW, id=item.id, destination=item.destination.address, attempt=attempt, retries=3))


def test_a_run_to_one_host_is_one_line(clock: Clock):
    board = Board(deliveries("laptop.docs", 4), clock)

    assert board.lines(80, 24) == ["laptop  [............]  0/4  for 0 s"]


def test_a_host_shows_its_count_its_rate_and_the_time_that_is_left(clock: Clock):
    items = deliveries("laptop.docs", 1000)
    board = Board(items, clock)
    board.lines(80, 24)
    publish(board, items[:250])
    clock.time += 2

    assert board.lines(80, 24) == ["laptop  [###.........]  250/1000  125/s  6 s left"]


def test_the_rate_is_that_of_late(clock: Clock):
    items = deliveries("laptop.docs", 1000)
    board = Board(items, clock)
    board.lines(80, 24)
    publish(board, items[:400])
    for _ in range(40):
        clock.time += 0.25
        board.lines(80, 24)

    (line,) = board.lines(80, 24)

    assert "/s" not in line
    assert line.endswith("for 10 s")


def test_a_delivery_counts_once_however_it_ends(clock: Clock):
    items = deliveries("laptop.docs", 4)
    board = Board(items, clock)

    board.take(RunStarted(time=NOW, plan=None, deliveries=4))
    begin(board, items)
    publish(board, items[:1], "m.org.asc")
    publish(board, items[:1])
    finish(board, items[:1])
    finish(board, items[1:3], Outcome.UNCHANGED)

    assert "3/4" in board.lines(80, 24)[0]


def test_several_hosts_have_a_line_each_and_one_for_all(clock: Clock):
    laptop, forge = deliveries("laptop.docs", 2), deliveries("forge.site", 1)
    board = Board([*laptop, *forge], clock)
    finish(board, forge)

    assert board.lines(80, 24) == [
        "laptop  [............]  0/2",
        "forge   [############]  1/1",
        "all     [####........]  1/3  for 0 s",
    ]


def test_a_wait_for_a_host_is_counted_down_and_over_when_something_arrives(clock: Clock):
    items = deliveries("laptop.docs", 2)
    board = Board(items, clock)

    fail(board, items[0], 8)
    states = []
    for _ in range(3):
        states.append(board.lines(80, 24)[0].partition("for ")[2])
        clock.time += 4

    assert states == ["0 s  retry in 8 s", "4 s  retry in 4 s", "8 s"]

    fail(board, items[0], 8)
    finish(board, items[:1])

    assert "retry" not in board.lines(80, 24)[0]


def test_an_attempt_that_is_the_last_waits_for_nothing(clock: Clock):
    items = deliveries("laptop.docs", 2)
    board = Board(items, clock)

    fail(board, items[0], None)

    assert "retry" not in board.lines(80, 24)[0]


def test_what_failed_is_counted_and_halt_is_said(clock: Clock):
    laptop, forge = deliveries("laptop.docs", 3), deliveries("forge.site", 2)
    board = Board([*laptop, *forge], clock)
    finish(board, laptop[:1], Outcome.FAILED)
    finish(board, laptop[1:2], Outcome.BLOCKED)
    finish(board, forge[:1], Outcome.HALTED)

    lines = board.lines(80, 24)

    assert [line.split()[-1] for line in lines] == ["failed", "HALT", "HALT"]
    assert lines[0].endswith("2 failed")


def test_each_worker_has_a_line_with_what_it_has_delivered(clock: Clock):
    items = [delivery(f"h{number}.docs") for number in range(2)]
    board = Board(items, clock)
    board.lines(80, 24)
    publish(board, items)
    finish(board, items[:1], worker="tcp://127.0.0.1:40001")
    finish(board, items[1:], worker="tls://[::1]:40002")
    clock.time += 1

    assert board.lines(80, 24) == [
        "h0                  [############]  1/1  1.0/s",
        "h1                  [############]  1/1  1.0/s",
        "by 127.0.0.1:40001                    1",
        "by [::1]:40002                        1",
        "all                 [############]  2/2  2.0/s  for 1 s",
    ]


def test_of_many_workers_the_busiest_are_shown_below_the_hosts(clock: Clock):
    items = [delivery(f"h{number}.docs") for number in range(40)]
    board = Board(items, clock)
    for number, item in enumerate(items):
        finish(board, [item], worker=f"tcp://w{number % 8 if number < 16 else 7}:1")

    lines = board.lines(80, 12)

    assert len(lines) <= 12
    assert next(line.split()[:2] for line in lines if line.startswith("by")) == ["by", "w7:1"]
    assert lines[-1].startswith("all")
    assert any("more, 36 of them done" in line for line in lines)


@pytest.mark.parametrize("width", [1, 5, 10, 20, 30, 40, 60, 80, 200])
def test_no_line_is_as_wide_as_the_terminal(clock: Clock, width: int):
    items = [one for number in range(300) for one in deliveries(f"a-host-with-a-rather-long-name-{number}.docs", 100)]
    board = Board(items, clock)
    board.lines(width, 24)
    publish(board, items[:10_050])
    fail(board, items[20_000], 86_400)
    clock.time += 3

    assert max(map(len, board.lines(width, 24))) < width


def test_a_narrow_terminal_keeps_what_matters_most(clock: Clock):
    items = deliveries("laptop.docs", 1000)
    board = Board(items, clock)
    board.lines(40, 24)
    publish(board, items[:250])
    fail(board, items[300], 8)
    clock.time += 2

    assert board.lines(80, 24) == ["laptop  [###.........]  250/1000  125/s  6 s left  retry in 6 s"]
    assert board.lines(40, 24) == ["laptop  250/1000  125/s  retry in 6 s"]
    assert board.lines(23, 24) == ["laptop  250/1000"]


@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 100])
def test_hundreds_of_hosts_fit_the_height(clock: Clock, height: int):
    items = [delivery(f"host-{number}.docs") for number in range(300)]
    board = Board(items, clock)

    lines = board.lines(80, height)

    assert len(lines) <= max(3, height)
    assert len(lines) <= 14
    assert lines[-2].endswith("more, 0 of them done")
    assert lines[-1].startswith("all ")
    assert "0/300" in lines[-1]


def test_of_many_hosts_those_are_shown_that_something_is_the_matter_with_then_those_at_work(clock: Clock):
    items = [delivery(f"host-{number}.docs") for number in range(300)]
    board = Board(items, clock)
    begin(board, items[:20])
    finish(board, items[:5])
    begin(board, items[100:105])
    fail(board, items[299], 30)

    lines = board.lines(80, 24)

    shown = [int(line.split()[0].removeprefix("host-")) for line in lines[:-2]]
    assert shown == [*range(5, 16), 299]
    assert lines[-2] == "288 more, 5 of them done"


@pytest.mark.parametrize(
    ("rate", "left"), [(10, "90 s left"), (1, "15 min left"), (0.05, "5 h 0 min left"), (0.04, "6 h 15 min left")]
)
def test_the_time_that_is_left_is_told_in_words(clock: Clock, rate: float, left: str):
    items = deliveries("laptop.docs", 1000)
    board = Board(items, clock)
    board.lines(80, 24)
    publish(board, items[:100])
    clock.time += 100 / rate

    assert left in board.lines(80, 24)[0]


def test_of_a_long_run_lines_tell_each_tenth_once():
    said: list[str] = []
    tenths = Tenths(2000, said.append)
    items = deliveries("laptop.docs", 2000)

    tenths.take(RunStarted(time=NOW, plan=None, deliveries=2000))
    begin(tenths, items)
    publish(tenths, items[:450], "m.org.asc")
    publish(tenths, items[:450])
    finish(tenths, items)
    tenths.take(RunFinished(time=NOW, exit_code=ExitCode.OK, halted=None))

    assert [line.removeprefix("2026-11-23T01:31:33Z ") for line in said] == [
        "started: 2000 to deliver",
        *(f"{count} of 2000 done" for count in range(200, 2001, 200)),
        "finished with exit code 0",
    ]
