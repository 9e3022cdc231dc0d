"""rsync: it moves the bytes and is believed in nothing else; missing here or there, or not doing its part."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from support import Forge, Home, Run
from test_transports import NAME, Inbox, Way, destination

from cas.errors import TransferError
from cas.loopback import SFTP_SERVERS, loopback_peer

Cas = Callable[..., Run]
Write = Callable[..., Path]
Server = Callable[..., AbstractContextManager[Way]]
SFTP_SERVER = next(f"{place}/sftp-server" for place in SFTP_SERVERS if Path(place, "sftp-server").exists())
RSYNC = str(shutil.which("rsync"))


@pytest.fixture
def way(home: Home, peer: Forge) -> Way:
    home.peers(peer.toml(transport="rsync"))
    return Way(destination=destination(peer, transport="rsync"), home=home.path, folder=peer.inbox("docs"))


@pytest.fixture
def rsync_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`rsync_here(script)`: what stands for rsync on this machine; `$RSYNC` is the real one."""

    def put(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "rsync").write_text(f"#!/bin/sh\nRSYNC={shlex.quote(RSYNC)}\n{script}\n")
        (folder / "rsync").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return put


@pytest.fixture
def server(home: Home, tmp_path: Path) -> Server:
    """`server(script)`: the way to an inbox at a peer that runs this script, and not rsync."""

    @contextmanager
    def serve(script: str) -> Iterator[Way]:
        folder = tmp_path / "odd"
        folder.mkdir()
        forced = folder / "forced"
        forced.write_text(
            f"#!/bin/sh\ncd {shlex.quote(str(folder / 'home'))} || exit\nRSYNC={shlex.quote(RSYNC)}\n"
            f'case "$SSH_ORIGINAL_COMMAND" in *sftp-server*) exec {SFTP_SERVER};; esac\n{script}\n'
        )
        forced.chmod(0o755)
        with loopback_peer(folder, settings=(f"ForceCommand {shlex.quote(str(forced))}",)) as peer:
            forge = Forge(server=peer)
            home.known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
            home.known_hosts.write_text(peer.known_hosts)
            home.peers(forge.toml(transport="rsync"))
            where = destination(forge, transport="rsync")
            yield Way(destination=where, home=home.path, folder=forge.inbox("docs"))

    return serve


def staged(inbox: Inbox, **changes: object) -> object:
    (result,) = inbox.prepared().transport.stage([inbox.envelope(**changes)])
    return result


def staging(way: Way, *, timeout: int = 3) -> TransferError:
    with way.opened(timeout=timeout) as inbox:
        result = staged(inbox)
        assert isinstance(result, TransferError), result
        assert inbox.visible() == []
        return result


# Missing


