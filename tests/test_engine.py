"""Engines: the same deliveries by this process, by threads, by processes, and by the workers of a real Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, enter, unwatched
from support import Forge, Home, message, pairs, verify

from cas import __version__, engine, engines, transports, worker
from cas.commands import OfPlan, made_ready
from cas.engines import Asked, Chosen
from cas.errors import ExitCode, HaltError
from cas.events import DeliveryFinished, Event, FilePublished, Outcome, RunFinished
from cas.executor import execute
from cas.ledger import Ledger
from cas.loopback import Key
from cas.names import canonical_name
from cas.preparation import Choice
from cas.run import Limits, world
from cas.signer import Signer
from cas.surroundings import Surroundings, read_surroundings
from cas.transports.transport import STAGED
from cas.work import Perform, Post, Report, Watch, Work

EXECUTORS = ("threads", "processes", "dask")
LARGE = 3 << 20


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Executor, Home]]:
    """Two processes that begin with nothing of this one, and their home."""
    away = Home(path=tmp_path_factory.mktemp("away"))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, initializer=enter, initargs=(away.path,)) as pool:
        yield pool, away


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine to test: `opened` for one run; `home`: that of its workers; `alone`: they alone look for HALT."""

    opened: Callable[[Surroundings], Any]
    home: Home
    alone: bool = False

    def apply(
        self,
        manifest: Path,
        *,
        state: Path | None = None,
        meanwhile: Callable[[], object] = lambda: None,
        deadline: int | None = None,
    ) -> list[Event]:
        """What `cas apply` does, from plan to events; `meanwhile` is called when it has begun."""
        around = read_surroundings(None, state)
        ready = made_ready([manifest], Choice(), around, OfPlan())
        # Where workers are at home here too, their HALT is for them alone to find.
        given = replace(around, halts=()) if self.alone else around
        sign = Signer(environment=around.environment, interactive=False).signature
        meanwhile()
        with (
            self.opened(given) as chosen,
            world(ready.policy, ready.root, Limits(deadline=deadline), given, chosen) as doors,
        ):
            return list(execute(ready.plan, ready.digest, doors, content=ready.contents, sign=sign))


def elsewhere(
    executor: Executor, around: Surroundings, perform: Perform = worker.perform, watch: Watch = unwatched
) -> Chosen:
    """An engine as `engines.chosen` makes it, with another executor."""
    halts: list[HaltError] = []

    def stop() -> HaltError | None:
        return around.stop() or next(iter(halts), None)

    return Chosen(
        attempt=engine.Elsewhere(
            executor=executor,
            perform=perform,
            watch=watch,
            as_here=partial(transports.as_here, home=around.home, user=around.user),
            halted=halts.append,
        ),
        places=8,
        stop=stop,
    )


@pytest.fixture
def by(request: pytest.FixtureRequest, peer: Forge, gnupg: Key, home: Home) -> Iterator[Engine]:
    """The engine that a test is for, and a peer whose key all workers know."""
    home.peers(peer.toml(host_key=peer.server.host_key))
    with ExitStack() as stack:
        match request.param:
            case "here":
                yield Engine(opened=lambda around: _open(engines.local(around)), home=home)
            case "threads":
                pool: Executor = stack.enter_context(ThreadPoolExecutor(4))
                yield Engine(opened=lambda around: _open(elsewhere(pool, around)), home=home)
            case "processes":
                pool, away = request.getfixturevalue("processes")
                yield Engine(opened=lambda around: _open(elsewhere(pool, around)), home=away)
                shutil.rmtree(away.config, ignore_errors=True)
            case "dask":
                there: Cluster = request.getfixturevalue("dask_cluster")
                asked = Asked(name=there.engine, insecure=True)
                yield Engine(opened=lambda around: engines.chosen(asked, around, lambda _: None), home=there.home)
                shutil.rmtree(there.home.config, ignore_errors=True)


@contextmanager
def _open(chosen: Chosen) -> Iterator[Chosen]:
    yield chosen


