"""The delivery code run on the peer: accounts of every kind, peers that die or lie in the middle, leave and HALT.

The server is always OpenSSH's. Where the Python there has to misbehave, another program of that name comes first in
its PATH.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Forge, Home, Run, pairs
from test_transports import NAME, Way, destination

from cas.errors import CasError, HaltError, TransferError
from cas.loopback import SFTP_SERVERS, loopback_peer
from cas.names import digest, identity, later
from cas.transports import FEW, attempted, opened, ssh, wire
from cas.transports.attempt import WINDOW, Progress
from cas.transports.remote import COMMAND, RemoteTransport
from cas.transports.sftp import SftpFiles
from cas.transports.transport import Claim, ClaimState, Envelope, Transport, contents

Cas = Callable[..., Run]
Write = Callable[..., Path]
SFTP_SERVER = next(f"{place}/sftp-server" for place in SFTP_SERVERS if Path(place, "sftp-server").exists())
SFTP = f"exec {SFTP_SERVER}"
# Python for a shell, and for Python a text: a first line cannot name a path with a space.
PYTHON = f"#!/bin/sh\n'''exec' {shlex.quote(sys.executable)} -ISE \"$0\" \"$@\"\n' '''\n"
SHELL = 'exec sh -c "$SSH_ORIGINAL_COMMAND"'
MANY = FEW + 1
LIAR = '''
"""A `python3` that greets like cas's own code, and answers each order as the test has it."""
import json, os, re, sys, time

first = sys.stdin.buffer.readline()
sys.stdin.buffer.read(int(re.search(rb"rest = (\\d+)", first)[1]))

def give(*answers):
    for answer in answers:
        sys.stdout.buffer.write((answer if isinstance(answer, bytes) else json.dumps(answer).encode()) + b"\\n")
    sys.stdout.buffer.flush()

def next_order():
    line = sys.stdin.buffer.readline()
    return json.loads(line) if line else sys.exit()

def standing(item, **changes):
    kept = {key: item[key] for key in ("identity", "name")}
    return {**kept, "claim": None, "made_inbox": False, "asked": False, "done": False, "ours": False, "evidence": None,
            "error": None, **changes}

def stand(*items, **changes):
    return {"stand": [standing(item, **changes) for item in items], "durable": True}

def error(**changes):
    return {"kind": "transfer", "message": "no", "code": "x", "hint": None, "permanent": True, **changes}

