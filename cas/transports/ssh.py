"""SSH connections, opened through Fabric, with the host key checked before anything else is said.

Fabric by itself accepts any host key: it sets paramiko's AutoAddPolicy and reads no known_hosts. Here a key must stand
in known_hosts, or be pinned in peers.toml; `~/.ssh/config` is honoured, but `StrictHostKeyChecking` loosens nothing.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import shlex
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fabric import Config, Connection
from paramiko import (
    AuthenticationException,
    Channel,
    ChannelException,
    MissingHostKeyPolicy,
    PasswordRequiredException,
    PKey,
    SSHClient,
    SSHConfig,
    SSHException,
    Transport,
)
from paramiko.pkey import UnknownKeyType

from cas.errors import TransferError
from cas.inventory import Destination
from cas.transports import causes, known_hosts
from cas.transports.cutoff import LOOK_EVERY, Cutoff
from cas.transports.metered_socket import MeteredSocket

SYSTEM = Path("/etc/ssh")
RTT_OFFSET = 68  # of tcpi_rtt in Linux's struct tcp_info (linux/tcp.h)


class Session:
    """One connection to one host; channels are opened on it."""

    def __init__(self, connection: Connection, where: str, timeout: float, round_trip: float | None = None) -> None:
        self._connection = connection
        self.where = where
        self.timeout = timeout
        self.round_trip = round_trip
        """Seconds that a packet takes there and back; None where nobody knows, as behind a jump host."""

    def channel(self, what: str, start: Callable[[Channel], None]) -> Channel:
        """A channel to `what`, on which every wait is bounded; `start` asks for it (a subsystem, a command)."""
        transport: Transport = self._connection.transport
        try:
            channel = transport.open_session(timeout=self.timeout)
        except (EOFError, OSError, SSHException) as error:
            raise causes.lost(self.where, error) from error
        channel.settimeout(self.timeout)
        try:
            _bounded(channel, start, self.timeout)
        except SSHException as error:
            raise causes.refused(channel, self.where, what, error) from error
        except (EOFError, OSError) as error:
            raise causes.lost(self.where, error) from error
        return channel

    def stands(self) -> bool:
        """Whether the other side still answers: then it was one channel that failed, and not the connection."""
        transport: Transport = self._connection.transport
        try:
            transport.open_session(timeout=self.timeout).close()
        except ChannelException:  # no further channel, but an answer
            return True
        except (EOFError, OSError, SSHException):
            return False
        return True

    def close(self) -> None:
        self._connection.client.close()
        gateway = self._connection.gateway
        if isinstance(gateway, Connection):
            gateway.close()


def _bounded(channel: Channel, start: Callable[[Channel], None], timeout: float) -> None:
    """Start a channel; raises TimeoutError where paramiko would wait without end for the answer."""
    late = threading.Event()

    def wake() -> None:
        late.set()
        channel.event.set()

    timer = threading.Timer(timeout, wake)
    timer.daemon = True
    timer.start()
    try:
        start(channel)
    except SSHException:
        if late.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


def connected(
    destination: Destination, *, home: Path, user: str, timeout: float, cutoff: Cutoff | None = None
) -> Session:
    """Log in. `user` is who logs in where neither peers.toml nor SSH's configuration say; raises TransferError.

    `cutoff`: what may close the connection, also while it is being opened.
    """
    _hush()
    configuration = _configuration(home)
    connection = _connection(destination, configuration, home, user, timeout)
    where = f"{connection.host}:{connection.port}"
    round_trip = None
    try:
        _secure(connection, home, destination.host_key, destination.address.partition(".")[0])
        if connection.gateway is None:
            sock = _socket(connection.host, connection.port, timeout, cutoff)
            connection.connect_kwargs["sock"] = MeteredSocket(sock, cutoff.received) if cutoff else sock
            round_trip = _round_trip(sock)
        _open(connection)
    except Exception as error:
        connection.client.close()
        raise causes.from_connecting(_key_fault(error, connection.connect_kwargs["key_filename"]), where) from error
    return Session(connection, where, timeout, round_trip)


def _hush() -> None:
    """Keep paramiko's tracebacks off standard error. Once: of a handler for each host, every next one is compared."""
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownKey:
    """The key that a host shows: `name` and `port` as known_hosts has them, and what is known of it there."""

    name: str
    port: int
    kind: str
    key: str
    known: known_hosts.HostKeys
    file: Path
    """The known_hosts file that is the user's own."""
    hashed: bool
    """Whether names are written hashed there."""