everywhere = pytest.mark.parametrize("by", ["here", *EXECUTORS], indirect=True)
on_executors = pytest.mark.parametrize("by", EXECUTORS, indirect=True)


def manifest(
    sends: Mapping[str, Sequence[str]],
    *,
    name: str = "m.yaml",
    count: int = 1,
    retries: int = 0,
    body: str = "* Hello\n",
    sign: bool = True,
) -> Path:
    """A manifest in the project: `sends` are conversations with their destinations, each of `count` messages."""
    lines = [
        "cas: 1",
        f"defaults: {{sign: {str(sign).lower()}, retry: {{retries: {retries}, backoff: [0]}}}}",
        "sends:",
    ]
    for conversation, destinations in sends.items():
        for number in range(1, count + 1):
            path = f"{conversation}-{number}.org"
            message(path, conversation_id=conversation, sequence=number, body=f"{body}{number}\n")
            lines.append(
                f"  - {{id: {conversation}-{number}, message: {path}, destination: [{', '.join(destinations)}]}}"
            )
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(name)


def finished(events: Sequence[Event]) -> dict[str, DeliveryFinished]:
    return {event.id: event for event in events if isinstance(event, DeliveryFinished)}


def outcomes(events: Sequence[Event]) -> list[Outcome]:
    return [event.outcome for event in finished(events).values()]


def ended(events: Sequence[Event]) -> RunFinished:
    assert isinstance(events[-1], RunFinished)
    return events[-1]


def messages(inbox: Path) -> list[bytes]:
    """Those that lie there, in the order of their names."""
    return [(inbox / name).read_bytes() for name in pairs(inbox) if name.endswith(".org")]


def other_ways(peer: Forge, home: Home, names: Sequence[str]) -> None:
    """More names for the one machine, each with a key file of its own: so many hosts, as far as cas can know."""
    text = peer.toml(host_key=peer.server.host_key)
    for name in names:
        key = peer.identity_file.with_name(f"key-{name}")
        shutil.copyfile(peer.identity_file, key)
        key.chmod(0o600)
        table = peer.toml(host_key=peer.server.host_key, identity_file=str(key))
        text += table.replace("[peers.forge]", f"[peers.{name}]")
    home.peers(text)


@everywhere
def test_signed_pairs_arrive_byte_for_byte(by: Engine, peer: Forge, gnupg: Key):
    events = by.apply(manifest({"a": ["forge.docs"]}, count=3))

    inbox = peer.inbox("docs")
    assert outcomes(events) == [Outcome.DELIVERED] * 3
    assert messages(inbox) == [Path(f"a-{number}.org").read_bytes() for number in (1, 2, 3)]
    assert {verify(inbox / name) for name in pairs(inbox) if name.endswith(".org")} == {gnupg.fingerprint}
    assert len(pairs(inbox)) == 6
    assert ended(events).exit_code is ExitCode.OK


@everywhere
def test_signatures_are_said_to_be_there_before_their_messages(by: Engine, peer: Forge):
    events = by.apply(manifest({"a": ["forge.docs"]}, count=2))

    shown = [event.file for event in events if isinstance(event, FilePublished)]
    assert [name[-4:] for name in shown] == [".asc", ".org"] * 2
    assert sorted(shown) == sorted(pairs(peer.inbox("docs")))


@everywhere
def test_without_a_signature_the_message_goes_alone(by: Engine, peer: Forge):
    by.apply(manifest({"a": ["forge.docs"]}, sign=False))

    assert len(pairs(peer.inbox("docs"))) == 1


@everywhere
def test_many_hosts_each_get_theirs(by: Engine, peer: Forge, home: Home):
    names = [f"host{number}" for number in range(6)]
    other_ways(peer, home, names)

    events = by.apply(manifest({"a": [f"{name}.{name}" for name in names]}, count=2))

    assert outcomes(events) == [Outcome.DELIVERED] * 12
    assert [len(pairs(peer.inbox(name))) for name in names] == [4] * 6


