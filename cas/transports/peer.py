"""A peer beside deliveries: its HALT, and whether a message could be delivered there. Over SFTP, on one connection."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

from cas.checks import Check, error, note, ok, warning
from cas.errors import CasError, TransferError
from cas.halt import Placed, fault
from cas.inventory import Destination
from cas.transports import ssh
from cas.transports.files import Kind, T, Task
from cas.transports.sftp import FSYNC, NEEDED, SftpFiles

CONFIGURATION = "~/.config/cross-agent-comms"
HALT = f"{CONFIGURATION}/HALT"
MOST_SKEW = 5
"""Seconds by which two clocks may differ without a word: names of messages are times."""
STEPS = {
    "unknown-host": "name",
    "not-connected": "port",
    "ssh-incompatible": "port",
    "host-key-unknown": "host key",
    "host-key-changed": "host key",
    "host-key-revoked": "host key",
    "login-refused": "login",
}
ORDER = ("name", "port", "host key", "login")


@contextmanager
def files_at(
    destination: Destination, *, home: Path, user: str, timeout: float, needed: Set[str] = NEEDED
) -> Iterator[SftpFiles]:
    """The files of a peer, whose server has these extensions. Raises TransferError."""
    session = ssh.connected(destination, home=home, user=user, timeout=timeout)
    try:
        channel = session.channel("SFTP", lambda channel: channel.invoke_subsystem("sftp"))
        yield SftpFiles(channel, session.where, needed)
    finally:
        session.close()


def halted(files: SftpFiles) -> str | None:
    """What the peer's HALT says, "" where it says nothing; None where there is none. Raises TransferError."""
    if _one(files, files.kind(HALT)) is None:
        return None
    try:
        return (_one(files, files.read(HALT)) or b"").decode("utf-8", "replace").strip()
    except TransferError:  # whatever stands there counts
        return "it cannot be read"


def set_halt(files: SftpFiles, words: str) -> Placed:
    """Set HALT there: whole, on disk, or else as well as it can be made. What stands is left. Raises TransferError."""
    for folder in ("~/.config", CONFIGURATION):
        _one(files, files.make_folder(folder, mode=0o700))
    try:
        new, why = _linked(files, words), None
    except TransferError as problem:  # no links, no room: it has no other name first then
        new, why = _written_at_once(files, words, problem), problem
    (unsynced,) = files.run([files.sync(CONFIGURATION)])
    if not new:
        return Placed(new=False)
    stands = halted(files) or ""
    if unsynced or stands != words.strip():
        return Placed(new=True, fault=fault(words, stands, str(unsynced or why)))
    return Placed(new=True)


def lift_halt(files: SftpFiles) -> None:
    """Take HALT away there. Raises TransferError."""
    _one(files, files.remove(HALT))
    files.run([files.sync(CONFIGURATION)])  # if a power cut brings it back, that harms nobody


def examined(
    destination: Destination, inboxes: Sequence[str], *, home: Path, user: str, timeout: float, now: float
) -> list[Check]:
    """Each step of the way to a peer's inboxes, as far as it leads. `now`: seconds since 1970, here."""
    try:
        with files_at(destination, home=home, user=user, timeout=timeout) as files:
            checks = [ok(step, "good") for step in ORDER]
            checks.append(_sftp(files))
            checks += [check for inbox in inboxes for check in _inbox(files, inbox, now)]
            words = halted(files)
            checks.append(
                ok("HALT", "not set there") if words is None else warning("HALT", f'set there: "{words[:500]}"')
            )
            return checks
    except TransferError as problem:
        step = STEPS.get(problem.code, "SFTP")
        passed = ORDER[: ORDER.index(step)] if step in ORDER else ORDER
        return [*(ok(one, "good") for one in passed), error(step, str(problem), problem.hint)]


def _linked(files: SftpFiles, words: str) -> bool:
    hidden = f"{CONFIGURATION}/.tmp.{secrets.token_hex(8)}"
    try:
        _one(files, files.create(hidden, words.encode()))
        return _one(files, files.link(hidden, HALT))
    finally:
        files.run([files.remove(hidden)])


def _written_at_once(files: SftpFiles, words: str, problem: TransferError) -> bool:
    """Without words it counts too, and mostly can be made where nothing can be written. Raises the problem if not."""
    try:
        return _one(files, files.create(HALT, words.encode()))
    except TransferError:
        if _one(files, files.kind(HALT)) is None:
            raise problem from None
        return True


def _sftp(files: SftpFiles) -> Check:
    if FSYNC in files.extensions:
        return ok("SFTP", "has all that is used")
    words = f"lacks `{FSYNC}`: what is delivered is there, and nobody can say that it is on disk"
    return warning("SFTP", words, "OpenSSH 6.5 or later has it; `require_durable` of [policy] refuses such a peer")


def _inbox(files: SftpFiles, inbox: str, now: float) -> Iterator[Check]:
    what = f"inbox {inbox}"
    try:
        kind = _one(files, files.kind(inbox))
        if kind is None:
            yield note(what, "is not there yet: the first message makes it")
            return
        if kind is not Kind.FOLDER:
            yield error(what, "is no folder")
            return
        trial = f"{inbox}/.tmp.{secrets.token_hex(8)}"
        _one(files, files.create(trial, b""))
        try:
            changed = _one(files, files.changed(trial))
        finally:
            _one(files, files.remove(trial))
        yield ok(what, "can be written to")
        skew = 0 if changed is None else round(changed - now)
        if abs(skew) > MOST_SKEW:
            way = "ahead of" if skew > 0 else "behind"
            yield warning("clock", f"{abs(skew)} s {way} this one", "set the one that is wrong: timedatectl")
    except TransferError as problem:
        yield error(what, str(problem), problem.hint)


def _one(files: SftpFiles, task: Task[T]) -> T:
    """Run one task. Raises its error."""
    (result,) = files.run([task])
    if isinstance(result, CasError):
        raise result
    return result
