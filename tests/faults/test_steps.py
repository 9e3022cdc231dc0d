"""Each step of a delivery is on disk before the next begins, and nothing is said before the ledger has it."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import report
from scene import Scene, Sender
from support import Home, Run, message

from cas.ledger import Ledger
from cas.transports.local import MANY

CALLS = "execve,fsync,fdatasync,syncfs,rename,renameat2,link,linkat,mkdir,write"
SIGNED = r'execve\(.*"--detach-sign"'
LEDGER = r"f(data)?sync\(\d+<[^>]*/ledger\.sqlite[^>]*>"
RESERVED = r"fsync\(\d+<[^>]*/\.tmp\.cas/name-"
WORKSHOP = r"fsync\(\d+<[^>]*/\.tmp\.cas>"
STAGED = r'mkdir\("[^"]*/\.tmp\.cas/new-'
CLAIMED = r'rename\("[^"]*/\.tmp\.cas/new-[^"]*", "[^"]*/\.tmp\.cas/[0-9a-f]{32}"'
SIGNATURE = r'link(at)?\(.*\.tmp\.cas/[0-9a-f]{32}/signature".*\.org\.asc"'
MESSAGE = r'rename(at2)?\(.*\.tmp\.cas/[0-9a-f]{32}/message".*\.org"'
INBOX = r"fsync\(\d+<[^>]*/from-agents>"
CLAIM = r"fsync\(\d+<[^>]*/\.tmp\.cas/[0-9a-f]{32}>"
SAID = r'write\(1<[^>]*>, "sent: '


class Trace:
    """The calls of one signed delivery on this machine, in order."""

    def __init__(self, text: str) -> None:
        self._calls = [line for line in text.splitlines() if " = -1 " not in line]

    def at(self, pattern: str, *, after: int = -1) -> int:
        """Where a call stands, the first behind `after`."""
        for number, line in enumerate(self._calls[after + 1 :], start=after + 1):
            if re.search(pattern, line):
                return number
        raise AssertionError(f"no call {pattern} after number {after} of:\n" + "\n".join(self._calls))

    def all(self, pattern: str) -> list[int]:
        """Where such calls stand."""
        return [number for number, line in enumerate(self._calls) if re.search(pattern, line)]

    def in_order(self, *patterns: str) -> list[int]:
        """Each of the calls comes after the one before it, with the first that fits each time."""
        found = [-1]
        for pattern in patterns:
            found.append(self.at(pattern, after=found[-1]))
        return found[1:]


@pytest.fixture(scope="module")
def trace(scene: Scene) -> Trace:
    sender = scene.sender("traced")
    message(sender.project / "m.org")
    report("steps", points=1)
    return traced(sender, "send", "local.docs", "m.org")


def traced(sender: Sender, *argv: str) -> Trace:
    strace = shutil.which("strace")
    assert strace, "strace not found: apt-get install strace"
    file = sender.project / "trace"
    driver = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    words = (strace, "-f", "-y", "-qq", "-s", "300", "-e", f"trace={CALLS}", "-o", file)
    run = sender.run(*words, sys.executable, "-m", "cas", *argv, driver=driver)
    assert run.code == 0, run.err
    return Trace(file.read_text(encoding="utf-8"))


def test_the_intent_is_on_disk_before_anything_moves(trace: Trace):
    """Signed first, since the signature is part of it; the ledger was made before that."""
    _, intended, staged = trace.in_order(SIGNED, LEDGER, STAGED)

    assert intended < trace.at(STAGED) == staged


def test_a_reservation_is_on_disk_before_its_message_is_claimed(trace: Trace):
    reserved, synced = trace.in_order(RESERVED, WORKSHOP)

    assert reserved < synced < trace.at(CLAIMED)


@pytest.mark.parametrize(
    "name", ["/message", "/signature", "/record", ""], ids=["message", "signature", "record", "folder"]
)
def test_what_is_staged_is_on_disk_before_it_is_claimed(trace: Trace, name: str):
    staged, synced = trace.in_order(STAGED, rf"fsync\(\d+<[^>]*/\.tmp\.cas/new-[0-9a-f]*-[0-9a-f]*{name}>")

    assert staged < synced < trace.at(CLAIMED)


def test_a_claim_is_on_disk_before_its_signature_is_published(trace: Trace):
    claimed, synced = trace.in_order(CLAIMED, WORKSHOP)

    assert claimed < synced < trace.at(SIGNATURE)


def test_a_signature_is_on_disk_before_its_message_is_published(trace: Trace):
    published, synced = trace.in_order(SIGNATURE, INBOX)

    assert published < synced < trace.at(MESSAGE)


@pytest.mark.parametrize("folder", [INBOX, CLAIM], ids=["inbox", "claim"])
def test_a_message_is_on_disk_before_the_ledger_says_that_it_is_delivered(trace: Trace, folder: str):
    published, synced = trace.in_order(MESSAGE, folder)

    assert published < synced < trace.at(LEDGER, after=published)


def test_a_large_batch_is_on_disk_before_it_is_claimed(scene: Scene):
    sender = scene.sender("many")
    sends = []
    for number in range(MANY):
        message(sender.project / f"m{number}.org", CONVERSATION_ID=f"c{number}")
        sends.append(f"  - {{id: m{number}, destination: local.docs, message: m{number}.org, sign: false}}\n")
    (sender.project / "many.yaml").write_text("cas: 1\nsends:\n" + "".join(sends))

    trace = traced(sender, "apply", "many.yaml")

    last = max(trace.all(STAGED))
    assert last < trace.at(r"syncfs\(.* = 0", after=last) < trace.at(CLAIMED)


def test_the_ledger_is_on_disk_before_anybody_is_told(trace: Trace):
    told = trace.at(SAID)

    assert trace.at(MESSAGE) < trace.at(LEDGER, after=trace.at(MESSAGE)) < told


def test_what_the_ledger_does_not_take_is_not_said_to_be_delivered(
    home: Home, cas: Callable[..., Run], message: Callable[..., Path]
):
    with closing(Ledger(home.state)), closing(sqlite3.connect(home.state / "ledger.sqlite")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE UPDATE OF state ON deliveries WHEN NEW.state = 'delivered'"
            " BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
        database.commit()

    run = cas("send", "local.docs", message("m.org"), "--no-sign", "--output", "json")

    assert run.code == 1
    assert '"outcome": "delivered"' not in run.out
    assert '"outcome": "unknown"' in run.out