@everywhere
def test_lanes_arrive_in_order_side_by_side(by: Engine, peer: Forge):
    by.apply(manifest({"a": ["forge.docs"], "b": ["forge.docs"]}, count=6))

    names = [name for name in pairs(peer.inbox("docs")) if name.endswith(".org")]
    for lane in ("a", "b"):
        there = [(peer.inbox("docs") / name).read_bytes() for name in names if name.endswith(f"-{lane}.org")]
        assert there == [Path(f"{lane}-{number}.org").read_bytes() for number in range(1, 7)]


@everywhere
def test_again_all_is_unchanged(by: Engine, peer: Forge):
    sent = manifest({"a": ["forge.docs"]}, count=2)
    by.apply(sent)
    before = pairs(peer.inbox("docs"))

    events = by.apply(sent)

    assert outcomes(events) == [Outcome.UNCHANGED] * 2
    assert pairs(peer.inbox("docs")) == before


@everywhere
def test_with_no_memory_of_it_what_is_there_is_found(by: Engine, peer: Forge, tmp_path: Path):
    sent = manifest({"a": ["forge.docs"]}, count=2)
    by.apply(sent)
    before = pairs(peer.inbox("docs"))

    events = by.apply(sent, state=tmp_path / "another")

    assert {(event.outcome, event.evidence) for event in finished(events).values()} == {(Outcome.UNCHANGED, "inbox")}
    assert pairs(peer.inbox("docs")) == before


@everywhere
def test_a_host_that_refuses_is_tried_again_and_fails_alone(by: Engine, peer: Forge, home: Home):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        away = peer.toml(host_key=peer.server.host_key, port=closed.getsockname()[1])
        home.peers(peer.toml(host_key=peer.server.host_key) + away.replace("[peers.forge]", "[peers.away]"))

        events = by.apply(manifest({"a": ["away.docs", "forge.docs"]}, retries=2))

    found = finished(events)
    assert found["a-1@forge.docs"].outcome is Outcome.DELIVERED
    refused = found["a-1@away.docs"]
    assert (refused.outcome, refused.exit_code) == (Outcome.FAILED, ExitCode.DELIVERY)
    assert [attempt.permanent for attempt in refused.attempts] == [False] * 3
    assert "refused" in (refused.reason or "")
    assert ended(events).exit_code is ExitCode.DELIVERY


@everywhere
def test_what_no_retry_can_mend_gets_one_attempt(by: Engine, peer: Forge, home: Home):
    other = "SHA256:" + "A" * 43
    home.peers(peer.toml(host_key=other))

    (event,) = finished(by.apply(manifest({"a": ["forge.docs"]}, retries=3))).values()

    assert event.outcome is Outcome.FAILED
    assert [attempt.permanent for attempt in event.attempts] == [True]
    assert not peer.inbox("docs").exists()


@everywhere
def test_another_message_in_the_same_place_is_refused(by: Engine, peer: Forge):
    by.apply(manifest({"a": ["forge.docs"]}))

    events = by.apply(manifest({"a": ["forge.docs"]}, body="* Other\n"))

    assert outcomes(events) == [Outcome.FAILED]
    assert len(pairs(peer.inbox("docs"))) == 2


@everywhere
def test_a_name_that_somebody_has_taken_moves_the_lane_along(by: Engine, peer: Forge):
    sent = manifest({"a": ["forge.docs"]}, count=2)
    now = datetime.now(UTC)
    inbox = peer.inbox("docs")
    inbox.mkdir(parents=True)
    for seconds in range(30):  # whenever the run reads its clock
        (inbox / canonical_name(now + timedelta(seconds=seconds), "builder", "a")).write_text("taken", encoding="utf-8")

    events = by.apply(sent)

    assert outcomes(events) == [Outcome.DELIVERED] * 2
    assert messages(inbox)[-2:] == [Path("a-1.org").read_bytes(), Path("a-2.org").read_bytes()]
    told = [event.files[-1] for event in finished(events).values()]
    assert told == [name for name in pairs(inbox) if f"{name}.asc" in pairs(inbox)]


