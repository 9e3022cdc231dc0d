"""The ledger's file: upgraded in place, by one of those who open it first, or left as it was."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import Home, Run

from cas import ledger
from cas.ledger import Ledger, LedgerError

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
