"""Files that a repository names are opened beneath one root; of files that are no manifest nothing is shown."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, Home, Run, message

from cas.loader import load_schema
from cas.names import digest
from cas.plan_file import parse as parse_plan
from cas.root import OutsideError, Root

Cas = Callable[..., Run]
SECRET = "TOPSECRET"
SECRETS = {
    ".netrc": f"machine git.example login bot password {SECRET}\n",
    "hosts.yml": f"token: {SECRET}\n",
    "aws": f"[default]\naws_secret_access_key = {SECRET}\n",
    "alias.yml": f"a: *{SECRET}\n",
    "twice.yml": f"{SECRET}: 1\n{SECRET}: 2\n",
    "tag.yml": f"a: !{SECRET} b\n",
    "key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----\n",
}
MANIFEST = "cas: 1\nsender: builder\nsends:\n  - {id: a, destination: local.docs, message: hello.org}\n"


@pytest.fixture(params=SECRETS)
def secret(request: pytest.FixtureRequest, home: Home) -> Path:
    """A file with a secret, outside of the project."""
    path = home.path / request.param
    path.write_text(SECRETS[request.param], encoding="utf-8")
    return path


def read_beneath(root: Root, path: str) -> bytes:
    handle = root.open(path)
    try:
        return os.read(handle, 100)
    finally:
        os.close(handle)


def on_terminal(*argv: str) -> str:
    """All that a run of cas shows on a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cas", *argv]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, env=environment, check=False)
    os.close(follower)
    shown = b""
    try:
        while more := os.read(leader, 65536):
            shown += more
    except OSError:  # the terminal has no more
        pass
    os.close(leader)
    return shown.decode()


# Manifests


@pytest.mark.threat("manifest author", "read a file outside the project through a link that is listed as a manifest")
@pytest.mark.parametrize("form", [(), ("--output", "json"), ("--diagnostics", "github")])
@pytest.mark.parametrize("verb", ["validate", "plan", "apply"])
def test_a_listed_link_that_leads_outside_is_refused(cas: Cas, secret: Path, verb: str, form: tuple[str, ...]):
    Path("evil.yaml").symlink_to(secret)

    run = cas(verb, *form, ".")

    assert run.code == 1
    assert "outside" in run.out + run.err
    assert SECRET not in run.out + run.err


def test_a_listed_link_within_the_directory_is_followed(cas: Cas, home: Home):
    Path("kept.txt").write_text(MANIFEST, encoding="utf-8")
    Path("m.yaml").symlink_to("kept.txt")
    message("hello.org")

    assert cas("validate", ".").code == 0


def test_a_typed_link_may_lead_anywhere(cas: Cas, gnupg: object, home: Home):
    elsewhere = home.projects / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "m.yaml").write_text(MANIFEST.replace("sender: builder\n", ""), encoding="utf-8")
    Path("m.yaml").symlink_to(elsewhere / "m.yaml")
    message("hello.org")

    run = cas("plan", "--output", "json", "m.yaml")

    assert run.code == 0
    assert '"sender": "builder"' in run.out or '"sender":"builder"' in run.out


@pytest.mark.threat("manifest author", "have secrets printed by the pre-commit hook")
@pytest.mark.parametrize("through", ["link", "directory"])
def test_names_given_to_each_are_the_repositorys(cas: Cas, secret: Path, through: str):
    if through == "link":
        Path("evil.yaml").symlink_to(secret)
        names = ["evil.yaml", str(Path("evil.yaml").absolute())]
    else:
        Path("sub").symlink_to(secret.parent)
        names = [f"sub/{secret.name}"]

    for name in names:
        run = cas("validate", "--each", name)

        assert run.code == 1
        assert "error[outside]" in run.out + run.err
        assert SECRET not in run.out + run.err


def test_each_reads_manifests_in_directories_below(cas: Cas, home: Home):
    Path("sub").mkdir()
    Path("sub/m.yaml").write_text(MANIFEST, encoding="utf-8")
    message("sub/hello.org")

    assert cas("validate", "--each", "sub/m.yaml").code == 0