@everywhere
def test_a_claim_of_another_sender_is_gone_on_with(by: Engine, peer: Forge, tmp_path: Path):
    """One who was cut off between claim and publication: with name, bytes and signature of that claim."""
    sent = manifest({"a": ["forge.docs"]})
    Engine(opened=lambda around: _open(engines.local(around)), home=by.home).apply(sent, state=tmp_path / "other")
    inbox = peer.inbox("docs")
    (name,) = [name for name in pairs(inbox) if name.endswith(".org")]
    (claim,) = [record.parent for record in inbox.glob(".tmp.cas/*/record")]
    (inbox / name).rename(claim / "message")
    shutil.copyfile(inbox / f"{name}.asc", claim / "signature")
    (inbox / f"{name}.asc").unlink()

    events = by.apply(sent)

    (event,) = finished(events).values()
    assert (event.outcome, event.files) == (Outcome.DELIVERED, (f"{name}.asc", name))
    assert pairs(inbox) == (name, f"{name}.asc")


@everywhere
def test_halt_that_is_set_lets_nothing_go(by: Engine, peer: Forge, home: Home):
    events = by.apply(manifest({"a": ["forge.docs"]}), meanwhile=lambda: home.halt("maintenance"))

    assert outcomes(events) == [Outcome.HALTED]
    assert (ended(events).exit_code, "maintenance" in (ended(events).halted or "")) == (ExitCode.HALT, True)
    assert not peer.inbox("docs").exists()


@on_executors
def test_halt_where_a_worker_is_stops_the_whole_run(by: Engine, peer: Forge, home: Home):
    other_ways(peer, home, ["two", "three"])
    sent = manifest({"a": ["forge.docs", "two.docs", "three.docs"]}, count=2, retries=3)
    by = replace(by, alone=by.home == home)

    events = by.apply(sent, meanwhile=lambda: by.home.halt("this worker rests"))

    assert set(outcomes(events)) == {Outcome.HALTED}
    halted = ended(events).halted or ""
    assert (ended(events).exit_code, "this worker rests (on the worker " in halted) == (ExitCode.HALT, True)
    assert pairs(peer.inbox("docs")) == ()


