"""An inbox while others write to it: what lies there is told as what it is, and nothing is lost, replaced or hidden."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import support
from support import Home, Run

from cas import inbox, inventory
from cas.archive import put_away
from cas.arrival import Kind
from cas.errors import CasError
from cas.loopback import Key
from cas.reader import Reader
from cas.watch import EVERY

Cas = Callable[..., Run]
NAME = "20261124T070001Z-from-builder-rel.org"
OTHER = "20261124T070002Z-from-builder-rel.org"
ROUNDS = 150


@pytest.fixture
def folder(home: Home) -> Path:
    """The inbox of `docs`, with one good message that is not signed."""
    folder = home.inbox("docs")
    support.message(folder / OTHER, conversation_id="rel", sequence=2)
    return folder


def messages(run: Run) -> dict[str, Any]:
    """What `cas inbox` tells of each message, by its name."""
    return {one["name"]: one for thread in json.loads(run.out)["conversations"] for one in thread["messages"]}


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Something done again and again by somebody else."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            with suppress(OSError):
                act()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# What may not be read, and what is no file


def test_a_message_that_may_not_be_read_is_told_and_hides_no_other(home: Home, folder: Path):
    support.message(folder / NAME).chmod(0)

    text = support.as_another("inbox", "docs", "--no-verify")
    document = support.as_another("inbox", "docs", "--no-verify", "--output", "json")
    watched = support.as_another("watch", "docs", "--timeout", "1s")

    assert (text.code, document.code) == (0, 0)
    assert f"`{folder / NAME}` cannot be read: permission denied" in text.out
    assert "2 messages" in text.err
    assert messages(document)[NAME]["faults"] == [f"`{folder / NAME}` cannot be read: permission denied"]
    assert messages(document)[OTHER]["faults"] == []
    assert [line.split(":")[0] for line in watched.out.splitlines()] == ["unreadable", "2 request of rel"]
    assert "permission denied" in watched.out


def test_messages_in_a_folder_that_may_be_listed_and_not_entered_are_told(home: Home, folder: Path):
    folder.chmod(0o400)

    run = support.as_another("inbox", "docs", "--no-verify", "--output", "json")

    folder.chmod(0o700)
    assert run.code == 0
    assert messages(run)[OTHER]["faults"] == [f"`{folder / OTHER}` cannot be read: permission denied"]
    assert messages(run)[OTHER]["time"] == "2026-11-24T07:00:02Z"


def test_verify_read_and_archive_of_what_may_not_be_read(home: Home, folder: Path):
    path = support.message(folder / NAME)
    path.chmod(0)

    for verb in ("verify", "read"):
        run = support.as_another(verb, path)
        assert (run.code, "Traceback" in run.err) == (1, False)
        assert "cannot be read: permission denied" in run.err
    assert support.as_another("archive", path).code == 0
    folder.chmod(0)
    run = support.as_another("archive", folder / OTHER)
    folder.chmod(0o700)
    assert (run.code, "Traceback" in run.err) == (1, False)
    assert "permission denied" in run.err


def test_a_signature_that_may_not_be_read_or_is_no_file_is_told_as_that(cas: Cas, home: Home, folder: Path):
    def signature_fault() -> object:
        return messages(support.as_another("inbox", "docs", "--output", "json"))[OTHER]["signature_fault"]

    beside = folder / f"{OTHER}.asc"
    beside.write_text("x", encoding="utf-8")
    beside.chmod(0)
    assert signature_fault() == "it cannot be read: permission denied"
    beside.unlink()
    os.mkfifo(beside)
    assert signature_fault() == "it is a FIFO"
    beside.unlink()
    beside.symlink_to("nowhere")
    assert signature_fault() == "it is a symbolic link, and is not followed"
    beside.unlink()
    beside.mkdir()
    assert signature_fault() == "it is a folder"
    beside.rmdir()
    beside.write_bytes(b"x" * 40_000)
    assert signature_fault() == "it has 40000 bytes, and no more than 32768 are read"
    assert "has a signature that cannot be read: it has 40000 bytes" in cas("verify", folder / OTHER).out


def test_each_kind_of_what_is_no_file_is_told_by_its_name(cas: Cas, folder: Path, monkeypatch):
    monkeypatch.chdir(folder)  # a socket's path holds 108 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.org")
    os.mkfifo("pipe.org")

    text = cas("inbox", "docs").out.splitlines()

    assert "socket.org: a socket, passed by" in text
    assert "pipe.org: a FIFO, passed by" in text
    assert "error[no-message]: `socket.org` is a socket" in cas("read", "socket.org").err
    assert "error[no-message]: `pipe.org` is a FIFO" in cas("verify", "pipe.org").err
    assert inbox.names(Path("/dev"))["null"] is Kind.DEVICE
    with pytest.raises(CasError, match="is a device"):
        inbox.held(Path("/dev/null"), 1)


def test_an_inbox_that_is_a_link_to_nothing_is_told(cas: Cas, home: Home):
    folder = home.inbox("docs")
    folder.parent.mkdir(parents=True)
    folder.symlink_to("nowhere")

    for verb in (("inbox", "docs"), ("watch", "docs", "--timeout", "1s")):
        run = cas(*verb)
        assert run.code == 1
        assert "error[unreadable-inbox]" in run.err


@pytest.mark.parametrize("made", ["a file", "a link", "closed"])
def test_a_folder_for_what_is_archived_that_is_none_hides_no_message(home: Home, folder: Path, made: str):
    kept = folder / "processed"
    if made == "a file":
        kept.touch()
    elif made == "a link":
        kept.symlink_to("nowhere")
    else:
        kept.mkdir(mode=0)

    run = support.as_another("inbox", "docs", "--all", "--no-verify", "--output", "json")

    assert OTHER in messages(run)
    if made == "closed":
        assert run.code == 1
        assert "error[unreadable-inbox]" in run.err
        assert [one["code"] for one in json.loads(run.out)["diagnostics"]] == ["unreadable-inbox"]
    else:
        assert run.code == 0
        assert "processed" in [one["name"] for one in json.loads(run.out)["others"]]


@pytest.mark.parametrize("path", [".", "..", "/", ".org.asc", "x" * 300 + ".org", "a/b.org"])
def test_a_path_that_can_be_no_message_ends_in_no_traceback(cas: Cas, home: Home, gnupg: Key, path: str):
    for verb in ("verify", "read", "archive"):
        run = cas(verb, path)
        assert run.code == 1
        assert "error[no-message]" in run.err


# What was cut off, or is too large


def test_an_empty_message_and_an_empty_or_torn_signature_are_told(cas: Cas, folder: Path, gnupg: Key):
    whole = support.signed(support.message(folder / NAME, sequence=1), gnupg)
    signature = Path(f"{whole}.asc").read_bytes()
    for number, content in ((3, b""), (4, signature[:90])):
        path = support.message(folder / f"2026112{number}T070000Z-from-builder-greeting.org", sequence=number)
        Path(f"{path}.asc").write_bytes(content)
    torn = support.signed(support.message(folder / "torn.org"), gnupg)
    torn.write_bytes(torn.read_bytes()[:70])
    (folder / "empty.org").touch()

    text, document = cas("inbox", "docs"), messages(cas("inbox", "docs", "--output", "json"))

    assert text.code == 0
    assert document[whole.name]["signature"] == "good"
    faults = {one["sequence"]: one["signature_fault"] for one in document.values() if one["conversation"] == "greeting"}
    assert faults == {1: None, 3: "it is empty", 4: "it is cut off"}
    assert "has a signature that cannot be read: it is cut off" in text.out
    assert document["empty.org"]["faults"] == ["the message is empty"]
    assert document["torn.org"]["signature"] == "bad"
    assert "one of the two was changed, or cut off" in text.out


def test_a_message_that_is_too_large_is_told_by_every_verb(cas: Cas, folder: Path, gnupg: Key):
    path = support.message(folder / NAME, body="x" * (2 << 20))
    support.signed(path, gnupg)
    words = "and no more than 1048576 are read"

    assert words in cas("inbox", "docs").out
    assert words in messages(cas("inbox", "docs", "--output", "json"))[NAME]["faults"][0]
    assert words in cas("watch", "docs", "--timeout", "0s").out
    verified = cas("verify", str(path))
    assert (verified.code, words in verified.out) == (1, True)
    document = json.loads(cas("verify", str(path), "--output", "json").out)
    assert words in document["messages"][0]["problem"]
    shown = cas("read", str(path))
    assert (shown.code, shown.out) == (1, "")
    assert "error[too-large]" in shown.err
    assert json.loads(cas("read", str(path), "--output", "json").out)["text"] is None
    assert cas("archive", str(path)).code == 0


def test_the_largest_message_that_may_be_read_costs_no_more_memory_than_it_has_bytes(tmp_path: Path):
    path = support.message(tmp_path / NAME)

    assert inbox.held(path, 1 << 60).content == path.read_bytes()


def test_a_message_that_grows_while_it_is_read_is_never_taken_for_whole(folder: Path):
    path = folder / NAME
    line = b"x" * 4096
    with path.open("wb", buffering=0) as file:

        def grow() -> None:
            if file.tell() > 1 << 19:
                file.truncate(0)
                file.seek(0)
            file.write(line)

        told, sizes = set(), set()
        with meanwhile(grow):
            for _ in range(ROUNDS * 4):
                try:
                    held = inbox.held(path, 1 << 20)
                except CasError as error:
                    told.add(error.code)
                else:
                    assert held.content is not None
                    sizes.add(held.size == len(held.content))

    assert told <= {"no-message"}
    assert sizes <= {True}


# What moves meanwhile


def test_a_message_that_is_put_away_while_it_is_read_is_never_told_as_unsigned(folder: Path):
    paths = [support.message(folder / f"{number}.org") for number in range(ROUNDS)]
    for path in paths:
        path.with_name(f"{path.name}.asc").touch()
    reader, signed_as = Reader(inventory=inventory.EMPTY, verifier=None, projects=Path("projects")), set()

    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(lambda: [put_away(path) for path in paths])
        for path in paths:
            while found := reader.listed(path):
                signed_as.add(found.signed)
        moving.result()

    assert signed_as == {True}


def test_what_becomes_another_kind_of_thing_meanwhile_is_told_and_ends_in_no_traceback(cas: Cas, folder: Path):
    path = folder / NAME

    def change() -> None:
        support.message(path)
        path.unlink()
        os.mkfifo(path)
        path.unlink()
        path.symlink_to("nowhere")
        path.unlink()
        path.mkdir()
        path.rmdir()

    with meanwhile(change):
        for _ in range(ROUNDS):
            run = cas("inbox", "docs", "--no-verify", "--output", "json")
            assert run.code == 0
            found = messages(run)
            assert OTHER in found
            if NAME in found and found[NAME]["faults"]:
                assert found[NAME]["conversation"] is None
            for verb in ("read", "verify", "archive"):
                assert "Traceback" not in cas(verb, str(path)).err
            (folder / "processed" / NAME).unlink(missing_ok=True)


def test_watch_tells_once_that_a_message_cannot_be_read_and_the_message_when_it_can(home: Home, folder: Path):
    path = support.message(folder / NAME, sequence=7)
    path.chmod(0)
    (folder / OTHER).unlink()

    with support.running_as_another("watch", "docs", "--once", "--timeout", "30s") as watching:
        first = watching.stdout.readline()
        time.sleep(3 * EVERY)  # it looks again, and has nothing new to tell
        path.chmod(0o600)
        rest = watching.stdout.read()

    assert first.startswith(f"unreadable: `{path}` cannot be read: permission denied: ")
    assert rest.startswith("7 request of greeting: ")
    assert rest.count("\n") == 1
    assert watching.returncode == 0


def test_a_file_of_any_time_is_listed(cas: Cas, folder: Path):
    for name, time_of_file in (("early.org", -(1 << 35)), ("late.org", 1 << 40)):
        os.utime(support.message(folder / name), (time_of_file, time_of_file))
    support.message(folder / "00010101T000000Z-from-builder-greeting.org")

    run = cas("inbox", "docs", "--output", "json")

    assert run.code == 0
    assert all(len(one["time"]) == len("2026-11-24T07:00:00Z") for one in messages(run).values())


# Putting away, at once


def archived_at_once(paths: list[Path], by: int) -> list[object]:
    """What each of so many that archive these, at the same time, gets."""
    ready, results = threading.Barrier(by), []

    def one() -> None:
        ready.wait()
        for path in paths:
            try:
                results.append(put_away(path))
            except CasError as error:
                results.append(error.code)
            except Exception as error:
                results.append(error)

    threads = [threading.Thread(target=one) for _ in range(by)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_several_that_archive_at_once_one_does_and_the_others_are_told_so(folder: Path, gnupg: Key):
    content = support.signed(support.message(folder / NAME), gnupg).read_bytes()
    signature = (folder / f"{NAME}.asc").read_bytes()
    for number in range(ROUNDS):
        path = folder / f"{number}.org"
        path.with_name(f"{path.name}.asc").write_bytes(signature)
        path.write_bytes(content)
    paths = [folder / f"{number}.org" for number in range(ROUNDS)]

    results = archived_at_once(paths, by=4)

    kept = folder / "processed"
    assert {result for result in results if not isinstance(result, Path)} <= {"archived"}
    assert {result for result in results if isinstance(result, Path)} == {kept / path.name for path in paths}
    assert sorted(os.listdir(kept)) == sorted(name for path in paths for name in (path.name, f"{path.name}.asc"))
    assert {(kept / path.name).read_bytes() for path in paths} == {content}


def test_a_message_is_not_parted_from_its_signature_by_one_that_lies_where_it_would_go(cas: Cas, folder: Path):
    path, kept = folder / OTHER, folder / "processed"
    path.with_name(f"{OTHER}.asc").write_text("mine", encoding="utf-8")
    kept.mkdir()
    (kept / f"{OTHER}.asc").write_text("another's", encoding="utf-8")

    run = cas("archive", str(path))

    assert run.code == 1
    assert f"`{kept}` has a `{OTHER}.asc` already" in run.err
    assert path.exists()
    assert (kept / f"{OTHER}.asc").read_text(encoding="utf-8") == "another's"


def test_what_is_archived_is_not_archived_again_from_inside_its_folder(cas: Cas, folder: Path, monkeypatch):
    assert cas("archive", str(folder / OTHER)).code == 0
    monkeypatch.chdir(folder / "processed")

    run = cas("archive", OTHER)

    assert run.code == 1
    assert "error[archived]" in run.err
    assert Path(OTHER).exists()