def test_a_path_that_leads_elsewhere_as_it_is_written_is_a_users(cas: Cas, home: Home):
    other = home.projects / "other"
    other.mkdir()
    (other / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    message(other / "hello.org")

    assert cas("validate", "--each", other / "m.yaml").code == 0
    assert cas("validate", "--each", "../other").code == 0


# What is shown


@pytest.mark.threat("manifest author", "have cas quote a line of a file that is no manifest")
def test_nothing_of_a_file_that_is_no_manifest_is_shown(cas: Cas, secret: Path):
    for form in ((), ("--output", "json"), ("--diagnostics", "github")):
        run = cas("validate", *form, str(secret))

        assert run.code == 1
        assert SECRET not in run.out + run.err
    assert SECRET not in on_terminal("validate", str(secret))


def test_the_line_of_a_manifest_is_shown_on_a_terminal(home: Home):
    Path("m.yaml").write_text(MANIFEST + "nonsense: 1\n", encoding="utf-8")

    assert "nonsense: 1" in on_terminal("validate", "m.yaml")


def test_nothing_of_a_link_in_place_of_peers_toml_is_shown(cas: Cas, home: Home, secret: Path):
    Path("ci").mkdir()
    Path("ci/peers.toml").symlink_to(secret)

    run = cas("validate", "--config-dir", "ci", "m.yaml")

    assert run.code == 1
    assert SECRET not in run.out + run.err
    assert SECRET not in on_terminal("validate", "--config-dir", "ci", "m.yaml")


def test_the_line_of_a_linked_peers_toml_is_shown(home: Home):
    Path("kept.toml").write_text("[peers.forge]\nprot = 22\n", encoding="utf-8")
    Path("ci").mkdir()
    Path("ci/peers.toml").symlink_to("../kept.toml")

    assert "prot = 22" in on_terminal("validate", "--config-dir", "ci", "m.yaml")


@pytest.mark.parametrize("form", ["{template: SECRET, conversation: c, type: request, sequence: 1}", "SECRET"])
def test_no_line_of_a_template_or_message_is_shown(home: Home, form: str):
    Path(".env").write_text(f"TOKEN={SECRET} {{{{ {{% }}}}\n", encoding="utf-8")
    text = MANIFEST.replace("hello.org", form.replace("SECRET", ".env"))
    Path("m.yaml").write_text(text, encoding="utf-8")

    shown = on_terminal("validate", "m.yaml")

    assert "error" in shown
    assert SECRET not in shown


def test_nothing_of_a_file_of_variables_is_shown(cas: Cas, home: Home):
    Path("m.yaml").write_text(MANIFEST, encoding="utf-8")
    for name in ("alias.yml", "twice.yml", "tag.yml"):
        Path(name).write_text(SECRETS[name], encoding="utf-8")

        run = cas("plan", "--vars-file", name, "m.yaml")

        assert run.code == 1
        assert SECRET not in run.out + run.err


def test_the_text_of_a_halt_that_is_a_link_is_not_shown(cas: Cas, home: Home, secret: Path):
    home.config.mkdir(parents=True)
    (home.config / "HALT").symlink_to(secret)

    run = cas("apply", "m.yaml")

    assert run.code == 5
    assert SECRET not in run.out + run.err


# Plans


def test_a_plan_reads_its_inputs_beneath_the_root(cas: Cas, gnupg: object, home: Home):
    Path("m.yaml").write_text(MANIFEST, encoding="utf-8")
    message("hello.org")
    assert cas("plan", "-o", "x.plan", "m.yaml").code == 0
    for name in ("m.yaml", "hello.org"):
        outside = home.path / name
        Path(name).rename(outside)
        Path(name).symlink_to(outside)

        run = cas("apply", "x.plan")

        assert run.code == 6
        assert "lies outside" in run.err
        Path(name).unlink()
        outside.rename(name)
    assert cas("apply", "x.plan").code == 0


@pytest.mark.threat("manifest author", "swap a file for a link while a plan is made")
def test_no_plan_holds_what_a_swapped_link_leads_to(cas: Cas, gnupg: object, home: Home):
    secret = message(home.path / "secret.org", body=f"* {SECRET}\n")
    forbidden = digest(secret.read_bytes())
    message("hello.org")
    Path("m.yaml").write_text(MANIFEST, encoding="utf-8")
    os.link("hello.org", "kept.org")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.symlink(secret, "swap")
            os.rename("swap", "hello.org")
            os.link("kept.org", "swap")
            os.rename("swap", "hello.org")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for number in range(60):
            if cas("plan", "-o", f"{number}.plan", "m.yaml").code == 0:
                held, _ = parse_plan(Path(f"{number}.plan").read_bytes(), load_schema("plan"), file="x")
                assert [one.message.digest for one in held.plan.deliveries] != [forbidden]
    finally:
        done.set()
        swapper.join()


# The root itself


@pytest.fixture
def tree(tmp_path: Path) -> Root:
    (tmp_path / "outside").write_text(SECRET, encoding="utf-8")
    top = tmp_path / "top"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "file").write_text("here", encoding="utf-8")
    (top / "sub" / "file").write_text("below", encoding="utf-8")
    (top / "up").symlink_to("..")
    (top / "absolute").symlink_to(top / "sub")
    (top / "absolute-outside").symlink_to(tmp_path)
    (top / "round").symlink_to("round")
    (top / "twice").symlink_to("sub/back/sub/file")
    (top / "sub" / "back").symlink_to("..")
    (top / "sub" / "deep" / "far").symlink_to("../../../outside")
    os.mkfifo(top / "fifo")
    return Root(top)


