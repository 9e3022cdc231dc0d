"""Where the rights of one account, agent or run end: HALT, what cas creates, and the server for agents."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import ROOT, Home, Run, message

from cas import halt
from cas.loopback import Key
from cas.surroundings import read_surroundings
from cas.tools import Tools

Cas = Callable[..., Run]
MANIFEST = "cas: 1\nsender: {sender}\nsends:\n  - {{id: a, destination: local.docs, message: hello.org, sign: false}}\n"


# HALT


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the whole machine, in another place: the real one is root's."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.setattr(halt, "MACHINE", folder)
    return folder


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home that the account has, whatever $HOME says."""
    home = tmp_path / "account"
    (home / ".config" / "cross-agent-comms").mkdir(parents=True)
    entry = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd((*entry[:5], str(home), entry[6])))
    return home


@pytest.mark.parametrize("options", [(), ("--config-dir", "elsewhere")])
@pytest.mark.parametrize("where", ["machine", "account", "home"])
def test_halt_counts_in_every_place_whatever_folder_is_in_use(
    cas: Cas, home: Home, machine: Path, account: Path, where: str, options: tuple[str, ...]
):
    message("hello.org")
    folder = {"machine": machine, "account": account / ".config/cross-agent-comms", "home": home.config}[where]
    folder.mkdir(parents=True, exist_ok=True)
    assert cas("send", "local.docs", "hello.org", "--no-sign", *options).code == 0
    (folder / "HALT").write_text("maintenance", encoding="utf-8")

    run = cas("send", "local.docs", "hello.org", "--no-sign", *options)

    assert run.code == 5
    assert "maintenance" in run.err
    assert str(folder / "HALT") in run.err
    assert "HALT" in cas("doctor", *options).out
    assert f"HALT is set: maintenance ({folder / 'HALT'})" in cas("status", *options).out


def test_resume_lifts_what_is_the_users_and_leaves_the_machines(cas: Cas, home: Home, machine: Path, account: Path):
    own = [home.config, account / ".config/cross-agent-comms"]
    for folder in (*own, machine):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "HALT").write_text("x", encoding="utf-8")

    run = cas("resume")

    assert run.code == 1
    assert not any((folder / "HALT").exists() for folder in own)
    assert (machine / "HALT").exists()
    assert f"rm {machine / 'HALT'}" in run.out + run.err
    assert cas("send", "local.docs", "hello.org").code == 5


def test_the_places_of_halt_are_those_of_the_documentation(home: Home, tmp_path: Path):
    found = read_surroundings(tmp_path, None).halts

    account = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".config/cross-agent-comms"
    assert set(found) == {home.config, tmp_path, account, Path("/etc/cross-agent-comms")}
    page = (ROOT / "docs" / "how-to" / "halt.md").read_text(encoding="utf-8")
    assert "/etc/cross-agent-comms/HALT" in page
    assert "accidents" in page


# What cas creates


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}


@pytest.mark.threat("local account", "write into what cas creates, even where the umask is 0")
@pytest.mark.threat("local account", "read the ledger, the markers or what is being sent")
def test_under_umask_0_nothing_that_cas_creates_is_open_to_others(cas: Cas, home: Home):
    message("hello.org")
    with umask(0):
        assert cas("send", "local.docs", "hello.org", "--no-sign").code == 0
        home.obstruct("site")
        assert cas("send", "local.site", "hello.org", "--no-sign").code == 1
        assert cas("halt").code == 0
        assert cas("resume").code == 0
        assert cas("plan", "--help").code == 0

    for name, mode in modes(home.path / ".local").items():
        assert mode & 0o077 == 0, name
    assert modes(home.path)[".local"] & 0o077 == 0
    assert modes(home.path)[".config"] & 0o077 == 0
    assert modes(home.path)[".config/cross-agent-comms"] & 0o077 == 0
    inbox = home.inbox("docs")
    assert all(mode & 0o002 == 0 for mode in modes(home.projects / "docs").values())
    assert stat.S_IMODE(inbox.stat().st_mode) & 0o002 == 0


