"""The inbox: what lies in a folder of messages, read without following links. Writes nothing.

Other people's programs write there: names may be of any kind, and be gone the next moment.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cas.arrival import Kind
from cas.errors import CasError, reason

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
KINDS = (
    (stat.S_ISREG, Kind.FILE),
    (stat.S_ISDIR, Kind.FOLDER),
    (stat.S_ISLNK, Kind.LINK),
    (stat.S_ISFIFO, Kind.FIFO),
    (stat.S_ISSOCK, Kind.SOCKET),
)
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
TRIES = 3
"""How often a file is read that changes meanwhile."""
CHANGING = "is still being written: it changed each time that it was read"


class NoMessage(CasError):
    """There is no message at a path that can be read. `why` is what is to be said of it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"`{path}` {why}", code="no-message", hint="see what there is: cas inbox")
        self.why = why


class Gone(NoMessage):
    """There is nothing at a path; or no more, when another has put it away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A file's bytes, read once; `content` is None for what was not read. `changed`: its time."""

    content: bytes | None
    size: int
    changed: datetime


def names(folder: Path) -> Mapping[str, Kind]:
    """Every name in a folder, and what it stands for; none where there is no folder. Raises CasError."""
    try:
        with os.scandir(folder) as entries:
            kinds = ((entry.name, _kind(entry)) for entry in entries)
            return {name: kind for name, kind in kinds if kind is not None}
    except FileNotFoundError as error:
        if not os.path.lexists(folder):
            return {}
        raise _unreadable(folder, "it is a symbolic link to nothing") from error
    except OSError as error:
        raise _unreadable(folder, reason(error)) from error


def held(path: Path, limit: int) -> Held:
    """A file as it stands, whole, where it has at most so many bytes. Raises NoMessage for what is none, or is gone."""
    for _ in range(TRIES):
        if found := _held(path, limit):
            return found
    raise NoMessage(path, CHANGING)


def unread(path: Path) -> Held:
    """What there is to know of a file without reading it: nothing, where its folder may not be entered. Raises Gone."""
    try:
        about = lying(path)
    except Gone:
        raise
    except NoMessage:
        return Held(content=None, size=0, changed=FIRST)
    return Held(content=None, size=about.st_size, changed=_changed(about))


def lying(path: Path) -> os.stat_result:
    """What lies there, links not followed. Raises NoMessage."""
    try:
        return os.lstat(path)
    except OSError as error:
        raise _refused(path, error) from error
    except ValueError as error:  # a NUL in it
        raise NoMessage(path, f"cannot be read: {error}") from error


def regular(path: Path, about: os.stat_result) -> os.stat_result:
    """The same, of a file. Raises NoMessage for any other kind."""
    kind = _kind_of(about.st_mode)
    if kind is Kind.FILE:
        return about
    raise NoMessage(path, f"is {kind.value}{', and is not followed' if kind is Kind.LINK else ''}")


def _kind(entry: os.DirEntry[str]) -> Kind | None:
    """What a name stands for; None where it is gone. The common kinds cost nothing: the folder tells them."""
    try:
        if entry.is_file(follow_symlinks=False):
            return Kind.FILE
        return Kind.LINK if entry.is_symlink() else _kind_of(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None
    except OSError:
        return Kind.OTHER


def _kind_of(mode: int) -> Kind:
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return Kind.DEVICE
    return next((kind for fits, kind in KINDS if fits(mode)), Kind.OTHER)


def _held(path: Path, limit: int) -> Held | None:
    """None where it changed while it was read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            about = regular(path, os.fstat(handle))
            content = file.read(about.st_size + 1) if about.st_size <= limit else b""
            after = os.fstat(handle)
    except OSError as error:
        if error.errno not in GONE:
            regular(path, lying(path))  # what cannot be opened may be no file
        raise _refused(path, error) from error
    except ValueError as error:  # a NUL in it
        raise NoMessage(path, f"cannot be read: {error}") from error
    if about.st_size > limit:
        return Held(content=None, size=about.st_size, changed=_changed(about))
    if (len(content), about.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    return Held(content=content, size=len(content), changed=_changed(about))


def _changed(about: os.stat_result) -> datetime:
    """Whoever wrote a file may have given it any time, such as one after the year 9999."""
    try:
        return datetime.fromtimestamp(about.st_mtime, UTC).replace(microsecond=0)
    except (ValueError, OverflowError, OSError):
        return FIRST if about.st_mtime < 0 else LAST


def _refused(path: Path, error: OSError) -> NoMessage:
    return (Gone if error.errno in GONE else NoMessage)(path, f"cannot be read: {reason(error)}")


def _unreadable(folder: Path, why: str) -> CasError:
    return CasError(f"the inbox `{folder}` cannot be read: {why}", code="unreadable-inbox")
