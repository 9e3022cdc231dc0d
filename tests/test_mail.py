"""What has arrived: listed for what it is, verified by real gpg, read safely, put away without loss."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support
from support import Home, Run

from cas.archive import put_away
from cas.loopback import Key, throwaway_key

NOISE = 2
"""Other work on a machine that is shared."""
Cas = Callable[..., Run]
Send = Callable[..., Path]


@pytest.fixture
def send(cas: Cas, home: Home, gnupg: Key) -> Send:
    """`send(sequence, *options)`: a message into the inbox of `docs`; its path there."""

    def sent(sequence: int = 1, *options: str, conversation: str = "rel") -> Path:
        source = support.message(f"{conversation}-{sequence}.org", conversation_id=conversation, sequence=sequence)
        before = set(home.inbox("docs").glob("*.org"))
        assert cas("send", "local.docs", str(source), *options).code == 0
        (new,) = set(home.inbox("docs").glob("*.org")) - before
        return new

    return sent


@pytest.fixture
def other() -> Iterator[Key]:
    """Another's key."""
    with tempfile.TemporaryDirectory(prefix="cas-") as folder, throwaway_key(Path(folder) / "g") as key:
        yield key


def known(key: Key, *, to: Key) -> None:
    """Take a public key into another's ring."""
    words = ("gpg", "--batch", "--armor", "--export", key.fingerprint)
    public = subprocess.run(
        words, env={**os.environ, "GNUPGHOME": str(key.gnupghome)}, check=True, capture_output=True
    ).stdout
    subprocess.run(
        ("gpg", "--batch", "--quiet", "--import"),
        input=public,
        env={**os.environ, "GNUPGHOME": str(to.gnupghome)},
        check=True,
        capture_output=True,
    )


def body(run: Run) -> Any:
    return json.loads(run.out)


def trusts(run: Run) -> list[str]:
    return [one["trust"] for thread in body(run)["conversations"] for one in thread["messages"]]


# The inbox


def test_the_inbox_shows_conversations_with_gaps_and_who_signed(cas: Cas, send: Send, gnupg: Key):
    send(1)
    path = send(3)
    send(1, "--no-sign", conversation="talk")

    run = cas("inbox", "docs")

    assert run.code == 0
    lines = run.out.splitlines()
    assert "rel (not here: 2)" in lines
    assert f"    {path}" in lines
    assert sum(f"named from builder, is signed by the key {gnupg.fingerprint}" in line for line in lines) == 2
    assert "3 messages, 1 without a signature that counts" in run.err


def test_the_inbox_is_by_default_that_of_the_working_folders_project(cas: Cas, send: Send, home: Home, monkeypatch):
    send(1)
    folder = home.projects / "docs" / "deep"
    folder.mkdir()
    monkeypatch.chdir(folder)

    assert "1 message" in cas("inbox").err


def test_an_inbox_that_is_not_there_is_empty(cas: Cas, home: Home):
    run = cas("inbox", "docs")

    assert (run.code, run.out) == (0, "")
    assert run.err.endswith("no messages\n")
    assert body(cas("inbox", "docs", "--output", "json"))["conversations"] == []


@pytest.mark.parametrize("name", ["../docs", "a/b", "", "x" * 200])
def test_a_project_that_cannot_be_one_is_refused(cas: Cas, home: Home, name: str):
    run = cas("inbox", name) if name else cas("inbox", " ")

    assert run.code == 2
    assert "Traceback" not in run.err


def test_a_folder_that_is_no_projects_is_told(cas: Cas, home: Home, monkeypatch):
    folder = home.path / "a b"
    folder.mkdir()
    monkeypatch.chdir(folder)

    for verb in (("inbox",), ("watch", "--timeout", "1s")):
        run = cas(*verb)
        assert run.code == 64
        assert "error[no-project]" in run.err


def test_whose_keys_speak_for_a_sender_is_said_in_peers_toml(cas: Cas, send: Send, home: Home, gnupg: Key):
    send(1)

    home.peers(f'[senders.builder]\nkeys = ["{gnupg.fingerprint}"]\n')
    assert trusts(cas("inbox", "docs", "--output", "json")) == ["sender"]
    assert ": from builder\n" in cas("inbox", "docs").out

    home.peers(f'[senders.builder]\nkeys = ["{"A" * 40}"]\n')
    assert trusts(cas("inbox", "docs", "--output", "json")) == ["another-key"]
    assert "which is none of its keys" in cas("inbox", "docs").out


