"""`cas send`: the whole of what callers and receivers in the field rely on, and the faults of older senders."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Forge, Home, Run

from cas.loopback import Key

Cas = Callable[..., Run]
Write = Callable[..., Path]
Pairs = Callable[[Path], tuple[str, ...]]
CANONICAL = r"\d{8}T\d{6}Z-from-builder-greeting\.org"


def test_a_signed_message_arrives_and_its_place_is_said(
    cas: Cas, home: Home, gnupg: Key, message: Write, pairs: Pairs, verify
):
    run = cas("send", "local.docs", message("hello.org"))

    signature, text = sorted(pairs(home.inbox("docs")), reverse=True)
    assert (run.code, run.out) == (0, f"sent: {home.inbox('docs')}/{text}\n")
    assert re.fullmatch(CANONICAL, text)
    assert signature == f"{text}.asc"
    assert verify(home.inbox("docs") / text) == gnupg.fingerprint


@pytest.mark.parametrize("transport", ["sftp", "rsync"])
def test_a_signed_message_arrives_on_another_machine(
    cas: Cas, home: Home, peer: Forge, gnupg: Key, message: Write, pairs: Pairs, verify, transport: str
):
    home.peers(peer.toml(transport=transport))

    run = cas("send", "forge.docs", message("hello.org"))

    text = min(pairs(peer.inbox("docs")), key=len)
    where = f"{peer.user}@127.0.0.1:~/projects/docs/inbox/from-agents"
    assert (run.code, run.out) == (0, f"sent: {where}/{text}\n")
    assert (peer.inbox("docs") / text).read_bytes() == Path("hello.org").read_bytes()
    assert verify(peer.inbox("docs") / text) == gnupg.fingerprint


def test_the_short_name_of_this_host_is_this_machine(cas: Cas, home: Home, message: Write, pairs: Pairs):
    here = socket.gethostname().partition(".")[0]

    assert cas("send", f"{here}.docs", message("hello.org"), "--no-sign").code == 0
    assert len(pairs(home.inbox("docs"))) == 1


def test_an_inbox_that_is_made_is_said(cas: Cas, message: Write):
    first = cas("send", "local.docs", message("hello.org"), "--no-sign")
    second = cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert "there was no inbox" in first.err
    assert second.err == ""


def test_a_message_can_come_from_standard_input(cas: Cas, home: Home, message: Write, pairs: Pairs):
    content = message("hello.org").read_bytes()

    assert cas("send", "local.docs", "-", "--no-sign", stdin=content).code == 0
    (name,) = pairs(home.inbox("docs"))
    assert (home.inbox("docs") / name).read_bytes() == content


def test_the_sender_is_the_project_of_the_working_folder_behind_links_too(
    cas: Cas, home: Home, message: Write, pairs: Pairs, monkeypatch
):
    deep = home.projects / "other" / "deep" / "down"
    deep.mkdir(parents=True)
    (home.path / "link").symlink_to(deep)
    monkeypatch.chdir(home.path / "link")

    cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert "-from-other-" in pairs(home.inbox("docs"))[0]


def test_outside_of_projects_the_sender_is_the_folders_name(
    cas: Cas, home: Home, message: Write, pairs: Pairs, monkeypatch
):
    (home.path / "elsewhere").mkdir()
    monkeypatch.chdir(home.path / "elsewhere")

    cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert "-from-elsewhere-" in pairs(home.inbox("docs"))[0]


def test_a_sender_can_be_named(cas: Cas, home: Home, message: Write, pairs: Pairs):
    cas("send", "local.docs", message("hello.org"), "--no-sign", "--sender", "somebody")

    assert "-from-somebody-" in pairs(home.inbox("docs"))[0]


@pytest.mark.parametrize("sender", ["../x", "a/b", "-x", "a\nb", "x" * 300, ""])
def test_an_unsafe_sender_is_wrong_usage(cas: Cas, home: Home, message: Write, sender: str):
    run = cas("send", "local.docs", message("hello.org"), "--no-sign", f"--sender={sender}")

    assert run.code == 64
    assert not home.inbox("docs").exists()


def test_a_folder_whose_name_no_sender_may_have_is_refused(cas: Cas, home: Home, message: Write, monkeypatch):
    (home.projects / "a b").mkdir()
    monkeypatch.chdir(home.projects / "a b")

    run = cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert run.code == 1
    assert "--sender" in run.err


@pytest.mark.parametrize(
    "text",
    [
        "docs",
        ".docs",
        "local.",
        "local..docs",
        "../x.docs",
        "local.../x",
        "a b.docs",
        "x" * 300 + ".docs",
        "local.-x",
        "local.a\nb",
    ],
)
def test_a_destination_that_names_no_inbox_is_not_found(cas: Cas, home: Home, message: Write, text: str):
    run = cas("send", "--no-sign", "--", text, message("hello.org"))

    assert run.code == 2
    assert "nothing was sent" in run.err
    assert os.listdir(home.projects) == ["builder"]


def test_an_unknown_peer_lists_the_known_ones_and_suggests_one(cas: Cas, home: Home, message: Write):
    home.peers("[peers.ratio]\n[peers.laptop]\n")

    run = cas("send", "latpop.docs", message("hello.org"), "--no-sign")

    assert run.code == 2
    assert "`laptop`, `ratio`" in run.err
    assert "did you mean `laptop`?" in run.err


@pytest.mark.parametrize("text", ["[peers", "[peers.x]\nport = 'a'\n", "peers = 3\n"])
def test_peers_that_cannot_be_read_are_an_error_with_its_place(cas: Cas, home: Home, message: Write, text: str):
    home.peers(text)

    run = cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert run.code == 1
    assert re.search(r"peers\.toml:\d", run.err)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conversation_id": None}, "CONVERSATION_ID"),
        ({"conversation_id": "../../x"}, "cannot be a CONVERSATION_ID"),
        ({"conversation_id": "a/b"}, "cannot be a CONVERSATION_ID"),
        ({"conversation_id": "x" * 300}, "cannot be a CONVERSATION_ID"),
        ({"message_type": "requset"}, "did you mean `request`?"),
        ({"sequence": "1_000"}, "is not a SEQUENCE"),
        ({"sequence": "٣"}, "is not a SEQUENCE"),
        ({"timestamp": ""}, "TIMESTAMP"),
        ({"protocol_version": None}, "PROTOCOL_VERSION"),
    ],
)
def test_frontmatter_that_is_wrong_has_its_own_code(cas: Cas, home: Home, message: Write, changes, words: str):
    run = cas("send", "local.docs", message("hello.org", **changes), "--no-sign")

    assert run.code == 4
    assert words in run.err
    assert re.search(r"hello\.org:\d", run.err)
    assert not home.inbox("docs").exists()


@pytest.mark.parametrize("content", [b"", b"no frontmatter\n", b"#+MESSAGE_TYPE: request\n\xff\n", b"\xff\xfe#\x00"])
def test_a_message_that_is_none_is_refused(cas: Cas, content: bytes):
    Path("hello.org").write_bytes(content)

    run = cas("send", "local.docs", "hello.org", "--no-sign")

    assert run.code == 4
    assert "Traceback" not in run.err


@pytest.mark.parametrize("make", ["missing", "folder", "fifo", "device", "large"])
def test_a_message_that_is_no_file_is_an_error(cas: Cas, home: Home, make: str):
    path = Path("hello.org")
    match make:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "large":
            path.write_bytes(b"x" * ((1 << 20) + 1))
        case _:
            pass

    run = cas("send", "local.docs", path, "--no-sign")

    assert run.code == 1
    assert "nothing was sent" in run.err
    assert not home.inbox("docs").exists()


def test_all_that_is_wrong_is_said_at_once(cas: Cas, message: Write):
    run = cas("send", "nowhere.docs", message("hello.org", sequence="x", message_type="y"), "--no-sign")

    assert run.code == 4
    assert run.err.count("error[") == 3


def test_two_messages_of_one_conversation_in_one_second_both_arrive(cas: Cas, home: Home, message: Write, pairs: Pairs):
    message("1.org", body="one\n")
    message("2.org", body="two\n")

    codes = [cas("send", "local.docs", name, "--no-sign").code for name in ("1.org", "2.org")]

    names = pairs(home.inbox("docs"))
    assert codes == [0, 0]
    assert [(home.inbox("docs") / name).read_text().split()[-1] for name in names] == ["one", "two"]


def test_each_call_is_a_new_delivery(cas: Cas, home: Home, message: Write, pairs: Pairs):
    for _ in range(3):
        cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert len(pairs(home.inbox("docs"))) == 3


def test_many_who_send_one_file_at_once_each_deliver_it(
    cas_process, home: Home, gnupg: Key, message: Write, pairs: Pairs
):
    path = message("hello.org")

    processes = [cas_process("send", "local.docs", path) for _ in range(8)]

    assert [process.wait(60) for process in processes] == [0] * 8
    assert len(pairs(home.inbox("docs"))) == 16
    assert os.listdir(".") == ["hello.org"]


def test_a_foreign_file_under_the_name_is_not_replaced(cas: Cas, home: Home, message: Write):
    """All names of the next minutes are taken: the message takes the one after them."""
    from datetime import UTC, datetime, timedelta

    home.inbox("docs").mkdir(parents=True)
    start = datetime.now(UTC)
    for second in range(120):
        moment = (start + timedelta(seconds=second)).strftime("%Y%m%dT%H%M%SZ")
        (home.inbox("docs") / f"{moment}-from-builder-greeting.org").write_text("foreign")

    run = cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert run.code == 0
    foreign = [path for path in home.inbox("docs").glob("*.org") if path.read_text() == "foreign"]
    assert len(foreign) == 120


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("002", 0o644)])
def test_what_arrives_has_mode_0644_less_umask(home: Home, message: Write, pairs: Pairs, umask: str, mode: int):
    message("hello.org")
    command = f"umask {umask}; exec '{sys.executable}' -m cas send local.docs hello.org --no-sign"

    subprocess.run(
        ["sh", "-c", command], check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    )

    (name,) = pairs(home.inbox("docs"))
    assert (home.inbox("docs") / name).stat().st_mode & 0o777 == mode


def test_an_inbox_that_cannot_be_made_is_an_error(cas: Cas, home: Home, message: Write):
    home.inbox("docs").parent.mkdir(parents=True)
    home.inbox("docs").write_text("a file")

    run = cas("send", "local.docs", message("hello.org"), "--no-sign")

    assert run.code == 1
    assert "from-agents" in run.err
    assert "nothing of it was sent" in run.err


def test_a_full_disk_is_an_error_and_nothing_is_visible(cas_process, home: Home, message: Write, pairs: Pairs):
    """Files of more than 200 KB cannot be written: as on a full disk, some way in."""
    message("hello.org", body="x" * 500_000)
    cas_process("status").wait(30)

    limit = (200_000, 200_000)
    process = cas_process(
        "send",
        "local.docs",
        "hello.org",
        "--no-sign",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    _, words = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Traceback" not in words
    assert pairs(home.inbox("docs")) == ()


def test_a_closed_standard_output_ends_no_run(cas_process, home: Home, message: Write, pairs: Pairs):
    read, write = os.pipe()
    os.close(read)

    process = cas_process("send", "local.docs", message("hello.org"), "--no-sign", stdout=write)
    os.close(write)

    assert process.wait(60) == 0
    assert len(pairs(home.inbox("docs"))) == 1


def test_a_peer_that_is_not_there_is_tried_again_and_marked(cas: Cas, home: Home, message: Write):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        home.peers(f'[peers.gone]\nhost = "127.0.0.1"\nport = {taken.getsockname()[1]}\n')
        Path("m.yaml").write_text(
            "cas: 1\nsends: [{id: a, destination: gone.docs, message: hello.org, sign: false, retry: {backoff: [0]}}]\n"
        )
        message("hello.org")

        run = cas("apply", "m.yaml")

    (marker,) = home.markers()
    fields = json.loads(marker.read_text())
    assert run.code == 3
    assert run.err.count("trying again") == 3
    assert str(marker) in run.err
    assert re.fullmatch(r"\d{8}T\d{6}Z-gone-docs-hello\.org\.json", marker.name)
    assert {"timestamp", "destination", "message_path", "error", "retry_log"} <= set(fields)
    assert [entry["attempt"] for entry in fields["retry_log"]] == [1, 2, 3, 4]
    assert fields["message_path"] == str(Path("hello.org").resolve())


def test_an_unknown_host_key_is_refused_at_once(cas: Cas, home: Home, peer: Forge, message: Write):
    home.known_hosts.write_text("")

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 3
    assert peer.server.host_key in run.err
    assert "trying again" not in run.err
    assert not peer.inbox("docs").exists()


def test_a_changed_host_key_is_refused_with_both_fingerprints(
    cas: Cas, home: Home, peer: Forge, message: Write, tmp_path: Path
):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    kind, key = (tmp_path / "other.pub").read_text().split()[:2]
    home.known_hosts.write_text(f"[127.0.0.1]:{peer.port} {kind} {key}\n")
    other = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "other.pub"], check=True, capture_output=True, text=True
    )

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 3
    assert peer.server.host_key in run.err
    assert other.stdout.split()[1] in run.err
    assert "trying again" not in run.err


@pytest.mark.parametrize("marker", ["@cert-authority *", "@revoked"])
def test_a_line_that_paramiko_cannot_read_spoils_no_other(
    cas: Cas, home: Home, peer: Forge, message: Write, marker: str
):
    known = home.known_hosts.read_text()
    name = "" if marker.endswith("*") else " other.example"
    home.known_hosts.write_text(f"{marker}{name} ssh-ed25519 AAAA\nnonsense\n{known}")

    assert cas("send", "forge.docs", message("hello.org"), "--no-sign").code == 0


def test_a_revoked_host_key_is_refused(cas: Cas, home: Home, peer: Forge, message: Write):
    known = home.known_hosts.read_text()
    home.known_hosts.write_text(f"{known}@revoked {known}")

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 3
    assert "revoked" in run.err


def test_a_host_key_can_be_pinned_in_peers(cas: Cas, home: Home, peer: Forge, message: Write):
    home.known_hosts.write_text("")
    home.peers(peer.toml(host_key=peer.server.host_key))

    assert cas("send", "forge.docs", message("hello.org"), "--no-sign").code == 0


def test_a_pin_that_does_not_fit_is_refused_though_the_key_is_known(cas: Cas, home: Home, peer: Forge, message: Write):
    home.peers(peer.toml(host_key="SHA256:" + "A" * 43))

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 3
    assert peer.server.host_key in run.err


def test_ssh_configuration_says_where_and_as_whom(cas: Cas, home: Home, peer: Forge, message: Write, pairs: Pairs):
    home.peers("[peers.forge]\n")
    (home.path / ".ssh" / "config").write_text(
        f"Host forge\n HostName 127.0.0.1\n Port {peer.port}\n User {peer.user}\n IdentityFile {peer.identity_file}\n"
    )

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 0, run.err
    assert run.out.startswith(f"sent: {peer.user}@forge:~/projects/docs/")


def test_a_login_that_is_refused_is_not_tried_again(cas: Cas, home: Home, peer: Forge, message: Write, tmp_path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    home.peers(peer.toml(identity_file=str(tmp_path / "other")))

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 3
    assert "login" in run.err
    assert "trying again" not in run.err


def test_without_rsync_here_the_peer_says_so(
    cas: Cas, home: Home, peer: Forge, message: Write, monkeypatch, tmp_path: Path
):
    home.peers(peer.toml(transport="rsync"))
    monkeypatch.setenv("PATH", str(tmp_path))

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 3
    assert "rsync is not installed here" in run.err
