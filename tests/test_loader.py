"""The loader: what is read, once, and what is wrong with the rest."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import Home

from cas import loader
from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.drafts import Source
from cas.errors import CasError, ExitCode, UsageError
from cas.expansion import expand
from cas.inventory import EMPTY
from cas.message import Message
from cas.plan import Input

SEND = "  - {id: hello, destination: local.docs, message: hello.org}\n"


def manifest(path: str | Path, text: str = f"cas: 1\nsends:\n{SEND}") -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was loaded, with the messages that the sends name."""

    sources: tuple[Source, ...]
    inputs: tuple[Input, ...]
    root: Path
    diagnostics: tuple[Diagnostic, ...]
    messages: Mapping[str, Message]
    contents: loader.Contents


def loaded(home: Home, *paths: str | Path, max_bytes: int = 1 << 20) -> Found:
    found = loader.load([Path(path) for path in paths], projects=home.projects, max_bytes=max_bytes)
    drafts, wrong = expand(found.sources, EMPTY, clock=datetime(2026, 11, 23, tzinfo=UTC), hostname="here")
    folders = [source.library for source in found.sources]
    return Found(
        sources=found.sources,
        inputs=(*found.inputs, *(one for folder in folders for one in folder.inputs.values())),
        root=found.root,
        diagnostics=(*found.diagnostics, *wrong),
        messages={draft.origin: draft.message for draft in drafts if draft.message},
        contents=loader.Contents(
            files={key: path for folder in folders for key, path in folder.files.items()}, limit=max_bytes
        ),
    )


def codes(found: Found) -> list[str]:
    return [one.code for one in found.diagnostics]


# Reading


def test_a_file_is_read_as_it_is(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"\x00\xff\r\n")

    assert loader.read(tmp_path / "a", 100) == b"\x00\xff\r\n"


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"12345")

    assert loader.read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(InvalidInput, match="is larger than 4 bytes"):
        loader.read(tmp_path / "a", 4)


def test_a_file_of_many_parts_is_read_whole(tmp_path: Path):
    content = os.urandom(5 * loader.CHUNK + 1)
    (tmp_path / "a").write_bytes(content)

    assert loader.read(tmp_path / "a", len(content)) == content
    with pytest.raises(InvalidInput, match=f"is larger than {len(content) - 1} bytes"):
        loader.read(tmp_path / "a", len(content) - 1)


def test_a_small_file_takes_little_memory_however_large_it_might_be(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"12345")
    tracemalloc.start()
    try:
        loader.read(tmp_path / "a", 64 << 20)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 1 << 20


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has to be short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "is a folder, not a file"),
        (fifo, "is a FIFO, not a file"),
        (unix_socket, "is not a file that can be read"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
        (lambda path: path.symlink_to("nothing"), "does not exist"),
        (lambda path: path.symlink_to(path), "cannot be read: too many levels of symbolic links"),
    ],
    ids=["missing", "folder", "fifo", "socket", "device", "dangling", "loop"],
)
def test_what_is_not_a_file_is_refused_by_name(tmp_path: Path, make: Callable[[Path], object], reason: str):
    make(tmp_path / "it")

    with pytest.raises(InvalidInput) as refused:
        loader.read(tmp_path / "it", 100)

    (found,) = refused.value.diagnostics
    assert (found.code, found.message) == ("unreadable", f"`{tmp_path / 'it'}` {reason}")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "file/inside"], ids=["long", "nul", "below a file"])
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, name: str):
    (tmp_path / "file").touch()

    with pytest.raises(InvalidInput):
        loader.read(tmp_path / name, 100)


def test_a_refusal_stands_where_the_path_was_written_and_has_the_code_asked_for(tmp_path: Path):
    place = Place(file="m.yaml", line=3, column=4)

    with pytest.raises(InvalidInput) as refused:
        loader.read(tmp_path / "missing", 100, place=place, exit_code=ExitCode.MESSAGE)

    assert refused.value.diagnostics[0].place == place
    assert refused.value.exit_code is ExitCode.MESSAGE


