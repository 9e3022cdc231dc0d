"""Hostile strings in every field that reaches a path: whatever they say, nothing is written outside inbox and state."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from harness import points, report
from support import FRONTMATTER, Home, Run

from cas.names import is_canonical, is_name

EXIT_CODES = frozenset({0, 1, 2, 3, 4, 64})
CORES = (
    *("", ".", "..", "/", "//", "~", "~root", "-", "--", "a", "a..b", ".tmp.x", ".tmp.cas", "name-a", "new-a"),
    *("outside/x", "../x", "../../x", "../../../x", "../../../../outside/x", "../../../../../outside/x", "a/../../x"),
    *(
        "{outside}/x",
        "/{outside}/x",
        "a/{outside}/x",
        "file://{outside}/x",
        "~/x",
        "~/../outside/x",
        "./x",
        "a/b",
        "a/",
    ),
    *("\\..\\x", "..\\x", "%2e%2e%2fx", "..%2fx", "%00", "\x00", "a\x00/../x", "x\x00.org", "\n", "a\n../x", "\r../x"),
    *("a\n#+CONVERSATION_ID: ../../x", "\x1b]0;x\x07", "\x7f", "\t", " ", " ../x", "../x ", "\u2028../x", "\x85../x"),
    *(
        "\u2025/x",
        "\u2024\u2024/x",
        "\uff0e\uff0e\uff0fx",
        "..\u2215x",
        "..\u2044x",
        "\u202e../x",
        "a\u0301",
        "é",
        "日本",
        "\ufeff../x",
        "\udcff",
        "\udcc0\udcaf",
    ),
    *("$(touch {outside}/x)", "`touch {outside}/x`", ";touch {outside}/x", "|touch {outside}/x", "&touch {outside}/x"),
    *("-oProxyCommand=touch {outside}/x", "--output={outside}/x", "-rf", "--", "-e", "*", "?", "[a-z]", "{{a,b}}"),
    *("'", '"', "''../x", "a'b", "a;b", "a b", "a:b", "a@b", "C:\\x", "CON", "nul", "x" * 100, "x" * 101, "x" * 300),
    *(
        "../" * 60 + "x",
        "./" * 60 + "x",
        "a/" * 60 + "x",
        ".." * 50,
        "." * 100,
        "{{{{ 7 * 7 }}}}",
        "%s%n",
        "${{HOME}}/x",
    ),
)
WRAPPERS = ("{0}", "a{0}", "{0}a", "a.{0}", "{0}.org", "../{0}")


def hostile(outside: Path) -> list[str]:
    """300 strings, each once, those with the most to them first."""
    filled = [core.replace("{{", "{").replace("}}", "}").replace("{outside}", str(outside)) for core in CORES]
    every = dict.fromkeys(wrapper.format(core) for wrapper in WRAPPERS for core in filled)
    return list(islice(every, 300))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that nothing has any business in."""
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.fixture
def strings(outside: Path) -> list[str]:
    return points(hostile(outside), 60)


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port on which every connection is refused."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def written(path: Path, **frontmatter: str) -> Path:
    """A message whose frontmatter holds these strings as they are."""
    lines = "".join(f"#+{key}: {value}\n" for key, value in {**FRONTMATTER, **frontmatter}.items())
    path.write_bytes(f"{lines}\n* Hello\n".encode("utf-8", "surrogateescape"))
    return path


def manifest(path: Path, *sends: dict[str, object], **head: object) -> Path:
    """A manifest as JSON, which is YAML too and can say every string."""
    path.write_text(json.dumps({"cas": 1, "defaults": {"sign": False}, **head, "sends": sends}), encoding="utf-8")
    return path


def files(root: Path) -> set[str]:
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}


class Watch:
    """What lies below a folder, and whether what came since has any business where it is."""

    def __init__(self, root: Path, home: Home) -> None:
        self._root = root
        self._home = home
        self._before = files(root)
        self.made: set[str] = set()

    def astray(self) -> list[str]:
        self.made = files(self._root) - self._before
        return sorted(path for path in self.made if not self._proper(Path(path)))

    def _proper(self, path: Path) -> bool:
        if path.is_relative_to(self._home.state):
            return ".." not in path.parts
        if not path.is_relative_to(self._home.projects):
            return False
        project, *rest = path.relative_to(self._home.projects).parts
        if not is_name(project) or rest[:2] != ["inbox", "from-agents"]:
            return False
        return is_canonical(rest[2].removesuffix(".asc")) if len(rest) == 3 else rest[2] == ".tmp.cas"


@pytest.fixture
def watch(tmp_path: Path, home: Home) -> Watch:
    written(Path("hello.org"))
    home.peers("[peers.forge]\n")
    return Watch(tmp_path, home)


def endures(field: str, strings: list[str], watch: Watch, cas: Callable[[str], Run]) -> None:
    """Each string gets an exit code of the contract; afterwards nothing lies astray."""
    for string in strings:
        assert cas(string).code in EXIT_CODES, f"{field} = {string!r}"

    astray = watch.astray()

    report("paths", strings=len(strings), fields=1, astray=len(astray))
    assert astray == []


@pytest.mark.parametrize("key", ["CONVERSATION_ID", "SEQUENCE", "MESSAGE_TYPE", "TIMESTAMP", "PROTOCOL_VERSION"])
def test_frontmatter_leads_nowhere_else(
    key: str, strings: list[str], outside: Path, cas: Callable[..., Run], watch: Watch
):
    def run(string: str) -> Run:
        return cas("send", "local.docs", written(Path("hello.org"), **{key: string}), "--no-sign")

    endures(key, strings, watch, run)


