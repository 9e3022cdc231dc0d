"""The doctor: what is wrong on this machine, and the command that mends it. Looks; changes nothing. The verb doctor.

Each check stands alone: what is broken is told, and the next one goes on.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cas import gpg, halt, loader
from cas.checks import Check, error, failed, note, ok, warning
from cas.diagnostics import InvalidInput, Severity
from cas.errors import CasError, ExitCode, reason
from cas.names import LEDGER
from cas.output import checks as check_view
from cas.output.console import Console, Form
from cas.output.result import as_json
from cas.run import MARKERS
from cas.signer import Signer
from cas.surroundings import Surroundings

OLDEST_PYTHON = (3, 11)
SOON = timedelta(days=30)
PATIENCE = 10
"""Seconds that a program is waited for."""
FIELDS_OF_KNOWN_HOSTS = 3
EXPIRES, FINGERPRINT = 6, 9
"""Fields of gpg's listing with colons (its file doc/DETAILS)."""


def examine(around: Surroundings, console: Console) -> int:
    """Everything that can be seen from here, a line each; an error is the exit code if there is one among them."""
    found: list[Check] = []
    for look in LOOKS:
        try:
            found += look(around)
        except CasError as problem:
            found.append(error(look.__name__.strip("_").replace("_", " "), str(problem), problem.hint))
        except OSError as problem:
            found.append(error(look.__name__.strip("_").replace("_", " "), reason(problem)))
    if console.form is Form.TEXT:
        for line in check_view.lines(found):
            console.result(line)
    else:
        console.result(as_json({"format": "cas.doctor/1", "checks": check_view.fields(found)}))
    return ExitCode.ERROR if failed(found) else ExitCode.OK


def _python(around: Surroundings) -> Iterator[Check]:
    del around
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= OLDEST_PYTHON:
        yield ok("Python", version)
    else:
        yield error("Python", f"{version}; 3.11 is the oldest that cas is tested with")


def _programs(around: Surroundings) -> Iterator[Check]:
    path = around.environment.get("PATH")
    for name, asked, needed in (("gpg", "--version", True), ("ssh", "-V", False), ("rsync", "--version", False)):
        if shutil.which(name, path=path) is None:
            why = "nothing can be signed" if needed else "only needed for peers that go by it"
            yield (error if needed else note)(
                name, f"is not installed: {why}", f"install it: apt install {_package(name)}"
            )
            continue
        yield ok(name, _first_line(around, name, asked))


def _package(name: str) -> str:
    return {"gpg": "gnupg", "ssh": "openssh-client"}.get(name, name)