sys.stdout.buffer.write(b"\\0cas\\0\\n")
HERE = {"here": [3, 11]}
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A login on an odd server, in peers.toml as `forge`."""

    forge: Forge
    way: Way
    bin: Path

    @property
    def inbox(self) -> Path:
        return self.forge.inbox("docs")

    def over(self, transport: str) -> Way:
        return replace(self.way, destination=replace(self.way.destination, transport=transport))

    def opened(
        self, transport: str = "python", *, deliveries: int = MANY, timeout: int = 20
    ) -> AbstractContextManager[Transport]:
        where = replace(self.way.destination, transport=transport)
        return opened(where, timeout, deliveries, home=self.way.home, user="nobody")

    def session(self) -> ssh.Session:
        return ssh.connected(self.way.destination, home=self.way.home, user="nobody", timeout=20)

    def python3(self, text: str) -> None:
        """From the next login on, this is `python3` there."""
        self.bin.joinpath("python3").write_text(text)
        self.bin.joinpath("python3").chmod(0o755)


Accounts = Callable[..., AbstractContextManager[Account]]


@pytest.fixture
def account(home: Home, tmp_path: Path) -> Accounts:
    """`account(shell=…, sftp=…, before=…, python3=…)`: what runs for a command, for SFTP, before either; and `python3`.

    `settings` come first in the server's configuration; `path` is the PATH there, behind a folder for `python3`.
    """

    @contextmanager
    def serve(
        *,
        shell: str = SHELL,
        sftp: str = SFTP,
        before: str = ":",
        python3: str | None = None,
        settings: tuple[str, ...] | None = None,
        path: str = "$PATH",
        transport: str = "python",
    ) -> Iterator[Account]:
        folder = tmp_path / "odd"
        (folder / "bin").mkdir(parents=True)
        script = folder / "forced"
        script.write_text(
            f"#!/bin/bash\nexport HOME={shlex.quote(str(folder / 'home'))}; cd || exit\n"
            f"PATH={shlex.quote(str(folder / 'bin'))}:{path}\n{before}\n"
            f'case "$SSH_ORIGINAL_COMMAND" in *sftp-server*) {sftp};; *) {shell};; esac\n'
        )
        script.chmod(0o755)
        with loopback_peer(folder, settings=settings or (f"ForceCommand {shlex.quote(str(script))}",)) as peer:
            forge = Forge(server=peer)
            home.known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
            home.known_hosts.write_text(peer.known_hosts)
            home.peers(forge.toml(transport=transport))
            where = destination(forge, transport=transport)
            found = Account(
                forge=forge,
                way=Way(destination=where, home=home.path, folder=forge.inbox("docs")),
                bin=folder / "bin",
            )
            if python3 is not None:
                found.python3(python3)
            yield found

    return serve


def lying(lie: str) -> str:
    """A `python3` that does as `lie`, a piece of Python, after the greeting."""
    return f"{PYTHON}{LIAR}\n{lie}\n"


def progress(number: int, *, lane: str | None = None, **changes: Any) -> Progress:
    """A delivery of its own, in a lane of its own."""
    message = f"message {number}".encode()
    envelope = Envelope(
        identity=identity("builder", "forge.docs", f"c{number}", 1, digest(message)),
        inbox="~/projects/docs/inbox/from-agents",
        name=NAME.replace("greeting", f"c{number}"),
        sender="builder",
        digest=digest(message),
        time="2026-11-23T01:31:33Z",
        content=lambda: message,
        signature=None,
    )
    return Progress(envelope=envelope, lane=lane or f"lane-{number}", repeatable=True, **changes)


def failure(act: Callable[[], object]) -> TransferError:
    with pytest.raises(TransferError) as refused:
        act()
    return refused.value


def entered(way: AbstractContextManager[Transport]) -> None:
    with way:
        pass


def go_on() -> None:
    """No HALT."""


def attempt(batch: list[Progress], transport: Transport, stop: Callable[[], HaltError | None] = go_on) -> list[str]:
    """One attempt; gives the names as they were told visible."""
    told: list[str] = []
    attempted(batch, transport, stop, lambda _, name: told.append(name), require_durable=False)
    return told


# Accounts of every kind


@pytest.mark.parametrize(
    "noise",
    [
        "echo 'Welcome to forge. Have a nice day.'",
        "printf 'no end of line'",
        "head -c 20000 /dev/urandom",
        r"printf '\0cas\0 \0cas\0'",
        r"printf '\0\0\1\2\377\376{}[]\n\n\n'; echo oops >&2",
    ],
    ids=["a banner", "no end of line", "binary", "almost a greeting", "JSON and errors"],
)
def test_what_a_shells_own_files_print_is_passed_over(account: Accounts, cas: Cas, message: Write, noise: str):
    with account(before=noise) as there:
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--retries", "0")

        assert (run.code, len(pairs(there.inbox))) == (0, 1), run.err


NONE = {
    "no python3 in PATH": {"path": "/nonexistent"},
    "an old one that refuses": {"python3": "#!/bin/sh\necho 'Python 3.8.10: too old' >&2\nexit 1\n"},
    "an old one": {
        "python3": f"{PYTHON}import os, sys\nsys.version_info = (3, 10, 14)\n"
        'exec(open(0, "rb", 0, closefd=False).readline())\n'
    },
    "one that says what it is and ends": {"python3": "#!/bin/sh\necho 'Python 2.7.18'\n"},
    "one that cannot import": {
        "python3": f"{PYTHON}import os, sys\nsys.modules['hashlib'] = None\n"
        'exec(open(0, "rb", 0, closefd=False).readline())\n'
    },
    "a shell that refuses": {"shell": "exec /bin/false"},
    "a shell that ends": {"shell": "exit 0"},
    "one that greets and ends": {"python3": lying("sys.exit()")},
    "one that greets and talks nonsense": {"python3": lying("give(b'welcome')")},
}
FORCED_SFTP = {"settings": ("ForceCommand internal-sftp",)}
SILENT = {
    "one that swallows all": {"shell": "exec cat >/dev/null"},
    "one that sleeps": {"shell": "exec sleep 60"},
    "garbage without end": {"shell": "exec cat /dev/urandom"},
    "garbage in lines": {"shell": "exec yes"},
    "garbage in drops": {"shell": "while :; do echo garbage || exit; sleep 0.2; done"},
    "an echo": {"shell": "exec cat"},
}


@pytest.mark.parametrize("kind", [*NONE, "SFTP only"])
def test_an_account_without_a_python_that_would_do_is_an_error_for_good_with_a_hint(account: Accounts, kind: str):
    with account(**NONE.get(kind, FORCED_SFTP)) as there:
        error = failure(lambda: entered(there.opened()))

    assert (error.code, error.permanent) == ("no-python", True)
    assert str(there.forge.port) in str(error)
    assert 'transport = "sftp"' in str(error.hint)


@pytest.mark.parametrize("kind", SILENT)
def test_a_shell_that_never_greets_is_waited_for_so_long_and_no_longer(account: Accounts, kind: str):
    with account(**SILENT[kind]) as there:
        started = time.monotonic()
        error = failure(lambda: entered(there.opened(timeout=1)))

    assert (error.code, error.permanent) == ("no-python", True)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", [*NONE, *SILENT, "SFTP only"])
def test_auto_delivers_over_sftp_where_there_is_no_python(account: Accounts, kind: str):
    with account(**{**NONE, **SILENT}.get(kind, FORCED_SFTP), transport="auto") as there:
        where = f"{there.way.folder}" if kind == "SFTP only" else "~/projects/docs/inbox/from-agents"
        item = progress(1)
        item.envelope = replace(item.envelope, inbox=where)
        with there.opened("auto", timeout=2) as transport:
            attempt([item], transport)

        assert not isinstance(transport, RemoteTransport)
        assert (item.done, pairs(there.inbox)) == (True, (item.name,))


def test_auto_takes_sftp_for_a_few_deliveries_near_by_and_python_for_many(account: Accounts):
    def is_python(deliveries: int) -> bool:
        with there.opened("auto", deliveries=deliveries) as transport:
            return isinstance(transport, RemoteTransport)

    with account(transport="auto") as there:
        # On a busy machine even loopback is at times too slow to count as near.
        assert not all(is_python(1) for _ in range(20))
        assert is_python(MANY)


@pytest.mark.parametrize(
    "sftp",
    ["exit 1", "exec /bin/false", "echo 'This account runs commands only.'; exit 1", f"exec {SFTP_SERVER} -P hardlink"],
    ids=["ends", "false", "says so", "an incomplete server"],
)
def test_auto_delivers_by_python_where_there_is_no_sftp(account: Accounts, cas: Cas, message: Write, sftp: str):
    with account(sftp=sftp, transport="auto") as there:
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--retries", "0")

        assert (run.code, len(pairs(there.inbox))) == (0, 1), run.err


def test_auto_with_neither_is_an_error_for_good_with_a_hint(account: Accounts, cas: Cas, message: Write):
    with account(shell="exit 1", sftp="exit 1", transport="auto"):
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 3
    assert "trying again" not in run.err
    assert "hint" in run.err


def test_an_sftp_server_that_has_ended_before_the_first_word_to_it_is_none(account: Accounts):
    with account(sftp="exit 1") as there, closing(there.session()) as session:
        channel = session.channel("SFTP", lambda channel: channel.invoke_subsystem("sftp"))
        until = time.monotonic() + 10
        while not channel.closed and time.monotonic() < until:
            time.sleep(0.01)

        error = failure(lambda: SftpFiles(channel, session.where))

    assert (error.code, error.permanent) == ("not-offered", True)


@pytest.mark.parametrize("transport", ["python", "auto"])
def test_a_network_that_falls_silent_before_the_greeting_is_no_want_of_python(account: Accounts, transport: str):
    # The whole connection stops, not one channel of it.
    with account(shell="kill -STOP $PPID; sleep 5; kill -CONT $PPID") as there:
        error = failure(lambda: entered(there.opened(transport, timeout=1)))

    assert (error.code, error.permanent) == ("connection-lost", False)


def test_a_connection_that_ends_before_the_greeting_is_no_want_of_python(account: Accounts):
    with account(shell="kill -KILL $PPID") as there:
        error = failure(lambda: entered(there.opened()))

    assert (error.code, error.permanent) == ("connection-lost", False)


# A peer that lies

STRANGE = {
    "not JSON": "give(b'hello')",
    "an empty line": "give(b'')",
    "no UTF-8": "give(b'\\xff\\xfe{}')",
    "deep nesting": "give(b'[' * 100000)",
    "deep nesting within": "give(b'{\"shown\":' + b'[' * 100000)",
    "a huge number": "give(b'{\"shown\": ' + b'1' * 100000 + b'}')",
    "a list": "give([])",
    "an object without anything": "give({})",
    "an error instead": "give({'error': error()})",
    "shown, of what was never asked for": "give({'shown': 'f' * 32, 'name': item['name']})",
    "shown, of no text": "give({'shown': [], 'name': item['name']})",
    "shown, without a name": "give({'shown': item['identity']})",
    "shown, under a number": "give({'shown': item['identity'], 'name': 5})",
    "shown, elsewhere": "give({'shown': item['identity'], 'name': '../../' + item['name']})",
    "shown, in a folder": "give({'shown': item['identity'], 'name': item['name'] + '/../x.org'})",
    "shown, with a newline": "give({'shown': item['identity'], 'name': item['name'] + '\\n'})",
    "shown, hidden": "give({'shown': item['identity'], 'name': '.' + item['name']})",
    "shown, endlessly": "while True: give({'shown': item['identity'], 'name': item['name'] + '.asc'})",
    "asking endlessly": "while True: give({'ask': True})",
    "stand, a number": "give({'stand': 5, 'durable': True})",
    "stand, nothing": "give({'stand': None, 'durable': True})",
    "stand, a text": "give({'stand': 'all is well', 'durable': True})",
    "stand, texts": "give({'stand': ['all', 'is', 'well'], 'durable': True})",
    "stand, without a word on the disk": "give({'stand': [standing(item)]})",
    "stand, of what was never asked for": "give(stand(item, identity='f' * 32))",
    "stand, of that as well": "give(stand(item, {**item, 'identity': 'f' * 32}, done=True, ours=True))",
    "stand, without keys": "give({'stand': [{'identity': item['identity']}], 'durable': True})",
    "stand, elsewhere": "give(stand(item, name='../../x.org', done=True, ours=True))",
    "stand, of no item": "give(stand())",
    "stand, neither done nor with an error": "give(stand(item))",
    "stand, shown and not done": (
        "give({'shown': item['identity'], 'name': item['name'] + '.asc'});"
        "give({'shown': item['identity'], 'name': item['name']}); give(stand(item, error=error()))"
    ),
    "stand, done as a text": "give(stand(item, done='no', ours='no'))",
    "a claim elsewhere": "give(stand(item, claim={'name': '/etc/x.org', 'signed': True, 'state': 'published'}))",
    "a claim in no state": "give(stand(item, claim={'name': item['name'], 'signed': True, 'state': 'x'}))",
    "a claim in a list": "give(stand(item, claim={'name': item['name'], 'signed': True, 'state': []}))",
    "a claim that is none": "give(stand(item, claim=5))",
    "an error that is none": "give(stand(item, error=5))",
    "an error without words": "give(stand(item, error={}))",
    "an error that is a list": "give(stand(item, error=error(message=['x'])))",
    "an error with a number for a hint": "give(stand(item, error=error(hint=5)))",
    "a HALT that nobody set": "give(stand(item, error=error(kind='halt')))",
    "a HALT of no kind": "give(stand(item, error=error(kind=[])))",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lie", STRANGE)
def test_an_answer_that_makes_no_sense_is_an_error_for_good(account: Accounts, cas: Cas, message: Write, lie: str):
    with account(python3=lying(f"give(HERE)\nitem = next_order()['attempt'][0]\n{STRANGE[lie]}\ntime.sleep(60)")):
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--output", "json", "--deadline", "20")

    (delivery,) = json.loads(run.out)["deliveries"]
    seen = lie == "stand, shown and not done"
    assert (run.code, delivery["outcome"] in ("failed", "unknown")) == ((0, False) if seen else (3, True)), run.out
    assert seen or "makes no sense" in delivery["reason"]
    assert seen or len(delivery["attempts"]) == 1
    assert ".." not in "".join(delivery["files"])


@pytest.mark.timeout(60)
def test_a_line_without_end_is_an_error_for_good(account: Accounts):
    huge = "next_order()\nfor _ in range(70): sys.stdout.buffer.write(b'x' * (1 << 20))\ntime.sleep(60)"
    with account(python3=lying(f"give(HERE)\n{huge}")) as there, there.opened() as transport:
        item = progress(1)
        attempt([item], transport)

    assert isinstance(item.error, TransferError)
    assert (item.error.code, item.error.permanent, item.done) == ("strange-answer", True, False)


@pytest.mark.parametrize("end", ["sys.exit()", "os.write(1, b'{\"shown\":'); sys.exit()", "os.kill(os.getpid(), 9)"])
def test_a_peer_that_ends_in_the_middle_is_a_lost_connection(account: Accounts, end: str):
    with (
        account(python3=lying(f"give(HERE)\nnext_order()\n{end}")) as there,
        there.opened() as transport,
    ):
        item = progress(1)
        attempt([item], transport)

    assert isinstance(item.error, TransferError)
    assert (item.error.code, item.error.permanent, item.asked) == ("connection-lost", False, False)


def test_a_peer_that_falls_silent_in_the_middle_is_a_lost_connection(account: Accounts):
    with (
        account(python3=lying("give(HERE)\nnext_order(); give({'ask': True})\ntime.sleep(60)")) as there,
        there.opened(timeout=1) as transport,
    ):
        item = progress(1)
        started = time.monotonic()
        attempt([item], transport)

    assert isinstance(item.error, TransferError)
    assert (item.error.code, item.error.permanent, item.asked) == ("connection-lost", False, True)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("word", "shown"),
    [("\x1b]0;x\x07\r\n\u202e", "\\x1b]0;x"), ("lone \ud800", "lone"), ("long " * 1_000_000, "long long")],
    ids=["controls", "a surrogate", "long"],
)
def test_the_words_of_a_peer_do_no_harm(account: Accounts, cas: Cas, message: Write, word: str, shown: str):
    said = f"WORD = {word!a}" if len(word) < 1000 else "WORD = 'long ' * 1000000"
    lie = "give(stand(next_order()['attempt'][0], error=error(message=WORD, hint=WORD)))"
    python3 = lying(f"give(HERE)\n{said}\n{lie}")
    with account(python3=python3):
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--output", "json")

    (delivery,) = json.loads(run.out)["deliveries"]
    assert (run.code, delivery["outcome"]) == (3, "failed")
    assert shown in run.err
    assert not set("\x1b\x07\r\u202e") & set(run.err + run.out)
    assert len(run.err) < 100_000


def test_what_a_peer_says_is_done_is_told_as_it_says(account: Accounts, cas: Cas, message: Write):
    lie = "give(stand(*next_order()['attempt'], done=True, ours=True, asked=True))"
    with account(python3=lying(f"give(HERE)\n{lie}")):
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--output", "json")

    assert [one["outcome"] for one in json.loads(run.out)["deliveries"]] == ["delivered"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("lie", "done"),
    [
        ("give({'stand': [standing(a, done=True, ours=True)], 'durable': True})", [False, False]),
        ("give({'stand': [standing(b, done=True, ours=True)] * 2, 'durable': True})", [False, False]),
        ("give({'stand': [standing(a, done=True, ours=True), standing(b)], 'durable': True})", [True, False]),
        ("give({'shown': a['identity'], 'name': a['name']}); give(b'[')", [True, False]),
        ("give({'shown': a['identity'], 'name': a['name']}); give(stand(b, error=error()))", [True, False]),
    ],
)
def test_only_what_a_peer_says_is_done_is_done(account: Accounts, lie: str, done: list[bool]):
    with (
        account(python3=lying(f"give(HERE)\na, b = next_order()['attempt']\n{lie}\ntime.sleep(60)")) as there,
        there.opened() as transport,
    ):
        batch = [progress(1), progress(2)]
        attempt(batch, transport)

    assert [item.done for item in batch] == done
    assert [item.error is None for item in batch] == done


def test_what_waits_behind_an_error_may_stand_without_one(account: Accounts):
    lie = "give({'stand': [standing(a, error=error()), standing(b)], 'durable': True})"
    with (
        account(python3=lying(f"give(HERE)\na, b = next_order()['attempt']\n{lie}")) as there,
        there.opened() as transport,
    ):
        batch = [progress(1, lane="one"), progress(2, lane="one")]
        attempt(batch, transport)

    assert [item.error and item.error.code for item in batch] == ["x", None]


OPERATIONS = {
    "kind": ["5", "'link'", "[]", "{'x': 1}"],
    "read": ["5", "'#'", "'ü'", "[]"],
    "names": ["5", "[5]", "{'x': 1}", "'abc'"],
    "create": ["5", "'yes'", "None"],
    "sync_all": ["5", "None", "[]", "{'~/x': 5}", "{'~/x': {}}", "{'elsewhere': error(message=5)}"],
}


@pytest.mark.parametrize(("operation", "value"), [(name, one) for name, values in OPERATIONS.items() for one in values])
def test_a_value_of_the_wrong_shape_is_an_error_for_good(account: Accounts, operation: str, value: str):
    with (
        account(python3=lying(f"give(HERE)\nwhile next_order(): give({{'value': {value}}})")) as there,
        there.opened() as transport,
    ):
        if operation == "sync_all":
            errors = list(transport.sync(["~/x"]).values())
        else:
            arguments = ("~/x", b"") if operation == "create" else ("~/x",)
            errors = transport.run([getattr(transport.files, operation)(*arguments)])

    assert [getattr(error, "code", error) for error in errors] == ["strange-answer"]


@pytest.mark.parametrize(
    "answer", ["b'hello'", "b'[' * 100000", "{}", "{'error': 5}", "{'error': {}}", "{'error': None}", "{'error': []}"]
)
def test_an_answer_of_the_wrong_shape_is_an_error_for_good(account: Accounts, answer: str):
    with (
        account(python3=lying(f"give(HERE)\nwhile next_order(): give({answer})")) as there,
        there.opened() as transport,
    ):
        errors = transport.run(transport.files.kind(f"~/{number}") for number in range(3))

    assert [getattr(error, "code", error) for error in errors] == ["strange-answer"] * 3


# Leave, HALT and the order of a lane


def test_leave_is_given_for_a_window_at_a_time_and_halt_between_two_stops_the_rest(account: Accounts):
    told: list[str] = []

    def halted() -> HaltError | None:
        return HaltError("HALT is set", code="halt") if len(told) >= WINDOW else None

    with account() as there, there.opened() as transport:
        batch = [progress(number) for number in range(3 * WINDOW)]
        attempted(batch, transport, halted, lambda _, name: told.append(name), require_durable=False)
        published = pairs(there.inbox)
        left = [item for item in batch if not item.done]

    assert sorted(told) == list(published)
    assert len(published) == WINDOW
    assert all(isinstance(item.error, HaltError) for item in left)
    assert not any(item.asked for item in left)


def test_under_halt_nothing_is_published_there(account: Accounts):
    with account() as there, there.opened() as transport:
        batch = [progress(number) for number in range(3)]
        attempt(batch, transport, lambda: HaltError("HALT is set", code="halt"))

        assert pairs(there.inbox) == ()
    assert all(isinstance(item.error, HaltError) and not item.asked for item in batch)


def test_a_connection_serves_another_attempt_after_halt(account: Accounts):
    with account() as there, there.opened() as transport:
        batch = [progress(number) for number in range(3)]
        attempt(batch, transport, lambda: HaltError("HALT is set", code="halt"))
        told = attempt(batch, transport)

        assert sorted(told) == list(pairs(there.inbox))
    assert all(item.done and item.error is None for item in batch)


def test_what_cannot_be_published_uses_up_no_leave_of_what_can(account: Accounts):
    """Claimed by a run that was halted, and then others took a whole window's names."""
    with account() as there, there.opened(timeout=5) as transport:
        batch = [progress(number) for number in range(2 * WINDOW + 1)]
        attempt(batch, transport, lambda: HaltError("HALT is set", code="halt"))
        for item in batch[:WINDOW]:
            (there.inbox / item.name).write_text("of somebody else")

        attempt(batch, transport)

    assert {item.error.code for item in batch[:WINDOW] if item.error} == {"name-taken"}
    assert [item.done for item in batch] == [False] * WINDOW + [True] * (WINDOW + 1)