def test_without_rsync_here_the_peer_is_refused_with_the_way_out(
    way: Way, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(TransferError) as refused:
        way.opened().__enter__()

    assert str(refused.value) == "rsync is not installed here"
    assert refused.value.permanent
    assert 'transport = "sftp"' in str(refused.value.hint)


def test_without_rsync_there_no_retry_is_made(server: Server):
    with server('exec sh -c "PATH=/nowhere; $SSH_ORIGINAL_COMMAND"') as way:
        error = staging(way)

    assert str(error) == "rsync is not installed on the other side"
    assert error.permanent


def test_without_rsync_there_a_send_ends_at_once_and_says_so(server: Server, cas: Cas, message: Write):
    with server('exec sh -c "PATH=/nowhere; $SSH_ORIGINAL_COMMAND"'):
        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--output", "json")

    (delivery,) = json.loads(run.out)["deliveries"]
    assert run.code == 3
    assert delivery["reason"] == "rsync is not installed on the other side"
    assert len(delivery["attempts"]) == 1


def test_an_account_that_permits_nothing_but_rsync_is_refused_with_that_reason(
    home: Home, tmp_path: Path, cas: Cas, message: Write
):
    folder = tmp_path / "only"
    folder.mkdir()
    script = folder / "forced"
    script.write_text(
        '#!/bin/sh\ncase "$SSH_ORIGINAL_COMMAND" in rsync*) exec $SSH_ORIGINAL_COMMAND;; esac\n'
        "echo only rsync is permitted here >&2; exit 1\n"
    )
    script.chmod(0o755)
    with loopback_peer(folder, settings=(f"ForceCommand {shlex.quote(str(script))}",)) as peer:
        home.known_hosts.parent.mkdir(mode=0o700)
        home.known_hosts.write_text(peer.known_hosts)
        home.peers(Forge(server=peer).toml(transport="rsync"))

        run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--retries", "0", "--output", "json")

    (delivery,) = json.loads(run.out)["deliveries"]
    assert run.code == 3
    assert "SFTP" in delivery["reason"]
    assert [attempt["permanent"] for attempt in delivery["attempts"]] == [True]


# Not doing its part


def test_an_rsync_that_does_nothing_and_says_success_is_not_believed(way: Way, rsync_here):
    rsync_here("exit 0")

    error = staging(way)

    assert not error.permanent
    assert "did not bring" in str(error)


def test_an_rsync_that_does_nothing_delivers_nothing(
    way: Way, rsync_here, cas: Cas, message: Write, pairs: Callable[[Path], tuple[str, ...]]
):
    rsync_here("exit 0")

    Path("m.yaml").write_text(
        "cas: 1\nsends: [{id: a, destination: forge.docs, message: hello.org, sign: false,"
        " retry: {retries: 0, timeout: 3}}]\n"
    )
    message("hello.org")

    run = cas("apply", "m.yaml")

    assert run.code == 3
    assert pairs(way.folder) == ()


@pytest.mark.parametrize("name", ["message", "signature", "record"])
@pytest.mark.parametrize("damage", [": > {}", "truncate -s -1 {}", "printf x >> {}", "rm {}"])
def test_an_rsync_that_brings_something_else_is_not_believed(way: Way, rsync_here, name: str, damage: str):
    # What lies ready to be sent is changed after cas has written it.
    rsync_here(
        'for word; do case "$word" in /*/) tree=$word;; esac; done\n'
        f'for file in "$tree"*/{name}; do {damage.format(chr(34) + "$file" + chr(34))}; done\n'
        'exec "$RSYNC" "$@"'
    )

    error = staging(way)

    assert not error.permanent
    assert f"/{name}` whole" in str(error)


def test_an_rsync_that_swaps_bytes_of_the_same_size_is_not_believed(way: Way, rsync_here):
    rsync_here(
        'for word; do case "$word" in /*/) tree=$word;; esac; done\n'
        'for file in "$tree"*/message; do sed -i s/a/b/ "$file"; done\n'
        'exec "$RSYNC" "$@"'
    )

    assert "did not bring" in str(staging(way))


@pytest.mark.parametrize("code", [1, 11, 12, 23, 30, 255])
def test_an_rsync_that_fails_is_told_in_its_own_words_and_may_be_tried_again(way: Way, rsync_here, code: int):
    rsync_here(f"echo 'rsync: something odd' >&2\nexit {code}")

    error = staging(way)

    assert str(error) == f'rsync failed with code {code} and says: "rsync: something odd"'
    assert not error.permanent


def test_an_rsync_that_fails_at_once_is_told_at_once(way: Way, rsync_here):
    rsync_here("exit 12")

    started = time.monotonic()
    staging(way, timeout=20)

    assert time.monotonic() - started < 8


def test_an_rsync_that_is_killed_is_a_failure(way: Way, rsync_here):
    rsync_here("kill -KILL $$")

    assert not staging(way).permanent


def test_an_rsync_that_cannot_be_run_is_a_failure_without_a_traceback(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").write_text("#!/nowhere/to/be/found\n")
    (tmp_path / "bin" / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    assert "rsync" in str(staging(way))


def test_what_the_other_side_says_is_told(server: Server):
    with server("echo 'no room at the inn' >&2; exit 11") as way:
        error = staging(way)

    assert "no room at the inn" in str(error)
    assert not error.permanent


def test_a_peer_that_talks_instead_of_answering_is_a_failure(server: Server):
    with server("echo welcome to forge; exit 0") as way:
        assert not staging(way).permanent


def test_a_peer_that_ends_in_the_middle_is_a_failure(server: Server):
    with server("head -c 40 >/dev/null; exit 0") as way:
        assert not staging(way).permanent


@pytest.mark.timeout(60)
def test_a_peer_whose_rsync_says_nothing_is_not_waited_for_without_end(server: Server):
    with server("exec cat >/dev/null") as way:
        started = time.monotonic()
        error = staging(way, timeout=2)

    assert not error.permanent
    assert time.monotonic() - started < 12


@pytest.mark.timeout(60)
def test_an_rsync_here_that_hangs_is_not_waited_for_without_end(way: Way, rsync_here):
    # It never starts the shell that it was given, so its own time limit does not count.
    rsync_here("exec sleep 20")

    started = time.monotonic()
    error = staging(way, timeout=2)

    assert not error.permanent
    assert time.monotonic() - started < 12


@pytest.mark.timeout(60)
def test_an_rsync_whose_shell_never_ends_is_not_waited_for_without_end(way: Way, rsync_here):
    rsync_here('"$RSYNC" "$@"\nexec sleep 20')

    started = time.monotonic()
    with way.opened(timeout=2) as inbox:
        staged(inbox)

    assert time.monotonic() - started < 12


def test_after_a_failure_the_next_attempt_stages_anew(way: Way, rsync_here, tmp_path: Path):
    rsync_here(f'[ -e {shlex.quote(str(tmp_path / "again"))} ] && exec "$RSYNC" "$@"\nexit 12')
    with way.opened(timeout=3) as inbox:
        assert isinstance(staged(inbox), TransferError)
        (tmp_path / "again").touch()

        inbox.published(inbox.envelope())

        assert inbox.visible() == [NAME, f"{NAME}.asc"]


# How it is called


@pytest.mark.parametrize(
    "path",
    [
        "~/a folder/with  blanks",
        "~/it's",
        '~/"quoted"',
        "~/$HOME/`id`",
        "~/*?[x]",
        "~/back\\slash",
        "~/-e",
        "~/~",
        "~/a:b",
        "~/ünï",
    ],
)
def test_a_path_means_what_it_shows(peer: Forge, home: Home, path: str):
    folder = peer.home / path[2:]
    way = Way(destination=destination(peer, transport="rsync", inbox=path), home=home.path, folder=folder)

    with way.opened() as inbox:
        inbox.prepared().published(inbox.envelope())

    assert sorted(os.listdir(folder)) == [".tmp.cas", NAME, f"{NAME}.asc"]
    assert not [name for name in os.listdir(peer.home) if name != Path(path).parts[1]]


def test_a_python_in_a_folder_with_blanks_and_quotes_will_do(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "it's a folder").mkdir()
    python = tmp_path / "it's a folder" / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))

    with way.opened() as inbox:
        assert isinstance(staged(inbox), str)


def test_a_temporary_folder_with_blanks_and_quotes_will_do(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Short: the path of a socket holds 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="it's a "))
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with way.opened() as inbox:
            assert isinstance(staged(inbox), str)
        assert os.listdir(folder) == []
    finally:
        shutil.rmtree(folder)