def _first_line(around: Surroundings, *command: str) -> str:
    try:
        ended = subprocess.run(
            command,
            env=dict(around.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"gave no answer within {PATIENCE} s"
    return (ended.stdout + ended.stderr).decode("utf-8", "replace").partition("\n")[0] or "is there"


def _agent(around: Surroundings) -> Iterator[Check]:
    if shutil.which("gpg-connect-agent", path=around.environment.get("PATH")) is None:
        return
    said = _first_line(around, "gpg-connect-agent", "/bye")
    if said in ("is there", "") or "OK" in said:
        yield ok("gpg-agent", "answers")
    else:
        yield error("gpg-agent", said, "start it anew: gpgconf --kill gpg-agent")


def _signing_key(around: Surroundings) -> Iterator[Check]:
    signer = Signer(environment=around.environment)
    try:
        key = signer.fingerprint(None)
    except CasError as problem:
        yield error("signing key", str(problem), problem.hint)
        return
    listing = gpg.run(("--with-colons", "--fixed-list-mode", "--list-secret-keys", "--", key), around.environment)
    rows = [line.split(":") for line in listing.stdout.decode("utf-8", "replace").split("\n")]
    ends = next((row[EXPIRES] for row in rows if row[0] == "sec" and len(row) > EXPIRES), "")
    if not ends.isdecimal():
        yield ok("signing key", f"{key}, which does not expire")
        return
    end = datetime.fromtimestamp(int(ends), UTC)
    words = f"{key}, which expires on {end:%Y-%m-%d}"
    soon = end - around.now() < SOON
    yield warning("signing key", words, f"gpg --quick-set-expire {key} 1y") if soon else ok("signing key", words)


def _configuration(around: Surroundings) -> Iterator[Check]:
    path = around.config / loader.PEERS
    try:
        inventory, warnings = loader.load_inventory(around.config)
    except InvalidInput as problem:
        for one in problem.diagnostics:
            level = error if one.severity is Severity.ERROR else warning
            yield level("peers.toml", one.message, one.hint or f"see it: {path}")
        return
    for one in warnings:
        yield warning("peers.toml", one.message, one.hint)
    there = path.exists()
    count = len(inventory.peers)
    yield ok("peers.toml", f"{path}, {count} peer{'' if count == 1 else 's'}" if there else f"there is none at {path}")
    yield from _private("configuration", around.config)


def _state(around: Surroundings) -> Iterator[Check]:
    if not around.state.exists():
        yield ok("state", f"nothing was sent from here yet: there is no {around.state}")
        return
    if not around.state.is_dir():
        yield error("state", f"{around.state} is no folder", f"move it away: mv {around.state} {around.state}.old")
        return
    if not os.access(around.state, os.W_OK | os.X_OK):
        yield error("state", f"{around.state} cannot be written to", f"chmod u+rwx {around.state}")
        return
    yield from _private("state", around.state)


def _private(what: str, folder: Path) -> Iterator[Check]:
    """Whoever can write there decides what is sent, and to whom."""
    if not folder.is_dir():
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        yield warning(what, f"{folder} can be written to by others (mode {mode:o})", f"chmod go-w {folder}")
    else:
        yield ok(what, f"{folder}, mode {mode:o}")


def _ledger(around: Surroundings) -> Iterator[Check]:
    path = around.state / LEDGER
    if not path.is_file():
        return
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            said = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            left = database.execute("SELECT count(*) FROM deliveries WHERE state = 'open'").fetchone()[0]
        finally:
            database.close()
    except sqlite3.Error as problem:
        mend = f"keep it, and begin anew: mv {path} {path}.broken (receipts keep what was sent from being sent twice)"
        yield error("ledger", f"{path} cannot be read: {problem}", mend)
        return
    if said != "ok":
        yield error("ledger", f"{path} is damaged: {said}", f"keep it, and begin anew: mv {path} {path}.broken")
    elif left:
        yield note(
            "ledger", f"{left} open, as a run that was cut off leaves them, or one that is under way", "cas retry"
        )
    else:
        yield ok("ledger", str(path))


def _markers(around: Surroundings) -> Iterator[Check]:
    folder = around.state / MARKERS
    waiting = sum(1 for name in os.listdir(folder) if name.endswith(".json")) if folder.is_dir() else 0
    if waiting:
        words = f"{waiting} failed send{' waits' if waiting == 1 else 's wait'} in {folder}"
        yield warning("failed sends", words, "see them: cas retry; finish them: cas retry --all")


def _known_hosts(around: Surroundings) -> Iterator[Check]:
    path = around.home / ".ssh" / "known_hosts"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        yield note("known_hosts", f"there is no {path}: no host is known", "cas peers trust NAME")
        return
    unread = [number for number, line in enumerate(lines, start=1) if not _is_read(line.split())]
    if unread:
        shown = ", ".join(map(str, unread[:5])) + (", …" if len(unread) > 5 else "")
        yield note(
            "known_hosts", f"{path} has lines that are passed over: {shown}", "see them: ssh-keygen -l -f " + str(path)
        )
    else:
        yield ok("known_hosts", str(path))


def _is_read(fields: list[str]) -> bool:
    if not fields or fields[0].startswith("#"):
        return True
    if fields[0].startswith("@"):
        return fields[0] == "@revoked" and len(fields) > FIELDS_OF_KNOWN_HOSTS
    return len(fields) >= FIELDS_OF_KNOWN_HOSTS


def _halt(around: Surroundings) -> Iterator[Check]:
    if standing := halt.standing(around.halts):
        said = f": {standing.reason}" if standing.reason else ""
        yield warning("HALT", f"is set, nothing can be sent{said} ({standing.path})", "when it may go on: cas resume")
    else:
        yield ok("HALT", "is not set")


LOOKS: tuple[Callable[[Surroundings], Iterator[Check]], ...] = (
    _python,
    _programs,
    _agent,
    _signing_key,
    _configuration,
    _state,
    _ledger,
    _markers,
    _known_hosts,
    _halt,
)