def shown_key(destination: Destination, *, home: Path, user: str, timeout: float) -> ShownKey:
    """The key that a host shows, of a kind that is known, if one is; nobody logs in. Raises TransferError."""
    _hush()
    connection = _connection(destination, _configuration(home), home, user, timeout)
    where = f"{connection.host}:{connection.port}"
    asked = _Ask()
    try:
        keys = _secure(connection, home, None)
        connection.client.set_missing_host_key_policy(asked)
        if connection.gateway is None:
            connection.connect_kwargs["sock"] = _socket(connection.host, connection.port, timeout)
        connection.open()
    except Exception as error:
        if asked.key is None:
            raise causes.from_connecting(error, where) from error
    finally:
        connection.client.close()
        if isinstance(connection.gateway, Connection):
            connection.gateway.close()
    assert asked.key is not None
    found = connection.ssh_config
    alias = found.get("hostkeyalias")
    file = _expanded(shlex.split(found.get("userknownhostsfile", "~/.ssh/known_hosts"))[0], home)
    return ShownKey(
        name=alias or connection.host,
        port=22 if alias else int(connection.port),
        kind=asked.key.get_name(),
        key=asked.key.get_base64(),
        known=keys,
        file=file,
        hashed=known_hosts.names_are_hashed(found.get("hashknownhosts"), "".join(_texts([file]))),
    )


def login_name(destination: Destination, *, home: Path, user: str) -> str:
    """Who logs in at a destination, as `connected` would."""
    try:
        found = _configuration(home).lookup(destination.host or "").get("user")
    except TransferError:  # then there is no login either
        found = None
    return destination.user or found or user


def _configuration(home: Path) -> SSHConfig:
    configuration = SSHConfig()
    for path in (home / ".ssh" / "config", SYSTEM / "ssh_config"):
        try:
            with path.open(encoding="utf-8") as file:
                configuration.parse(file)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, SSHException) as error:
            raise TransferError(
                f"`{path}` cannot be read: {error}", code="ssh-config", permanent=True, hint="mend that file"
            ) from error
    return configuration


def _connection(
    destination: Destination, configuration: SSHConfig, home: Path, user: str, timeout: float
) -> Connection:
    found = configuration.lookup(destination.host or "")
    identity = [str(_expanded(destination.identity_file, home))] if destination.identity_file else []
    return Connection(
        destination.host,
        user=destination.user or found.get("user") or user,
        port=destination.port,
        # Lazy: a fabric.yml or FABRIC_* of the user's was written for other work.
        config=Config(lazy=True, ssh_config=configuration),
        gateway=False if found.get("proxyjump", "").lower() == "none" else None,
        connect_timeout=timeout,
        connect_kwargs={
            "key_filename": identity,
            "banner_timeout": timeout,
            "auth_timeout": timeout,
            "channel_timeout": timeout,
        },
    )


def _secure(connection: Connection, home: Path, pin: str | None, peer: str | None = None) -> known_hosts.HostKeys:
    """Have the host's key checked, and that of each host that is jumped over; what is known of the host's.

    `peer`: what peers.toml calls the host.
    """
    found = connection.ssh_config
    port = int(connection.port)
    name = found.get("hostkeyalias") or connection.host
    keys = known_hosts.host_keys(_known_hosts(found, home), name, port if "hostkeyalias" not in found else 22)
    if keys.trusted and pin is None:
        usable = known_hosts.algorithms(kind for kind, _ in keys.trusted)
        connection.connect_kwargs["transport_factory"] = partial(_preferring, usable)
    connection.client.set_missing_host_key_policy(_Check(keys, pin, connection.host, port, peer))
    if isinstance(connection.gateway, Connection):
        connection.gateway.connect_timeout = connection.connect_timeout
        for key in ("banner_timeout", "auth_timeout", "channel_timeout"):
            connection.gateway.connect_kwargs[key] = connection.connect_timeout
        _secure(connection.gateway, home, None)
    return keys


class _Ask(MissingHostKeyPolicy):
    """Takes down the key that a host shows, and goes no further."""

    def __init__(self) -> None:
        self.key: PKey | None = None

    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:
        del client, hostname
        self.key = key
        raise SSHException("this was all that was asked")


def _preferring(algorithms: Collection[str], sock: socket.socket, **options: Any) -> Transport:
    """A transport that asks for a host key of a kind that is known; another kind comes last, and is then shown."""
    transport = Transport(sock, **options)
    settings = transport.get_security_options()
    settings.key_types = tuple(sorted(settings.key_types, key=lambda name: name not in algorithms))
    return transport


def _known_hosts(found: dict[str, str], home: Path) -> Iterator[str]:
    user = found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    shared = found.get("globalknownhostsfile", f"{SYSTEM}/ssh_known_hosts {SYSTEM}/ssh_known_hosts2")
    return _texts(_expanded(name, home) for name in shlex.split(f"{user} {shared}"))


