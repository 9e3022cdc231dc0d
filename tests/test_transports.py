"""One contract for all transports: local, SFTP and rsync, on real files and a real sshd."""

from __future__ import annotations

import json
import os
import shlex
import stat
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support import Forge, Home

from cas.errors import CasError, TransferError
from cas.inventory import Destination
from cas.loopback import loopback_peer
from cas.names import digest, identity
from cas.transports import opened
from cas.transports.transport import Claim, ClaimState, Envelope, Transport, workshop

NAME = "20261123T013133Z-from-builder-greeting.org"
KINDS = ("local", "sftp", "python", "rsync")
INBOX = "~/projects/docs/inbox/from-agents"
SHAPES = ("file", "empty file", "folder", "link", "dangling link")


class Inbox:
    """An inbox with the transport that leads to it; `run` raises what a verb raised."""

    def __init__(self, transport: Transport, path: str, folder: Path) -> None:
        self.transport, self.path, self.folder = transport, path, folder

    def run(self, verb: Coroutine[Any, Any, Any]) -> Any:
        (result,) = self.transport.run([verb])
        if isinstance(result, CasError):
            raise result
        return result

    def prepared(self) -> Inbox:
        self.run(self.transport.prepare(self.path))
        return self

    def claimed(self, envelope: Envelope) -> Claim:
        (folder,) = self.transport.stage([envelope])
        if isinstance(folder, CasError):
            raise folder
        claim = self.run(self.transport.claim(envelope, folder))
        assert isinstance(claim, Claim)
        self.sync(workshop(self.path))
        return claim

    def published(self, envelope: Envelope) -> Claim:
        claim = self.claimed(envelope)
        if claim.signed:
            self.run(self.transport.publish_signature(claim))
            self.sync(self.path)
        assert self.run(self.transport.publish_message(claim))
        self.sync(self.path, claim.folder)
        return claim

    def sync(self, *folders: str) -> None:
        """Raises what could not be synced."""
        for error in self.transport.sync(folders).values():
            raise error

    def visible(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder) if not name.startswith("."))

    @property
    def workshop(self) -> Path:
        return self.folder / ".tmp.cas"

    def envelope(self, **changes: Any) -> Envelope:
        message = changes.pop("message", b"a message")
        return replace(
            Envelope(
                identity=identity("builder", "forge.docs", "greeting", 1, digest(message)),
                inbox=self.path,
                name=NAME,
                sender="builder",
                digest=digest(message),
                time="2026-11-23T01:31:33Z",
                content=lambda: message,
                signature=b"a signature",
            ),
            **changes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A destination, and the folder in which what goes there arrives."""

    destination: Destination
    home: Path
    folder: Path

    @contextmanager
    def opened(self, timeout: int = 20) -> Iterator[Inbox]:
        with opened(self.destination, timeout, home=self.home, user="nobody") as transport:
            yield Inbox(transport, self.destination.inbox, self.folder)


def way_to(kind: str, home: Home, peer: Callable[[], Forge], *, path: str = INBOX) -> Way:
    """The way to the inbox of `docs`, here or at a peer, which is asked for only where it is needed."""
    if kind == "local":
        return Way(destination=destination(transport="local", inbox=path), home=home.path, folder=home.inbox("docs"))
    forge = peer()
    return Way(destination=destination(forge, transport=kind, inbox=path), home=home.path, folder=forge.inbox("docs"))


def destination(peer: Forge | None = None, **changes: Any) -> Destination:
    """`forge.docs`, at a peer or on this machine."""
    here = Destination(
        address="forge.docs",
        host=None,
        port=None,
        user=None,
        inbox=INBOX,
        transport="local",
        identity_file=None,
        host_key=None,
    )
    if peer is None:
        return replace(here, **changes)
    login = {"port": peer.port, "user": peer.user, "identity_file": str(peer.identity_file)}
    return replace(here, **{"host": peer.host, "transport": "sftp", **login, **changes})


@pytest.fixture(params=KINDS)
def way(request: pytest.FixtureRequest, home: Home) -> Way:
    return way_to(request.param, home, lambda: request.getfixturevalue("peer"))


@pytest.fixture
def inbox(way: Way) -> Iterator[Inbox]:
    """An inbox that is not there yet, behind each transport."""
    with way.opened() as inbox:
        yield inbox


@pytest.fixture
def two(way: Way) -> Iterator[tuple[Inbox, Inbox]]:
    """One inbox, made already, behind two transports that know nothing of each other."""
    with way.opened() as first, way.opened() as second:
        yield first.prepared(), second


def together(*actions: Callable[[], Any]) -> list[Any]:
    """What each gives, or raised, where all are let go at the same moment, in threads of their own."""
    results: list[Any] = [None] * len(actions)
    gate = threading.Barrier(len(actions))

    def act(number: int) -> None:
        gate.wait(30)
        try:
            results[number] = actions[number]()
        except CasError as error:
            results[number] = error

    threads = [threading.Thread(target=act, args=(number,), daemon=True) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a transport waits without end"
    return results


def foreign(path: Path, shape: str) -> Callable[[], bool]:
    """Puts something that is not ours under a name; says afterwards whether it still stands, as it was."""
    target = path.with_name("elsewhere")
    match shape:
        case "file":
            path.write_text("foreign")
        case "empty file":
            path.touch()
        case "folder":
            path.mkdir()
        case "link":
            target.write_text("foreign")
            path.symlink_to(target.name)
        case "dangling link":
            path.symlink_to("nowhere")
        case "FIFO":
            os.mkfifo(path)
    before = path.lstat()

    def stands() -> bool:
        now = path.lstat()
        same = (now.st_ino, now.st_mode, now.st_size) == (before.st_ino, before.st_mode, before.st_size)
        return same and (shape != "link" or target.read_text() == "foreign")

    return stands


def test_a_missing_inbox_is_made_once(inbox: Inbox):
    assert inbox.run(inbox.transport.prepare(inbox.path)) is True
    assert inbox.run(inbox.transport.prepare(inbox.path)) is False


def test_an_inbox_behind_a_link_is_followed(inbox: Inbox):
    elsewhere = inbox.folder.parent.parent / "elsewhere"
    elsewhere.mkdir(parents=True)
    inbox.folder.parent.mkdir(parents=True)
    inbox.folder.symlink_to(elsewhere)

    inbox.prepared().published(inbox.envelope())

    assert NAME in os.listdir(elsewhere)


def test_an_inbox_behind_a_link_to_nowhere_is_an_error(inbox: Inbox):
    inbox.folder.parent.mkdir(parents=True)
    inbox.folder.symlink_to("nowhere")

    with pytest.raises(TransferError) as refused:
        inbox.prepared()

    assert "from-agents" in str(refused.value)
    assert inbox.folder.is_symlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["absolute", "with spaces, quotes and more"])
def test_an_inbox_may_stand_anywhere(request: pytest.FixtureRequest, home: Home, tmp_path: Path, kind: str, where: str):
    path = tmp_path / "shared" if where == "absolute" else tmp_path / """it's "one" $HOME `id` * ? \\ ünï [x] -e"""
    way = way_to(kind, home, lambda: request.getfixturevalue("peer"), path=str(path))

    with replace(way, folder=path).opened() as inbox:
        inbox.prepared().published(inbox.envelope())

    assert sorted(os.listdir(path)) == [".tmp.cas", NAME, f"{NAME}.asc"]


@pytest.mark.parametrize("what", ["file", "link", "dangling link"])
def test_a_workshop_that_is_no_folder_is_refused(inbox: Inbox, what: str):
    inbox.folder.mkdir(parents=True)
    if what == "link":
        (inbox.folder / "other").mkdir()
        inbox.workshop.symlink_to("other")
        stands = inbox.workshop.is_symlink
    else:
        stands = foreign(inbox.workshop, what)

    with pytest.raises(TransferError, match="not a folder") as refused:
        inbox.prepared()

    assert refused.value.permanent
    assert stands()


def test_a_delivery_leaves_a_pair_and_a_receipt(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())
    inbox.run(inbox.transport.close(claim))

    assert inbox.visible() == [NAME, f"{NAME}.asc"]
    assert (inbox.folder / NAME).read_bytes() == b"a message"
    assert (inbox.folder / f"{NAME}.asc").read_bytes() == b"a signature"
    assert sorted(os.listdir(inbox.workshop / claim.identity)) == ["proof", "record"]


def test_an_unsigned_message_comes_alone(inbox: Inbox):
    inbox.prepared().published(inbox.envelope(signature=None))

    assert inbox.visible() == [NAME]


@pytest.mark.parametrize(
    "message",
    [b"", bytes(range(128)) * 8192, "ümläut 端\r\n".encode(), "\ufeff\0\x1b]0;\x07\u2028\x85 no end".encode()],
    ids=["empty", "a MiB", "utf-8", "control characters"],
)
def test_the_bytes_arrive_as_they_are(inbox: Inbox, message: bytes):
    inbox.prepared().published(inbox.envelope(message=message))

    assert (inbox.folder / NAME).read_bytes() == message


def test_what_is_staged_is_hidden_and_the_users_alone(inbox: Inbox):
    (folder,) = inbox.prepared().transport.stage([inbox.envelope()])

    (staged,) = inbox.workshop.iterdir()
    assert str(folder).endswith(staged.name)
    assert stat.S_IMODE(staged.stat().st_mode) == 0o700
    assert inbox.visible() == []


def test_published_files_have_mode_0644(inbox: Inbox):
    inbox.prepared().published(inbox.envelope())

    assert _modes(inbox) == [0o644, 0o644]


@pytest.mark.parametrize("umask", [0o077, 0o002, 0o027])
@pytest.mark.parametrize("kind", KINDS)
def test_the_umask_that_counts_is_that_of_the_inbox_side(home: Home, tmp_path: Path, kind: str, umask: int):
    with ExitStack() as stack:
        if kind == "local":
            stack.enter_context(_umask(umask))
        way = way_to(kind, home, lambda: stack.enter_context(_peer_with_umask(home, tmp_path, umask)))
        with way.opened() as inbox:
            staged = _staged_mode(inbox.prepared())
            inbox.published(inbox.envelope())

            assert (_modes(inbox), staged) == ([0o644 & ~umask] * 2, 0o700)


@pytest.mark.parametrize("umask", [0o077, 0o002])
@pytest.mark.parametrize("kind", ["sftp", "rsync"])
def test_the_senders_umask_does_not_reach_another_machine(home: Home, peer: Forge, kind: str, umask: int):
    with _umask(umask), way_to(kind, home, lambda: peer).opened() as inbox:
        staged = _staged_mode(inbox.prepared())
        inbox.published(inbox.envelope())

    assert (_modes(inbox), staged) == ([0o644, 0o644], 0o700)


def _modes(inbox: Inbox) -> list[int]:
    return [stat.S_IMODE((inbox.folder / name).stat().st_mode) for name in inbox.visible()]


def _staged_mode(inbox: Inbox) -> int:
    (folder,) = inbox.transport.stage([inbox.envelope(identity="a" * 32)])
    assert isinstance(folder, str), folder
    return stat.S_IMODE((inbox.workshop / folder.rpartition("/")[2]).stat().st_mode)


@contextmanager
def _umask(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _peer_with_umask(home: Home, tmp_path: Path, umask: int) -> Iterator[Forge]:
    folder = tmp_path / "other"
    folder.mkdir()
    login = f"umask {umask:04o}; exec {shlex.quote(str(folder / 'login'))}"
    with loopback_peer(folder, settings=(f"ForceCommand {login}",)) as server:
        home.known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
        home.known_hosts.write_text(server.known_hosts)
        yield Forge(server=server)


def test_a_name_is_reserved_for_one_identity(inbox: Inbox):
    inbox.prepared()

    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "a" * 32)) is True
    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "a" * 32)) is True
    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "b" * 32)) is False


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [NAME, f"{NAME}.asc"])
def test_a_name_under_which_something_stands_cannot_be_reserved(inbox: Inbox, name: str, shape: str):
    stands = foreign(inbox.prepared().folder / name, shape)

    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "a" * 32)) is False
    assert stands()
    assert os.listdir(inbox.workshop) == []


