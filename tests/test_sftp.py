"""SFTP: what each refusal is told as, what a server may lack, and servers that fall silent, die or talk nonsense.

The server is always OpenSSH's, on real files; where it has to misbehave, a program between it and the client answers
single requests in its place.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import Direction, Kind, Trouble, proxy
from support import Forge, Home, Run
from test_transports import NAME, Inbox, Way, destination

from cas.errors import TransferError
from cas.loopback import SFTP_SERVERS, loopback_peer
from cas.transports.files import LARGEST_READ

Cas = Callable[..., Run]
Write = Callable[..., Path]
Server = Callable[..., AbstractContextManager[Way]]
SFTP_SERVER = next(f"{place}/sftp-server" for place in SFTP_SERVERS if Path(place, "sftp-server").exists())
NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, UNSUPPORTED = 2, 3, 4, 8
BETWEEN = '''
"""sftp-server, but for the requests that a rule names: `between.py RULES SERVER ARGUMENT…`."""
import json, os, struct, subprocess, sys, threading

rules, server = json.loads(sys.argv[1]), subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
kinds = {1: "init", 3: "open", 4: "close", 5: "read", 6: "write", 7: "lstat", 11: "opendir", 12: "readdir",
         13: "remove", 14: "mkdir", 15: "rmdir"}
with_path = {3, 7, 11, 13, 14, 15}
lock, held, kept = threading.Lock(), set(), []

def packet(file):
    length = file.read(4)
    if len(length) < 4:
        os._exit(0)
    return file.read(struct.unpack(">I", length)[0])

def give(content, file=sys.stdout.buffer):
    file.write(struct.pack(">I", len(content)) + content)
    file.flush()

def string(content, at):
    end = at + 4 + struct.unpack_from(">I", content, at)[0]
    return content[at + 4:end].decode("utf-8", "replace"), end

def told(request):
    if request[0] == 200:
        name, at = string(request, 5)
        return name.partition("@")[0], string(request, at)[0]
    return kinds.get(request[0], ""), string(request, 5)[0] if request[0] in with_path else ""

def rule_for(name, path):
    for rule in rules:
        if rule["request"] == name and path.endswith(rule.get("path", "")):
            rule["skip"] = rule.get("skip", 0) - 1
            if rule["skip"] < 0:
                return rule
    return {}

def answers():
    while True:
        answer = packet(server.stdout)
        with lock:
            if len(answer) >= 5 and struct.unpack_from(">I", answer, 1)[0] in held:
                kept.append(answer)
                continue
            give(answer)
            while kept:
                give(kept.pop())

threading.Thread(target=answers, daemon=True).start()
silent = False
while True:
    request = packet(sys.stdin.buffer)
    number = request[1:5]
    rule = rule_for(*told(request))
    if "mark" in rule:
        open(rule["mark"], "w").close()
    do = rule.get("do")
    silent = silent or do == "silent"
    if silent:
        continue
    if do == "exit":
        os._exit(0)
    with lock:
        if do == "raw":
            sys.stdout.buffer.write(bytes.fromhex(rule["bytes"]))
            sys.stdout.buffer.flush()
        elif do == "status":
            give(bytes([101]) + number + struct.pack(">I", rule["status"]) + struct.pack(">I", 4) + b"Word" + bytes(4))
        elif do == "space":
            values = [4096, 4096, 1000, rule["free"], rule["free"], 10, 10, 10, 1, rule["flags"], 255]
            give(bytes([201]) + number + struct.pack(">11Q", *values))
        else:
            if do == "hold":
                held.add(struct.unpack(">I", number)[0])
            give(request, server.stdin)
'''


@pytest.fixture
def server(home: Home, tmp_path: Path) -> Server:
    """`server(*rules, arguments=…, command=…)`: the way to an inbox behind a server that does as they say."""

    @contextmanager
    def serve(
        *rules: dict[str, Any], arguments: tuple[str, ...] = (), command: str | None = None, before: str = ":"
    ) -> Iterator[Way]:
        folder = tmp_path / "odd"
        folder.mkdir()
        (folder / "between.py").write_text(BETWEEN)
        words = [SFTP_SERVER, *arguments]
        if rules:
            words = [sys.executable, "-ISE", str(folder / "between.py"), json.dumps(rules), *words]
        script = folder / "forced"
        script.write_text(
            f"#!/bin/sh\ncd {shlex.quote(str(folder / 'home'))} || exit\n"
            f'case "$SSH_ORIGINAL_COMMAND" in *sftp-server*) {before}; {command or "exec " + shlex.join(words)};; '
            f"*) exec {shlex.quote(str(folder / 'login'))};; esac\n"
        )
        script.chmod(0o755)
        with loopback_peer(folder, settings=(f"ForceCommand {shlex.quote(str(script))}",)) as peer:
            forge = Forge(server=peer)
            home.known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
            home.known_hosts.write_text(peer.known_hosts)
            home.peers(forge.toml(transport="sftp"))
            yield Way(destination=destination(forge), home=home.path, folder=forge.inbox("docs"))

    return serve


def refused(request: str, status: int = FAILURE, **rule: Any) -> dict[str, Any]:
    return {"request": request, "do": "status", "status": status, **rule}


def space(*, free: int = 100, flags: int = 0) -> dict[str, Any]:
    return {"request": "statvfs", "do": "space", "free": free, "flags": flags}


def delivered(inbox: Inbox) -> None:
    inbox.prepared().published(inbox.envelope())


def failure(act: Callable[[], object]) -> TransferError:
    with pytest.raises(TransferError) as refused:
        act()
    return refused.value


# What a refusal is told as


@pytest.mark.parametrize(
    ("rules", "words", "code", "permanent"),
    [
        ([refused("mkdir", NO_SUCH_FILE)], "no such file or folder", "file-operation-failed", True),
        ([refused("mkdir", PERMISSION_DENIED)], "permission denied", "no-permission", True),
        ([refused("mkdir", UNSUPPORTED)], "the SFTP server cannot do what is needed", "sftp-incomplete", True),
        ([refused("mkdir"), space(free=0)], "no space left", "no-space", True),
        ([refused("mkdir"), space(flags=1)], "the file system is read-only", "file-operation-failed", True),
        ([refused("mkdir"), space()], "the SFTP server failed (word)", "file-operation-failed", False),
        ([refused("mkdir"), refused("statvfs")], "the SFTP server failed (word)", "file-operation-failed", False),
        ([refused("mkdir", 99), space()], "the SFTP server failed (word)", "file-operation-failed", False),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_refusal_is_told_by_its_cause(
    server: Server, rules: list[dict[str, Any]], words: str, code: str, permanent: bool
):
    with server(*rules) as way, way.opened() as inbox:
        error = failure(inbox.prepared)

    assert (error.code, error.permanent) == (code, permanent)
    assert str(error).startswith(words)
    assert f"on 127.0.0.1:{way.destination.port}" in str(error)


@pytest.mark.parametrize("rule", [refused("mkdir", PERMISSION_DENIED), refused("mkdir", NO_SUCH_FILE)])
def test_a_refusal_names_the_folder(server: Server, rule: dict[str, Any]):
    with server(rule) as way, way.opened() as inbox:
        assert "`~/projects`" in str(failure(inbox.prepared))


def test_a_server_that_forbids_writing_is_told_as_that(server: Server):
    with server(arguments=("-P", "mkdir")) as way, way.opened() as inbox:
        error = failure(inbox.prepared)

    assert (error.code, error.permanent) == ("no-permission", True)
    assert error.hint


def test_without_a_word_on_space_a_failure_may_be_tried_again(server: Server):
    with server(refused("mkdir"), arguments=("-P", "statvfs")) as way, way.opened() as inbox:
        assert not failure(inbox.prepared).permanent


@pytest.mark.parametrize("request_", ["open", "write", "fsync", "close"])
@pytest.mark.parametrize(("free", "code"), [(0, "no-space"), (100, "file-operation-failed")])
def test_what_cannot_be_staged_is_told_and_leaves_nothing(server: Server, request_: str, free: int, code: str):
    # fsync and close come for folders too, when the inbox is made: those go well.
    path = {"path": "/message"} if request_ == "open" else {}
    with server() as way:
        with way.opened() as inbox:
            inbox.prepared()
        _change(way, refused(request_, **path), space(free=free))
        with way.opened() as inbox:
            (result,) = inbox.transport.stage([inbox.envelope()])

            assert isinstance(result, TransferError)
            assert result.code == code
            assert os.listdir(inbox.workshop) == []


def test_a_file_that_grows_too_large_there_is_an_error_and_leaves_nothing(server: Server):
    # With the signal ignored, writing beyond the limit fails: "Failure" to the client, though there is space.
    with server(before="trap '' XFSZ; ulimit -f 64") as way, way.opened() as inbox:
        (result,) = inbox.prepared().transport.stage([inbox.envelope(message=b"x" * (1 << 20))])

        assert isinstance(result, TransferError)
        assert "the SFTP server failed" in str(result)
        assert inbox.visible() == []
        assert os.listdir(inbox.workshop) == []


@pytest.mark.parametrize("request_", ["hardlink", "posix-rename"])
@pytest.mark.parametrize("status", [PERMISSION_DENIED, FAILURE, UNSUPPORTED])
def test_a_publication_that_is_refused_shows_no_message(server: Server, request_: str, status: int):
    # The first rename makes the claim.
    rule = refused(request_, status, skip=1 if request_ == "posix-rename" else 0)
    with server(rule) as way, way.opened() as inbox:
        error = failure(lambda: delivered(inbox))

        assert error.permanent is (status != FAILURE)
        assert NAME not in inbox.visible()


def test_a_signature_that_is_refused_is_not_taken_for_published(server: Server):
    with server(refused("hardlink")) as way, way.opened() as inbox:
        failure(lambda: delivered(inbox))

        assert inbox.visible() == []


def test_a_claim_that_is_refused_is_not_taken_for_made(server: Server):
    with server(refused("posix-rename")) as way, way.opened() as inbox:
        failure(lambda: delivered(inbox))

        assert inbox.run(inbox.transport.look(inbox.path, inbox.envelope().identity)) is None


@pytest.mark.parametrize("request_", ["lstat", "open", "read"])
def test_a_look_that_is_refused_is_an_error_and_not_an_empty_place(server: Server, request_: str):
    with server(refused(request_, PERMISSION_DENIED)) as way, way.opened() as inbox:
        place = way.folder / ".tmp.cas" / ("a" * 32)
        place.mkdir(parents=True)
        (place / "record").write_text("{}")

        assert failure(lambda: inbox.run(inbox.transport.look(inbox.path, "a" * 32))).code == "no-permission"


@pytest.mark.parametrize("request_", ["opendir", "readdir"])
def test_a_list_that_is_refused_is_an_error_and_not_an_empty_folder(server: Server, request_: str):
    with server(refused(request_, PERMISSION_DENIED)) as way, way.opened() as inbox:
        inbox.prepared()

        assert failure(lambda: inbox.run(inbox.transport.clean(inbox.path, {"a" * 32}))).code == "no-permission"


# What a server may lack


@pytest.mark.parametrize("lacking", ["posix-rename", "hardlink", "posix-rename,hardlink"])
def test_a_server_without_what_makes_messages_appear_whole_is_refused(server: Server, lacking: str):
    with server(arguments=("-P", lacking)) as way:
        error = failure(lambda: way.opened().__enter__())

    assert (error.code, error.permanent) == ("sftp-incomplete", True)
    assert all(f"`{name}@openssh.com`" in str(error) for name in lacking.split(","))
    assert not way.folder.exists()


def test_a_server_that_cannot_sync_is_served_and_that_is_said(server: Server):
    with server(arguments=("-P", "fsync")) as way, way.opened() as inbox:
        delivered(inbox)

        assert inbox.visible() == [NAME, f"{NAME}.asc"]
        assert inbox.transport.durable is False


def test_a_server_that_announces_to_sync_and_does_not_is_found_out(server: Server):
    with server(refused("fsync", UNSUPPORTED)) as way, way.opened() as inbox:
        delivered(inbox)

        assert inbox.visible() == [NAME, f"{NAME}.asc"]
        assert inbox.transport.durable is False


def test_a_server_that_opens_no_folders_cannot_sync_them_and_is_served(server: Server):
    with server(refused("open", path=".tmp.cas")) as way, way.opened() as inbox:
        delivered(inbox)

        assert inbox.visible() == [NAME, f"{NAME}.asc"]
        assert inbox.transport.durable is False


def test_a_sync_that_fails_is_no_delivery(server: Server):
    with server(refused("fsync")) as way, way.opened() as inbox:
        failure(lambda: delivered(inbox))

        assert _visible(way) == []


def test_a_result_says_that_a_delivery_is_not_sure_to_be_on_disk(server: Server, cas: Cas, message: Write):
    with server(arguments=("-P", "fsync")):
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--output", "json")

    (delivery,) = json.loads(run.out)["deliveries"]
    assert (run.code, delivery["outcome"], delivery["durable"]) == (0, "delivered", False)


def test_a_result_says_that_a_delivery_is_on_disk(server: Server, cas: Cas, message: Write):
    with server():
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--output", "json")

    (delivery,) = json.loads(run.out)["deliveries"]
    assert (run.code, delivery["durable"]) == (0, True)


@pytest.mark.parametrize("way_to_lack", ["not announced", "found out"])
def test_under_require_durable_nothing_appears_where_nothing_is_synced(
    server: Server, cas: Cas, home: Home, message: Write, way_to_lack: str
):
    rules = [refused("fsync", UNSUPPORTED)] if way_to_lack == "found out" else []
    with server(*rules, arguments=() if rules else ("-P", "fsync")) as way:
        peers = home.config / "peers.toml"
        peers.write_text(peers.read_text() + "[policy]\nrequire_durable = true\n")
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

        assert run.code == 3
        assert "require_durable" in run.err
        assert "trying again" not in run.err
        assert not [name for name in os.listdir(way.folder) if not name.startswith(".")]


# Servers that fall silent, die, or talk nonsense


@pytest.mark.parametrize(
    ("request_", "do"),
    [
        ("init", "silent"),  # one that ends here is one that offers no SFTP
        *product(("lstat", "mkdir", "open", "write", "fsync", "close", "hardlink", "posix-rename"), ("silent", "exit")),
    ],
)
def test_a_server_that_is_gone_in_the_middle_ends_every_wait_and_a_later_run_finishes(
    server: Server, request_: str, do: str
):
    with server({"request": request_, "do": do}) as way:
        started = time.monotonic()
        error = failure(lambda: _delivered_over(way, timeout=1))
        took = time.monotonic() - started
        assert NAME not in _visible(way)

        _change(way)
        with way.opened() as inbox:
            delivered(inbox)

            assert inbox.visible() == [NAME, f"{NAME}.asc"]
    assert not error.permanent
    assert ("fell silent" if do == "silent" else "was lost") in str(error)
    assert took < 8


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\0\0",  # a packet without anything in it
        b"\xff\xff\xff\xff",  # four gigabytes to come
        b"\0\0\0\5\x65\0\0\xff\xff",  # an answer to nothing that was asked
        b"\0\0\0\1\x65",  # a packet without a number
        b"\0\0\0\5\x65",  # a packet that breaks off
    ],
    ids=["nothing", "too much", "unasked", "no number", "half"],
)
@pytest.mark.parametrize("request_", ["init", "lstat"])
def test_an_answer_that_is_none_is_a_lost_connection(server: Server, request_: str, content: bytes):
    with server({"request": request_, "do": "raw", "bytes": content.hex()}) as way:
        error = failure(lambda: _delivered_over(way, timeout=2))

    assert (error.code, error.permanent) == ("connection-lost", False)


@pytest.mark.parametrize("kind", [101, 102, 103, 104, 105])
def test_an_answer_that_breaks_off_within_is_a_lost_connection(server: Server, kind: int):
    content = b"\0\0\0\6" + bytes([kind]) + b"\0\0\0\1\0"
    with server({"request": "lstat", "do": "raw", "bytes": content.hex()}) as way:
        error = failure(lambda: _delivered_over(way, timeout=2))

    assert not error.permanent


@pytest.mark.parametrize("command", ["exit 1", "echo welcome to forge", "cat", "true"])
def test_a_login_that_offers_no_sftp_is_an_error_with_its_place(server: Server, command: str):
    with server(command=command) as way:
        error = failure(lambda: _delivered_over(way, timeout=2))

    assert f"127.0.0.1:{way.destination.port}" in str(error)


def test_a_server_without_an_sftp_subsystem_is_an_error(home: Home, tmp_path: Path):
    folder = tmp_path / "bare"
    folder.mkdir()
    with loopback_peer(folder, settings=("ForceCommand exit 127",)) as peer:
        home.known_hosts.parent.mkdir()
        home.known_hosts.write_text(peer.known_hosts)
        way = Way(destination=destination(Forge(server=peer)), home=home.path, folder=tmp_path)

        assert "127.0.0.1" in str(failure(lambda: _delivered_over(way, timeout=2)))


def test_a_connection_that_broke_stays_broken_and_says_so_at_once(server: Server):
    with server({"request": "mkdir", "do": "exit"}) as way, way.opened(timeout=20) as inbox:
        first = failure(inbox.prepared)
        started = time.monotonic()
        second = failure(lambda: inbox.run(inbox.transport.look(inbox.path, "a" * 32)))

    assert str(second) == str(first)
    assert time.monotonic() - started < 2


def test_all_that_waits_learns_that_the_connection_broke(server: Server):
    with server({"request": "lstat", "do": "exit", "skip": 5}) as way, way.opened() as inbox:
        results = inbox.transport.run(inbox.transport.files.kind(f"~/{number}") for number in range(20))

    # Whether the first five were answered in time is the server's affair.
    assert all(isinstance(result, TransferError) and not result.permanent for result in results[5:])
    assert len(results) == 20


def test_who_waits_can_be_cut_off_from_another_thread(server: Server, tmp_path: Path):
    mark = tmp_path / "reached"
    with server({"request": "mkdir", "do": "silent", "mark": str(mark)}) as way, way.opened(timeout=60) as inbox:
        errors: list[TransferError] = []
        waiting = threading.Thread(target=lambda: errors.append(failure(inbox.prepared)), daemon=True)
        waiting.start()
        _until(mark.exists)

        inbox.transport.abort()

        waiting.join(10)
        assert not waiting.is_alive()
    assert not errors[0].permanent


def test_requests_are_in_flight_together_and_answers_may_come_in_any_order(server: Server):
    # The first answer is held back until there is another one: who asks one at a time waits for ever.
    with server({"request": "lstat", "do": "hold", "path": "first"}) as way, way.opened(timeout=3) as inbox:
        (way.folder.parents[3] / "second").touch()
        results = inbox.transport.run(inbox.transport.files.kind(f"~/{name}") for name in ("first", "second"))

    assert [getattr(result, "value", result) for result in results] == [None, "file"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name.lower())
@pytest.mark.parametrize("kind", [Kind.CUT, Kind.STALL], ids=lambda kind: kind.name.lower())
def test_wherever_the_network_breaks_every_wait_ends_and_a_later_run_finishes(
    home: Home, peer: Forge, tmp_path: Path, kind: Kind, direction: Direction
):
    def way(port: int, number: int) -> Way:
        where = destination(
            peer, port=port, host_key=peer.server.host_key, inbox=f"~/projects/p{number}/inbox/from-agents"
        )
        return Way(destination=where, home=home.path, folder=peer.inbox(f"p{number}"))

    with proxy(peer.host, peer.port) as calm:
        _delivered_over(way(calm.port, 0))
    total = calm.gone[direction]

    for number in range(1, 7):
        after = total * number // 7
        with proxy(peer.host, peer.port, Trouble(kind=kind, direction=direction, after=after)) as between:
            started = time.monotonic()
            error = failure(lambda: _delivered_over(way(between.port, number), timeout=1))  # noqa: B023
            took = time.monotonic() - started
        assert between.struck
        assert not error.permanent, error
        assert took < 8, (number, took)

        direct = way(peer.port, number)
        with direct.opened() as inbox:
            inbox.run(inbox.transport.prepare(inbox.path))
            claim = inbox.claimed(inbox.envelope())
            inbox.run(inbox.transport.publish_signature(claim))
            inbox.run(inbox.transport.publish_message(claim))
            assert inbox.visible() == [NAME, f"{NAME}.asc"]


# Reading


def test_a_large_folder_is_read_to_its_end(server: Server):
    with server() as way, way.opened() as inbox:
        names = {f"{number:04d}-{'x' * 100}" for number in range(1_000)}
        way.folder.mkdir(parents=True)
        for name in names:
            (way.folder / name).touch()

        assert set(inbox.run(inbox.transport.files.names(inbox.path))) == names


def test_a_file_without_end_is_read_so_far_and_no_further(server: Server):
    with server() as way, way.opened() as inbox:
        way.folder.mkdir(parents=True)
        with (way.folder / "large").open("wb") as file:
            file.truncate(LARGEST_READ * 4)

        assert len(inbox.run(inbox.transport.files.read(f"{inbox.path}/large"))) <= LARGEST_READ + (1 << 16)


def test_a_name_that_is_no_utf_8_disturbs_nothing(server: Server):
    with server() as way, way.opened() as inbox:
        inbox.prepared()
        os.close(os.open(os.fsencode(inbox.workshop) + b"/new-\xff", os.O_CREAT))

        inbox.run(inbox.transport.clean(inbox.path, {inbox.envelope().identity}))

        assert len(os.listdir(inbox.workshop)) == 1


def _delivered_over(way: Way, timeout: int = 20) -> None:
    with way.opened(timeout=timeout) as inbox:
        delivered(inbox)


def _visible(way: Way) -> list[str]:
    return [name for name in os.listdir(way.folder) if not name.startswith(".")] if way.folder.exists() else []


def _change(way: Way, *rules: dict[str, Any]) -> None:
    """The same server, from its next connection on under other rules."""
    script = next(parent for parent in way.folder.parents if parent.name == "odd") / "forced"
    before = script.read_text()
    start = before.index("exec ", before.index("*sftp-server*"))
    end = before.index(";;", start)
    words = [SFTP_SERVER]
    if rules:
        words = [sys.executable, "-ISE", str(script.with_name("between.py")), json.dumps(rules), *words]
    script.write_text(before[:start] + f"exec {shlex.join(words)}" + before[end:])


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