def test_what_comes_later_in_a_lane_gets_a_later_name_in_a_later_attempt_too(account: Accounts):
    with account() as there, there.opened() as transport:
        first, second = progress(1, lane="one"), progress(2, lane="one")
        there.inbox.mkdir(parents=True)
        for seconds in range(5):
            (there.inbox / later(first.name, seconds)).touch()
        attempt([first], transport)
        attempt([first, second], transport)

    assert first.done
    assert second.done
    assert first.name == later(progress(1).name, 5)
    assert second.name[:16] > first.name[:16]


# A peer that is killed


@pytest.mark.parametrize("after", [1, WINDOW])
def test_what_was_seen_counts_when_the_peer_is_killed_and_the_next_attempt_finishes(account: Accounts, after: int):
    told: list[str] = []
    with account(before="echo $$ > ~/pid") as there:
        batch = [progress(number) for number in range(2 * WINDOW + 1)]

        def kill_then(_: Progress, name: str) -> None:
            told.append(name)
            if len(told) == after:
                os.kill(int((there.forge.home / "pid").read_text()), signal.SIGKILL)

        with there.opened() as transport:
            attempted(batch, transport, go_on, kill_then, require_durable=False)
        seen = [item for item in batch if item.done]
        left = [item for item in batch if not item.done]
        assert sorted(item.name for item in seen) == sorted(told)
        assert set(told) <= set(pairs(there.inbox))
        assert left
        assert {getattr(item.error, "code", None) for item in left} == {"connection-lost"}
        assert not any(getattr(item.error, "permanent", True) for item in left)
        assert all(item.asked for item in left)

        with there.opened() as transport:
            attempt(batch, transport)

        assert all(item.done and item.error is None for item in batch)
        assert len(pairs(there.inbox)) == len(batch)
        messages = sorted((there.inbox / name).read_bytes() for name in pairs(there.inbox))
        assert messages == sorted(item.envelope.content() for item in batch)


