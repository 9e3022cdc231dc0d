"""Transports: the way to an inbox, on this machine or on another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cas.inventory import Destination
from cas.transports.local import LocalFiles
from cas.transports.transport import Transport


@contextmanager
def opened(destination: Destination, timeout: int, *, home: Path, user: str) -> Iterator[Transport]:
    """The transport for a destination, closed at the end; raises TransferError. `user`: who logs in by default."""
    if destination.transport == "local":
        yield Transport(LocalFiles(home))
        return
    # Imported here: a send on the same machine goes without Fabric and paramiko.
    from cas.transports import ssh
    from cas.transports.rsync import RsyncTransport
    from cas.transports.sftp import SftpFiles

    session = ssh.connected(destination, home=home, user=user, timeout=timeout)
    try:
        files = SftpFiles(session.channel("SFTP", lambda channel: channel.invoke_subsystem("sftp")), session.where)
        yield RsyncTransport(files, session) if destination.transport == "rsync" else Transport(files, session.close)
    finally:
        session.close()


def told(destination: Destination, *, home: Path, user: str) -> str:
    """An inbox as people are told it: absolute on this machine, else `user@host:<inbox as configured>`."""
    if destination.transport == "local":
        return LocalFiles(home).absolute(destination.inbox)
    name = destination.user
    if name is None:
        from cas.transports import ssh

        name = ssh.login_name(destination, home=home, user=user)
    return f"{name}@{destination.host}:{destination.inbox}"
