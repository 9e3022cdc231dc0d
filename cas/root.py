"""A root: files are opened beneath one directory, whatever links lie below it. Reads files; writes none.

Every component of a path is opened by itself, relative to the directory before it and without following links
(openat, O_NOFOLLOW). A link is read and followed only where it stays beneath the root. So another process that swaps a
directory or a file for a link while cas works cannot lead it outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_LINKS = 40  # Linux's own bound
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a FIFO without a writer would wait for ever.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OutsideError(ValueError):
    """A path, or a link in it, leads out of the root."""


class Root:
    """One directory, and what lies beneath it. Paths are relative to it, with `/`.

    `directory` is opened as it is named, links included: the user named it. All methods raise OutsideError for a path
    that leaves it, and OSError.
    """

    def __init__(self, directory: Path, parent: Root | None = None) -> None:
        self.directory = directory
        self._parent = parent
        self._identity: tuple[int, int] | None = None

    def below(self, path: str) -> Root:
        """A directory beneath this one as a root of its own, reached through this one each time."""
        return Root(self.directory / path, self)

    def open(self, path: str) -> int:
        """A descriptor to read a file from. Only the caller knows whether it is a regular file."""
        with self._walked(path) as (directories, name):
            return os.open(name, FILE, dir_fd=directories[-1])

    def directory_at(self, path: str) -> int:
        """A descriptor of a directory."""
        with self._walked(path) as (directories, name):
            return os.open(name, DIRECTORY, dir_fd=directories[-1])

    def is_file(self, path: str) -> bool:
        """Whether a regular file lies there, by itself or through links beneath the root."""
        try:
            with self._walked(path) as (directories, name):
                return stat.S_ISREG(os.stat(name, dir_fd=directories[-1], follow_symlinks=False).st_mode)
        except OSError:
            return False

    def entries(self, path: str) -> Iterator[tuple[str, bool]]:
        """The names in a directory, in no order, and whether each is a directory or leads to one; "" is the root."""
        handle = self.directory_at(path)
        try:
            with os.scandir(handle) as entries:
                yield from ((entry.name, entry.is_dir()) for entry in entries)
        finally:
            os.close(handle)

    def exists(self, path: str) -> bool:
        """Whether anything lies there; a link that leads nowhere does not count."""
        try:
            with self._walked(path) as (directories, name):
                os.stat(name, dir_fd=directories[-1], follow_symlinks=False)
        except OSError:
            return False
        return True

    @contextmanager
    def _walked(self, path: str) -> Iterator[tuple[list[int], str]]:
        """The open directories from the root to a path's last component, and that component, which is no link."""
        directories = [self._opened()]
        try:
            yield directories, self._last(directories, _components(path))
        finally:
            for handle in directories:
                os.close(handle)

    def _last(self, directories: list[int], pending: list[str]) -> str:
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                _leave(directories)
            elif (target := _link(name, directories[-1])) is not None:
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                pending += _components(self._followed(target, directories))
            elif pending:
                directories.append(os.open(name, DIRECTORY, dir_fd=directories[-1]))
            else:
                return name
        return "."

    def _opened(self) -> int:
        """The root itself; raises OSError where another directory has taken its place since it was first opened."""
        if self._parent is None:
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            handle = self._parent.directory_at(str(self.directory.relative_to(self._parent.directory)))
        status = os.fstat(handle)
        identity = status.st_dev, status.st_ino
        if self._identity not in (None, identity):
            os.close(handle)
            raise OSError(errno.ESTALE, f"another directory has taken the place of {self.directory}")
        self._identity = identity
        return handle

    def _followed(self, target: str, directories: list[int]) -> str:
        """A link's target, relative to the directory opened last. An absolute one starts again at the root."""
        if not target.startswith("/"):
            return target
        beneath = os.path.relpath(target, os.path.realpath(self.directory))
        if beneath == ".." or beneath.startswith("../"):
            raise OutsideError(target)
        while len(directories) > 1:
            os.close(directories.pop())
        return beneath


def _components(path: str) -> list[str]:
    """The last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _leave(directories: list[int]) -> None:
    if len(directories) == 1:
        raise OutsideError("..")
    os.close(directories.pop())


def _link(name: str, directory: int) -> str | None:
    """The target of a link; None for what is none. Raises OSError for what does not exist."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
