"""rsync: the bytes of a staged batch go by one rsync, through the SSH connection that the rest of the delivery uses.

rsync's exit code 0 does not mean that a file is there, so what it brought is read back.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from paramiko import Channel

from cas.errors import CasError, TransferError
from cas.transports import causes, rsh
from cas.transports.files import Files
from cas.transports.ssh import Session
from cas.transports.transport import Envelope, Transport, contents, staging_folder, workshop

OPTIONS = ("-a", "--no-owner", "--no-group", "--no-perms", "--omit-dir-times")
REMOTE_RSYNC_MISSING = 127
MOST_SAID = 500
"""Characters of what rsync, here or there, says that are shown."""
MOST_WORDS = 10_000


class RsyncTransport(Transport):
    """The verbs over SFTP, but for the bytes."""

    def __init__(self, files: Files, session: Session) -> None:
        super().__init__(files, session.close)
        self._session = session
        self._rsync = shutil.which("rsync")
        if self._rsync is None:
            raise TransferError(
                "rsync is not installed here",
                code="no-rsync",
                permanent=True,
                hint='install rsync, or take `transport = "sftp"` for this peer in peers.toml',
            )

    def _put_together(self, envelopes: Sequence[Envelope]) -> list[str | CasError]:
        folders = [staging_folder(envelope) for envelope in envelopes]
        failed: dict[str, CasError] = {}
        for inbox in sorted({envelope.inbox for envelope in envelopes}):
            batch = [pair for pair in zip(folders, envelopes, strict=True) if pair[1].inbox == inbox]
            with tempfile.TemporaryDirectory(prefix="cas-rsync-") as tree:
                _write(Path(tree), batch)
                try:
                    self._copy(tree, f"{workshop(inbox)}/")
                except CasError as error:
                    failed[inbox] = error
        return self.run(
            self._arrived(envelope, folder, failed.get(envelope.inbox))
            for envelope, folder in zip(envelopes, folders, strict=True)
        )

    async def _arrived(self, envelope: Envelope, folder: str, error: CasError | None) -> str:
        if error:
            raise error
        for name, content in contents(envelope).items():
            if await self.files.read(f"{folder}/{name}") != content:
                raise _failed(f"rsync did not bring `{folder}/{name}` whole", permanent=False)
            await self.files.sync(f"{folder}/{name}")
        return folder

    def _copy(self, tree: str, target: str) -> None:
        path = "./" + target[2:] if target.startswith("~/") else target
        ended = _Ended()
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryFile() as said:
            shell = (sys.executable, "-ISE", rsh.__file__, str(theirs.fileno()))
            command = [str(self._rsync), *OPTIONS, f"--timeout={int(self._session.timeout)}", "-s"]
            try:
                process = subprocess.Popen(
                    [*command, "-e", " ".join(map(shlex.quote, shell)), f"{tree}/", f"peer:{path}"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    pass_fds=[theirs.fileno()],
                )
            except OSError as error:
                raise causes.from_os_error(error, str(self._rsync)) from error
            theirs.close()  # so that ours ends when rsync and its shell do
            with process:
                _serve(ours, self._session, ended)
                _end(process, self._session.timeout)
            said.seek(0)
            words = said.read(MOST_WORDS).decode("utf-8", "replace")
        if process.returncode:
            raise _reason(ended, process.returncode, words)


class _Ended:
    """How the command on the other side ended."""

    status: int | None = None
    words: str = ""
    error: CasError | None = None


def _end(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Wait until rsync has ended; it is ended if it does not by itself."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()


def _serve(connection: socket.socket, session: Session, ended: _Ended) -> None:
    """Run the command that rsync's shell asks for, and carry the bytes between them until it has ended."""
    connection.settimeout(session.timeout)
    try:
        command = _line(connection)
    except TimeoutError:
        return
    if not command:  # rsync ended before it started its shell
        return
    connection.settimeout(None)
    try:
        channel = session.channel("rsync", lambda channel: channel.exec_command(command))
    except CasError as error:
        ended.error = error
        return
    with channel:
        down = threading.Thread(target=_pump, args=(channel.recv, connection.sendall), daemon=True)
        words = threading.Thread(target=_listen, args=(channel, ended), daemon=True)
        up = threading.Thread(
            target=_pump, args=(connection.recv, channel.sendall, channel.shutdown_write), daemon=True
        )
        for thread in (down, words, up):
            thread.start()
        down.join()
        if channel.status_event.wait(1):  # the status may come behind the last byte
            ended.status = channel.recv_exit_status()
        words.join(1)
    # Closing alone would not be seen on the other side while a thread of ours still reads.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (byte := connection.recv(1)):
        line += byte
    return line.rstrip(b"\n")


def _pump(
    source: Callable[[int], bytes], target: Callable[[bytes], object], end: Callable[[], object] | None = None
) -> None:
    try:
        while content := source(1 << 16):
            target(content)
        if end:
            end()
    except (OSError, EOFError):  # one side is gone: the other learns it from its own end
        return


def _listen(channel: Channel, ended: _Ended) -> None:
    words = bytearray()
    _pump(channel.recv_stderr, lambda more: words.extend(more[: max(0, MOST_WORDS - len(words))]))
    ended.words = words.decode("utf-8", "replace")


def _write(tree: Path, batch: Sequence[tuple[str, Envelope]]) -> None:
    for folder, envelope in batch:
        place = tree / folder.rpartition("/")[2]
        place.mkdir(mode=0o700)
        for name, content in contents(envelope).items():
            handle = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with open(handle, "wb") as file:
                os.fchmod(file.fileno(), 0o644)  # the umask that counts is the other side's
                file.write(content)


def _reason(ended: _Ended, code: int, words: str) -> CasError:
    if ended.error:
        return ended.error
    if ended.status == REMOTE_RSYNC_MISSING:
        return _failed("rsync is not installed on the other side", permanent=True)
    first = (ended.words + words).strip().split("\n")[0]
    return _failed(f'rsync failed with code {code} and says: "{first[:MOST_SAID]}"', permanent=False)


def _failed(message: str, *, permanent: bool) -> TransferError:
    hint = 'see that rsync runs over there, or take `transport = "sftp"` for this peer in peers.toml'
    return TransferError(message, code="rsync-failed", permanent=permanent, hint=hint)