def test_a_peer_killed_while_it_waits_for_leave_has_published_nothing(account: Accounts):
    with account(before="echo $$ > ~/pid") as there:
        batch = [progress(number) for number in range(3)]

        def kill() -> None:
            with suppress(ProcessLookupError):
                os.kill(int((there.forge.home / "pid").read_text()), signal.SIGKILL)

        with there.opened() as transport:
            attempt(batch, transport, kill)
            assert pairs(there.inbox) == ()
            assert not any(item.done for item in batch)

        with there.opened() as transport:
            attempt(batch, transport)
            assert len(pairs(there.inbox)) == 3
    assert all(item.done for item in batch)


def test_what_may_be_published_behind_one_that_may_be_is_unknown_and_not_blocked(
    account: Accounts, cas: Cas, message: Write
):
    message("one.org")
    message("two.org", sequence=2)
    Path("m.yaml").write_text(
        "cas: 1\ndefaults: {sign: false, retry: {retries: 0}}\nsends:\n"
        "  - {id: s1, destination: forge.docs, message: one.org}\n"
        "  - {id: s2, destination: forge.docs, message: two.org}\n"
    )
    with account(python3=lying("give(HERE)\nnext_order(); give({'ask': True}); next_order(); sys.exit()")):
        run = cas("apply", "m.yaml", "--output", "json")

    assert run.code == 3, run.err
    assert [one["outcome"] for one in json.loads(run.out)["deliveries"]] == ["unknown", "unknown"]