@pytest.mark.parametrize(
    ("path", "content"),
    {
        "file": b"here",
        "./sub//file": b"below",
        "sub/../file": b"here",
        "sub/back/file": b"here",
        "twice": b"below",
        "absolute/file": b"below",
        "sub/deep/../file": b"below",
    }.items(),
)
def test_a_path_that_stays_beneath_the_root_is_read(tree: Root, path: str, content: bytes):
    assert read_beneath(tree, path) == content
    assert tree.is_file(path)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "up/outside",
        "sub/back/../outside",
        "sub/deep/far",
        "absolute-outside/outside",
        "absolute-outside/top/file",
        "sub/back/up/top/file",
    ],
)
def test_a_path_that_leaves_the_root_is_refused(tree: Root, path: str):
    with pytest.raises(OutsideError):
        tree.open(path)


@pytest.mark.parametrize("path", ["round", "missing", "file/x", "sub/missing/x"])
def test_a_path_that_leads_nowhere_is_an_error_of_the_system(tree: Root, path: str):
    with pytest.raises(OSError):
        tree.open(path)
    assert not tree.exists(path)


def test_no_descriptor_is_left_open(tree: Root):
    before = len(os.listdir("/proc/self/fd"))
    for path in ("file", "twice", "up/outside", "round", "sub/deep/far", "missing"):
        with contextlib.suppress(OSError, OutsideError):
            os.close(tree.open(path))
        list(tree.entries("sub"))

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_root_that_another_directory_replaced_is_refused(tree: Root):
    assert read_beneath(tree, "file") == b"here"
    tree.directory.rename(tree.directory.with_name("moved"))
    tree.directory.mkdir()
    (tree.directory / "file").write_text(SECRET, encoding="utf-8")

    with pytest.raises(OSError, match="taken the place"):
        tree.open("file")


def test_a_root_below_another_is_reached_through_it(tree: Root):
    below = tree.below("sub")
    assert read_beneath(below, "file") == b"below"
    with pytest.raises(OutsideError):
        below.open("back/file")
    (tree.directory / "sub").rename(tree.directory / "gone")
    (tree.directory / "sub").symlink_to("..")

    with pytest.raises(OutsideError):
        below.open("outside")
