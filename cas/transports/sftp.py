"""Another machine's files over SFTP. The extensions are OpenSSH's (its file PROTOCOL, section 4).

SFTP's errors collapse ("Failure" is already exists, no space and I/O error alike): a look tells which one it was.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Set

from paramiko import Channel, Message
from paramiko import sftp as wire

from cas.errors import CasError, TransferError
from cas.transports.files import LARGEST_READ, Kind, T, Task
from cas.transports.sftp_channel import Refused, Request, SftpChannel, Wide

WITH_SIZE, WITH_OWNER, WITH_MODE, WITH_TIMES, WITH_EXTENSIONS = 1, 2, 4, 8, 1 << 31
END_OF_FILE, NO_SUCH_FILE, PERMISSION_DENIED, UNSUPPORTED = 1, 2, 3, 8
READ_ONLY = 1
MOST_NAMES = 200_000
"""In one folder. An inbox with so many receipts is long due for `cas prune`."""
CHUNK = 32 * 1024  # larger packets are not sure to be taken
POSIX_RENAME, HARDLINK, FSYNC, STATVFS = (
    f"{name}@openssh.com" for name in ("posix-rename", "hardlink", "fsync", "statvfs")
)
NEEDED = frozenset({POSIX_RENAME, HARDLINK})
"""Without these no message can appear whole."""


class SftpFiles:
    """`Files` over an open SFTP channel. `~/` is where the server puts us: at home."""

    def __init__(self, channel: Channel, where: str, needed: Set[str] = NEEDED) -> None:
        self._channel = SftpChannel(channel, where)
        self._where = where
        self.durable = FSYNC in self._channel.extensions
        if missing := needed - self._channel.extensions:
            names = ", ".join(f"`{name}`" for name in sorted(missing))
            raise TransferError(
                f"the SFTP server of {where} lacks {names}, without which no message can appear whole",
                code="sftp-incomplete",
                permanent=True,
                hint="use OpenSSH's sftp-server there",
            )

    @property
    def extensions(self) -> set[str]:
        """What the server says that it can do beside the protocol."""
        return self._channel.extensions

    def absolute(self, path: str) -> str:
        return path

    def run(self, tasks: Iterable[Task[T]]) -> list[T | CasError]:
        return self._channel.run(tasks)

    def close(self) -> None:
        self._channel.close()

    async def kind(self, path: str) -> Kind | None:
        try:
            answer = await Request(wire.CMD_LSTAT, (_remote(path),))
        except Refused as no:
            if no.status == NO_SUCH_FILE:
                return None
            raise await self._error(no, path) from no
        mode, _ = _attributes(answer)
        return Kind.FILE if stat.S_ISREG(mode) else Kind.FOLDER if stat.S_ISDIR(mode) else Kind.OTHER

    async def changed(self, path: str) -> int | None:
        """When a file was changed, by the clock there, in seconds since 1970; None where that is not told."""
        try:
            return _attributes(await Request(wire.CMD_LSTAT, (_remote(path),)))[1]
        except Refused as no:
            raise await self._error(no, path) from no

    async def read(self, path: str, limit: int = LARGEST_READ) -> bytes | None:
        try:
            handle = await self._opened(path, wire.SFTP_FLAG_READ)
        except Refused as no:
            if no.status == NO_SUCH_FILE:
                return None
            raise await self._error(no, path) from no
        content = b""
        try:
            while len(content) < limit:
                answer = await Request(wire.CMD_READ, (handle, Wide(len(content)), CHUNK))
                if not (part := answer.get_string()):
                    raise strange(path)
                content += part
        except Refused as no:
            if no.status != END_OF_FILE:
                raise await self._error(no, path) from no
        await self._closed(handle, path)
        return content

    async def names(self, folder: str) -> list[str]:
        names: list[str] = []
        try:
            handle = (await Request(wire.CMD_OPENDIR, (_remote(folder),))).get_string()
            while True:
                answer = await Request(wire.CMD_READDIR, (handle,))
                if not (part := _listed(answer)) or len(names) + len(part) > MOST_NAMES:
                    raise strange(folder)
                names += part
        except Refused as no:
            if no.status != END_OF_FILE:
                raise await self._error(no, folder) from no
        await self._closed(handle, folder)
        return [name for name in names if name not in (".", "..")]

    async def create(self, path: str, content: bytes) -> bool:
        try:
            handle = await self._opened(path, wire.SFTP_FLAG_WRITE | wire.SFTP_FLAG_CREATE | wire.SFTP_FLAG_EXCL)
        except Refused as no:
            if await self.kind(path):
                return False
            raise await self._error(no, path) from no
        try:
            for start in range(0, len(content), CHUNK):
                await Request(wire.CMD_WRITE, (handle, Wide(start), content[start : start + CHUNK]))
            await self._synced(handle)
        except Refused as no:
            raise await self._error(no, path) from no
        finally:
            await self._closed(handle, path)
        return True

    async def make_folder(self, path: str, *, mode: int = 0o775) -> bool:
        try:
            await Request(wire.CMD_MKDIR, (_remote(path), WITH_MODE, mode))
        except Refused as no:
            if await self.kind(path):
                return False
            raise await self._error(no, path) from no
        return True

    async def move_folder(self, source: str, target: str) -> bool:
        try:
            await Request(wire.CMD_EXTENDED, (POSIX_RENAME, _remote(source), _remote(target)))
        except Refused as no:
            if await self.kind(source) and await self.kind(target):
                return False
            raise await self._error(no, target) from no
        return True

    async def link(self, source: str, target: str) -> bool:
        try:
            await Request(wire.CMD_EXTENDED, (HARDLINK, _remote(source), _remote(target)))
        except Refused as no:
            if await self.kind(target):
                return False
            raise await self._error(no, target) from no
        return True

    async def move(self, source: str, target: str) -> bool:
        # posix-rename replaces, so a look goes first; among senders with cas the reservation keeps the name free.
        if await self.kind(target):
            return False
        try:
            await Request(wire.CMD_EXTENDED, (POSIX_RENAME, _remote(source), _remote(target)))
        except Refused as no:
            if no.status == NO_SUCH_FILE and await self.kind(source) is None:
                return False
            raise await self._error(no, target) from no
        return True

    async def remove(self, path: str) -> None:
        await self._gone(wire.CMD_REMOVE, path)

    async def remove_folder(self, path: str) -> None:
        await self._gone(wire.CMD_RMDIR, path)

    async def sync(self, folder: str) -> None:
        if not self.durable:
            return
        try:
            handle = await self._opened(folder, wire.SFTP_FLAG_READ)
        except Refused as no:
            if no.status in (NO_SUCH_FILE, PERMISSION_DENIED):
                raise await self._error(no, folder) from no
            self.durable = False  # a server that opens no folders cannot sync them
            return
        try:
            await self._synced(handle)
        except Refused as no:
            raise await self._error(no, folder) from no
        finally:
            await self._closed(handle, folder)

    def sync_all(self, folders: Iterable[str]) -> dict[str, CasError]:
        wanted = list(folders)
        results = self.run(map(self.sync, wanted))
        return {folder: error for folder, error in zip(wanted, results, strict=True) if error is not None}

    async def _opened(self, path: str, flags: int) -> bytes:
        answer = await Request(wire.CMD_OPEN, (_remote(path), flags, WITH_MODE, 0o644))
        return answer.get_string()

    async def _synced(self, handle: bytes) -> None:
        if not self.durable:
            return
        try:
            await Request(wire.CMD_EXTENDED, (FSYNC, handle))
        except Refused as no:
            if no.status != UNSUPPORTED:
                raise
            self.durable = False

    async def _closed(self, handle: bytes, path: str) -> None:
        try:
            await Request(wire.CMD_CLOSE, (handle,))
        except Refused as no:
            raise await self._error(no, path) from no

    async def _gone(self, kind: int, path: str) -> None:
        try:
            await Request(kind, (_remote(path),))
        except Refused as no:
            if no.status != NO_SUCH_FILE:
                raise await self._error(no, path) from no

    async def _error(self, no: Refused, path: str) -> TransferError:
        place = f"`{path}` on {self._where}"
        if no.status == NO_SUCH_FILE:
            return _failure(f"no such file or folder: {place}", "file-operation-failed")
        if no.status == PERMISSION_DENIED:
            hint = "give the user who logs in there the right to write there"
            return _failure(f"permission denied: {place}", "no-permission", hint=hint)
        if no.status == UNSUPPORTED:
            return _failure(f"the SFTP server cannot do what is needed for {place}", "sftp-incomplete")
        free, read_only = await self._space(path)
        if read_only:
            return _failure(f"the file system is read-only: {place}", "file-operation-failed")
        if free == 0:
            return _failure(f"no space left: {place}", "no-space", hint="free space there, then: cas retry --all")
        text = str(no).strip().rstrip(".").lower() or "no reason given"
        return _failure(f"the SFTP server failed ({text}): {place}", "file-operation-failed", permanent=False)

    async def _space(self, path: str) -> tuple[int | None, bool]:
        """Free blocks for users, and whether the file system is read-only; (None, False) where it cannot say."""
        if STATVFS not in self._channel.extensions:
            return None, False
        try:
            answer = await Request(wire.CMD_EXTENDED, (STATVFS, _remote(path.rpartition("/")[0] or "/")))
        except Refused:
            return None, False
        values = [answer.get_int64() for _ in range(11)]
        return values[4], bool(values[9] & READ_ONLY)


def _remote(path: str) -> str:
    """SFTP servers do not expand `~`; a relative path starts at home already."""
    if path == "~":
        return "."
    return "./" + path[2:] if path.startswith("~/") else path


def _listed(answer: Message) -> list[str]:
    names = []
    for _ in range(answer.get_int()):
        names.append(answer.get_string().decode("utf-8", "surrogateescape"))
        answer.get_string()  # as `ls -l` shows it
        _attributes(answer)
    return names


def _attributes(answer: Message) -> tuple[int, int | None]:
    """The mode in attributes, 0 where it is not told, and the time of the last change. The rest is passed over."""
    flags = answer.get_int()
    if flags & WITH_SIZE:
        answer.get_int64()
    if flags & WITH_OWNER:
        answer.get_int()
        answer.get_int()
    mode = answer.get_int() if flags & WITH_MODE else 0
    changed = None
    if flags & WITH_TIMES:
        answer.get_int()
        changed = answer.get_int()
    for _ in range(answer.get_int() if flags & WITH_EXTENSIONS else 0):
        answer.get_string()
        answer.get_string()
    return mode, changed


def _failure(message: str, code: str, *, permanent: bool = True, hint: str | None = None) -> TransferError:
    return TransferError(message, code=code, permanent=permanent, hint=hint)


def strange(path: str) -> TransferError:
    """The error of an answer that goes on without end, or brings nothing."""
    return TransferError(
        f"the SFTP server gives no whole answer about `{path}`",
        code="strange-answer",
        permanent=True,
        hint="see what its `Subsystem sftp` is, and how many files are there",
    )