# The wire

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
NAMES = st.integers(0, 10_000).map(lambda seconds: later(NAME, seconds))
CODES = st.from_regex(wire.CODE, fullmatch=True)
ERRORS = st.builds(
    lambda message, code, hint, permanent: TransferError(message, code=code, hint=hint, permanent=permanent),
    *(TEXT, CODES, st.none() | TEXT, st.booleans()),
) | st.builds(lambda message, code, hint: HaltError(message, code=code, hint=hint), TEXT, CODES, st.none() | TEXT)
ENVELOPES = st.builds(
    Envelope,
    identity=st.text("0123456789abcdef", min_size=32, max_size=32),
    inbox=TEXT,
    name=NAMES,
    sender=TEXT,
    digest=TEXT,
    time=TEXT,
    content=st.binary().map(lambda content: lambda: content),
    signature=st.none() | st.binary(),
)
ITEMS = st.builds(
    Progress,
    envelope=ENVELOPES,
    lane=TEXT,
    repeatable=st.booleans(),
    made_inbox=st.booleans(),
    asked=st.booleans(),
    done=st.booleans(),
    ours=st.booleans(),
    evidence=st.none() | st.just("receipt"),
    resumed=st.booleans(),
    tried=st.booleans(),
    after=st.just("") | NAMES,
    error=st.none() | ERRORS,
)