def _texts(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # missing, or not ours to read: what it knows is not known
            continue


def _expanded(path: str, home: Path) -> Path:
    return home / path[2:] if path.startswith("~/") else Path(path)


class _Check(MissingHostKeyPolicy):
    """Takes a host key that is pinned or known, and no other. paramiko asks it, since it is told of no key itself."""

    def __init__(self, keys: known_hosts.HostKeys, pin: str | None, host: str, port: int, peer: str | None) -> None:
        self._keys, self._pin, self._host, self._port, self._peer = keys, pin, host, port, peer

    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:
        del client, hostname
        shown = (key.get_name(), key.get_base64())
        print_ = known_hosts.fingerprint(shown[1])
        expected = sorted(known_hosts.fingerprint(known) for _, known in self._keys.trusted)
        if shown in self._keys.revoked:
            hint = "ask whoever runs the host; only then take the line with @revoked out of known_hosts"
            raise self._refused(f"shows a key that is marked as revoked: {print_}", "host-key-revoked", hint)
        if self._pin is not None:
            expected = [self._pin]
        elif shown in self._keys.trusted:
            return
        if print_ in expected:
            return
        if expected:
            raise self._refused(
                f"shows another key than it should: {print_}, expected {' or '.join(expected)}",
                "host-key-changed",
                "somebody may be in between, or the host was set up anew: ask whoever runs it; then take the old key"
                f" out with ssh-keygen -R '[{self._host}]:{self._port}', or change `host_key` in peers.toml",
            )
        raise self._refused(
            f"is not known; it shows the key {print_}",
            "host-key-unknown",
            f"compare that fingerprint with the host's own, then: cas peers trust {self._peer} --fingerprint {print_}"
            if self._peer
            else f"compare that fingerprint with the host's own, then log in once: ssh -p {self._port} {self._host}",
        )

    def _refused(self, what: str, code: str, hint: str | None) -> TransferError:
        return TransferError(f"the host {self._host}:{self._port} {what}", code=code, permanent=True, hint=hint)


def _socket(host: str, port: int, timeout: float, cutoff: Cutoff | None = None) -> socket.socket:
    """Connect to the first of a host's addresses that answers."""
    problem: OSError = TimeoutError()
    end = time.monotonic() + timeout
    for family, kind, protocol, _, address in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            if cutoff:
                # To shut it down wakes whoever waits for it; to close it alone does not.
                cutoff.attach(partial(connection.shutdown, socket.SHUT_RDWR))
                cutoff.attach(connection.close)
            _connect(connection, address, end, cutoff)
        except OSError as error:
            connection.close()
            problem = error
            continue
        except BaseException:
            connection.close()
            raise
        break
    else:
        raise problem
    connection.settimeout(timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a third of the time of a connect
    return connection


def _connect(connection: socket.socket, address: Any, end: float, cutoff: Cutoff | None) -> None:
    """Raises OSError, or the reason for which the attempt has to end: looked for while the other side is silent."""
    connection.setblocking(False)
    number = connection.connect_ex(address)
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    while number == errno.EINPROGRESS:
        if poll.poll(LOOK_EVERY * 1000):
            number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif time.monotonic() > end:
            raise TimeoutError
        if cutoff:
            cutoff.check()
    if number:
        raise OSError(number, os.strerror(number))


def _round_trip(sock: socket.socket) -> float | None:
    """Seconds there and back as the kernel found them; our own clock would measure how busy this process is."""
    try:
        found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RTT_OFFSET + 4)
    except (AttributeError, OSError):  # not Linux
        return None
    microseconds: int = struct.unpack_from("=I", found, RTT_OFFSET)[0]
    return microseconds / 1e6


def _open(connection: Connection) -> None:
    try:
        connection.open()
    except PasswordRequiredException:
        raise
    except (AuthenticationException, SSHException) as error:
        # Tailscale SSH asks for no authentication, which paramiko does not try by itself.
        transport = connection.client.get_transport()
        if isinstance(error, SSHException) and not _wants_login(error):
            raise
        if transport is None or not transport.is_active():
            raise
        try:
            transport.auth_none(connection.user)
        except SSHException:
            raise error from None
        connection.transport = transport


def _key_fault(error: Exception, names: Iterable[str]) -> Exception:
    """What is wrong with a key's file, if that was it: paramiko does not say with which."""
    if isinstance(error, AuthenticationException) or not isinstance(
        error, SSHException | ValueError | IsADirectoryError
    ):
        return error
    for name in names:
        try:
            PKey.from_path(name)
        except (FileNotFoundError, PasswordRequiredException, TypeError):  # TypeError: it has a passphrase
            continue
        except (OSError, ValueError, SSHException, UnknownKeyType):
            return causes.unusable_key(name)
    return error


def _wants_login(error: SSHException) -> bool:
    return isinstance(error, AuthenticationException) or "No authentication methods available" in str(error)
