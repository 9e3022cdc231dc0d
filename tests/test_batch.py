"""A batch: what is tried again and when, and what becomes of the rest of a lane. On real files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import Home

from cas.batch import Batch, World
from cas.crew import Crew, Ended
from cas.engine import MOST_BYTES, here
from cas.errors import ExitCode, HaltError, TransferError
from cas.events import AttemptFailed, DeliveryFinished, Event, FilePublished, Outcome
from cas.inventory import Destination
from cas.ledger import Ledger
from cas.manifest import Retry
from cas.names import canonical_name, digest, identity
from cas.parcel import Parcel, parcel
from cas.plan import Delivery, PlannedMessage
from cas.transports.local import LocalFiles
from cas.transports.transport import Claim, Envelope, Transport
from cas.verdict import State, Verdict

NOW = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)


class FlakyTransport(Transport):
    """The real one, but publishing fails so often, before or after it was done, and for some conversations for good."""

    def __init__(self, home: Path, *, before: int = 0, after: int = 0, never: str = "") -> None:
        super().__init__(LocalFiles(home))
        self.before, self.after, self.never = before, after, never

    async def publish_message(self, claim: Claim) -> bool:
        if self.never and self.never in claim.name:
            raise TransferError("refused for good", code="refused", permanent=True)
        if self.before:
            self.before -= 1
            raise TransferError("lost on the way there", code="lost", permanent=False)
        done = await super().publish_message(claim)
        if self.after:
            self.after -= 1
            raise TransferError("lost on the way back", code="lost", permanent=False)
        return done


class Bench:
    """One batch on one machine, with recorded naps."""

    def __init__(self, home: Home, transport: Transport | None = None) -> None:
        self.home = home
        self.transport = transport or FlakyTransport(home.path)
        self.refused: list[TransferError] = []
        self.naps: list[float] = []
        self.events: list[Event] = []
        self.halt_after: int | None = None
        self.hold: Callable[[Iterable[str]], AbstractContextManager[None]] = lambda inboxes: nullcontext()

    def run(self, *items: Parcel) -> list[DeliveryFinished]:
        ledger = Ledger(self.home.state)
        world = World(
            connect=self._connect,
            engine=here,
            places=1,
            where=lambda destination: destination.inbox,
            stop=self._stop,
            require_durable=False,
            hold=self.hold,
            verify=lambda content, signature: Verdict(state=State.BAD),
            remaining=lambda: float("inf"),
            now=lambda: NOW,
            pause=self.naps.append,
            ledger=ledger,
            run="run",
            root=self.home.path,
        )
        contents = {item.delivery.message.digest: item.envelope.content() for item in items}
        ended: list[Ended] = []
        with Crew(world.places, stop=world.stop, pause=world.pause, ended=ended.append) as crew:
            crew.take(0, Batch(items, world, contents.__getitem__, self.events.append))
        assert ended == [Ended(number=0, error=None)]
        ledger.close()
        return [event for event in self.events if isinstance(event, DeliveryFinished)]

    @contextmanager
    def _connect(
        self, destination: Destination, timeout: int, deliveries: int, cutoff: object = None
    ) -> Iterator[Transport]:
        if self.refused:
            raise self.refused.pop()
        yield self.transport

    def _stop(self) -> HaltError | None:
        if self.halt_after is not None and len(self.naps) >= self.halt_after:
            return HaltError("HALT is set", code="halt")
        return None


def item(
    sequence: int = 1, *, conversation: str = "greeting", host: str | None = "laptop", retry: Retry | None = None
) -> Parcel:
    content = f"message {sequence}".encode()
    name = canonical_name(NOW.replace(second=33 + sequence), "builder", conversation)
    who = identity("builder", "laptop.docs", conversation, sequence, digest(content))
    delivery = Delivery(
        id=f"{conversation}-{sequence}@laptop.docs",
        identity=who,
        sender="builder",
        lane=f"laptop.docs/{conversation}",
        message=PlannedMessage(
            source="m.org",
            digest=digest(content),
            bytes=len(content),
            conversation=conversation,
            type="request",
            sequence=sequence,
        ),
        destination=Destination(
            address="laptop.docs",
            host=host,
            port=None,
            user=None,
            inbox="~/inbox",
            transport="sftp",
            identity_file=None,
            host_key=None,
        ),
        files=(name,),
        sign=None,
        retry=retry or Retry(),
    )
    envelope = Envelope(
        identity=who,
        inbox="~/inbox",
        name=name,
        sender="builder",
        digest=digest(content),
        time="2026-11-23T01:31:33Z",
        content=lambda: content,
        signature=None,
    )
    return parcel(delivery, envelope)


def refusal(*, permanent: bool = False) -> TransferError:
    return TransferError("connection refused", code="not-connected", permanent=permanent)


def test_what_a_retry_may_mend_is_tried_again_after_5_30_and_120_seconds(home: Home):
    bench = Bench(home)
    bench.refused = [refusal() for _ in range(4)]

    (finished,) = bench.run(item())

    assert sum(bench.naps) == 155
    assert [attempt.wait for attempt in finished.attempts] == [5, 30, 120, None]
    assert (finished.outcome, finished.exit_code) == (Outcome.FAILED, ExitCode.DELIVERY)


def test_the_last_back_off_repeats(home: Home):
    bench = Bench(home)
    bench.refused = [refusal() for _ in range(4)]

    (finished,) = bench.run(item(retry=Retry(retries=3, backoff=(2, 3))))

    assert [attempt.wait for attempt in finished.attempts] == [2, 3, 3, None]


def test_a_later_attempt_that_gets_through_delivers(home: Home):
    bench = Bench(home)
    bench.refused = [refusal(), refusal()]

    (finished,) = bench.run(item())

    assert (finished.outcome, finished.exit_code) == (Outcome.DELIVERED, ExitCode.OK)
    assert len(finished.attempts) == 2


def test_what_no_retry_can_mend_gets_one_attempt(home: Home):
    bench = Bench(home)
    bench.refused = [refusal(permanent=True)]

    (finished,) = bench.run(item())

    assert bench.naps == []
    assert [attempt.permanent for attempt in finished.attempts] == [True]


def test_what_has_failed_holds_nothing_of_its_connection(home: Home):
    bench, parcel = Bench(home), item(retry=Retry(retries=1))
    bench.refused = [refusal(), refusal()]

    (finished,) = bench.run(parcel)

    assert (finished.outcome, parcel.error) == (Outcome.FAILED, None)


def test_without_retries_there_is_one_attempt(home: Home):
    bench = Bench(home)
    bench.refused = [refusal()]

    (finished,) = bench.run(item(retry=Retry(retries=0)))

    assert finished.outcome is Outcome.FAILED
    assert bench.naps == []


def test_on_this_machine_a_failure_is_a_general_error(home: Home):
    bench = Bench(home)
    bench.refused = [refusal(permanent=True)]

    assert bench.run(item(host=None))[0].exit_code is ExitCode.ERROR


def test_halt_during_a_back_off_ends_it_within_two_seconds(home: Home):
    bench = Bench(home)
    bench.refused = [refusal()]
    bench.halt_after = 2

    (finished,) = bench.run(item(retry=Retry(backoff=(120,))))

    assert (finished.outcome, finished.exit_code) == (Outcome.HALTED, ExitCode.HALT)
    assert sum(bench.naps) <= 2


def test_an_answer_that_was_lost_is_found_out_and_not_sent_again(home: Home):
    bench = Bench(home, FlakyTransport(home.path, after=1))

    (finished,) = bench.run(item())

    assert finished.outcome is Outcome.DELIVERED
    assert len(list((home.path / "inbox").glob("*.org"))) == 1


def test_an_answer_that_never_comes_is_unknown(home: Home):
    bench = Bench(home, FlakyTransport(home.path, after=1))

    (finished,) = bench.run(item(retry=Retry(retries=0)))

    assert (finished.outcome, finished.exit_code, finished.open) == (Outcome.UNKNOWN, ExitCode.DELIVERY, True)


def test_the_run_after_an_unknown_one_finds_it_there(home: Home):
    Bench(home, FlakyTransport(home.path, after=1)).run(item(retry=Retry(retries=0)))

    (finished,) = Bench(home).run(item())

    assert (finished.outcome, finished.evidence) == (Outcome.UNCHANGED, "inbox")


def test_a_failure_blocks_the_rest_of_its_lane_and_nothing_else(home: Home):
    bench = Bench(home, FlakyTransport(home.path, never="greeting"))

    finished = bench.run(item(1), item(2), item(1, conversation="other"))

    assert {event.id: event.outcome for event in finished} == {
        "greeting-1@laptop.docs": Outcome.FAILED,
        "greeting-2@laptop.docs": Outcome.BLOCKED,
        "other-1@laptop.docs": Outcome.DELIVERED,
    }


def test_a_blocked_delivery_counts_as_what_blocked_it(home: Home):
    bench = Bench(home, FlakyTransport(home.path, never="greeting"))

    assert [event.exit_code for event in bench.run(item(1), item(2))] == [ExitCode.DELIVERY] * 2


def test_a_lane_goes_on_in_order_when_its_first_is_tried_again(home: Home):
    bench = Bench(home, FlakyTransport(home.path, before=1))

    finished = bench.run(item(1), item(2))

    assert [event.outcome for event in finished] == [Outcome.DELIVERED] * 2
    published = [event.file for event in bench.events if hasattr(event, "file")]
    assert published == sorted(published)


def test_from_a_name_that_is_taken_on_the_rest_of_the_lane_moves_along(home: Home):
    (home.path / "inbox").mkdir()
    first = item(1)
    (home.path / "inbox" / first.envelope.name).write_text("foreign")

    finished = Bench(home).run(first, item(2))

    assert [event.files[-1][:16] for event in finished] == ["20261123T013135Z", "20261123T013136Z"]


def test_what_is_there_is_said_to_be_there_although_one_before_it_fails(home: Home):
    Bench(home).run(item(2))
    bench = Bench(home)
    bench.refused = [refusal(permanent=True)]

    outcomes = {event.id: event.outcome for event in bench.run(item(1), item(2))}

    assert outcomes == {"greeting-1@laptop.docs": Outcome.FAILED, "greeting-2@laptop.docs": Outcome.UNCHANGED}


def test_each_failed_attempt_is_an_event_when_it_happens(home: Home):
    bench = Bench(home)
    bench.refused = [refusal()]

    bench.run(item())

    (failed,) = (event for event in bench.events if isinstance(event, AttemptFailed))
    assert (failed.attempt.attempt, failed.attempt.wait, failed.retries) == (1, 5, 3)


def test_without_a_ledger_nothing_is_said_to_be_delivered(home: Home, monkeypatch: pytest.MonkeyPatch):
    bench = Bench(home)
    flaky = bench.transport

    class Full(FlakyTransport):
        async def publish_message(self, claim: Claim) -> bool:
            done = await super().publish_message(claim)
            (home.state / "ledger.sqlite").write_bytes(b"not a database" * 1000)
            return done

    bench.transport = Full(home.path)
    del flaky

    (finished,) = bench.run(replace(item()))

    assert finished.outcome is Outcome.UNKNOWN
    assert "ledger" in (finished.reason or "")


def test_a_batch_of_more_bytes_than_are_held_at_once_goes_in_parts_and_arrives_whole(home: Home):
    largest = MOST_BYTES // 2 + 1
    bench = Bench(home)
    items = [item(number) for number in (1, 2, 3)]
    for one in items:
        one.delivery = replace(one.delivery, message=replace(one.delivery.message, bytes=largest))

    finished = bench.run(*items)

    assert [one.outcome for one in finished] == [Outcome.DELIVERED] * 3
    published = [event.file for event in bench.events if isinstance(event, FilePublished)]
    assert published == sorted(published)
    assert len(published) == 3


def test_what_is_delivered_is_in_the_ledger_before_the_next_run_has_the_lock(home: Home):
    """The next run would find no bytes where the ledger is about to let go of them."""
    bench, one, states = Bench(home), item(), list[str]()

    @contextmanager
    def held(inboxes: Iterable[str]) -> Iterator[None]:
        yield
        with closing(Ledger(home.state)) as ledger:
            states.extend(entry.state for entry in ledger.find([one.delivery.identity]).values())

    bench.hold = held

    (finished,) = bench.run(one)

    assert (finished.outcome, states) == (Outcome.DELIVERED, ["delivered"])


def test_so_is_what_got_there_before_the_way_there_broke(home: Home):
    bench, states = Bench(home, FlakyTransport(home.path, never="greeting")), list[str]()
    items = [item(conversation="other"), item()]

    @contextmanager
    def held(inboxes: Iterable[str]) -> Iterator[None]:
        yield
        with closing(Ledger(home.state)) as ledger:
            found = ledger.find(one.delivery.identity for one in items)
            states.extend(found[one.delivery.identity].state for one in items)

    bench.hold = held

    bench.run(*items)

    assert states == ["delivered", "failed"]


def test_what_another_run_delivered_while_this_one_waited_for_the_lock_is_unchanged(home: Home):
    bench, one = Bench(home), item()

    def delivered_meanwhile(inboxes: Iterable[str]) -> AbstractContextManager[None]:
        with closing(Ledger(home.state)) as ledger:
            ledger.settle([replace(ended, identity=one.delivery.identity, files=(one.delivery.name,))], "later")
        return nullcontext()

    (ended,) = Bench(home).run(item(conversation="another"))
    bench.hold = delivered_meanwhile

    (finished,) = bench.run(one)

    assert (finished.outcome, finished.evidence) == (Outcome.UNCHANGED, "ledger")