def sent(fields: wire.Fields) -> wire.Fields:
    line = wire.line(fields)
    assert line.count(b"\n") == 1
    return wire.fields(line)


def as_data(error: CasError | None) -> object:
    return error and (type(error), wire.error_fields(error))


@settings(deadline=None)
@given(ITEMS)
def test_an_order_arrives_as_it_was_given(item: Progress):
    arrived = wire.ordered(sent(wire.order(item)))

    kept = replace(item, claim=None, made_inbox=False, done=False, ours=False, evidence=None, error=None)
    assert replace(arrived, envelope=item.envelope) == kept
    assert contents(arrived.envelope) == contents(item.envelope)
    assert arrived.envelope.inbox == item.envelope.inbox


@settings(deadline=None)
@given(ITEMS, st.booleans(), st.none() | st.sampled_from(ClaimState), NAMES, NAMES)
def test_where_a_delivery_stands_arrives_as_it_was_said(
    item: Progress, signed: bool, state: ClaimState | None, name: str, before: str
):
    to = item.envelope
    if state:
        item.claim = Claim(identity=to.identity, inbox=to.inbox, name=name, signed=signed, state=state)
    known = Progress(envelope=replace(to, name=before), lane=item.lane, repeatable=item.repeatable)

    wire.stand(known, sent(wire.standing(item)))

    kept = replace(item, resumed=False, after="", tried=True, error=None)
    assert replace(known, error=None) == kept
    assert as_data(known.error) == as_data(item.error)


