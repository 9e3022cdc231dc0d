"""What a run finds of earlier runs: delivered once, finished under the same name, cleaned of what was left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Forge, Home, Run

Cas = Callable[..., Run]
Write = Callable[..., Path]
Pairs = Callable[[Path], tuple[str, ...]]


def manifest(*sends: str, name: str = "m.yaml") -> Path:
    lines = [f"  - {{id: s{number}, destination: {send}, sign: false}}" for number, send in enumerate(sends)]
    Path(name).write_text("cas: 1\nsends:\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return Path(name)


def outcomes(run: Run) -> list[str]:
    return [delivery["outcome"] for delivery in json.loads(run.out.splitlines()[-1])["deliveries"]]


def evidence(run: Run) -> list[str]:
    return [delivery["evidence"] for delivery in json.loads(run.out.splitlines()[-1])["deliveries"]]


def test_applying_again_delivers_nothing_twice(cas: Cas, home: Home, message: Write, pairs: Pairs):
    message("hello.org")
    cas("apply", manifest("local.docs, message: hello.org"))

    again = cas("apply", "m.yaml", "--output", "json")

    assert (again.code, outcomes(again), evidence(again)) == (0, ["unchanged"], ["ledger"])
    assert len(pairs(home.inbox("docs"))) == 1


@pytest.mark.parametrize("machine", ["local", "forge"])
def test_not_after_the_receiver_took_it_away_and_not_from_an_empty_state_either(
    cas: Cas, home: Home, peer: Forge, message: Write, machine: str
):
    message("hello.org")
    cas("apply", manifest(f"{machine}.docs, message: hello.org"))
    inbox = home.inbox("docs") if machine == "local" else peer.inbox("docs")
    (taken,) = inbox.glob("*.org")
    taken.unlink()
    shutil.rmtree(home.state)

    again = cas("apply", "m.yaml", "--output", "json")

    assert (again.code, outcomes(again), evidence(again)) == (0, ["unchanged"], ["receipt"])
    assert list(inbox.glob("*.org")) == []


def test_another_message_in_the_same_place_is_a_conflict_with_both_digests(
    cas: Cas, home: Home, message: Write, pairs: Pairs
):
    message("hello.org")
    cas("apply", manifest("local.docs, message: hello.org"))
    message("hello.org", body="changed\n")

    run = cas("apply", "m.yaml")

    assert run.code == 1
    assert run.err.count("sha256:") == 2
    assert "next SEQUENCE" in run.err
    assert len(pairs(home.inbox("docs"))) == 1


def test_a_halted_run_is_finished_with_its_first_bytes(cas: Cas, home: Home, peer: Forge, message: Write, pairs: Pairs):
    first = message("hello.org").read_bytes()
    known = home.known_hosts.read_text()
    home.known_hosts.write_text("")
    cas("apply", manifest("forge.docs, message: hello.org"))
    home.known_hosts.write_text(known)
    Path("hello.org").unlink()

    run = cas("retry", "--all")

    (name,) = pairs(peer.inbox("docs"))
    assert run.code == 0
    assert (peer.inbox("docs") / name).read_bytes() == first
    assert home.markers() == ()


def test_retry_finishes_under_the_name_that_was_planned_and_a_second_one_does_nothing(
    cas: Cas, home: Home, peer: Forge, message: Write, pairs: Pairs
):
    known = home.known_hosts.read_text()
    home.known_hosts.write_text("")
    cas("send", "forge.docs", message("hello.org"), "--no-sign")
    (open_,) = json.loads(cas("retry", "--output", "json").out)["deliveries"]
    home.known_hosts.write_text(known)

    first, second = cas("retry", *home.markers()), cas("retry", "--all")

    assert (first.code, second.code) == (0, 0)
    assert pairs(peer.inbox("docs")) == (open_["name"],)
    assert cas("retry").out == "nothing is open\n"


def test_a_claim_that_a_dead_run_left_is_published(cas: Cas, home: Home, message: Write, pairs: Pairs):
    """As after a kill between claim and publication: the message lies in the claim again."""
    message("hello.org")
    cas("apply", manifest("local.docs, message: hello.org"))
    (name,) = pairs(home.inbox("docs"))
    (claim,) = (home.inbox("docs") / ".tmp.cas").glob("*/record")
    (home.inbox("docs") / name).rename(claim.parent / "message")
    shutil.rmtree(home.state)

    again = cas("apply", "m.yaml", "--output", "json")

    assert outcomes(again) == ["delivered"]
    assert pairs(home.inbox("docs")) == (name,)


def test_what_a_dead_run_staged_is_taken_away_and_nothing_of_others(cas: Cas, home: Home, message: Write):
    message("hello.org")
    manifest("local.docs, message: hello.org")
    plan = json.loads(cas("plan", "m.yaml", "--output", "json").out)
    workshop = home.inbox("docs") / ".tmp.cas"
    ours, theirs = (workshop / f"new-{who}-0" for who in (plan["deliveries"][0]["identity"], "f" * 32))
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
        (folder / "message").write_text("half")

    cas("apply", "m.yaml")

    assert (ours.exists(), theirs.exists()) == (False, True)


def test_a_withdrawn_claim_is_not_delivered(cas: Cas, home: Home, message: Write, pairs: Pairs):
    message("hello.org")
    cas("apply", manifest("local.docs, message: hello.org"))
    (name,) = pairs(home.inbox("docs"))
    (claim,) = (home.inbox("docs") / ".tmp.cas").glob("*/record")
    (home.inbox("docs") / name).rename(claim.parent / "withdrawn")
    shutil.rmtree(home.state)

    run = cas("apply", "m.yaml")

    assert run.code == 1
    assert "given up" in run.err


def test_anew_delivers_beside_a_foreign_file_that_took_the_name(cas: Cas, home: Home, message: Write, pairs: Pairs):
    message("hello.org")
    cas("apply", manifest("local.docs, message: hello.org"))
    (name,) = pairs(home.inbox("docs"))
    (claim,) = (home.inbox("docs") / ".tmp.cas").glob("*/record")
    (home.inbox("docs") / name).rename(claim.parent / "message")
    (home.inbox("docs") / name).write_text("foreign")
    shutil.rmtree(home.state)
    refused = cas("apply", "m.yaml")

    run = cas("retry", "--all", "--anew")

    assert refused.code == 1
    assert run.code == 0, run.err
    assert (home.inbox("docs") / name).read_text() == "foreign"
    assert len(pairs(home.inbox("docs"))) == 2
    assert cas("retry").out == "nothing is open\n"


@pytest.mark.parametrize("machine", ["local", "forge"])
def test_eight_applies_at_once_deliver_each_message_once(
    cas_process: Callable[..., subprocess.Popen[str]],
    home: Home,
    peer: Forge,
    message: Write,
    pairs: Pairs,
    machine: str,
):
    for sequence in range(1, 6):
        message(f"{sequence}.org", sequence=sequence, body=f"{sequence}\n")
    path = manifest(*(f"{machine}.docs, message: {sequence}.org" for sequence in range(1, 6)))

    processes = [cas_process("apply", path, "--state-dir", home.path / f"state{number % 4}") for number in range(8)]
    codes = [process.wait(100) for process in processes]

    inbox = home.inbox("docs") if machine == "local" else peer.inbox("docs")
    assert codes == [0] * 8
    assert sorted((inbox / name).read_text().split()[-1] for name in pairs(inbox)) == ["1", "2", "3", "4", "5"]
    assert [name for name in os.listdir(inbox / ".tmp.cas") if name.startswith("new-")] == []


def test_the_lock_of_an_inbox_is_waited_for_and_its_holder_named(cas: Cas, home: Home, message: Write):
    from cas import locks

    with locks.held([str(home.inbox("docs"))], home.state, patience=0, pause=lambda _: None, stop=lambda: None):
        run = cas("send", "local.docs", message("hello.org"), "--no-sign", "--lock-timeout", "0")

    assert run.code == 1
    assert f"process {os.getpid()}" in run.err
    assert cas("retry", "--all").code == 0


def test_status_tells_what_was_delivered_and_what_is_open(cas: Cas, home: Home, peer: Forge, message: Write):
    home.known_hosts.write_text("")
    message("hello.org")
    cas("apply", manifest("local.docs, message: hello.org", "forge.docs, message: hello.org"))

    words, fields = cas("status").out, json.loads(cas("status", "--output", "json").out)

    assert "local.docs  1 delivered" in words
    assert "failed: s1@forge.docs" in words
    assert fields["counts"] == {"delivered": 1, "failed": 1}
    assert cas("status", "--by", "conversation").out.startswith("greeting")


def test_the_ledger_is_private_and_lets_go_of_what_is_delivered(cas: Cas, home: Home, message: Write):
    import sqlite3

    cas("send", "local.docs", message("hello.org"), "--no-sign")

    (row,) = sqlite3.connect(home.state / "ledger.sqlite").execute("SELECT state, message, signature FROM deliveries")
    assert row == ("delivered", None, None)
    assert (home.state / "ledger.sqlite").stat().st_mode & 0o777 == 0o600
    assert home.state.stat().st_mode & 0o777 == 0o700


def test_prune_clears_rows_and_receipts_of_what_is_delivered(cas: Cas, home: Home, peer: Forge, message: Write):
    message("hello.org")
    cas("apply", manifest("local.docs, message: hello.org", "forge.docs, message: hello.org"))

    kept = cas("prune", "--older-than", "1d", "--output", "json")
    import time

    time.sleep(1.1)
    cleared = cas("prune", "--older-than", "0s", "--output", "json")

    assert (json.loads(kept.out)["deliveries"], json.loads(cleared.out)["deliveries"]) == (0, 2)
    assert os.listdir(home.inbox("docs") / ".tmp.cas") == os.listdir(peer.inbox("docs") / ".tmp.cas") == []
    assert json.loads(cas("status", "--output", "json").out)["deliveries"] == []


@pytest.mark.parametrize("age", ["", "d", "-1d", "1y", "1.5d", "٣d", "1234567d"])
def test_an_age_that_is_none_is_wrong_usage(cas: Cas, age: str):
    assert cas("prune", f"--older-than={age}").code == 64


def test_a_state_folder_that_cannot_be_written_sends_nothing(cas: Cas, home: Home, message: Write):
    (home.path / "file").write_text("")

    run = cas("send", "local.docs", message("hello.org"), "--no-sign", "--state-dir", home.path / "file" / "state")

    assert run.code == 1
    assert "nothing was sent" in run.err
    assert not home.inbox("docs").exists()


def test_a_damaged_ledger_is_said_and_sends_nothing(cas: Cas, home: Home, message: Write):
    home.state.mkdir(parents=True)
    (home.state / "ledger.sqlite").write_bytes(b"this is no database" * 100)

    run = cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert run.code == 1
    assert "ledger" in run.err
    assert not home.inbox("docs").exists()


def test_a_ledger_of_a_later_cas_is_left_alone(cas: Cas, home: Home, message: Write):
    import sqlite3

    home.state.mkdir(parents=True)
    database = sqlite3.connect(home.state / "ledger.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()

    run = cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert run.code == 1
    assert "later cas" in run.err


def test_names_rise_although_the_clock_goes_back(cas: Cas, home: Home, message: Write, pairs: Pairs):
    """The first message was named by a clock that was a year ahead."""
    import sqlite3

    message("1.org", sequence=1)
    message("2.org", sequence=2)
    cas("apply", manifest("local.docs, message: 1.org", name="1.yaml"))
    (first,) = pairs(home.inbox("docs"))
    ahead = "2099" + first[4:]
    (home.inbox("docs") / first).rename(home.inbox("docs") / ahead)
    database = sqlite3.connect(home.state / "ledger.sqlite")
    database.execute("UPDATE deliveries SET name = ?", (ahead,))
    database.commit()
    database.close()

    run = cas("apply", manifest("local.docs, message: 2.org", name="2.yaml").rename("3.yaml"))

    assert run.code == 0
    assert min(pairs(home.inbox("docs"))) == ahead