# peers.toml


def test_no_peers_toml_is_an_empty_one(tmp_path: Path):
    assert loader.load_inventory(tmp_path / "nothing") == (EMPTY, ())


def test_a_peers_toml_is_read(home: Home):
    home.peers("[peers.forge]\nhost = 'f'\n")

    inventory, warnings = loader.load_inventory(home.config)

    assert (inventory.peers["forge"].host, warnings) == ("f", ())


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nothing"), fifo])
def test_a_peers_toml_that_is_there_and_cannot_be_read_is_an_error(home: Home, make: Callable[[Path], object]):
    home.config.mkdir(parents=True)
    make(home.config / "peers.toml")

    with pytest.raises(InvalidInput):
        loader.load_inventory(home.config)


# Manifests and their messages


def test_a_manifest_comes_with_its_messages_and_its_sender(home: Home, message: Callable[..., Path]):
    content = message("hello.org").read_bytes()

    found = loaded(home, manifest("m.yaml"))

    (source,) = found.sources
    wanted = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (source.sender, found.messages["hello.org"].digest) == ("builder", wanted)
    assert found.contents(wanted) == content
    assert found.diagnostics == ()


@pytest.mark.parametrize("change", ["other bytes", "longer than allowed", "gone", "a folder"])
def test_a_message_that_changed_after_it_was_planned_is_refused(home: Home, message: Callable[..., Path], change: str):
    path = message("hello.org")
    found = loaded(home, manifest("m.yaml"))
    (wanted,) = (one.digest for one in found.messages.values())
    if change == "other bytes":
        path.write_bytes(path.read_bytes() + b".")
    elif change == "longer than allowed":
        path.write_bytes(path.read_bytes() + bytes(2 << 20))
    else:
        path.unlink()
    if change == "a folder":
        path.mkdir()

    with pytest.raises(CasError, match="no longer what it was when this was planned") as refused:
        found.contents(wanted)

    assert refused.value.code == "changed"


def test_nothing_to_load_is_nothing(home: Home):
    found = loaded(home)

    assert (found.sources, found.inputs, found.diagnostics) == ((), (), ())


def test_inputs_are_named_from_the_folder_that_all_manifests_share(home: Home, message: Callable[..., Path]):
    message("a/hello.org")
    message("b/c/hello.org", sequence=2)

    found = loaded(home, manifest("a/m.yaml"), manifest("b/c/m.yaml"))

    assert found.root == Path.cwd()
    assert {item.path for item in found.inputs} == {"a/m.yaml", "a/hello.org", "b/c/m.yaml", "b/c/hello.org"}


def test_an_input_that_two_sends_bring_is_listed_once(home: Home, message: Callable[..., Path]):
    message("hello.org")
    text = f"cas: 1\nsends:\n{SEND}{SEND.replace('id: hello', 'id: more').replace('docs', 'site')}"

    assert [item.path for item in loaded(home, manifest("m.yaml", text)).inputs] == ["m.yaml", "hello.org"]


def test_a_message_that_two_sends_bring_and_is_missing_is_reported_once(home: Home):
    text = f"cas: 1\nsends:\n{SEND}{SEND.replace('id: hello', 'id: more')}"

    assert codes(loaded(home, manifest("m.yaml", text))) == ["unreadable"]


def test_a_message_above_the_limit_is_refused_where_it_is_named(home: Home, message: Callable[..., Path]):
    message("hello.org")

    found = loaded(home, manifest("m.yaml"), max_bytes=10)

    assert codes(found) == ["too-large"]
    assert found.diagnostics[0].place == Place(file="m.yaml", line=3, column=51)


