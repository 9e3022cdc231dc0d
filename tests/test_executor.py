"""The executor: the order of its events, hosts side by side, and faults that stay visible."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shelf import Shelf
from support import Home, Run
from support import message as write_message

from cas import inventory as inventories
from cas.batch import World
from cas.drafts import Source
from cas.errors import ExitCode, HaltError, SigningError, TransferError
from cas.events import DeliveryFinished, DeliveryStarted, Event, FilePublished, Outcome, RunFinished, RunStarted
from cas.executor import execute
from cas.expansion import expand
from cas.inventory import Destination, Policy
from cas.manifest import FileMessage, Manifest, Retry, Send, Sign, Target
from cas.message import Message
from cas.names import digest
from cas.plan import Plan, Signing
from cas.planner import plan
from cas.run import Limits, world
from cas.surroundings import read_surroundings
from cas.transports.cutoff import Cutoff
from cas.transports.local import LocalFiles
from cas.transports.transport import Transport

CLOCK = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)
KEY = "5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"
SIGNATURE = b"-----BEGIN PGP SIGNATURE-----\n"


def content_of(conversation: str, sequence: int) -> bytes:
    return f"{conversation} {sequence}".encode()


def message(conversation: str, sequence: int = 1) -> Message:
    content = content_of(conversation, sequence)
    return Message(
        digest=digest(content),
        size=len(content),
        conversation=conversation,
        type="request",
        sequence=sequence,
        timestamp="x",
        protocol_version="1.0",
    )


def planned(
    sends: Iterable[tuple[str, Message]], *, sign: Sign | None = None, retries: int = 0, backoff: int = 0
) -> tuple[Plan, dict[str, bytes]]:
    """A plan of these destinations and messages, and the messages' bytes."""
    records, messages = [], {}
    for number, (destination, content) in enumerate(sends):
        path = f"{number}.org"
        messages[path] = content
        records.append(
            Send(
                id=f"s{number}",
                destinations=(Target(text=destination, place=None),),
                message=FileMessage(path=path, place=None),
                sign=sign,
                retry=Retry(retries=retries, backoff=(backoff,)),
                place=None,
            )
        )
    source = Source(
        manifest=Manifest(file="m", name="m", sender=None, sends=tuple(records)),
        sender="b",
        library=Shelf(messages=messages),
    )
    peers = inventories.parse(b"[peers.forge]\n[peers.laptop]\n", file="peers.toml")[0]
    drafts, _ = expand([source], peers, clock=CLOCK, hostname="here")
    made = plan([source], drafts, peers, clock=CLOCK, ttl=None, fingerprint=lambda name: name or KEY, version="0")
    return made, {one.digest: content_of(one.conversation, one.sequence) for one in messages.values()}


@pytest.fixture
def doors(home: Home) -> Iterator[World]:
    """The doors of a real run in this home."""
    with world(Policy(), Path.cwd(), Limits(), read_surroundings(None, None)) as opened:
        yield opened


def executed(
    made: tuple[Plan, dict[str, bytes]], doors: World, sign: Callable[[bytes, Signing], bytes] = lambda *_: SIGNATURE
) -> list[Event]:
    return list(execute(made[0], "sha256:00", doors, content=made[1].__getitem__, sign=sign))


def outcomes(events: Iterable[Event]) -> dict[str, Outcome]:
    return {event.id: event.outcome for event in events if isinstance(event, DeliveryFinished)}


def test_the_events_of_a_delivery_come_in_order(doors: World):
    events = executed(planned([("local.docs", message("a"))], sign=Sign()), doors)

    shown = [event for event in events if type(event).__name__ != "Notice"]
    assert [type(event) for event in shown] == [
        RunStarted,
        DeliveryStarted,
        FilePublished,
        FilePublished,
        DeliveryFinished,
        RunFinished,
    ]
    assert [event.file[-4:] for event in events if isinstance(event, FilePublished)] == [".asc", ".org"]