def test_only_one_conversation_or_only_what_nobody_stands_for_can_be_asked_for(cas: Cas, send: Send):
    send(1)
    bare = send(1, "--no-sign", conversation="talk")

    assert "talk" not in cas("inbox", "docs", "--thread", "rel").out
    doubtful = cas("inbox", "docs", "--unverified").out
    assert str(bare) in doubtful
    assert "rel" not in doubtful
    assert cas("inbox", "docs", "--unverified", "--no-verify").code == 64


def test_without_verifying_gpg_is_not_needed(cas: Cas, send: Send, monkeypatch):
    send(1)
    monkeypatch.setenv("PATH", "/nonexistent")

    assert trusts(cas("inbox", "docs", "--no-verify", "--output", "json")) == ["not-verified"]
    run = cas("inbox", "docs")
    assert run.code == 1
    assert "error[no-gpg]" in run.err


def test_with_jsonl_each_message_is_a_line(cas: Cas, send: Send):
    paths = [send(1), send(2)]

    lines = [json.loads(line) for line in cas("inbox", "docs", "--output", "jsonl").out.splitlines()]

    assert [line["path"] for line in lines] == [str(path) for path in paths]


@pytest.mark.threat("message author", "have cas follow a link in an inbox")
def test_whatever_lies_there_is_listed_for_what_it_is_and_never_followed(cas: Cas, send: Send, home: Home):
    good = send(1)
    folder = home.inbox("docs")
    secret = home.path / "secret"
    secret.write_text("#+CONVERSATION_ID: secret\n", encoding="utf-8")
    (folder / "link.org").symlink_to(secret)
    (folder / "gone.org").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.org")
    (folder / "folder.org").mkdir()
    (folder / "lone.org.asc").write_text("x", encoding="utf-8")
    (folder / "a\x1b[31m\u202eb.org").write_text("junk", encoding="utf-8")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.org")).write_text("junk", encoding="utf-8")
    (folder / "big.org").write_bytes(b"x" * (2 << 20))
    (folder / "empty.org").touch()
    (folder / f"{good.name}.asc").chmod(0)
    (folder / ".tmp.hidden.org").write_text("hidden", encoding="utf-8")

    text, document = cas("inbox", "docs"), cas("inbox", "docs", "--output", "json")

    assert text.code == document.code == 0
    assert "Traceback" not in text.err + document.err
    assert "\x1b" not in text.out + document.out
    assert "\u202e" not in text.out + document.out
    assert "secret" not in text.out + document.out
    assert ".hidden" not in text.out + document.out
    for line in (
        "link.org: a symbolic link, passed by",
        "gone.org: a symbolic link, passed by",
        "pipe.org: a FIFO, passed by",
        "folder.org: a folder, passed by",
        "lone.org.asc: a signature whose message is not here",
    ):
        assert line in text.out.splitlines()
    assert "it has 2097152 bytes, and no more than 1048576 are read" in text.out
    assert body(document)["alone"] == ["lone.org.asc"]


def test_an_inbox_that_may_not_be_read_is_an_error(cas: Cas, home: Home):
    home.obstruct("docs")

    run = cas("inbox", "docs")

    assert run.code == 1
    assert "error[unreadable-inbox]" in run.err


def test_messages_that_vanish_while_they_are_listed_are_left_out(cas: Cas, send: Send, home: Home):
    folder = home.inbox("docs")
    send(1)
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            path = folder / f"20261124T0700{number % 60:02}Z-from-churn-x.org"
            support.message(path)
            path.unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            run = cas("inbox", "docs", "--no-verify")
            assert (run.code, "Traceback" in run.err) == (0, False)
            assert "rel" in run.out
    finally:
        stop.set()
        thread.join()


