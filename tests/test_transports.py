"""One contract for all transports: local, SFTP and rsync, on real files and a real sshd."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import Forge, Home

from cas.errors import CasError, TransferError
from cas.inventory import Destination
from cas.names import digest, identity
from cas.transports import opened
from cas.transports.transport import Claim, ClaimState, Envelope, Transport

NAME = "20261123T013133Z-from-builder-greeting.org"
KINDS = ("local", "sftp", "rsync")


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
        assert isinstance(folder, str), folder
        claim = self.run(self.transport.claim(envelope, folder))
        assert isinstance(claim, Claim)
        return claim

    def published(self, envelope: Envelope) -> Claim:
        claim = self.claimed(envelope)
        if claim.signed:
            self.run(self.transport.publish_signature(claim))
        assert self.run(self.transport.publish_message(claim))
        return claim

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
                message=message,
                signature=b"a signature",
            ),
            **changes,
        )


@pytest.fixture(params=KINDS)
def inbox(request: pytest.FixtureRequest, home: Home) -> Iterator[Inbox]:
    """An inbox that is not there yet, behind each transport."""
    path = "~/projects/docs/inbox/from-agents"
    if request.param == "local":
        destination, folder = _destination(path, transport="local"), home.inbox("docs")
    else:
        peer: Forge = request.getfixturevalue("peer")
        folder = peer.inbox("docs")
        destination = replace(
            _destination(path, transport=request.param),
            host=peer.host,
            port=peer.port,
            user=peer.user,
            identity_file=str(peer.identity_file),
        )
    with opened(destination, 20, home=home.path, user="nobody") as transport:
        yield Inbox(transport, path, folder)


def _destination(inbox: str, *, transport: str) -> Destination:
    return Destination(
        address="forge.docs",
        host=None,
        port=None,
        user=None,
        inbox=inbox,
        transport=transport,
        identity_file=None,
        host_key=None,
    )


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


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_workshop_that_is_no_folder_is_refused(inbox: Inbox, what: str):
    inbox.folder.mkdir(parents=True)
    if what == "file":
        inbox.workshop.write_text("")
    else:
        (inbox.folder / "other").mkdir()
        inbox.workshop.symlink_to("other")

    with pytest.raises(TransferError, match="not a folder"):
        inbox.prepared()


def test_a_delivery_leaves_a_pair_and_a_receipt(inbox: Inbox):
    claim = inbox.prepared().published(inbox.envelope())
    inbox.run(inbox.transport.close(claim))

    assert inbox.visible() == [NAME, f"{NAME}.asc"]
    assert (inbox.folder / NAME).read_bytes() == b"a message"
    assert (inbox.folder / f"{NAME}.asc").read_bytes() == b"a signature"
    assert os.listdir(inbox.workshop / claim.identity) == ["record"]


def test_an_unsigned_message_comes_alone(inbox: Inbox):
    inbox.prepared().published(inbox.envelope(signature=None))

    assert inbox.visible() == [NAME]


@pytest.mark.parametrize("message", [b"", b"x" * (1 << 20), "ümläut 端\r\n".encode()], ids=["empty", "a MiB", "utf-8"])
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

    assert [stat.S_IMODE((inbox.folder / name).stat().st_mode) for name in inbox.visible()] == [0o644, 0o644]


def test_a_name_is_reserved_for_one_identity(inbox: Inbox):
    inbox.prepared()

    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "a" * 32)) is True
    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "a" * 32)) is True
    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "b" * 32)) is False


@pytest.mark.parametrize("name", [NAME, f"{NAME}.asc"])
def test_a_name_under_which_something_stands_cannot_be_reserved(inbox: Inbox, name: str):
    inbox.prepared()
    (inbox.folder / name).write_text("foreign")

    assert inbox.run(inbox.transport.reserve(inbox.path, NAME, "a" * 32)) is False


def test_nothing_is_claimed_at_first(inbox: Inbox):
    assert inbox.prepared().run(inbox.transport.look(inbox.path, "a" * 32)) is None


def test_of_two_who_claim_one_identity_the_second_goes_on_with_the_firsts(inbox: Inbox):
    inbox.prepared()
    first = inbox.claimed(inbox.envelope())

    second = inbox.claimed(inbox.envelope(name="20261123T020000Z-from-builder-greeting.org", signature=b"another"))

    assert second == first
    assert sorted(os.listdir(inbox.workshop)) == [first.identity]


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


def test_a_foreign_signature_is_not_replaced(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    (inbox.folder / f"{NAME}.asc").write_text("foreign")

    with pytest.raises(TransferError, match="not of this delivery") as refused:
        inbox.run(inbox.transport.publish_signature(claim))

    assert refused.value.permanent
    assert (inbox.folder / f"{NAME}.asc").read_text() == "foreign"


def test_a_foreign_message_is_not_replaced(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    (inbox.folder / NAME).write_text("foreign")

    with pytest.raises(TransferError, match="not of this delivery") as refused:
        inbox.run(inbox.transport.publish_message(claim))

    assert refused.value.permanent
    assert (inbox.folder / NAME).read_text() == "foreign"


def test_a_claim_that_was_given_up_says_so_and_takes_its_signature_along(inbox: Inbox):
    claim = inbox.prepared().claimed(inbox.envelope())
    inbox.run(inbox.transport.publish_signature(claim))

    assert inbox.run(inbox.transport.withdraw(claim)) is True

    assert inbox.run(inbox.transport.look(inbox.path, claim.identity)).state is ClaimState.WITHDRAWN
    assert inbox.visible() == []


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{",
        b'{"name": "../../x.org", "signed": true}',
        b'{"name": 1, "signed": true}',
        b'{"name": "x.org"}',
    ],
)
def test_a_claim_that_was_tampered_with_is_refused(inbox: Inbox, record: bytes):
    claim = inbox.prepared().claimed(inbox.envelope())
    (inbox.workshop / claim.identity / "record").write_bytes(record)

    with pytest.raises(TransferError, match="damaged"):
        inbox.run(inbox.transport.look(inbox.path, claim.identity))


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

    assert inbox.run(inbox.transport.look(inbox.path, claim.identity)) == claim


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
    done = inbox.transport.run(
        (inbox.transport.publish_message(claim) for claim in claims if isinstance(claim, Claim)), window=16
    )

    assert done == [True] * 50
    assert len(inbox.visible()) == 100
