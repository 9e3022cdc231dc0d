"""The ledger's file: upgraded in place, by one of those who open it first, or left as it was."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import Home, Run

from cas import ledger
from cas.errors import CasError
from cas.ledger import Entry, Ledger, LedgerError

NEXT = "CREATE INDEX by_run ON deliveries (run);"


def version(home: Home) -> int:
    with closing(sqlite3.connect(home.state / "ledger.sqlite")) as database:
        (number,) = database.execute("PRAGMA user_version").fetchone()
    return int(number)


@pytest.fixture
def older(cas: Callable[..., Run], home: Home, message: Callable[..., Path]) -> None:
    """A ledger of today's version, with a row."""
    assert cas("send", "local.docs", message("hello.org"), "--no-sign").code == 0


@pytest.mark.usefixtures("older")
def test_an_older_ledger_is_brought_up_with_its_rows(home: Home, monkeypatch: pytest.MonkeyPatch):
    before = version(home)
    monkeypatch.setattr(ledger, "UPGRADES", (*ledger.UPGRADES, NEXT))

    with closing(Ledger(home.state)) as opened:
        rows = opened.entries()

    assert [row.state for row in rows] == ["delivered"]
    assert version(home) == before + 1


@pytest.mark.usefixtures("older")
def test_of_many_that_open_it_at_once_one_upgrades(home: Home, monkeypatch: pytest.MonkeyPatch):
    before = version(home)
    monkeypatch.setattr(ledger, "UPGRADES", (*ledger.UPGRADES, NEXT))
    failed: list[Exception] = []
    together = threading.Barrier(8)

    def use() -> None:
        together.wait()
        try:
            Ledger(home.state).close()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert version(home) == before + 1


@pytest.mark.usefixtures("older")
def test_an_upgrade_that_fails_in_its_middle_leaves_all_as_it_was(home: Home, monkeypatch: pytest.MonkeyPatch):
    before = version(home)
    monkeypatch.setattr(ledger, "UPGRADES", (*ledger.UPGRADES, f"{NEXT} CREATE TABLE deliveries (again);"))

    with pytest.raises(LedgerError):
        Ledger(home.state)

    assert version(home) == before
    with closing(sqlite3.connect(home.state / "ledger.sqlite")) as database:
        assert not database.execute("SELECT name FROM sqlite_master WHERE name = 'by_run'").fetchall()


WAITING, SIZE = 8, 50_000


def entry(number: int) -> Entry:
    fields = dict.fromkeys(Entry.__dataclass_fields__, "")
    numbers = {
        "sequence": number,
        "size": 0,
        "signed": False,
        "repeatable": True,
        "signature": None,
        "message": bytes(SIZE),
    }
    return Entry(**{**fields, **numbers, "identity": str(number), "state": "open"})


def changes(path: Path) -> int:
    """How many transactions have written to a database: its header counts them."""
    return int.from_bytes((path / "ledger.sqlite").read_bytes()[24:28], "big")


@pytest.fixture
def together(tmp_path: Path) -> Callable[..., list[BaseException]]:
    """`together(path)`: entries of several threads, all of which wait while one is written; what they met."""
    met: list[BaseException] = []

    def entries(number: int, entered: threading.Event, go: threading.Event) -> Iterator[Entry]:
        if number == 0:
            entered.set()
            go.wait(10)
        if number == 3:
            raise CasError("its message has changed", code="changed")
        yield entry(number)

    def intend(opened: Ledger, number: int, *events: threading.Event) -> None:
        try:
            opened.intend(entries(number, *events))
        except CasError as error:
            met.append(error)

    def run(opened: Ledger) -> list[BaseException]:
        events = threading.Event(), threading.Event()
        threads = [threading.Thread(target=intend, args=(opened, number, *events)) for number in range(1 + WAITING)]
        threads[0].start()
        events[0].wait(10)
        for thread in threads[1:]:
            thread.start()
        while len(opened._waiting) < WAITING:
            time.sleep(0.001)
        events[1].set()
        for thread in threads:
            thread.join()
        return met

    return run


def test_what_waits_for_the_disk_is_written_together(tmp_path: Path, together: Callable[..., list[BaseException]]):
    with closing(Ledger(tmp_path)) as opened:
        before = changes(tmp_path)

        together(opened)

        assert changes(tmp_path) - before == 2  # the one that came first, and all others


def test_of_what_is_written_together_an_error_is_its_own(tmp_path: Path, together: Callable[..., list[BaseException]]):
    with closing(Ledger(tmp_path)) as opened:
        met = together(opened)

        assert [str(error) for error in met] == ["its message has changed"]
        assert {row.identity for row in opened.entries()} == {str(number) for number in range(1 + WAITING)} - {"3"}


def test_what_finds_no_room_is_said_to_be_written_by_nobody(
    tmp_path: Path, together: Callable[..., list[BaseException]]
):
    with closing(Ledger(tmp_path)) as opened:
        opened._database.execute("PRAGMA max_page_count = 50")

        met = together(opened)

        assert {type(error) for error in met} == {LedgerError, CasError}
        assert len(opened.entries()) == 1 + WAITING - len(met)