@pytest.mark.parametrize("form", ["local.{0}", "forge.{0}", "{0}.docs", "{0}"])
def test_a_destination_leads_nowhere_else(form: str, strings: list[str], cas: Callable[..., Run], watch: Watch):
    def run(string: str) -> Run:
        return cas("send", "--no-sign", "--retries", "0", "--deadline", "1", "--", form.format(string), "hello.org")

    unreachable = [string for string in strings if not (form == "forge.{0}" and is_name(string))]
    endures(form, unreachable, watch, run)


def test_a_destination_in_a_manifest_leads_nowhere_else(strings: list[str], cas: Callable[..., Run], watch: Watch):
    def run(string: str) -> Run:
        send = {"id": "s", "destination": f"local.{string}", "message": "hello.org"}
        return cas("apply", manifest(Path("hello.org").absolute().parent / "m.yaml", send))

    Path("m.yaml").touch()
    watch._before.add(str(Path("m.yaml").absolute()))
    endures("destination", strings, watch, run)


@pytest.mark.parametrize("field", ["id", "message", "sender", "name"])
def test_a_field_of_a_manifest_leads_nowhere_else(
    field: str, strings: list[str], cas: Callable[..., Run], watch: Watch
):
    def run(string: str) -> Run:
        send = {"id": "s", "destination": "local.docs", "message": "hello.org"}
        of_send = {field: string} if field in send else {}
        head = {} if field in send else {field: string}
        return cas("apply", manifest(Path("m.yaml"), {**send, **of_send}, **head))

    Path("m.yaml").touch()
    watch._before.add(str(Path("m.yaml").absolute()))
    endures(field, strings, watch, run)


def test_a_sender_leads_nowhere_else(strings: list[str], cas: Callable[..., Run], watch: Watch):
    def run(string: str) -> Run:
        return cas("send", "local.docs", "hello.org", "--no-sign", f"--sender={string}")

    endures("--sender", strings, watch, run)


def test_the_name_of_the_working_folder_leads_nowhere_else(
    strings: list[str], home: Home, cas: Callable[..., Run], watch: Watch, monkeypatch: pytest.MonkeyPatch
):
    def run(string: str) -> Run:
        monkeypatch.chdir(home.projects / string)
        return cas("send", "local.docs", home.projects / "builder" / "hello.org", "--no-sign")

    names = [string for string in strings if string not in ("", ".", "..") and not {"/", "\0"} & set(string)]
    folders = [name for name in names if len(os.fsencode(name)) < 256]
    for name in folders:
        (home.projects / name).mkdir()
    endures("working folder", folders, watch, run)


def test_the_name_of_a_message_leads_its_marker_nowhere_else(
    strings: list[str], home: Home, cas: Callable[..., Run], watch: Watch, refusing: int
):
    def run(string: str) -> Run:
        return cas("send", "--no-sign", "--retries", "0", "--", "forge.docs", string)

    home.peers(f'[peers.forge]\nhost = "127.0.0.1"\nport = {refusing}\n')
    for string in (one for one in strings if one not in ("", ".", "..") and not {"/", "\0"} & set(one)):
        if len(os.fsencode(string)) < 256:
            watch._before.add(str(written(Path(string)).absolute()))
    endures("MESSAGE_FILE", strings, watch, run)


def test_a_key_leads_nowhere_else(
    strings: list[str], cas: Callable[..., Run], watch: Watch, gnupg: object, outside: Path
):
    def run(string: str) -> Run:
        return cas("send", "local.docs", "hello.org", f"--key={string}")

    endures("--key", strings[: points(60, 15)], watch, run)


def test_a_project_of_peers_toml_leads_nowhere_else(
    strings: list[str], home: Home, cas: Callable[..., Run], watch: Watch
):
    def run(string: str) -> Run:
        if string.isprintable() and "\udcff" not in string:
            home.peers(f"[projects.{json.dumps(string)}]\n[groups]\n{json.dumps(string)} = ['local.docs']\n")
        return cas("send", "--no-sign", "--", f"local.{string}", "hello.org")

    endures("[projects]", strings, watch, run)


@pytest.mark.parametrize("key", ["name", "identity", "sender"])
def test_a_claim_that_somebody_else_wrote_leads_nowhere_else(
    key: str, strings: list[str], home: Home, cas: Callable[..., Run], watch: Watch
):
    """Whoever can write to the inbox can lay a claim there before us."""
    sends = []
    for number, _ in enumerate(strings):
        watch._before.add(str(written(Path(f"{number}.org"), CONVERSATION_ID=f"c{number}").absolute()))
        sends.append({"id": f"s{number}", "destination": "local.docs", "message": f"{number}.org"})
    watch._before.add(str(manifest(Path("m.yaml"), *sends).absolute()))
    planned = json.loads(cas("plan", "m.yaml", "--output", "json").out)["deliveries"]
    for delivery, string in zip(planned, strings, strict=True):
        claim = home.inbox("docs") / ".tmp.cas" / delivery["identity"]
        claim.mkdir(parents=True)
        record = {"name": delivery["files"][-1], "signed": False, "identity": delivery["identity"], key: string}
        (claim / "record").write_text(json.dumps(record), encoding="utf-8")
        (claim / "message").write_bytes(b"not ours\n")

    run = cas("apply", "m.yaml", "--output", "json")

    astray = watch.astray()
    report("paths", strings=len(strings), fields=1, astray=len(astray))
    assert run.code in EXIT_CODES
    assert astray == []