def test_ten_thousand_messages_are_listed_in_two_seconds(cas_process, home: Home):
    folder = home.inbox("docs")
    folder.mkdir(parents=True)
    for number in range(10_000):
        name = f"20261124T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-from-builder-t{number % 50}.org"
        support.message(folder / name, conversation_id=f"t{number % 50}", sequence=number // 50 + 1)
        (folder / f"{name}.asc").touch()
    took = []
    for _ in range(3):
        started = time.monotonic()
        run = cas_process("inbox", "docs", "--no-verify")
        run.communicate(timeout=60)
        took.append(time.monotonic() - started)

    assert run.returncode == 0
    assert min(took) < 2 * NOISE


# Verifying


def test_verify_says_good_and_ends_with_0(cas: Cas, send: Send, gnupg: Key):
    path = send(1)

    run = cas("verify", str(path))

    assert run.code == 0
    assert run.out.startswith(f"good: {path}: named from builder, is signed by the key {gnupg.fingerprint}")
    assert cas("verify", f"{path}.asc").code == 0
    assert cas("verify", str(path), "--from", gnupg.fingerprint).code == 0
    assert cas("verify", str(path), "--from", "A" * 40).code == 1
    assert cas("verify", str(path), "--from", gnupg.fingerprint[-16:]).code == 64


def test_verify_ends_with_1_for_what_was_changed_is_unsigned_or_not_there(cas: Cas, send: Send):
    good, changed, bare = send(1), send(2), send(3, "--no-sign")
    changed.write_bytes(changed.read_bytes() + b"more\n")

    run = cas("verify", str(good), str(changed), str(bare), "nowhere.org", "--output", "json")

    assert run.code == 1
    document = body(run)
    assert document["good"] is False
    assert [one["good"] for one in document["messages"]] == [True, False, False, False]
    assert [one.get("signature") for one in document["messages"]] == ["good", "bad", "no-signature", None]
    assert [one["code"] for one in document["diagnostics"]] == ["no-message"]


def test_a_signature_of_another_message_is_not_its(cas: Cas, send: Send):
    first, second = send(1), send(2)
    shutil.copy(f"{first}.asc", f"{second}.asc")

    assert body(cas("verify", str(second), "--output", "json"))["messages"][0]["signature"] == "bad"


def test_two_signatures_in_one_file_do_not_count(cas: Cas, send: Send):
    path = send(1)
    beside = Path(f"{path}.asc")
    beside.write_bytes(beside.read_bytes() * 2)

    run = cas("verify", str(path))

    assert run.code == 1
    assert "several signatures" in run.out


def test_a_key_that_is_not_known_and_one_that_speaks_for_nobody_do_not_verify(
    cas: Cas, send: Send, home: Home, gnupg: Key, other: Key, monkeypatch
):
    monkeypatch.setenv("GNUPGHOME", str(other.gnupghome))
    path = send(1)
    monkeypatch.setenv("GNUPGHOME", str(gnupg.gnupghome))

    unknown = cas("verify", str(path))
    assert unknown.code == 1
    assert f"{other.fingerprint}, which is not among the public keys here" in unknown.out
    known(other, to=gnupg)
    assert cas("verify", str(path)).code == 0
    home.peers(f'[senders.builder]\nkeys = ["{gnupg.fingerprint}"]\n')
    assert cas("verify", str(path)).code == 1


# Reading


def test_read_shows_a_message_and_says_who_signed_it(cas: Cas, send: Send, gnupg: Key):
    path = send(1)

    run = cas("read", str(path))

    assert run.code == 0
    assert run.out == path.read_text(encoding="utf-8")
    assert f"note: this message is named from builder, is signed by the key {gnupg.fingerprint}" in run.err


def test_read_lets_nothing_act_on_the_terminal(cas: Cas, home: Home, gnupg: Key):
    Path("x.org").write_bytes(b"#+CONVERSATION_ID: a\n\n\x1b[31mred\x07 \xe2\x80\xae \xff\r\n::error::x\n")

    run = cas("read", "x.org")

    assert run.code == 0
    assert not set("\x1b\x07\r\u202e") & set(run.out)
    assert "\\x1b[31mred\\x07 \\u202e \\xff\\r" in run.out
    assert "\x1b" in body(cas("read", "x.org", "--output", "json"))["text"]


@pytest.mark.parametrize("name", ["nowhere.org", "folder.org", "pipe.org", "link.org"])
def test_read_and_verify_and_archive_take_messages_only(cas: Cas, home: Home, gnupg: Key, name: str):
    Path("folder.org").mkdir()
    os.mkfifo("pipe.org")
    Path("link.org").symlink_to("/etc/passwd")

    for verb in ("read", "verify", "archive"):
        run = cas(verb, name)
        assert run.code == 1
        assert "error[no-message]" in run.err
        assert "root:" not in run.out


# Putting away


def test_archive_moves_the_pair_and_is_finished_where_it_was_cut_off(cas: Cas, send: Send):
    first, second = send(1), send(2)
    kept = first.parent / "processed"

    assert cas("archive", str(first)).out == f"archived: {kept / first.name}\n"
    assert sorted(os.listdir(kept)) == [first.name, f"{first.name}.asc"]
    assert cas("archive", str(first)).code == 1
    second.rename(kept / second.name)  # as it stands when it is cut off in the middle
    assert cas("archive", str(second)).code == 0
    assert not Path(f"{second}.asc").exists()
    assert cas("verify", *map(str, kept.glob("*.org"))).code == 0
    assert trusts(cas("inbox", "docs", "--output", "json")) == []
    assert trusts(cas("inbox", "docs", "--all", "--output", "json")) == ["signed", "signed"]


def test_archive_replaces_nothing_and_follows_nothing(cas: Cas, send: Send, home: Home):
    path = send(1)
    kept = path.parent / "processed"
    kept.mkdir()
    (kept / path.name).write_text("another", encoding="utf-8")

    assert cas("archive", str(path)).code == 1
    assert (kept / path.name).read_text(encoding="utf-8") == "another"
    assert path.exists()
    shutil.rmtree(kept)
    kept.symlink_to(home.path)
    run = cas("archive", str(path))
    assert run.code == 1
    assert "error[not-archived]" in run.err
    assert path.exists()
    assert trusts(cas("inbox", "docs", "--all", "--output", "json")) == ["signed"]


def test_several_are_archived_and_each_that_cannot_be_is_told(cas: Cas, send: Send):
    paths = [send(1), send(2, "--no-sign")]

    run = cas("archive", str(paths[0]), "nowhere.org", str(paths[1]), "--output", "json")

    assert run.code == 1
    assert len(body(run)["archived"]) == 2
    assert [one["code"] for one in body(run)["diagnostics"]] == ["no-message"]


def test_of_many_that_archive_one_message_at_once_one_does(send: Send):
    path = send(1)
    results: list[object] = []

    def one() -> None:
        try:
            results.append(put_away(path))
        except Exception as error:
            results.append(getattr(error, "code", error))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    kept = path.parent / "processed"
    assert sorted(os.listdir(kept)) == [path.name, f"{path.name}.asc"]
    assert kept / path.name in results
    assert {result for result in results if isinstance(result, str)} <= {"archived", "no-message", "not-archived"}


# Watching


def test_watch_tells_each_message_once_as_it_comes(cas: Cas, cas_process, send: Send, home: Home):
    first = send(1)
    watching = cas_process("watch", "docs", "--output", "jsonl")
    assert json.loads(watching.stdout.readline())["path"] == str(first)

    paths = [send(number) for number in range(2, 6)]

    told = [json.loads(watching.stdout.readline()) for _ in paths]
    assert [line["path"] for line in told] == [str(path) for path in paths]
    assert {line["signature"] for line in told} == {"good"}
    assert cas("archive", *map(str, paths)).code == 0
    last = send(9)
    assert json.loads(watching.stdout.readline())["path"] == str(last)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(10) == 130


def test_watch_ends_with_the_first_message_or_in_time(cas: Cas, cas_process, send: Send):
    send(1)

    assert cas("watch", "docs", "--once").out.startswith("1 request of rel: ")
    assert cas("watch", "docs", "--new", "--once", "--timeout", "1s").code == 1
    assert cas("watch", "docs", "--new", "--timeout", "1s").code == 0
    waiting = cas_process("watch", "docs", "--new", "--once", "--timeout", "60s")
    time.sleep(1)
    path = send(2)
    assert waiting.wait(20) == 0
    assert str(path) in waiting.stdout.read()


def test_watch_ends_when_nobody_reads(cas_process, send: Send):
    send(1)
    watching = cas_process("watch", "docs")
    watching.stdout.readline()

    watching.stdout.close()

    assert watching.wait(10) == 0
    assert "Traceback" not in watching.stderr.read()
