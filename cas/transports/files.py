"""The file operations that a delivery is made of: each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from enum import Enum
from typing import Any, Protocol, TypeVar

from cas.errors import CasError

LARGEST_READ = 4 << 20
T = TypeVar("T")
Task = Coroutine[Any, Any, T]


class Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"


def resumed(task: Task[T], answer: object, end: Callable[[T | CasError], None]) -> Any:
    """What a task asks for next, given the answer to what it asked before; an exception is raised in it.

    None once it has come to its end, which is told of its value or the CasError that it raised.
    """
    try:
        return task.throw(answer) if isinstance(answer, Exception) else task.send(answer)
    except StopIteration as done:
        end(done.value)
    except CasError as error:
        end(error)
    return None


class Files(Protocol):
    """One machine's file system, through one door. Operations are coroutines, so that many can be under way at once.

    All raise TransferError. A path is absolute or starts with `~/`, the home of whoever receives there.
    """

    durable: bool
    """False once this machine has shown that it cannot sync to disk."""

    def absolute(self, path: str) -> str:
        """The path as people are told it."""

    def run(self, tasks: Iterable[Task[T]]) -> list[T | CasError]:
        """Run all tasks to their end; each gives its value or the CasError it raised."""

    async def kind(self, path: str) -> Kind | None:
        """What stands there, links not followed; None for nothing."""

    async def read(self, path: str, limit: int = LARGEST_READ) -> bytes | None:
        """A file's bytes, cut off after `limit` or a little more; None where nothing stands."""

    async def names(self, folder: str) -> list[str]:
        """What a folder holds, unsorted."""

    async def create(self, path: str, content: bytes) -> bool:
        """Make a file of mode 0644 less umask; False, and nothing done, where something stands.

        Its bytes are sure to be on disk once its folder was synced.
        """

    async def make_folder(self, path: str, *, mode: int = 0o775) -> bool:
        """Make one folder; False where something stands."""

    async def move_folder(self, source: str, target: str) -> bool:
        """Rename a folder; False where a folder that is not empty stands under the target's name."""

    async def link(self, source: str, target: str) -> bool:
        """Give a file a second name; False where something stands."""

    async def move(self, source: str, target: str) -> bool:
        """Rename a file; False where something stands under the target's name, or the source is gone."""

    async def remove(self, path: str) -> None:
        """Remove a file; nothing where none stands."""

    async def remove_folder(self, path: str) -> None:
        """Remove an empty folder; nothing where none stands."""

    async def sync(self, folder: str) -> None:
        """Bring a folder's names to disk, and what was created in it."""

    def sync_all(self, folders: Iterable[str]) -> dict[str, CasError]:
        """Sync many folders together; gives the errors, by folder."""

    def close(self) -> None:
        """Let go of the connection, if there is one."""
