"""Creation: bytes into a file where none stood, whole or not at all. What is there is never replaced."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cas.errors import CasError, reason


def make_private(folder: Path) -> None:
    """Make a folder, and those that it needs, for the user alone, whatever the umask is. Raises OSError."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    except FileNotFoundError:
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def create_all(files: Mapping[Path, bytes]) -> None:
    """Make these files, and the folders that they need; when one cannot be made, none stays. Raises CasError."""
    made: list[Path] = []
    try:
        for path, content in files.items():
            _make_folder(path.parent)
            create(path, content)
            made.append(path)
    except CasError:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def create(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Make one file, on disk when this returns. Raises CasError; its code is `exists` where something stands."""
    try:
        place(path.parent, [path.name], content, mode=mode)
    except OSError as error:
        raise _refused(path, error) from error


def place(folder: Path, names: Iterable[str], content: bytes, *, mode: int) -> Path:
    """Make one file, on disk when this returns, under the first of these names that is free. Raises OSError."""
    hidden = folder / f".tmp.{secrets.token_hex(8)}"
    try:
        with open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path = _linked(hidden, (folder / name for name in names))
    finally:
        with suppress(OSError):
            hidden.unlink()
    sync(folder)
    return path


def sync(folder: Path) -> None:
    """Bring a folder's names to disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _linked(hidden: Path, paths: Iterable[Path]) -> Path:
    """Unlike a rename, a link replaces nothing."""
    for path in paths:
        try:
            os.link(hidden, path)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _make_folder(folder: Path) -> None:
    try:
        make_private(folder)
    except OSError as error:
        raise CasError(f"the folder `{folder}` cannot be made: {reason(error)}", code="unwritable") from error


def _refused(path: Path, error: OSError) -> CasError:
    if isinstance(error, FileExistsError):
        return CasError(f"`{path}` exists already", code="exists", hint="take another name: no file is replaced")
    if isinstance(error, FileNotFoundError):
        return CasError(f"there is no folder `{path.parent}`", code="unwritable", hint="make it first, with mkdir -p")
    return CasError(f"`{path}` cannot be written: {reason(error)}", code="unwritable")
