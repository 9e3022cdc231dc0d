"""The archive: the folder `processed` of an inbox, into which a message goes with its signature. Replaces nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cas.arrival import MESSAGE_SUFFIX, PROCESSED
from cas.errors import CasError, reason
from cas.inbox import Gone, NoMessage, lying, regular
from cas.names import signature_name
from cas.transports.local import LocalFiles


def put_away(path: Path) -> Path:
    """Move a message, then its signature, from an inbox into `processed` in it; its path there.

    The message first: whoever sees a message finds its signature. What was cut off between the two is finished, and of
    several at once one moves it. Raises CasError, and then nothing was moved that is not named.
    """
    signature, folder = path.parent / signature_name(path.name), path.parent / PROCESSED
    there = folder / path.name
    here = _checked(path)
    if not here and not (_lies(there) and _lies(signature)):
        raise _archived(path) if _lies(there) else Gone(path, "is not there")
    _make(folder)
    files = LocalFiles(Path("/"))
    # Before they are parted. The message is looked for last: whoever puts it away as well moves it first.
    if here and _lies(signature) and _lies(folder / signature.name) and _lies(path):
        raise _taken(folder, signature)
    if here and not _moved(path, folder, files):
        raise _archived(path) if _lies(there) else Gone(path, "is not there")
    if _lies(signature):
        _moved(signature, folder, files)
    for problem in files.sync_all([str(folder.absolute()), str(path.parent.absolute())]).values():
        raise CasError(f"`{path}` was moved, and the disk did not confirm it: {problem}", code="not-archived")
    return there


def _checked(path: Path) -> bool:
    """Whether a message lies there. Raises NoMessage for what is none, and CasError for what is archived."""
    if not path.name.endswith(MESSAGE_SUFFIX):
        raise NoMessage(path, f"does not end in `{MESSAGE_SUFFIX}`")
    try:
        regular(path, lying(path))
    except Gone:
        return False
    if path.absolute().parent.name == PROCESSED:
        raise _archived(path)
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = os.lstat(folder)
    except OSError as error:
        raise CasError(f"`{folder}` cannot be made: {reason(error)}", code="not-archived") from error
    if not stat.S_ISDIR(about.st_mode):
        raise CasError(f"`{folder}` is no folder", code="not-archived", hint="links are not followed")


def _moved(path: Path, folder: Path, files: LocalFiles) -> bool:
    """Move it there, replacing nothing; False where it is gone. Raises CasError."""
    (moved,) = files.run([files.move(str(path.absolute()), str(folder.absolute() / path.name))])
    if isinstance(moved, CasError):
        raise CasError(f"`{path}` was not moved: {moved}", code="not-archived")
    if not moved and _lies(path):
        raise _taken(folder, path)
    return moved


def _lies(path: Path) -> bool:
    return os.path.lexists(path)


def _archived(path: Path) -> CasError:
    return CasError(f"`{path}` is archived already", code="archived")


def _taken(folder: Path, path: Path) -> CasError:
    hint = f"see what the two are; then move one away: {folder / path.name}"
    return CasError(f"`{folder}` has a `{path.name}` already", code="not-archived", hint=hint)
