"""What a power cut leaves on disk: on a real ext4, and by a model that keeps no more than was synced.

The model needs no rights. It knows two kinds of disk: one on which nothing survives that was not synced, and one on
which names survive, over files whose bytes do not. A rename is whole or not at all on either, as with every journal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

LINE = re.compile(r"(?P<name>\w+)\((?P<text>.*)\) += (?P<result>-?\d+)(?:<[^>]*>)?(?: .*)?$")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR = re.compile(r"(\d+)(?:<[^>]*>)?")
MEGABYTES = 24
NASTY = "loop,data=writeback,noauto_da_alloc,commit=300"
"""Mount options under which ext4 brings to disk by itself as little, and as late, as it can."""


class Survives(Enum):
    SYNCED = "what was synced"
    NAMES = "names, without bytes that were not synced"


@dataclass(slots=True, eq=False)
class File:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(slots=True, eq=False)
class Folder:
    entries: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


Node = File | Folder


class Disk:
    """A folder's files as a run of system calls changes them, and as they stand on disk meanwhile."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._top = _loaded(place)
        self._open: dict[int, tuple[Node, int]] = {}
        self._renames: list[tuple[Folder, str, Folder, str, Node]] = []

    def apply(self, line: str) -> None:
        """One line of `strace -xx -s …`; a call that failed, or is about something else, changes nothing."""
        match = LINE.match(line)
        if match is None or match["result"].startswith("-"):
            return
        step = getattr(self, f"_{match['name']}", None)
        if step is not None:
            strings = [bytes.fromhex(found.replace("\\x", "")) for found in STRING.findall(match["text"])]
            step(match["text"], strings, int(match["result"]))

    def leave(self, place: Path, survives: Survives) -> None:
        """Write what a power cut would leave into a folder, in place of what is there."""
        if place.exists():
            shutil.rmtree(place)
        _written(self._top, place, survives)

    def _openat(self, text: str, strings: Sequence[bytes], result: int) -> None:
        folder, name = self._found(strings[0])
        if folder is None:
            self._open.pop(result, None)
            return
        node: Node | None = folder.entries.get(name) if name else folder
        if node is None and "O_CREAT" in text:
            node = folder.entries[name] = File()
        if isinstance(node, File) and "O_TRUNC" in text:
            del node.content[:]
        if node is not None:
            self._open[result] = (node, 0)

    def _close(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del strings, result
        self._open.pop(_descriptor(text), None)

    def _write(self, text: str, strings: Sequence[bytes], result: int) -> None:
        match self._open.get(_descriptor(text)):
            case (File() as node, offset):
                _put(node, offset, strings[0][:result])
                self._open[_descriptor(text)] = (node, offset + result)

    def _pwrite64(self, text: str, strings: Sequence[bytes], result: int) -> None:
        match self._open.get(_descriptor(text)):
            case (File() as node, _):
                _put(node, int(text.rpartition(",")[2]), strings[0][:result])

    def _ftruncate(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del strings, result
        match self._open.get(_descriptor(text)):
            case (File() as node, _):
                size = int(text.rpartition(",")[2])
                node.content[:] = node.content[:size].ljust(size, b"\0")

    def _fsync(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del strings, result
        match self._open.get(_descriptor(text)):
            case (File() as node, _):
                node.synced = bytes(node.content)
            case (Folder() as node, _):
                node.synced = dict(node.entries)
                self._carry(node)

    _fdatasync = _fsync

    def _syncfs(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del text, strings, result
        self._renames.clear()
        _keep(self._top)

    def _mkdir(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del text, result
        folder, name = self._found(strings[0])
        if folder is not None:
            folder.entries[name] = Folder()

    def _rename(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del text, result
        source, old = self._found(strings[0])
        target, new = self._found(strings[1])
        if source is not None and target is not None:
            node = source.entries.pop(old)
            target.entries[new] = node
            self._renames.append((source, old, target, new, node))

    _renameat = _renameat2 = _rename

    def _link(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del text, result
        source, old = self._found(strings[0])
        target, new = self._found(strings[1])
        if source is not None and target is not None:
            target.entries[new] = source.entries[old]

    _linkat = _link

    def _unlink(self, text: str, strings: Sequence[bytes], result: int) -> None:
        del text, result
        folder, name = self._found(strings[0])
        if folder is not None:
            del folder.entries[name]

    _unlinkat = _rmdir = _unlink

    def _carry(self, folder: Folder) -> None:
        """A rename that is on disk in one of its folders is so in the other."""
        for rename in [one for one in self._renames if folder in (one[0], one[2])]:
            source, old, target, new, node = rename
            if source.synced.get(old) is node:
                del source.synced[old]
            if target.entries.get(new) is node:
                target.synced[new] = node
            self._renames.remove(rename)

    def _found(self, path: bytes) -> tuple[Folder | None, str]:
        """The folder that holds a path, and the name in it; None for what is not of this disk."""
        try:
            parts = Path(os.fsdecode(path)).relative_to(self._place).parts
        except ValueError:
            return None, ""
        folder = self._top
        for part in parts[:-1]:
            inner = folder.entries.get(part)
            if not isinstance(inner, Folder):
                return None, ""
            folder = inner
        return folder, parts[-1] if parts else ""


def _descriptor(text: str) -> int:
    match = DESCRIPTOR.match(text)
    return int(match[1]) if match else -1


def _put(node: File, offset: int, content: bytes) -> None:
    if len(node.content) < offset:
        node.content.extend(bytes(offset - len(node.content)))
    node.content[offset : offset + len(content)] = content


def _keep(folder: Folder) -> None:
    """All that is in a folder is on disk."""
    folder.synced = dict(folder.entries)
    for node in folder.entries.values():
        if isinstance(node, Folder):
            _keep(node)
        else:
            node.synced = bytes(node.content)


def _loaded(place: Path) -> Folder:
    entries: dict[str, Node] = {}
    for path in place.iterdir():
        if path.is_dir():
            entries[path.name] = _loaded(path)
        else:
            content = path.read_bytes()
            entries[path.name] = File(content=bytearray(content), synced=content)
    return Folder(entries=entries, synced=dict(entries))


def _written(folder: Folder, place: Path, survives: Survives) -> None:
    place.mkdir()
    for name, node in (folder.entries if survives is Survives.NAMES else folder.synced).items():
        if isinstance(node, Folder):
            _written(node, place / name, survives)
        else:
            (place / name).write_bytes(node.synced)


def can_mount(folder: Path) -> bool:
    """Whether this user may mount an image here."""
    image = folder / "trial.image"
    try:
        new_image(image)
        with mounted(image, folder / "trial"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def new_image(image: Path) -> None:
    """An empty ext4."""
    with image.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)


def copied(image: Path, copy: Path) -> None:
    """An image as it is now on its disk, mounted or not."""
    subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[None]:
    """The ext4 in an image, at a place; what a cut has left in its journal is done first."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", NASTY, str(image), str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)