def test_a_temporary_folder_with_a_long_path_is_no_traceback(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    with way.opened() as inbox:
        result = staged(inbox)

    assert isinstance(result, str | TransferError)
    assert os.listdir(folder) == []


def test_rsyncs_own_environment_changes_nothing(way: Way, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RSYNC_RSH", "/nowhere/ssh")
    monkeypatch.setenv("RSYNC_CONNECT_PROG", "/nowhere/connect")
    monkeypatch.setenv("RSYNC_OLD_ARGS", "1")

    with way.opened() as inbox:
        assert isinstance(staged(inbox), str)


def test_it_goes_over_the_connection_that_is_open_already(way: Way, peer: Forge):
    with way.opened() as inbox:
        inbox.prepared().published(inbox.envelope())

    assert peer.log().count("Accepted publickey") == 1


def test_a_batch_for_several_inboxes_goes_to_each(way: Way, peer: Forge):
    with way.opened() as inbox:
        other = "~/projects/site/inbox/from-agents"
        inbox.prepared().run(inbox.transport.prepare(other))
        envelopes = [inbox.envelope(), inbox.envelope(inbox=other, identity="b" * 32)]

        results = inbox.transport.stage(envelopes)

    assert [str(result).partition("/.tmp.cas/")[0] for result in results] == [inbox.path, other]
    assert len(os.listdir(peer.inbox("site") / ".tmp.cas")) == 1


def test_what_fails_for_one_inbox_goes_to_the_other(way: Way, peer: Forge):
    with way.opened() as inbox:
        missing = "~/projects/site/inbox/from-agents"
        inbox.prepared()
        envelopes = [inbox.envelope(inbox=missing, identity="b" * 32), inbox.envelope()]

        first, second = inbox.transport.stage(envelopes)

    assert isinstance(first, TransferError)
    assert isinstance(second, str)


def test_nothing_temporary_is_left_on_this_machine(way: Way, monkeypatch: pytest.MonkeyPatch):
    folder = Path(tempfile.mkdtemp())
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with way.opened() as inbox:
            inbox.prepared().published(inbox.envelope())
        assert os.listdir(folder) == []
    finally:
        shutil.rmtree(folder)
