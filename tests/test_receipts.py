"""A receipt proves something: no delivery counts as done by the word of whoever can write to the inbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Forge, Home, Run, message, pairs

from cas.loopback import Key, throwaway_key
from cas.signer import Signer

Cas = Callable[..., Run]
WAYS = ("local", "sftp", "python", "rsync")
EVIL = b"#+CONVERSATION_ID: greeting\n\n* EVIL\n"


class Stage:
    """A manifest of one delivery, and the inbox that it goes to."""

    def __init__(self, way: str, inbox: Path, key: Key, *, signed: bool = True) -> None:
        self.inbox, self.key = inbox, key
        destination = "local.docs" if way == "local" else "forge.docs"
        sign = f"{{key: {key.fingerprint}}}" if signed else "false"
        send = f"{{id: a, destination: {destination}, message: hello.org, sign: {sign}}}"
        Path("m.yaml").write_text(f"cas: 1\nsender: builder\nsends:\n  - {send}\n", encoding="utf-8")
        self.message = message("hello.org").read_bytes()

    def planned(self, cas: Cas) -> dict[str, Any]:
        plan = json.loads(cas("plan", "m.yaml", "-o", "-").out)
        (delivery,) = plan["deliveries"]
        return dict(delivery)

    def record(self, planned: dict[str, Any], **changes: Any) -> bytes:
        fields = {
            "digest": planned["message"]["digest"],
            "identity": planned["identity"],
            "name": planned["files"][-1],
            "sender": "builder",
            "signed": planned["sign"] is not None,
            "time": "2026-11-23T01:31:33Z",
        }
        return json.dumps({**fields, **changes}).encode()

    def plant(self, planned: dict[str, Any], **files: bytes) -> Path:
        """A claim, as anybody who can write to the inbox could put it there."""
        folder = self.inbox / ".tmp.cas" / planned["identity"]
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder


@pytest.fixture
def stage(home: Home, gnupg: Key, request: pytest.FixtureRequest) -> Callable[..., Stage]:
    def made(way: str, *, signed: bool = True) -> Stage:
        if way == "local":
            return Stage(way, home.inbox("docs"), gnupg, signed=signed)
        peer: Forge = request.getfixturevalue("peer")
        home.peers(peer.toml(transport=way))
        return Stage(way, peer.inbox("docs"), gnupg, signed=signed)

    return made


def refused(run: Run, folder: Path) -> None:
    assert run.code in (1, 3), run.out + run.err
    assert "does not prove this delivery" in run.err
    assert folder.name in run.err
    assert "unchanged" not in run.out
    assert "sent: " not in run.out


def evidence(run: Run) -> tuple[str, str | None]:
    (one,) = json.loads(run.out)["deliveries"]
    return one["outcome"], one["evidence"]


@pytest.mark.threat("local account", "have a delivery counted as done by a forged receipt")
@pytest.mark.threat("peer", "have a delivery counted as done by a receipt without the planned signature")
@pytest.mark.parametrize("way", WAYS)
def test_a_forged_receipt_is_refused(cas: Cas, stage: Callable[..., Stage], way: str):
    at = stage(way)
    planned = at.planned(cas)
    folder = at.plant(planned, record=at.record(planned))

    run = cas("apply", "m.yaml")

    refused(run, folder)
    assert pairs(at.inbox) == ()
    shutil.rmtree(folder)
    assert cas("retry", "--all").code == 0
    assert len(pairs(at.inbox)) == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha256:" + "0" * 64},
        {"identity": "0" * 32},
        {"sender": "mallory"},
        {"signed": False},
        {"name": "20261123T013133Z-from-mallory-greeting.org"},
        {"name": "20261123T013133Z-from-builder-other.org"},
    ],
    ids=lambda changes: "-".join(f"{key}" for key in changes),
)
def test_a_receipt_of_another_delivery_is_refused(
    cas: Cas, stage: Callable[..., Stage], way: str, changes: dict[str, Any]
):
    at = stage(way)
    planned = at.planned(cas)
    signature = Signer(environment=os.environ).sign(at.message, at.key.fingerprint)
    folder = at.plant(planned, record=at.record(planned, **changes), proof=signature)

    refused(cas("apply", "m.yaml"), folder)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", ["another key", "other bytes", "nobody"])
def test_a_receipt_with_another_signature_is_refused(
    cas: Cas, stage: Callable[..., Stage], way: str, by: str, tmp_path: Path
):
    at = stage(way)
    planned = at.planned(cas)
    signature = b"-----BEGIN PGP SIGNATURE-----\n\nx\n"
    if by == "other bytes":
        signature = Signer(environment=os.environ).sign(EVIL, at.key.fingerprint)
    if by == "another key":
        with throwaway_key(tmp_path / "g") as other:
            environment = {**os.environ, "GNUPGHOME": str(other.gnupghome)}
            signature = Signer(environment=environment).sign(at.message, other.fingerprint)
            public = subprocess.run(["gpg", "--export"], env=environment, check=True, capture_output=True).stdout
            subprocess.run(["gpg", "--batch", "--quiet", "--import"], input=public, check=True)
    folder = at.plant(planned, record=at.record(planned), proof=signature)

    run = cas("apply", "m.yaml")

    refused(run, folder)
    assert cas("retry", "--all").code in (1, 3)
    if by == "another key":
        subprocess.run(["gpg", "--batch", "--yes", "--delete-keys", other.fingerprint], check=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_true_receipt_counts_on_another_machine(cas: Cas, stage: Callable[..., Stage], way: str):
    """Also where the message was taken away, and where the other run planned at another time."""
    at = stage(way)
    assert cas("apply", "m.yaml").code == 0

    again = cas("apply", "m.yaml", "--state-dir", "other", "--output", "json")
    for name in pairs(at.inbox):
        (at.inbox / name).unlink()
    later = cas("apply", "m.yaml", "--state-dir", "third", "--output", "json")

    assert (evidence(again), evidence(later)) == (("unchanged", "inbox"), ("unchanged", "receipt"))
    assert pairs(at.inbox) == ()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kept", ["in the inbox", "in the ledger", "nowhere"])
def test_an_old_receipt_counts_for_the_ledger_or_while_the_message_is_there(
    cas: Cas, stage: Callable[..., Stage], way: str, kept: str
):
    at = stage(way)
    assert cas("apply", "m.yaml").code == 0
    (proof,) = at.inbox.glob(".tmp.cas/*/proof")
    proof.unlink()
    if kept != "in the inbox":
        for name in pairs(at.inbox):
            (at.inbox / name).unlink()

    run = cas("apply", "m.yaml", "--output", "json", *(() if kept == "in the ledger" else ("--state-dir", "other")))

    expected = {"in the inbox": ("unchanged", "inbox"), "in the ledger": ("unchanged", "ledger")}
    assert evidence(run) == expected.get(kept, ("failed", None))


@pytest.mark.parametrize("way", WAYS)
def test_a_planted_claim_with_another_message_is_not_published(cas: Cas, stage: Callable[..., Stage], way: str):
    at = stage(way)
    planned = at.planned(cas)
    signature = Signer(environment=os.environ).sign(at.message, at.key.fingerprint)
    folder = at.plant(planned, record=at.record(planned), message=EVIL, signature=signature)

    refused(cas("apply", "m.yaml"), folder)
    assert pairs(at.inbox) == ()


@pytest.mark.parametrize("way", WAYS)
def test_a_planted_claim_with_another_signature_is_not_said_to_be_delivered(
    cas: Cas, stage: Callable[..., Stage], way: str
):
    at = stage(way)
    planned = at.planned(cas)
    signature = Signer(environment=os.environ).sign(EVIL, at.key.fingerprint)
    folder = at.plant(planned, record=at.record(planned), message=at.message, signature=signature)

    run = cas("apply", "m.yaml")

    assert run.code in (1, 3)
    assert "sent: " not in run.out
    assert folder.name in run.err


@pytest.mark.parametrize("way", WAYS)
def test_a_claim_of_another_machine_is_gone_on_with(cas: Cas, stage: Callable[..., Stage], way: str):
    """Cut off between claim and publication; its signature was made at another time."""
    at = stage(way)
    planned = at.planned(cas)
    signature = Signer(environment=os.environ).sign(at.message, at.key.fingerprint)
    name = "20261123T013133Z-from-builder-greeting.org"
    record = at.record(planned, name=name)
    at.plant(planned, record=record, message=at.message, signature=signature)

    run = cas("apply", "m.yaml")

    assert (run.code, pairs(at.inbox)) == (0, (name, f"{name}.asc"))
    assert (at.inbox / f"{name}.asc").read_bytes() == signature


@pytest.mark.parametrize("way", WAYS)
def test_of_an_unsigned_delivery_the_record_is_compared(cas: Cas, stage: Callable[..., Stage], way: str):
    at = stage(way, signed=False)
    planned = at.planned(cas)
    folder = at.plant(planned, record=at.record(planned, digest="sha256:" + "0" * 64))

    refused(cas("apply", "m.yaml"), folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_another_account_that_writes_to_the_inbox_cannot_forge_a_receipt(
    cas: Cas, stage: Callable[..., Stage], home: Home
):
    at = stage("local")
    planned = at.planned(cas)
    at.inbox.mkdir(parents=True)
    for folder in (at.inbox, *at.inbox.parents):
        if folder.stat().st_uid == os.getuid() and len(folder.parts) > 2:
            folder.chmod(0o777 if folder == at.inbox else 0o755)
    script = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.makedirs(sys.argv[1], mode=0o777)
open(sys.argv[1] + "/record", "wb").write(bytes.fromhex(sys.argv[2]))
"""
    claim = at.inbox / ".tmp.cas" / planned["identity"]
    subprocess.run([sys.executable, "-c", script, str(claim), at.record(planned).hex()], check=True)

    refused(cas("apply", "m.yaml"), claim)
    assert pairs(at.inbox) == ()
