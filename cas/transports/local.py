"""This machine's files: the operations of a delivery as system calls."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cas.errors import CasError
from cas.transports.causes import from_os_error
from cas.transports.files import LARGEST_READ, Kind, T, Task

AT_FDCWD = -100
RENAME_NOREPLACE = 1
CANNOT_RENAME_SO = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
CANNOT_SYNC = frozenset({errno.EINVAL, errno.EROFS, errno.EOPNOTSUPP, errno.EBADF})
CHUNK = 1 << 20
MANY = 64
"""So many files and folders are synced one by one; more, by one syncfs(2), which waits for what others wrote too."""


class LocalFiles:
    """`Files` on this machine; `home` is what `~` stands for. Operations never wait for one another."""

    def __init__(self, home: Path) -> None:
        self._home = str(home)
        self._created: dict[str, list[str]] = {}
        self.durable = True

    def absolute(self, path: str) -> str:
        return self._home + path[1:] if path == "~" or path.startswith("~/") else path

    def run(self, tasks: Iterable[Task[T]]) -> list[T | CasError]:
        return [_completed(task) for task in tasks]

    async def kind(self, path: str) -> Kind | None:
        with _told(path):
            try:
                mode = os.lstat(self.absolute(path)).st_mode
            except FileNotFoundError:
                return None
            return Kind.FILE if stat.S_ISREG(mode) else Kind.FOLDER if stat.S_ISDIR(mode) else Kind.OTHER

    async def read(self, path: str, limit: int = LARGEST_READ) -> bytes | None:
        with _told(path):
            try:
                handle = os.open(self.absolute(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            with open(handle, "rb") as file:
                return file.read(limit)

    async def names(self, folder: str) -> list[str]:
        with _told(folder):
            return os.listdir(self.absolute(folder))

    async def create(self, path: str, content: bytes) -> bool:
        with _told(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                handle = os.open(self.absolute(path), flags, 0o644)
            except FileExistsError:
                return False
            with open(handle, "wb", buffering=0) as file:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(file.fileno(), rest[:CHUNK]) :]
            self._created.setdefault(path.rpartition("/")[0], []).append(path)
            return True

    async def make_folder(self, path: str, *, mode: int = 0o775) -> bool:
        with _told(path):
            try:
                os.mkdir(self.absolute(path), mode)
            except FileExistsError:
                return False
            return True

    async def move_folder(self, source: str, target: str) -> bool:
        with _told(target):
            try:
                os.rename(self.absolute(source), self.absolute(target))
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
            return True

    async def link(self, source: str, target: str) -> bool:
        with _told(target):
            try:
                os.link(self.absolute(source), self.absolute(target), follow_symlinks=False)
            except FileExistsError:
                return False
            return True

    async def move(self, source: str, target: str) -> bool:
        with _told(target):
            try:
                _rename_without_replacing(self.absolute(source), self.absolute(target))
            except FileExistsError:
                return False
            except FileNotFoundError:
                if os.path.lexists(self.absolute(source)):
                    raise  # it is the folder of the target that is missing
                return False
            return True

    async def remove(self, path: str) -> None:
        with _told(path):
            Path(self.absolute(path)).unlink(missing_ok=True)

    async def remove_folder(self, path: str) -> None:
        with _told(path):
            try:
                os.rmdir(self.absolute(path))
            except FileNotFoundError:
                return

    async def sync(self, folder: str) -> None:
        for path in self._created.pop(folder, ()):
            with _told(path), suppress(FileNotFoundError):  # taken away since
                self._synced(path, os.O_NOFOLLOW, os.fsync)
        with _told(folder):
            self._synced(folder, os.O_DIRECTORY, os.fsync)

    def sync_all(self, folders: Iterable[str]) -> dict[str, CasError]:
        wanted = list(folders)
        if _c_syncfs is None or len(wanted) + sum(len(self._created.get(folder, ())) for folder in wanted) <= MANY:
            results = self.run(map(self.sync, wanted))
        else:
            disks: dict[int, CasError | None] = {}
            results = self.run(self._sync_disk(folder, disks) for folder in wanted)
        return {folder: error for folder, error in zip(wanted, results, strict=True) if error is not None}

    async def _sync_disk(self, folder: str, done: dict[int, CasError | None]) -> None:
        """Sync the whole file system that a folder is on; once for all folders there."""
        self._created.pop(folder, None)
        with _told(folder):
            disk = os.stat(self.absolute(folder)).st_dev
            if disk not in done:
                done[disk] = None
                try:
                    with _told(folder):
                        self._synced(folder, os.O_DIRECTORY, _sync_file_system)
                except CasError as error:
                    done[disk] = error
        failure = done[disk]
        if failure is not None:
            raise failure

    def _synced(self, path: str, flags: int, sync: Callable[[int], object]) -> None:
        handle = os.open(self.absolute(path), os.O_RDONLY | os.O_CLOEXEC | flags)
        try:
            sync(handle)
        except OSError as error:
            if error.errno not in CANNOT_SYNC:
                raise
            self.durable = False
        finally:
            os.close(handle)

    def close(self) -> None:
        pass


def _completed(task: Task[T]) -> T | CasError:
    try:
        task.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    except CasError as error:
        return error
    raise AssertionError("a local operation never waits")


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path) from error


def _rename_without_replacing(source: str, target: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE; where kernel or file system lack it, a look and a plain rename."""
    if _renameat2 is None or not _renamed(source, target):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)


def _renamed(source: str, target: str) -> bool:
    if _renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_RENAME_SO:
        return False
    raise OSError(code, os.strerror(code), target)


def _sync_file_system(handle: int) -> None:
    if _c_syncfs(handle) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _c_function(name: str) -> Any:
    """A function that the `os` module lacks; None where the system does too (glibc 2.28 and Linux have both)."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError):
        return None


_renameat2 = _c_function("renameat2")
_c_syncfs = _c_function("syncfs")