def test_the_run_is_finished_last_whatever_happened(doors: World, home: Home):
    (home.projects / "docs").write_text("a file", encoding="utf-8")

    events = executed(planned([("local.docs", message("a")), ("local.site", message("a"))]), doors)

    assert isinstance(events[-1], RunFinished)
    assert sum(isinstance(event, RunFinished) for event in events) == 1
    assert outcomes(events) == {"s0@local.docs": Outcome.FAILED, "s1@local.site": Outcome.DELIVERED}
    assert events[-1].exit_code is ExitCode.ERROR


def test_an_empty_plan_starts_and_finishes(doors: World):
    events = executed(planned([]), doors)

    assert [type(event) for event in events] == [RunStarted, RunFinished]
    assert events[-1].exit_code is ExitCode.OK


def test_every_delivery_ends_once(doors: World):
    sends = [("local.docs", message("a", number)) for number in range(20)]

    events = executed(planned(sends), doors)

    ended = [event.id for event in events if isinstance(event, DeliveryFinished)]
    assert sorted(ended) == sorted(f"s{number}@local.docs" for number in range(20))


def unreachable_but_here(doors: World) -> World:
    """Only this machine can be reached."""

    def connect(
        destination: Destination, timeout: int, deliveries: int, cutoff: Cutoff | None
    ) -> AbstractContextManager[Transport]:
        if destination.host is None:
            return doors.connect(destination, timeout, deliveries, cutoff)
        raise TransferError(f"connection refused on {destination.host}", code="not-connected", permanent=False)

    return dataclasses.replace(doors, connect=connect)


def test_a_host_that_cannot_be_reached_stops_no_other(doors: World):
    sends = [("forge.docs", message("a")), ("local.docs", message("a")), ("laptop.docs", message("a"))]

    events = executed(planned(sends, retries=1), unreachable_but_here(doors))

    assert outcomes(events) == {
        "s0@forge.docs": Outcome.FAILED,
        "s1@local.docs": Outcome.DELIVERED,
        "s2@laptop.docs": Outcome.FAILED,
    }
    assert events[-1] == RunFinished(time=events[-1].time, exit_code=ExitCode.DELIVERY, halted=None)


def test_hosts_go_side_by_side(doors: World):
    """Each waits for the other to have begun: one after the other, neither would go on."""
    both = threading.Barrier(2, timeout=30)

    def connect(
        destination: Destination, timeout: int, deliveries: int, cutoff: Cutoff | None
    ) -> AbstractContextManager[Transport]:
        both.wait()
        raise TransferError("gone", code="x", permanent=True)

    events = executed(
        planned([("forge.docs", message("a")), ("laptop.docs", message("a"))]),
        dataclasses.replace(doors, connect=connect),
    )

    assert set(outcomes(events).values()) == {Outcome.FAILED}


def test_no_more_hosts_at_once_than_allowed_and_one_that_waits_holds_up_nobody(doors: World):
    """With one place: the first host fails and waits for its next attempt until the second one is done."""
    done = threading.Event()
    at_once: list[str | None] = []

    @contextmanager
    def connect(destination: Destination, timeout: int, deliveries: int, cutoff: Cutoff | None) -> Iterator[Transport]:
        at_once.append(destination.host)
        time.sleep(0.2)
        assert len(at_once) == 1
        try:
            if destination.host == "forge" and not done.is_set():
                raise TransferError("refused", code="not-connected", permanent=False)
            here = dataclasses.replace(destination, transport="local")
            with doors.connect(here, timeout, deliveries, cutoff) as transport:
                yield transport
        finally:
            at_once.remove(destination.host)
            if destination.host == "laptop":
                done.set()

    waiting = dataclasses.replace(
        doors, connect=connect, places=1, where=lambda to: to.inbox, pause=lambda _: done.wait(30)
    )
    made = planned([("forge.docs", message("a")), ("laptop.site", message("b"))], retries=1, backoff=1)

    assert set(outcomes(executed(made, waiting)).values()) == {Outcome.DELIVERED}


def test_everything_for_one_host_goes_over_one_connection(doors: World):
    opened = []

    @contextmanager
    def connect(destination: Destination, timeout: int, deliveries: int, cutoff: Cutoff | None) -> Iterator[Transport]:
        opened.append(destination.host)
        with doors.connect(destination, timeout, deliveries, cutoff) as transport:
            yield transport

    sends = [("local.docs", message("a")), ("local.site", message("a")), ("local.docs", message("b"))]
    executed(planned(sends), dataclasses.replace(doors, connect=connect))

    assert opened == [None]