@pytest.mark.parametrize("shape", ["file", "empty file"])
def test_a_reservation_that_was_tampered_with_holds_for_nobody(inbox: Inbox, shape: str):
    stands = foreign(inbox.prepared().workshop / f"name-{NAME}", shape)

    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "a" * 32)) is False
    assert stands()


def test_a_reservation_is_no_file_that_a_receiver_looks_at(inbox: Inbox):
    inbox.prepared().run(inbox.transport.reserve(inbox.path, NAME, "a" * 32))

    assert inbox.visible() == []
    assert (inbox.workshop / f"name-{NAME}").read_text() == "a" * 32


def test_of_two_who_reserve_a_name_at_once_one_gets_it(two: tuple[Inbox, Inbox]):
    names = [NAME.replace("greeting", f"c{number}") for number in range(20)]

    for name in names:
        first, second = (
            lambda one=one, who=who, name=name: one.run(one.transport.reserve(one.path, name, who * 32))
            for one, who in zip(two, "ab", strict=True)
        )
        assert sorted(together(first, second)) == [False, True]


def test_nothing_is_claimed_at_first(inbox: Inbox):
    assert inbox.prepared().run(inbox.transport.look(inbox.path, "a" * 32)) is None


def test_of_two_who_claim_one_identity_the_second_goes_on_with_the_firsts(inbox: Inbox):
    inbox.prepared()
    first = inbox.claimed(inbox.envelope())

    second = inbox.claimed(inbox.envelope(name="20261123T020000Z-from-builder-greeting.org", signature=b"another"))

    assert second == first
    assert sorted(os.listdir(inbox.workshop)) == [first.identity]