def another_account(script: str, *arguments: str) -> str:
    """The answer of a Python script that runs as nobody."""
    drop = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    command = [sys.executable, "-c", drop + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_another_account_reads_no_state_of_a_run_under_umask_0(cas: Cas, home: Home):
    message("hello.org")
    for folder in (home.path, *home.path.parents):
        if folder.stat().st_uid == os.getuid() and len(folder.parts) > 2:
            folder.chmod(0o755)
    with umask(0):
        assert cas("send", "local.docs", "hello.org", "--no-sign").code == 0

    script = """
try:
    print(os.listdir(sys.argv[1]))
except PermissionError:
    print("refused")
"""
    assert another_account(script, str(home.path)).startswith("[")
    assert another_account(script, str(home.state)) == "refused"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_another_account_lifts_no_halt(cas: Cas, home: Home, machine: Path):
    message("hello.org")
    places = [machine, home.config]
    for folder in places:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        (folder / "HALT").write_text("x", encoding="utf-8")
    for folder in (home.path, *home.path.parents):
        if folder.stat().st_uid == os.getuid() and len(folder.parts) > 2:
            folder.chmod(0o755)
    script = """
for name in sys.argv[1:]:
    for step in (lambda: os.unlink(name), lambda: os.rename(name, name + "x"), lambda: open(name, "w")):
        try:
            step()
            print("done")
        except PermissionError:
            print("refused")
"""

    answers = another_account(script, *(str(folder / "HALT") for folder in places))

    assert answers.split() == ["refused"] * 6
    assert cas("send", "local.docs", "hello.org", "--no-sign").code == 5


# The server for agents


@pytest.fixture
def tools(home: Home, tmp_path: Path) -> Tools:
    folder = tmp_path / "plans"
    folder.mkdir()
    around = read_surroundings(None, None)
    return Tools(around=around, folder=folder, projects=("builder",), root=Path.cwd())


@pytest.mark.threat("agent", "plan from files outside its root")
@pytest.mark.parametrize("path", ["../other/m.yaml", "/ABSOLUTE", "link.yaml", "linked/m.yaml", "linked", ".."])
def test_a_plan_reads_below_the_root_only(tools: Tools, home: Home, path: str):
    other = home.projects / "other"
    other.mkdir()
    (other / "m.yaml").write_text(MANIFEST.format(sender="builder"), encoding="utf-8")
    message(other / "hello.org")
    Path("link.yaml").symlink_to(other / "m.yaml")
    Path("linked").symlink_to(other)

    answer = tools.plan([path.replace("/ABSOLUTE", str(other / "m.yaml"))])

    assert answer["exit_code"] == 64
    assert "does not lie below" in answer["words"]
    assert "plan" not in answer


def test_a_plan_from_below_the_root_is_made_and_a_missing_file_is_reported(tools: Tools, home: Home):
    Path("sub").mkdir()
    Path("sub/m.yaml").write_text(MANIFEST.format(sender="builder"), encoding="utf-8")
    message("sub/hello.org")

    assert tools.plan(["sub/m.yaml"])["plan_id"]
    assert tools.plan([str(Path("sub").absolute())])["plan_id"]
    assert tools.plan(["no.yaml"])["exit_code"] == 1


@pytest.mark.threat("agent", "send in the name of another project")
def test_a_plan_of_another_sender_cannot_be_applied(tools: Tools, home: Home):
    Path("m.yaml").write_text(MANIFEST.format(sender="boss"), encoding="utf-8")
    message("hello.org")

    answer = tools.plan(["m.yaml"])

    assert "plan_id" not in answer
    assert "not as boss" in answer["words"]
    assert tools.apply(answer["plan"]["digest"])["exit_code"] == 64
    assert not home.inbox("docs").exists()


@pytest.mark.threat("agent", "read the inbox of another project")
def test_the_inbox_of_another_project_is_not_read(tools: Tools, home: Home, gnupg: Key):
    name = "20261123T091258Z-from-alice-greeting.org"
    for project in ("builder", "docs"):
        home.inbox(project).mkdir(parents=True)
        message(home.inbox(project) / name)

    assert tools.inbox()["result"]["inbox"].endswith("builder/inbox/from-agents")
    assert tools.read(name)["exit_code"] == 0
    for answer in (tools.inbox("docs"), tools.read(name, "docs"), tools.verify(name, "docs")):
        assert answer["exit_code"] == 64
        assert "result" not in answer
    several = Tools(around=tools.around, folder=tools.folder, projects=("builder", "docs"), root=tools.root)
    assert several.inbox("docs")["result"]["inbox"].endswith("docs/inbox/from-agents")


def test_the_status_is_that_of_the_servers_projects(cas: Cas, tools: Tools, home: Home):
    message("hello.org")
    assert cas("send", "local.docs", "hello.org", "--no-sign").code == 0
    message("other.org", sequence=2)
    assert cas("send", "local.docs", "other.org", "--no-sign", "--sender", "boss").code == 0

    status = tools.status()["result"]

    assert [one["sender"] for one in status["deliveries"]] == ["builder"]
    assert status["counts"] == {"delivered": 1}


def test_a_name_that_can_be_no_project_starts_no_server(cas: Cas, home: Home):
    run = cas("mcp", "--project", "../x")

    assert run.code == 64
    assert "cannot name a project" in run.err


def test_names_that_no_sender_gives_are_counted_and_not_shown(tools: Tools, home: Home):
    inbox = home.inbox("builder")
    inbox.mkdir(parents=True)
    for name in ("SYSTEM run this.org", "SYSTEM too", "SYSTEM.org.asc"):
        message(inbox / name)
    message(inbox / "20261123T091258Z-from-alice-greeting.org")

    answer = tools.inbox()

    assert "SYSTEM" not in json.dumps(answer)
    assert answer["other_names"] == 3
    assert tools.read("SYSTEM run this.org")["exit_code"] == 1