@settings(deadline=None)
@given(ERRORS)
def test_an_error_arrives_as_it_was_raised(error: CasError):
    assert as_data(wire.error_of(sent(wire.error_fields(error) or {}))) == as_data(error)


@settings(deadline=None)
@given(st.none() | st.binary())
def test_bytes_arrive_as_they_are(content: bytes | None):
    assert wire.unpacked(wire.packed(content)) == content


@settings(deadline=None)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_line_is_an_object_or_a_value_error(line: bytes):
    with suppress(ValueError):
        assert isinstance(wire.fields(line), dict)


READERS = [wire.error_of, wire.errors_of, wire.unpacked, wire.truth, wire.kind, wire.texts, wire.canonical]


@settings(deadline=None)
@given(st.sampled_from(READERS), JSON)
def test_a_value_is_read_or_a_value_error(read: Callable[[object], object], value: object):
    with suppress(ValueError):
        read(value)


@settings(deadline=None)
@given(ITEMS, st.data())
def test_a_stand_with_one_value_of_another_kind_is_read_or_a_value_error(item: Progress, data: st.DataObject):
    fields = dict(wire.standing(item))
    key = data.draw(st.sampled_from(sorted(fields)))
    fields[key] = data.draw(JSON)
    with suppress(ValueError):
        wire.stand(item, sent(fields))
    assert item.name.endswith("-from-builder-greeting.org")


@pytest.mark.parametrize("begun", [b"", b"exec('''import os"], ids=["nothing", "half a line"])
def test_a_python_whose_connection_ends_before_its_first_line_ends_too(begun: bytes):
    # It once waited for that line for ever, on the peer, with all of a processor, and took gigabytes of memory.
    ended = subprocess.run(["sh", "-c", COMMAND], input=begun, capture_output=True, timeout=20, check=False)

    assert ended.stdout == b""