def test_of_two_who_claim_at_once_one_succeeds_and_both_go_on_with_it(two: tuple[Inbox, Inbox]):
    for number in range(20):
        envelopes = [
            replace(one.envelope(identity=f"{number:032x}"), name=NAME.replace("T01", clock), signature=clock.encode())
            for one, clock in zip(two, ("T02", "T03"), strict=True)
        ]
        first, second = together(
            *(lambda one=one, own=own: one.claimed(own) for one, own in zip(two, envelopes, strict=True))
        )

        assert isinstance(first, Claim)
        assert first == second
        signature = (two[0].workshop / first.identity / "signature").read_text()
        assert signature in first.name
    assert sorted(os.listdir(two[0].workshop)) == [f"{number:032x}" for number in range(20)]


def test_of_two_who_publish_at_once_one_does_it_and_the_other_learns_of_it(two: tuple[Inbox, Inbox]):
    for number in range(20):
        envelope = two[0].envelope(identity=f"{number:032x}", name=NAME.replace("greeting", f"c{number}"))
        claim = two[0].claimed(envelope)

        def publish(one: Inbox, claim: Claim) -> bool:
            one.run(one.transport.publish_signature(claim))
            return bool(one.run(one.transport.publish_message(claim)))

        done = together(*(lambda one=one, claim=claim: publish(one, claim) for one in two))

        assert sorted(map(str, done)) == ["False", "True"]
    assert len(two[0].visible()) == 40


