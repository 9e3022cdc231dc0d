"""The ledger: what was to be delivered from here, with the bytes to do it, and what became of it. SQLite; acts.

A row is written before its delivery moves. Name, bytes and signature are fixed by it: every later run uses them,
whatever has become of the sources.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cas.creation import make_private
from cas.errors import CasError, reason
from cas.events import DeliveryFinished, Outcome, attempt_fields
from cas.names import LEDGER

FILE = LEDGER
OPEN = "open"
WITHDRAWN = "withdrawn"
DONE = (Outcome.DELIVERED.value, Outcome.UNCHANGED.value)
CLOSED = (*DONE, WITHDRAWN)
MARKS = ", ".join("?" * len(CLOSED))
BUSY_SECONDS = 30
MOST_PARAMETERS = 500
UPGRADES = (
    """
    CREATE TABLE deliveries (
        identity TEXT PRIMARY KEY,
        id TEXT NOT NULL,
        run TEXT NOT NULL,
        sender TEXT NOT NULL,
        destination TEXT NOT NULL,
        conversation TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        type TEXT NOT NULL,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        source TEXT NOT NULL,
        time TEXT NOT NULL,
        name TEXT NOT NULL,
        signed INTEGER NOT NULL,
        signature BLOB,
        message BLOB,
        retry TEXT NOT NULL,
        repeatable INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        attempts TEXT NOT NULL,
        updated TEXT NOT NULL
    ) STRICT;
    CREATE INDEX by_place ON deliveries (sender, destination, conversation, sequence);
    CREATE INDEX by_state ON deliveries (state, updated);
    """,
)
"""The schema, as the statements that bring each version to the next; `user_version` counts those that were done."""


class LedgerError(CasError):
    """The ledger cannot be read or written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One delivery as the ledger holds it. `message` and `signature` are there until it is delivered.

    What is read from the ledger comes without its message.

    `repeatable`: its identity follows from what it says (a manifest's), so that another message in its place would be a
    conflict; not so for `cas send`, where each call is a new delivery. `state` is `open`, an outcome's value, or
    `withdrawn` for what a person gave up.
    """

    identity: str
    id: str
    run: str
    sender: str
    destination: str
    conversation: str
    sequence: int
    type: str
    digest: str
    size: int
    source: str
    time: str
    name: str
    signed: bool
    signature: bytes | None
    message: bytes | None
    retry: str
    repeatable: bool
    state: str
    reason: str | None
    attempts: str
    updated: str

    @property
    def done(self) -> bool:
        """It is there."""
        return self.state in DONE

    @property
    def open(self) -> bool:
        """Something is left to do."""
        return self.state not in CLOSED


COLUMNS = tuple(Entry.__dataclass_fields__)
READ = ", ".join("NULL AS message" if column == "message" else column for column in COLUMNS)
"""An entry without its message, of which a batch may hold a gigabyte: `Ledger.message` has it."""


def states(folder: Path, identities: Iterable[str]) -> dict[str, str]:
    """The state of each of these deliveries that the ledger in a folder knows; looked up without writing."""
    wanted = set(identities)
    rows = _rows(folder / FILE, "SELECT identity, state FROM deliveries", "name another folder with --state-dir")
    return {row["identity"]: row["state"] for row in rows if row["identity"] in wanted}


def read(path: Path) -> list[Entry]:
    """All entries of a ledger, without their messages, looked up without writing: it may be another machine's."""
    return list(map(_entry, _rows(path, f"SELECT {READ} FROM deliveries", "name a ledger.sqlite, or its folder")))  # noqa: S608


def _rows(path: Path, query: str, hint: str) -> list[sqlite3.Row]:
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        with closing(database):
            database.row_factory = sqlite3.Row
            return database.execute(query).fetchall()
    except sqlite3.Error as error:
        raise LedgerError(
            f"the ledger `{path}` cannot be read: {str(error).lower()}", code="ledger", hint=hint
        ) from error


@dataclass(slots=True)
class _Share:
    """What a thread wants written. `done`: it is on disk, or has its error."""

    write: Callable[[], None]
    error: BaseException | None = None
    done: bool = False


class Ledger:
    """One ledger, for the threads of one process; other processes may have it open too."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._waiting: deque[_Share] = deque()
        with self._told():
            make_private(folder)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.row_factory = sqlite3.Row
            self._database.execute("PRAGMA synchronous = EXTRA")
            self._upgrade()

    def close(self) -> None:
        self._database.close()

    def find(self, identities: Iterable[str]) -> dict[str, Entry]:
        """The entries of these deliveries, of those that there are."""
        wanted = list(dict.fromkeys(identities))
        found: dict[str, Entry] = {}
        with self._told():
            for start in range(0, len(wanted), MOST_PARAMETERS):
                part = wanted[start : start + MOST_PARAMETERS]
                marks = ", ".join("?" * len(part))
                rows = self._database.execute(f"SELECT {READ} FROM deliveries WHERE identity IN ({marks})", part)  # noqa: S608
                found |= {row["identity"]: _entry(row) for row in rows}
        return found

    def others(self, entries: Iterable[Entry]) -> dict[str, Entry]:
        """For each of these identities, another message that took its place: same lane and SEQUENCE, other bytes."""
        place = ("sender", "destination", "conversation", "sequence")
        where = " AND ".join(f"{column} = ?" for column in place)
        query = f"SELECT {READ} FROM deliveries WHERE {where} AND digest != ? AND repeatable LIMIT 1"  # noqa: S608
        found = {}
        with self._told():
            for entry in entries:
                values = (*(getattr(entry, column) for column in place), entry.digest)
                if row := self._database.execute(query, values).fetchone():
                    found[entry.identity] = _entry(row)
        return found

    def message(self, identity: str) -> bytes:
        """The bytes of a delivery that is not done."""
        with self._told():
            row = self._database.execute("SELECT message FROM deliveries WHERE identity = ?", (identity,)).fetchone()
        if row is None or row["message"] is None:
            raise LedgerError(
                f"the ledger `{self._path}` has no message for {identity}", code="ledger", hint="send it anew"
            )
        content: bytes = row["message"]
        return content

    def latest(self, sender: str, destination: str, conversation: str) -> str:
        """The latest name in a lane, "" where there is none: of one sender and conversation, names sort by time."""
        query = "SELECT max(name) FROM deliveries WHERE sender = ? AND destination = ? AND conversation = ?"
        with self._told():
            (name,) = self._database.execute(query, (sender, destination, conversation)).fetchone()
            return name or ""

    def intend(self, entries: Iterable[Entry]) -> dict[str, Entry]:
        """Write down what is about to move, in one transaction, whatever its size; the entries are taken in parts.

        Gives what stood there before, which counts for those deliveries.
        """
        marks = ", ".join("?" * len(COLUMNS))
        known: dict[str, Entry] = {}

        def write() -> None:
            nonlocal known
            rest = iter(entries)
            while part := list(islice(rest, MOST_PARAMETERS)):
                known |= self.find(entry.identity for entry in part)
                self._database.executemany(
                    f"INSERT INTO deliveries ({', '.join(COLUMNS)}) VALUES ({marks})"  # noqa: S608
                    " ON CONFLICT (identity) DO UPDATE"
                    f" SET run = excluded.run, state = iif(state IN ({MARKS}), state, excluded.state)",
                    ((*(getattr(entry, column) for column in COLUMNS), *CLOSED) for entry in part),
                )

        self._together(write)
        return known

    def settle(self, finished: Sequence[DeliveryFinished], now: str) -> None:
        """Write down what became of deliveries, in one transaction; what is there for good needs its bytes no more."""

        def write() -> None:
            for event in finished:
                done = event.outcome.value in DONE
                attempts = json.dumps([attempt_fields(attempt) for attempt in event.attempts])
                self._database.execute(
                    "UPDATE deliveries SET state = ?, reason = ?, name = ?, attempts = ?, updated = ? "  # noqa: S608
                    f"WHERE identity = ? AND state NOT IN ({MARKS})",
                    (event.outcome.value, event.reason, event.files[-1], attempts, now, event.identity, *CLOSED),
                )
                if done:
                    self._database.execute(
                        "UPDATE deliveries SET message = NULL, signature = NULL WHERE identity = ?", (event.identity,)
                    )

        if finished:
            self._together(write)

    def replace(self, given_up: str, entry: Entry, now: str) -> None:
        """Close what a person gave up, and begin `entry` in its place, with the message of the former."""
        marks = ", ".join("?" * len(COLUMNS))
        content = self.message(given_up)
        with self._transaction():
            self._database.execute(
                "UPDATE deliveries SET state = ?, updated = ?, message = NULL, signature = NULL WHERE identity = ?",
                (WITHDRAWN, now, given_up),
            )
            self._database.execute(
                f"INSERT INTO deliveries ({', '.join(COLUMNS)}) VALUES ({marks})",  # noqa: S608
                [content if column == "message" else getattr(entry, column) for column in COLUMNS],
            )

    def entries(self) -> list[Entry]:
        """All entries, in the order in which they were made, lanes by SEQUENCE."""
        with self._told():
            rows = self._database.execute(
                f"SELECT {READ} FROM deliveries"  # noqa: S608
                " ORDER BY time, destination, conversation, sequence, id"
            )
            return [_entry(row) for row in rows]

    def forget(self, identities: Iterable[str]) -> None:
        """Take rows out, for good."""
        with self._transaction():
            self._database.executemany("DELETE FROM deliveries WHERE identity = ?", [(one,) for one in identities])

    def _upgrade(self) -> None:
        with self._transaction():  # of two processes that come first, one upgrades
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version > len(UPGRADES):
                raise LedgerError(
                    f"the ledger `{self._path}` was written by a later cas", code="ledger-version", hint="update cas"
                )
            for statement in (one for upgrade in UPGRADES[version:] for one in upgrade.split(";")):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {len(UPGRADES)}")

    def _together(self, write: Callable[[], None]) -> None:
        """Write in one transaction with what other threads wait to write: syncing is what each of them costs.

        Whoever comes first writes for all who have come meanwhile. What one raises, it alone gets.
        """
        share = _Share(write)
        self._waiting.append(share)
        with self._lock:
            if not share.done:
                self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
        if share.error:
            raise share.error

    def _write(self, shares: Sequence[_Share]) -> None:
        try:
            with self._begun():
                for share in shares:
                    self._write_one(share)
        except BaseException as error:
            for share in shares:
                share.error = share.error or error
        for share in shares:
            share.done = True

    def _write_one(self, share: _Share) -> None:
        """Raises what has undone the whole transaction."""
        self._database.execute("SAVEPOINT share")
        try:
            with self._told():
                share.write()
        except BaseException as error:
            share.error = error
            if not self._database.in_transaction:
                raise
            self._database.execute("ROLLBACK TO share")
        self._database.execute("RELEASE share")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._begun():
            yield

    @contextmanager
    def _begun(self) -> Iterator[None]:
        with self._told():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            words = reason(error) if isinstance(error, OSError) else str(error).lower()
            raise LedgerError(
                f"the ledger `{self._path}` cannot be used: {words}",
                code="ledger",
                hint="free space, or give yourself the right to write there; or name another folder with --state-dir",
            ) from error


def _entry(row: sqlite3.Row) -> Entry:
    values = {column: row[column] for column in COLUMNS}
    return Entry(**{**values, "signed": bool(row["signed"]), "repeatable": bool(row["repeatable"])})
