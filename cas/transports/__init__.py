"""Transports: the way to an inbox, on this machine or on another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cas.errors import TransferError
from cas.inventory import Destination
from cas.transports.attempt import Progress, Shown, Stop, attempt
from cas.transports.cutoff import Cutoff
from cas.transports.local import LocalFiles
from cas.transports.remote import Connection, NoPythonError, RemoteTransport
from cas.transports.transport import Transport

if TYPE_CHECKING:
    from cas.transports.ssh import Session

FEW, NEAR = 8, 0.005
"""Up to so many deliveries, and so many seconds a round trip, SFTP has ended before a Python there has started."""


def load(destinations: Iterable[Destination]) -> None:
    """Import what these will need: Fabric takes a tenth of a second and more, which something else may use."""
    if any(destination.transport != "local" for destination in destinations):
        from cas.transports import rsync, sftp, ssh  # noqa: F401


@contextmanager
def opened(
    destination: Destination,
    timeout: int,
    deliveries: int = 1,
    cutoff: Cutoff | None = None,
    *,
    home: Path,
    user: str,
    login: Callable[[Destination], AbstractContextManager[object]] = lambda _: nullcontext(),
) -> Iterator[Transport]:
    """The transport for a destination, closed at the end; raises TransferError.

    `user` logs in by default; `login` bounds how many log in at one host at once; `cutoff` may end the connection.
    `auto` is whichever is sooner done with so many `deliveries`: the delivery code run there, or SFTP; and the other
    one where that is not offered.
    """
    if destination.transport == "local":
        yield Transport(LocalFiles(home))
        return
    # Imported here: a send on the same machine goes without Fabric and paramiko.
    from cas.transports import ssh

    with login(destination):
        session = ssh.connected(destination, home=home, user=user, timeout=timeout, cutoff=cutoff)
    try:
        if cutoff:
            cutoff.attach(session.close)
        near = session.round_trip is not None and session.round_trip < NEAR
        yield _transport(destination.transport, session, sftp_first=near and deliveries <= FEW)
    finally:
        session.close()


def _transport(kind: str, session: Session, *, sftp_first: bool) -> Transport:
    from cas.transports.rsync import RsyncTransport
    from cas.transports.sftp import SftpFiles

    def over_sftp() -> Transport:
        files = SftpFiles(session.channel("SFTP", lambda channel: channel.invoke_subsystem("sftp")), session.where)
        return RsyncTransport(files, session) if kind == "rsync" else Transport(files, session.close)

    def there() -> Transport:
        return RemoteTransport(Connection(session), session.close)

    if kind == "python":
        return there()
    if kind != "auto":
        return over_sftp()
    try:
        return over_sftp() if sftp_first else there()
    except TransferError as first:
        if not session.stands():
            raise
        try:
            return there() if sftp_first else over_sftp()
        except NoPythonError:
            raise first from None


def attempted(
    batch: Sequence[Progress], transport: Transport, stop: Stop, shown: Shown, *, require_durable: bool
) -> None:
    """One attempt at a batch, as `attempt` has it; there, where the transport can."""
    if isinstance(transport, RemoteTransport):
        transport.attempt(batch, stop, shown, require_durable=require_durable)
    else:
        attempt(batch, transport, stop, shown, require_durable=require_durable)


def as_here(destination: Destination, *, home: Path, user: str) -> Destination:
    """A destination that says who logs in, as this machine's SSH has it, so that it is one inbox wherever one logs in
    from."""
    if destination.transport == "local" or destination.user is not None:
        return destination
    from cas.transports import ssh

    return replace(destination, user=ssh.login_name(destination, home=home, user=user))


def told(destination: Destination, *, home: Path, user: str) -> str:
    """An inbox as people are told it: absolute on this machine, else `user@host:<inbox as configured>`."""
    if destination.transport == "local":
        return LocalFiles(home).absolute(destination.inbox)
    return f"{as_here(destination, home=home, user=user).user}@{destination.host}:{destination.inbox}"