def test_who_comes_late_to_a_delivery_that_another_finished_learns_of_it(two: tuple[Inbox, Inbox]):
    first, second = two
    late = first.claimed(first.envelope())
    first.run(first.transport.close(first.published(first.envelope())))

    second.run(second.transport.publish_signature(late))

    assert second.run(second.transport.publish_message(late)) is False
    assert second.visible() == [NAME, f"{NAME}.asc"]


def test_who_comes_late_puts_nothing_back_that_the_receiver_took_away(two: tuple[Inbox, Inbox]):
    first, second = two
    late = first.claimed(first.envelope())
    first.run(first.transport.close(first.published(first.envelope())))
    for name in first.visible():
        (first.folder / name).unlink()

    second.run(second.transport.publish_signature(late))

    assert second.run(second.transport.publish_message(late)) is False
    assert second.visible() == []


def test_two_who_make_one_inbox_at_once_both_find_it_made(way: Way):
    with way.opened() as first, way.opened() as second:
        made = together(*(lambda one=one: one.run(one.transport.prepare(one.path)) for one in (first, second)))

        assert all(isinstance(one, bool) for one in made), made
        assert os.listdir(first.folder) == [".tmp.cas"]


@pytest.mark.parametrize("shape", ["file", "folder with something"])
def test_a_claims_name_that_is_taken_by_something_else_is_an_error(inbox: Inbox, shape: str):
    envelope = inbox.prepared().envelope()
    place = inbox.workshop / envelope.identity
    if shape == "file":
        place.write_text("foreign")
    else:
        place.mkdir()
        (place / "foreign").write_text("foreign")
    (folder,) = inbox.transport.stage([envelope])

    with pytest.raises(TransferError):
        inbox.run(inbox.transport.claim(envelope, str(folder)))

    assert inbox.visible() == []
    assert (place if shape == "file" else place / "foreign").read_text() == "foreign"


