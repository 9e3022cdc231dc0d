"""Trust: the key that a peer's host shows into known_hosts, once somebody has compared it."""

from __future__ import annotations

import os
import secrets
from functools import partial
from pathlib import Path

from cas import peers
from cas.creation import make_private
from cas.errors import CasError, ExitCode, TransferError, UsageError, reason
from cas.inventory import is_local
from cas.output.console import Console, Form
from cas.output.result import as_json
from cas.surroundings import Surroundings


def trust(name: str, fingerprint: str | None, around: Surroundings, console: Console) -> int:
    """Have a peer's host key known, once somebody has compared it. Raises TransferError, UsageError."""
    inventory = peers.inventory_of(around, console)
    peers.chosen(inventory, [name])
    if is_local(name, around.hostname):
        _tell("not-needed", f"no key is needed: `{name}` is {peers.THIS}", console, name=name)
        return ExitCode.OK
    to = peers.destination(inventory, name)
    from cas.transports import known_hosts, ssh

    try:
        shown = ssh.shown_key(to, home=around.home, user=around.user, timeout=peers.TIMEOUT)
    except TransferError as problem:
        problem.exit_code = ExitCode.DELIVERY
        raise
    print_ = known_hosts.fingerprint(shown.key)
    entry = known_hosts.entry(shown.name, shown.port)
    pair = (shown.kind, shown.key)
    tell = partial(_tell, name=name, host=entry, fingerprint=print_)
    if pair in shown.known.revoked:
        raise _untrusted(f"{entry} shows a key that is marked as revoked: {print_}", "ask whoever runs the host")
    if to.host_key is not None and to.host_key != print_:
        raise _untrusted(
            f"{entry} shows {print_}, and `{inventory.file}` has {to.host_key} for it", "ask whoever runs the host"
        )
    if pair in shown.known.trusted or to.host_key is not None:
        tell("known", f"known already: {entry} {print_}", console)
        return ExitCode.OK
    if shown.known.trusted:
        hint = f"ask whoever runs the host, whether it was set up anew; then: ssh-keygen -R '{entry}'"
        raise _untrusted(f"{entry} shows another key than the one that is known: {print_}", hint)
    if fingerprint is not None and fingerprint != print_:
        raise _untrusted(f"{entry} shows {print_}, not {fingerprint}", "somebody may be in between: do not go on")
    if fingerprint is None:
        _ask(f"{entry} shows the key {print_}; does its owner say the same?", print_, around, console)
    written = known_hosts.hashed_entry(entry, secrets.token_bytes(20)) if shown.hashed else entry
    _record(shown.file, f"{written} {shown.kind} {shown.key}\n")
    tell("new", f"known from now on: {entry} {print_}", console)
    return ExitCode.OK


def _ask(question: str, print_: str, around: Surroundings, console: Console) -> None:
    answer = peers.agreed(question, around, console)
    if answer is None:
        hint = "compare it with the host's own, then give it: --fingerprint SHA256:…"
        raise UsageError(f"{question.partition(';')[0]}; nobody is there to compare it", code="not-compared", hint=hint)
    if not answer:
        raise CasError(f"the key {print_} was not taken", code="not-trusted")


def _record(path: Path, line: str) -> None:
    """Add a line to a known_hosts file, on disk, behind whole lines. Raises CasError."""
    try:
        make_private(path.parent)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b") as file:
            whole = not file.seek(0, os.SEEK_END) or (file.seek(-1, os.SEEK_END) >= 0 and file.read(1) == b"\n")
            file.write(("" if whole else "\n").encode() + line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise CasError(f"`{path}` cannot be written: {reason(problem)}", code="unwritable") from problem


def _tell(
    state: str, words: str, console: Console, *, name: str, host: str | None = None, fingerprint: str | None = None
) -> None:
    if console.form is Form.TEXT:
        console.result(words)
        return
    told = {"name": name, "host": host, "fingerprint": fingerprint, "state": state}
    console.result(as_json({"format": "cas.trust/1", **told}))


def _untrusted(message: str, hint: str) -> TransferError:
    error = TransferError(message, code="not-trusted", permanent=True, hint=hint)
    error.exit_code = ExitCode.DELIVERY
    return error