def test_one_broken_manifest_does_not_hide_what_is_wrong_with_the_others(home: Home, message: Callable[..., Path]):
    manifest("a.yaml", "cas: [\n")
    manifest("b.yaml", "cas: 3\nsends: []\n")
    manifest("c.yaml", f"cas: 1\nsends:\n{SEND}{SEND}")
    manifest("d.yaml")

    found = codes(loaded(home, "a.yaml", "b.yaml", "c.yaml", "d.yaml", "missing.yaml"))

    assert found == ["yaml-syntax", "wrong-value", "wrong-value", "duplicate-id", "unreadable", "unreadable"]


@pytest.mark.parametrize("path", ["../x.org", "/etc/hostname", "a/../../x.org"])
def test_a_message_outside_is_refused_where_it_is_named(home: Home, path: str):
    found = loaded(home, manifest("m.yaml", f"cas: 1\nsends:\n{SEND.replace('hello.org', path)}"))

    assert codes(found) == ["outside"]
    assert found.diagnostics[0].place == Place(file="m.yaml", line=3, column=51)


@pytest.mark.parametrize("where", ["hello.org", "folder"])
def test_a_link_that_leads_outside_is_refused(home: Home, message: Callable[..., Path], where: str):
    target = message(home.path / "elsewhere" / "hello.org")
    Path(where).symlink_to(target if where == "hello.org" else target.parent)
    path = where if where == "hello.org" else f"{where}/hello.org"

    found = loaded(home, manifest("m.yaml", f"cas: 1\nsends:\n{SEND.replace('hello.org', path)}"))

    assert codes(found) == ["outside"]


@pytest.mark.parametrize("where", ["hello.org", "folder"])
def test_a_link_that_stays_below_the_folder_is_followed(home: Home, message: Callable[..., Path], where: str):
    target = message(Path("below/hello.org"))
    Path(where).symlink_to(target if where == "hello.org" else target.parent)
    path = where if where == "hello.org" else f"{where}/hello.org"

    found = loaded(home, manifest("m.yaml", f"cas: 1\nsends:\n{SEND.replace('hello.org', path)}"))

    assert codes(found) == []
    assert list(found.messages) == [path]


def test_a_loop_of_links_is_refused(home: Home):
    Path("hello.org").symlink_to("hello.org")

    found = loaded(home, manifest("m.yaml"))

    assert len(found.diagnostics) == 1
    assert "`hello.org`" in found.diagnostics[0].message


def test_a_folder_whose_name_cannot_name_a_sender_asks_for_one(home: Home, message: Callable[..., Path]):
    message(home.path / "-odd" / "hello.org")

    found = loaded(home, manifest(home.path / "-odd" / "m.yaml"))

    assert codes(found) == ["unsafe-sender"]
    assert "the name of the folder" in found.diagnostics[0].message


def test_a_folder_gives_its_manifests_sorted_and_none_of_its_subfolders(home: Home, message: Callable[..., Path]):
    message("out/hello.org")
    for name in ("out/b.yaml", "out/a.yml", "out/below/c.yaml"):
        manifest(name)

    assert [source.manifest.file for source in loaded(home, "out").sources] == ["out/a.yml", "out/b.yaml"]


def test_a_manifest_larger_than_the_limit_is_refused(home: Home):
    with manifest("m.yaml").open("ab") as file:
        file.truncate(loader.LARGEST_MANIFEST + 1)

    assert codes(loaded(home, "m.yaml")) == ["too-large"]


# Schemas


def test_a_schema_is_found_by_its_name():
    root = Path(__file__).resolve().parent.parent
    assert loader.load_schema("manifest") == json.loads((root / "schemas" / "manifest.schema.json").read_bytes())


@pytest.mark.parametrize("name", ["nothing", "", "../pyproject", "manifest.schema.json"])
def test_a_schema_that_there_is_not_lists_those_that_there_are(name: str):
    with pytest.raises(UsageError) as refused:
        loader.load_schema(name)

    assert "manifest" in (refused.value.hint or "")