def test_a_message_to_several_places_is_signed_for_each(doors: World):
    signed = []

    def sign(content: bytes, signing: Signing) -> bytes:
        signed.append((content, signing.key, signing.address))
        return SIGNATURE

    executed(planned([("local.docs", message("a")), ("local.site", message("a"))], sign=Sign()), doors, sign)

    assert sorted(signed) == [(content_of("a", 1), KEY, f"local.{project}") for project in ("docs", "site")]


def test_what_cannot_be_signed_fails_and_the_rest_goes_on(doors: World):
    def sign(content: bytes, signing: Signing) -> bytes:
        if content == content_of("a", 1):
            raise SigningError("gpg did not sign", code="signing-failed")
        return SIGNATURE

    events = executed(planned([("local.docs", message("a")), ("local.docs", message("b"))], sign=Sign()), doors, sign)

    assert outcomes(events) == {"s0@local.docs": Outcome.FAILED, "s1@local.docs": Outcome.DELIVERED}
    assert events[-1].exit_code is ExitCode.ERROR  # type: ignore[union-attr]


def test_halt_before_signing_signs_nothing_and_gives_its_reason(doors: World):
    def sign(content: bytes, key: str) -> bytes:
        raise AssertionError("signed")

    halted = dataclasses.replace(doors, stop=lambda: HaltError("HALT is set: maintenance", code="halt"))

    events = executed(planned([("local.docs", message("a"))], sign=Sign()), halted, sign)

    assert outcomes(events) == {"s0@local.docs": Outcome.HALTED}
    assert isinstance(events[-1], RunFinished)
    assert (events[-1].exit_code, events[-1].halted) == (ExitCode.HALT, "HALT is set: maintenance")


@pytest.mark.parametrize("fault", [ZeroDivisionError, KeyError, AssertionError])
def test_a_bug_in_one_hosts_batch_is_the_outcome_of_its_deliveries_and_the_others_go_on(
    doors: World, home: Home, fault: type[Exception]
):
    def connect(
        destination: Destination, timeout: int, deliveries: int, cutoff: Cutoff | None
    ) -> AbstractContextManager[Transport]:
        if destination.host is None:
            return doors.connect(destination, timeout, deliveries, cutoff)
        raise fault("a bug")

    events = executed(
        planned([("forge.docs", message("a")), ("local.docs", message("a"))]),
        dataclasses.replace(doors, connect=connect),
    )

    assert outcomes(events) == {"s0@forge.docs": Outcome.FAILED, "s1@local.docs": Outcome.DELIVERED}
    (failed,) = (one for one in events if isinstance(one, DeliveryFinished) and one.outcome is Outcome.FAILED)
    assert f"a fault of cas: {fault.__name__}" in str(failed.reason)
    assert 'raise fault("a bug")' in str(failed.traceback)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].exit_code is ExitCode.ERROR
    assert len(list(home.inbox("docs").glob("*.org"))) == 1


def test_the_traceback_of_a_bug_is_in_the_marker_and_shown_when_asked_for(
    cas: Callable[..., Run], home: Home, monkeypatch: pytest.MonkeyPatch
):
    """No part of cas has such a fault, as far as is known: a step of the transport is made to have one."""
    write_message("hello.org")
    monkeypatch.setattr(LocalFiles, "make_folder", lambda *_, **__: 1 / 0)

    run = cas("send", "local.docs", "hello.org", "--no-sign", "--verbose")

    assert run.code == 1
    assert "failed: send@local.docs: a fault of cas: ZeroDivisionError" in run.err
    assert "Traceback" in run.err
    (marker,) = (home.state / "failed-sends").glob("*.json")
    assert "ZeroDivisionError" in json.loads(marker.read_text(encoding="utf-8"))["traceback"]
    assert "Traceback" not in cas("send", "local.docs", "hello.org", "--no-sign").err