def test_a_claim_says_whether_its_message_is_published(inbox: Inbox):
    envelope = inbox.prepared().envelope()
    before = inbox.claimed(envelope)
    inbox.run(inbox.transport.publish_signature(before))
    inbox.run(inbox.transport.publish_message(before))

    after = inbox.run(inbox.transport.look(inbox.path, envelope.identity))

    assert (before.state, after.state) == (ClaimState.CLAIMED, ClaimState.PUBLISHED)


def test_a_message_that_the_receiver_took_away_stays_published(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())
    for name in inbox.visible():
        (inbox.folder / name).unlink()

    assert inbox.run(inbox.transport.look(inbox.path, claim.identity)).state is ClaimState.PUBLISHED


def test_publishing_a_second_time_does_nothing(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())

    assert inbox.run(inbox.transport.publish_message(claim)) is False


def test_a_signature_that_is_ours_already_may_be_published_again(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    inbox.run(inbox.transport.publish_signature(claim))

    inbox.run(inbox.transport.publish_signature(claim))

    assert inbox.visible() == [f"{NAME}.asc"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_foreign_signature_is_not_replaced(inbox: Inbox, shape: str):
    claim = inbox.prepared().claimed(inbox.envelope())
    stands = foreign(inbox.folder / f"{NAME}.asc", shape)

    with pytest.raises(TransferError) as refused:
        inbox.run(inbox.transport.publish_signature(claim))

    assert refused.value.permanent
    assert "file that is not of this delivery" in str(refused.value)
    assert refused.value.code == "name-taken"
    assert stands()


def test_a_foreign_pipe_under_the_signatures_name_makes_nobody_wait(way: Way):
    with way.opened(timeout=3) as inbox:
        claim = inbox.prepared().claimed(inbox.envelope())
        stands = foreign(inbox.folder / f"{NAME}.asc", "FIFO")

        with pytest.raises(TransferError) as refused:
            inbox.run(inbox.transport.publish_signature(claim))

        assert refused.value.permanent
        assert stands()


@pytest.mark.parametrize("shape", [*SHAPES, "FIFO"])
def test_a_foreign_message_is_not_replaced(inbox: Inbox, shape: str):
    claim = inbox.prepared().claimed(inbox.envelope())
    stands = foreign(inbox.folder / NAME, shape)

    with pytest.raises(TransferError, match="not of this delivery") as refused:
        inbox.run(inbox.transport.publish_message(claim))

    assert refused.value.permanent
    assert stands()
    assert (inbox.workshop / claim.identity / "message").read_bytes() == b"a message"


def test_a_message_goes_on_once_the_foreign_file_is_gone(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    (inbox.folder / NAME).write_text("foreign")
    with pytest.raises(TransferError):
        inbox.run(inbox.transport.publish_message(claim))
    (inbox.folder / NAME).unlink()

    assert inbox.run(inbox.transport.publish_message(claim)) is True
    assert (inbox.folder / NAME).read_bytes() == b"a message"


def test_a_message_whose_signature_is_gone_from_the_claim_does_not_appear_alone(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    (inbox.workshop / claim.identity / "signature").unlink()

    with pytest.raises(TransferError, match="damaged"):
        inbox.run(inbox.transport.publish_signature(claim))


def test_a_signature_that_another_run_has_published_and_tidied_up_is_no_error(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())
    inbox.run(inbox.transport.close(claim))
    for name in inbox.visible():
        (inbox.folder / name).unlink()

    inbox.run(inbox.transport.publish_signature(claim))

    assert inbox.run(inbox.transport.publish_message(claim)) is False
    assert inbox.visible() == []


def test_a_claim_that_was_given_up_says_so_and_takes_its_signature_along(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    inbox.run(inbox.transport.publish_signature(claim))

    assert inbox.run(inbox.transport.withdraw(claim)) is True

    assert inbox.run(inbox.transport.look(inbox.path, claim.identity)).state is ClaimState.WITHDRAWN
    assert inbox.visible() == []


def test_a_claim_may_be_given_up_twice(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    inbox.run(inbox.transport.withdraw(claim))

    assert inbox.run(inbox.transport.withdraw(claim)) is True


def test_what_is_published_cannot_be_given_up(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())

    assert inbox.run(inbox.transport.withdraw(claim)) is False
    assert inbox.visible() == [NAME, f"{NAME}.asc"]


def test_giving_up_leaves_a_foreign_signature(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    stands = foreign(inbox.folder / f"{NAME}.asc", "file")

    inbox.run(inbox.transport.withdraw(claim))

    assert stands()


def test_who_claims_what_was_given_up_gets_it_as_given_up(inbox: Inbox):
    inbox.run(inbox.transport.withdraw(inbox.prepared().claimed(inbox.envelope())))

    assert inbox.claimed(inbox.envelope()).state is ClaimState.WITHDRAWN


def test_a_claim_that_was_given_up_meanwhile_is_not_taken_for_published(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    inbox.run(inbox.transport.withdraw(claim))

    with pytest.raises(TransferError) as refused:
        inbox.run(inbox.transport.publish_message(claim))

    assert refused.value.permanent
    assert inbox.visible() == []


def test_of_giving_up_and_publishing_at_once_one_comes_about(two: tuple[Inbox, Inbox]):
    first, second = two
    for number in range(20):
        envelope = first.envelope(identity=f"{number:032x}", name=NAME.replace("greeting", f"c{number}"))
        claim = first.claimed(envelope)

        together(
            lambda claim=claim: first.run(first.transport.publish_message(claim)),
            lambda claim=claim: second.run(second.transport.withdraw(claim)),
        )

        state = first.run(first.transport.look(first.path, claim.identity)).state
        assert state in (ClaimState.PUBLISHED, ClaimState.WITHDRAWN)
        assert (first.folder / envelope.name).exists() is (state is ClaimState.PUBLISHED)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{",
        b'{"name": "../../x.org", "signed": true}',
        b'{"name": 1, "signed": true}',
        b'{"name": "x.org"}',
        b'{"name": "20261123T013133Z-from-builder-greeting.org/../x.org", "signed": true}',
        b'{"name": "20261123T013133Z-from-builder-greeting.org", "signed": 1}',
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b"9" * 10_000,
    ],
    ids=lambda record: repr(record[:60]),
)
def test_a_claim_that_was_tampered_with_is_refused(inbox: Inbox, record: bytes):
    claim = inbox.prepared().claimed(inbox.envelope())
    (inbox.workshop / claim.identity / "record").write_bytes(record)

    with pytest.raises(TransferError, match="damaged"):
        inbox.run(inbox.transport.look(inbox.path, claim.identity))


@pytest.mark.parametrize("shape", ["folder", "FIFO"])
def test_a_record_that_is_no_file_is_an_error(way: Way, shape: str):
    with way.opened(timeout=3) as inbox:
        claim = inbox.prepared().claimed(inbox.envelope())
        (inbox.workshop / claim.identity / "record").unlink()
        foreign(inbox.workshop / claim.identity / "record", shape)

        with pytest.raises(TransferError):
            inbox.run(inbox.transport.look(inbox.path, claim.identity))


def test_closing_a_second_time_does_nothing(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())
    inbox.run(inbox.transport.close(claim))

    inbox.run(inbox.transport.close(claim))

    assert sorted(os.listdir(inbox.workshop / claim.identity)) == ["proof", "record"]
    assert inbox.visible() == [NAME, f"{NAME}.asc"]


def test_a_receipt_says_that_it_is_published(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())
    inbox.run(inbox.transport.close(claim))

    assert inbox.run(inbox.transport.look(inbox.path, claim.identity)) == replace(
        claim, state=ClaimState.PUBLISHED, signature=None
    )


def test_all_that_is_published_is_said_to_be_on_disk(inbox: Inbox):
    inbox.prepared().published(inbox.envelope())

    assert inbox.transport.durable is True


def test_the_record_says_what_was_delivered(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())

    record = json.loads((inbox.workshop / claim.identity / "record").read_bytes())

    assert record == {
        "digest": digest(b"a message"),
        "identity": claim.identity,
        "name": NAME,
        "sender": "builder",
        "signed": True,
        "time": "2026-11-23T01:31:33Z",
    }


def test_cleaning_takes_what_was_staged_for_ones_own_deliveries_and_nothing_else(inbox: Inbox):
    inbox.prepared()
    ours, theirs = inbox.envelope(), inbox.envelope(identity="b" * 32)
    inbox.transport.stage([ours, theirs])

    inbox.run(inbox.transport.clean(inbox.path, {ours.identity}))

    (left,) = os.listdir(inbox.workshop)
    assert left.startswith("new-" + "b" * 32)


def test_forgetting_takes_receipt_and_reservation(inbox: Inbox):
    envelope = inbox.prepared().envelope()
    inbox.run(inbox.transport.reserve(inbox.path, NAME, envelope.identity))
    inbox.run(inbox.transport.close(inbox.published(envelope)))

    inbox.run(inbox.transport.forget(inbox.path, envelope.identity, NAME))

    assert os.listdir(inbox.workshop) == []
    assert inbox.visible() == [NAME, f"{NAME}.asc"]


def test_what_is_not_published_is_not_forgotten(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())

    inbox.run(inbox.transport.forget(inbox.path, claim.identity, NAME))

    assert inbox.run(inbox.transport.look(inbox.path, claim.identity)) == replace(claim, signature=None)


def test_a_file_where_the_inbox_should_be_is_said(inbox: Inbox):
    inbox.folder.parent.mkdir(parents=True)
    inbox.folder.write_text("")

    with pytest.raises(TransferError) as refused:
        inbox.prepared()

    assert "from-agents" in str(refused.value)


def test_what_cannot_be_staged_leaves_nothing_behind(inbox: Inbox):
    inbox.prepared()
    inbox.workshop.rmdir()
    inbox.workshop.write_text("")

    (result,) = inbox.transport.stage([inbox.envelope()])

    assert isinstance(result, CasError)
    assert inbox.workshop.read_text() == ""


def test_many_deliveries_go_side_by_side(inbox: Inbox):
    inbox.prepared()
    envelopes = [
        inbox.envelope(message=str(number).encode(), name=NAME.replace("greeting", f"c{number}"))
        for number in range(50)
    ]
    envelopes = [replace(one, identity=f"{number:032x}") for number, one in enumerate(envelopes)]

    folders = inbox.transport.stage(envelopes)
    pairs = zip(envelopes, folders, strict=True)
    claims = inbox.transport.run(inbox.transport.claim(envelope, str(folder)) for envelope, folder in pairs)
    inbox.transport.run(inbox.transport.publish_signature(claim) for claim in claims if isinstance(claim, Claim))
    done = inbox.transport.run(inbox.transport.publish_message(claim) for claim in claims if isinstance(claim, Claim))

    assert done == [True] * 50
    assert len(inbox.visible()) == 100
