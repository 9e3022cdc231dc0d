"""The inbox: what lies in a folder of messages, read without following links, and moved out of it. Replaces nothing.

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

from cas.arrival import PROCESSED, Kind
from cas.errors import CasError, reason
from cas.names import signature_name
from cas.transports.local import LocalFiles

NO_LINKS = frozenset({errno.ELOOP, errno.EMLINK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A file's bytes, read once; `content` is None for more of them than were asked for. `changed`: its time."""

    content: bytes | None
    size: int
    changed: datetime


def names(folder: Path) -> Mapping[str, Kind]:
    """Every name in a folder, and what it stands for; none where there is no folder. Raises CasError."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: _kind(entry) for entry in entries}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CasError(f"the inbox `{folder}` cannot be read: {reason(error)}", code="unreadable-inbox") from error


def held(path: Path, limit: int) -> Held:
    """A file, as long as it has at most so many bytes. Raises CasError for what is none, or is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise _no_message(path, "is no file")
            content = file.read(limit + 1) if about.st_size <= limit else None
    except OSError as error:
        if error.errno in NO_LINKS:
            raise _no_message(path, "is a symbolic link, and is not followed") from error
        raise _no_message(path, f"cannot be read: {reason(error)}") from error
    except ValueError as error:  # a NUL in it
        raise _no_message(path, f"cannot be read: {error}") from error
    changed = datetime.fromtimestamp(about.st_mtime, UTC).replace(microsecond=0)
    return Held(
        content=None if content is None or len(content) > limit else content, size=about.st_size, changed=changed
    )


def archive(path: Path) -> Path:
    """Move a message, then its signature, from an inbox into `processed` in it; its path there.

    The message first: whoever sees a message finds its signature. What was cut off between the two is finished. Raises
    CasError, and then nothing was moved that is not named.
    """
    signature = path.with_name(signature_name(path.name))
    folder = path.parent / PROCESSED
    there = folder / path.name
    _check(path)
    if not _lies(path) and not (_lies(there) and _lies(signature)):
        raise _archived(path) if _lies(there) else _no_message(path, "is not there")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CasError(f"`{folder}` cannot be made: {reason(error)}", code="not-archived") from error
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise CasError(f"`{folder}` is no folder", code="not-archived", hint="links are not followed")
    files = LocalFiles(Path("/"))
    for one in (path, signature):
        if _lies(one):
            (moved,) = files.run([files.move(str(one.absolute()), str(folder.absolute() / one.name))])
            if isinstance(moved, CasError):
                raise CasError(f"`{one}` was not moved: {moved}", code="not-archived")
            if not moved:
                hint = f"see what the two are; then move one away: {folder / one.name}"
                raise CasError(f"`{folder}` has a `{one.name}` already", code="not-archived", hint=hint)
    for problem in files.sync_all([str(folder.absolute()), str(path.parent.absolute())]).values():
        raise CasError(f"`{path}` was moved, and the disk did not confirm it: {problem}", code="not-archived")
    return there


def _check(path: Path) -> None:
    if _lies(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise _no_message(path, "is no file")
    if not path.name.endswith(".org"):
        raise _no_message(path, "does not end in `.org`")
    if path.parent.name == PROCESSED:
        raise _archived(path)


def _lies(path: Path) -> bool:
    return os.path.lexists(path)


def _kind(entry: os.DirEntry[str]) -> Kind:
    try:
        if entry.is_symlink():
            return Kind.LINK
        if entry.is_file(follow_symlinks=False):
            return Kind.FILE
        return Kind.FOLDER if entry.is_dir(follow_symlinks=False) else Kind.OTHER
    except OSError:  # gone meanwhile, on a filesystem that does not tell kinds at once
        return Kind.OTHER


def _archived(path: Path) -> CasError:
    return CasError(f"`{path}` is archived already", code="archived")


def _no_message(path: Path, why: str) -> CasError:
    return CasError(f"`{path}` {why}", code="no-message", hint="see what there is: cas inbox")