@everywhere
def test_more_bytes_than_are_held_at_once_go_in_parts_and_in_order(by: Engine, peer: Forge, home: Home):
    home.peers(peer.toml(host_key=peer.server.host_key) + f"[policy]\nmax_bytes = {LARGE * 2}\n")
    sent = manifest({"a": ["forge.docs"]}, count=4, body="text " * (LARGE // 5))

    events = by.apply(sent)

    assert 4 * LARGE > engine.MOST_BYTES
    assert outcomes(events) == [Outcome.DELIVERED] * 4
    assert messages(peer.inbox("docs")) == [Path(f"a-{number}.org").read_bytes() for number in range(1, 5)]


@on_executors
def test_what_is_for_this_machine_is_delivered_by_this_process(by: Engine, peer: Forge, home: Home):
    events = by.apply(manifest({"a": ["local.docs", "forge.docs"]}))

    assert len(pairs(home.inbox("docs"))) == len(pairs(peer.inbox("docs"))) == 2
    found = finished(events)
    assert found["a-1@local.docs"].worker is None
    assert found["a-1@forge.docs"].worker


@on_executors
def test_who_logs_in_by_default_is_who_does_so_here(
    by: Engine, peer: Forge, home: Home, monkeypatch: pytest.MonkeyPatch
):
    home.peers(peer.toml(host_key=peer.server.host_key, ssh_user=None))
    monkeypatch.setenv("USER", peer.user)
    if by.home != home:
        assert peer.user != "somebody-else"

    events = by.apply(manifest({"a": ["forge.docs"]}))

    assert outcomes(events) == [Outcome.DELIVERED]


@everywhere
def test_two_runs_at_once_deliver_once(by: Engine, peer: Forge, tmp_path: Path):
    """With a state folder each, so that no lock on this machine keeps them apart: one may take away what the other has
    staged, which a retry mends."""
    sent = manifest({"a": ["forge.docs"], "b": ["forge.docs"], "c": ["forge.docs"]}, count=4, retries=5)
    both = threading.Barrier(2)

    def run(name: str) -> list[Event]:
        both.wait()
        return by.apply(sent, state=tmp_path / name)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, ("one", "two"))

    for events in (first, second):
        assert {(event.outcome, event.reason) for event in finished(events).values()} <= {
            (Outcome.DELIVERED, None),
            (Outcome.UNCHANGED, None),
        }
    inbox = peer.inbox("docs")
    assert sorted(messages(inbox)) == sorted(path.read_bytes() for path in Path().glob("?-?.org"))
    assert len(pairs(inbox)) == 24
    workshop = os.listdir(inbox / ".tmp.cas")
    assert [name for name in workshop if name.startswith(STAGED)] == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """A worker that does what it is given, and then reports something else."""

    change: Callable[[Report, Work], Any]

    def __call__(self, work: Work, watch: Watch) -> Any:
        return self.change(worker.perform(work, watch), work)


def first_standing(report: Report, **changes: object) -> Report:
    return replace(report, standings=({**report.standings[0], **changes}, *report.standings[1:]))


NONSENSE: dict[str, Callable[[Report, Work], Any]] = {
    "of nothing": lambda report, _: replace(report, shown=(), standings=()),
    "of one too few": lambda report, _: replace(report, standings=report.standings[:-1]),
    "of one twice": lambda report, _: replace(report, standings=(report.standings[0],) * 2),
    "of a stranger": lambda report, _: first_standing(report, identity="0" * 32),
    "of a stranger shown": lambda report, _: replace(report, shown=(("0" * 32, "x.org"), *report.shown)),
    "shown twice": lambda report, _: replace(report, shown=report.shown * 2),
    "shown under a name that is none": lambda report, _: replace(report, shown=((report.shown[0][0], "../x"),)),
    "shown, and not done": lambda report, _: first_standing(report, done=False, ours=False),
    "neither done nor an error": lambda report, _: first_standing(replace(report, shown=()), done=False),
    "a name that leads elsewhere": lambda report, _: first_standing(report, name="../../x"),
    "a claim that is none": lambda report, _: first_standing(report, claim={"state": "mine"}),
    "yes, in words": lambda report, _: first_standing(report, done="yes"),
    "durable, in words": lambda report, _: replace(report, durable="yes"),
    "standings that are none": lambda report, _: replace(report, standings=(None, None)),
    "no standings": lambda report, _: replace(report, standings=None),
    "an error that is none": lambda report, _: replace(report, error={"kind": "bug"}),
    "an error in words": lambda report, _: replace(report, error="it broke"),
    "nothing": lambda _, __: None,
    "another record": lambda _, work: work,
}


@pytest.mark.parametrize("by", ["threads"], indirect=True)
@pytest.mark.parametrize("said", NONSENSE)
def test_what_makes_no_sense_is_refused_and_never_said_to_be_delivered(by: Engine, peer: Forge, home: Home, said: str):
    sent = manifest({"a": ["forge.docs"]}, count=2, retries=3)
    with ThreadPoolExecutor(1) as pool:
        liar = Engine(opened=lambda around: _open(elsewhere(pool, around, Says(change=NONSENSE[said]))), home=home)

        events = liar.apply(sent)

    assert outcomes(events) == [Outcome.UNKNOWN] * 2
    assert [len(event.attempts) for event in finished(events).values()] == [1, 0]
    assert [event for event in events if isinstance(event, FilePublished)] == []
    assert ended(events).exit_code is ExitCode.DELIVERY
    assert outcomes(by.apply(sent)) == [Outcome.UNCHANGED] * 2
    assert len(pairs(peer.inbox("docs"))) == 4


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_a_worker_whose_answer_is_lost_is_asked_again_and_nothing_is_doubled(by: Engine, peer: Forge, home: Home):
    lost = iter([True])

    def lose_one(report: Report, work: Work) -> Report:
        if next(lost, False):
            raise ConnectionResetError("gone")
        return report

    with ThreadPoolExecutor(1) as pool:
        flaky = Engine(opened=lambda around: _open(elsewhere(pool, around, Says(change=lose_one))), home=home)

        events = flaky.apply(manifest({"a": ["forge.docs"]}, count=2, retries=1))

    assert outcomes(events) == [Outcome.DELIVERED] * 2
    assert len(pairs(peer.inbox("docs"))) == 4


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_a_worker_whose_answer_is_lost_for_good_leaves_it_unknown(by: Engine, peer: Forge, home: Home):
    def lose(report: Report, work: Work) -> Report:
        raise ConnectionResetError("gone")

    sent = manifest({"a": ["forge.docs"]}, count=2)
    with ThreadPoolExecutor(1) as pool:
        flaky = Engine(opened=lambda around: _open(elsewhere(pool, around, Says(change=lose))), home=home)

        events = flaky.apply(sent)

    assert outcomes(events) == [Outcome.UNKNOWN] * 2
    assert ended(events).exit_code is ExitCode.DELIVERY
    assert {event.evidence for event in finished(by.apply(sent)).values()} == {"inbox"}
    assert len(pairs(peer.inbox("docs"))) == 4


def second() -> Post:
    """Where a worker stands that does what another one had begun before it died."""
    return replace(unwatched(), again=True)


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_what_a_worker_that_died_has_published_is_delivered_by_this_run(
    by: Engine, peer: Forge, home: Home, tmp_path: Path
):
    sent = manifest({"a": ["forge.docs"]}, count=2)
    by.apply(sent, state=tmp_path / "the-first-worker")
    with ThreadPoolExecutor(1) as pool:
        again = Engine(opened=lambda around: _open(elsewhere(pool, around, watch=second)), home=home)

        events = again.apply(sent)

    assert outcomes(events) == [Outcome.DELIVERED] * 2
    assert len(pairs(peer.inbox("docs"))) == 4


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_how_far_a_worker_that_died_came_is_unknown_where_the_second_cannot_look(by: Engine, peer: Forge, home: Home):
    sent = manifest({"a": ["forge.docs"]}, count=2)
    home.peers(peer.toml(host_key="SHA256:" + "A" * 43))
    with ThreadPoolExecutor(1) as pool:
        again = Engine(opened=lambda around: _open(elsewhere(pool, around, watch=second)), home=home)

        events = again.apply(sent)

    assert outcomes(events) == [Outcome.UNKNOWN] * 2
    assert ended(events).exit_code is ExitCode.DELIVERY


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_a_worker_that_stops_because_it_is_alone_is_followed_by_another(by: Engine, peer: Forge, home: Home):
    alone = iter([HaltError("nothing is heard from where the run was started", code="worker-alone")])
    with ThreadPoolExecutor(1) as pool:
        left = Engine(
            opened=lambda around: _open(
                elsewhere(pool, around, watch=lambda: Post(worker="w", stop=lambda: next(alone, None)))
            ),
            home=home,
        )

        events = left.apply(manifest({"a": ["forge.docs"]}, retries=1))

    (event,) = finished(events).values()
    assert (event.outcome, [attempt.permanent for attempt in event.attempts]) == (Outcome.DELIVERED, [False])
    assert "the worker w stopped: nothing is heard" in event.attempts[0].error


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_a_run_with_a_deadline_waits_no_longer_for_a_worker(by: Engine, peer: Forge, home: Home):
    over = threading.Event()

    def wait(report: Report, work: Work) -> Report:
        over.wait(60)
        return report

    sent = manifest({"a": ["forge.docs"]}, retries=3)
    with ThreadPoolExecutor(1) as pool:
        slow = Engine(opened=lambda around: _open(elsewhere(pool, around, Says(change=wait))), home=home)

        events = slow.apply(sent, deadline=3)
        over.set()

    assert outcomes(events) == [Outcome.UNKNOWN]
    assert ended(events).exit_code is ExitCode.DELIVERY
    assert outcomes(by.apply(sent)) == [Outcome.UNCHANGED]


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_what_came_of_one_host_is_in_the_ledger_while_another_is_at_work(by: Engine, peer: Forge, home: Home):
    other_ways(peer, home, ["fast", "slow"])
    fast: list[str] = []
    recorded: list[bool] = []

    def wait(report: Report, work: Work) -> Report:
        identity = report.standings[0]["identity"]
        if work.destination.address == "fast.docs":
            fast.append(identity)
            return report
        deadline = time.monotonic() + 30
        with closing(Ledger(home.state)) as ledger:
            while not any(entry.done for entry in ledger.find(fast).values()) and time.monotonic() < deadline:
                time.sleep(0.02)
            recorded.append(ledger.find(fast)[fast[0]].done and not ledger.find([identity])[identity].done)
        return report

    with ThreadPoolExecutor(2) as pool:
        both = Engine(opened=lambda around: _open(elsewhere(pool, around, Says(change=wait))), home=home)

        events = both.apply(manifest({"a": ["fast.docs", "slow.site"]}))

    assert recorded == [True]
    assert set(outcomes(events)) == {Outcome.DELIVERED}


def of_another_version(work: Work, watch: Watch) -> Report:
    """What a worker does whose cas is another than that of who asks."""
    return worker.perform(replace(work, version="0.0.1"), watch)


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_a_worker_with_another_cas_delivers_nothing(by: Engine, peer: Forge, home: Home):
    with ThreadPoolExecutor(1) as pool:
        older = Engine(opened=lambda around: _open(elsewhere(pool, around, of_another_version)), home=home)

        events = older.apply(manifest({"a": ["forge.docs"]}, retries=3))

    (event,) = finished(events).values()
    assert (event.outcome, len(event.attempts)) == (Outcome.FAILED, 1)
    assert f"has cas {__version__}, and 0.0.1 asks" in (event.reason or "")
    assert not peer.inbox("docs").exists()


class Recording(Executor):
    """Notes what goes to workers, as it goes there."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._pool = ThreadPoolExecutor(2)

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        self.sent.append(pickle.dumps((function, arguments, options)))
        return self._pool.submit(function, *arguments, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_no_secret_goes_to_a_worker(by: Engine, peer: Forge, home: Home, gnupg: Key, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("API_TOKEN", "correct-horse-battery")
    with Recording() as recording:
        noted = Engine(opened=lambda around: _open(elsewhere(recording, around)), home=home)

        assert outcomes(noted.apply(manifest({"a": ["forge.docs"]}, count=2))) == [Outcome.DELIVERED] * 2

    (sent,) = recording.sent
    assert Path("a-1.org").stat().st_size < len(sent)
    values = {name: value for name, value in os.environ.items() if len(value) > 7}
    assert {"API_TOKEN", "GNUPGHOME", "HOME"} <= set(values)
    assert [name for name, value in values.items() if value.encode() in sent] == []
    assert b"GNUPGHOME" not in sent
    assert b"PRIVATE KEY" not in sent
    assert not any(line in sent for line in peer.identity_file.read_bytes().splitlines())
    assert str(home.path).encode() not in sent
    assert str(Path.cwd()).encode() not in sent


@pytest.mark.parametrize("by", ["threads"], indirect=True)
def test_an_executor_that_takes_nothing_ends_the_run_in_words(by: Engine, peer: Forge, home: Home):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    closed = Engine(opened=lambda around: _open(elsewhere(pool, around)), home=home)

    (event,) = finished(closed.apply(manifest({"a": ["forge.docs"]}))).values()

    assert event.exit_code is ExitCode.DELIVERY
    assert "a worker did not answer" in (event.reason or "")
