"""The loader: reads what the user wrote, once, and hands it to those who parse. Reads files; writes none."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cas import inventory as inventories
from cas.diagnostics import SPLIT, Diagnostic, InvalidInput, Place, decoded, shortened
from cas.drafts import Source
from cas.errors import CasError, ExitCode, UsageError
from cas.inventory import Inventory
from cas.manifest import Manifest
from cas.message import Message
from cas.message import parse as parse_message
from cas.names import NAME_RULE, digest, is_name, sender_of
from cas.patterns import matching
from cas.plan import Input
from cas.plan_file import is_plan, refusal

PEERS = "peers.toml"
LARGEST_MANIFEST = 4 << 20
LONGEST_SHOWN = 60
LONGEST_PATH = 4096  # Linux's own bound
LARGEST_PLAN = 256 << 20
SUFFIXES = (".yaml", ".yml")
# A manifest's own key, at the left margin or in braces; told without a parser, since other YAML may be of any kind.
MANIFEST_KEY = re.compile(rb"^(?:\xef\xbb\xbf)?(?:---[ \t]+)?(?:\{[ \t]*)?[\"']?cas[\"']?[ \t]*:(?=\s|$)", re.MULTILINE)
CHUNK = 32 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was read and could be used, and what was wrong with the rest. Input paths are relative to `root`."""

    sources: tuple[Source, ...]
    inputs: tuple[Input, ...]
    root: Path
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The bytes of messages by digest: held, or read again from their files. Raises CasError where they have changed.

    `limit`: how many bytes a file may have.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    held: Mapping[str, bytes] = field(default_factory=dict)
    limit: int = 0

    def __call__(self, wanted: str) -> bytes:
        if wanted in self.held:
            return self.held[wanted]
        path = self.files[wanted]
        try:
            content = read(path, self.limit)
        except InvalidInput as error:
            raise _changed(path) from error
        if digest(content) != wanted:
            raise _changed(path)
        return content


def load_inventory(folder: Path) -> tuple[Inventory, tuple[Diagnostic, ...]]:
    """peers.toml in a configuration folder, with its warnings; a missing one is an empty one. Raises InvalidInput."""
    path = folder / PEERS
    if not os.path.lexists(path):
        return inventories.EMPTY, ()
    return inventories.parse(read(path, inventories.LARGEST), file=str(path))


def load(
    paths: Sequence[Path],
    *,
    projects: Path,
    max_bytes: int,
    root: Path | None = None,
    senders: Mapping[str, str] | None = None,
) -> Loaded:
    """All manifests below these paths, each with the folder that its messages lie in. What is wrong is collected.

    `root`: what paths are relative to; by default the folder that all of them lie below. `senders`: who sends what a
    manifest declares that does not say it, by path.
    """
    found: list[Diagnostic] = []
    files = list({_absolute(file): file for file in _manifest_files(paths, found)}.values())
    if root is None:
        root = Path(os.path.commonpath([_absolute(file).parent for file in files])) if files else Path()
    root = _absolute(root)
    schema = load_schema("manifest") if files else {}
    sources, inputs = [], []
    for file in files:
        try:
            content = read(file, LARGEST_MANIFEST, hint=SPLIT)
            inputs.append(_input(file, root, digest(content), len(content)))
            manifest = _parsed(content, file, schema)
            known = (senders or {}).get(inputs[-1].path)
            if known and manifest.sender is None:
                sender = _planned_sender(known, file, projects)
            else:
                sender = _sender(manifest, file, projects)
        except InvalidInput as error:
            found += error.diagnostics
            continue
        library = Folder(file.parent, root, max_bytes)
        sources.append(Source(manifest=manifest, sender=sender, library=library, origin=inputs[-1].path))
    return Loaded(sources=tuple(sources), inputs=tuple(inputs), root=root, diagnostics=tuple(found))


def plans_among(paths: Iterable[Path]) -> dict[Path, bytes]:
    """Of the files at these paths those that hold a plan, with their bytes; told by what stands in them."""
    found = {}
    for path in paths:
        if not os.path.isfile(path):
            continue
        try:
            if is_plan(content := read(path, LARGEST_PLAN)):
                found[path] = content
        except InvalidInput:
            continue  # left to `load`, which says why
    return found


def manifests_among(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Of the files at these paths those with a key `cas`, and the others. A file that cannot be read is left to `load`.

    Raises InvalidInput for a folder that cannot be read, or has no YAML in it.
    """
    found: list[Diagnostic] = []
    files = list(dict.fromkeys(_manifest_files(paths, found)))
    if found:
        raise InvalidInput(found)
    manifests = dict.fromkeys(filter(_may_be_manifest, files))
    return list(manifests), [file for file in files if file not in manifests]


def _may_be_manifest(file: Path) -> bool:
    try:
        return MANIFEST_KEY.search(read(file, LARGEST_MANIFEST)) is not None
    except InvalidInput:
        return True


def variables(given: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """The values of `--vars-file`, and over them those of `--var NAME=VALUE`. Raises InvalidInput, UsageError."""
    if not given and not files:
        return {}
    from cas import document

    found: dict[str, Any] = {}
    for path in files:
        parsed = document.parse(read(path, LARGEST_MANIFEST), file=str(path))
        if not isinstance(parsed.value, dict):
            place = Place(file=str(path), line=1)
            reason = "a file of variables is a map of names and values"
            raise InvalidInput([Diagnostic(code="wrong-type", message=reason, place=place, hint="release: 1.4.0")])
        found |= parsed.value
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name.isidentifier():
            hint = "such as --var release=1.4.0"
            raise UsageError(f"`--var {one}` is not of the form NAME=VALUE", code="malformed-variable", hint=hint)
        found[name] = document.scalar(text)
    return found


def load_schema(name: str) -> Mapping[str, Any]:
    """A JSON Schema by name; raises UsageError with the names that there are."""
    folder = data_folder("schemas")
    path = folder / f"{name}.schema.json"
    if name not in (known := sorted(file.name.removesuffix(".schema.json") for file in folder.glob("*.schema.json"))):
        raise UsageError(f"no schema `{name}`", code="unknown-schema", hint=f"there are: {', '.join(known)}")
    schema: Mapping[str, Any] = json.loads(path.read_bytes())
    return schema


def data_folder(name: str) -> Path:
    """`schemas` or `playbooks`: in the package when it was built, beside it in a checkout or an editable install."""
    package = Path(__file__).parent
    built = package / name
    return built if built.is_dir() else package.parent / name


def read(
    path: Path,
    limit: int,
    *,
    place: Place | None = None,
    exit_code: ExitCode = ExitCode.ERROR,
    hint: str | None = None,
) -> bytes:
    """A regular file's bytes, read once. Raises InvalidInput for anything else, and for more than `limit` bytes.

    `place` is where the path was written, for the diagnostic; the file itself otherwise. `hint`: what to do about one
    that is too large.
    """
    try:
        # Not blocking: a FIFO without a writer would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise _unreadable(path, f"is {_kind(mode)}, not a file", place, exit_code)
            content = _content(handle, limit)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        raise _unreadable(path, _reason(error), place, exit_code) from error
    if len(content) > limit:
        raise _unreadable(path, f"is larger than {limit} bytes", place, exit_code, code="too-large", hint=hint)
    return content


def _content(handle: int, limit: int) -> bytes:
    """To the end, or beyond the limit. In growing parts: a read takes as much memory as it might give."""
    content = b""
    while len(content) <= limit and (more := os.read(handle, max(CHUNK, len(content)))):
        content += more
    return content


def _manifest_files(paths: Iterable[Path], found: list[Diagnostic]) -> Iterable[Path]:
    for path in paths:
        if not os.path.isdir(path):  # unlike Path.is_dir, false for a path that is none
            yield path
            continue
        try:
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        except OSError as error:
            found += _unreadable(path, _reason(error), None, ExitCode.ERROR).diagnostics
            continue
        if not files:
            found.append(
                Diagnostic(
                    code="no-manifest",
                    message=f"no manifest in the folder `{path}`",
                    place=Place(file=str(path)),
                    hint=f"a manifest's name ends in {' or '.join(SUFFIXES)}",
                )
            )
        yield from files


def _parsed(content: bytes, file: Path, schema: Mapping[str, Any]) -> Manifest:
    # Imported here: `cas send` goes without YAML and JSON Schema.
    from cas import document, manifest
    from cas import schema as schemas

    if is_plan(content):
        reason, hint = f"`{file}` is a plan, not a manifest", "keep it elsewhere, or under a name like release.plan"
        raise InvalidInput([Diagnostic(code="not-a-manifest", message=reason, place=Place(file=str(file)), hint=hint)])
    parsed = document.parse(content, file=str(file))
    if found := schemas.check(parsed, schema):
        raise InvalidInput(found)
    return manifest.parse(parsed)


def _sender(manifest: Manifest, file: Path, projects: Path) -> str:
    said = manifest.sender is not None
    sender = manifest.sender or sender_of(file.resolve().parent, projects.resolve())
    if is_name(sender):
        return sender
    raise InvalidInput(
        [
            Diagnostic(
                code="unsafe-sender",
                message=f"`{sender}`{'' if said else ', the name of the folder,'} cannot name a sender",
                place=manifest.sender_place or Place(file=str(file)),
                hint=NAME_RULE if said else "name one with `sender:` in the manifest",
            )
        ]
    )


def _planned_sender(planned: str, file: Path, projects: Path) -> str:
    """Who sends what a manifest declares that does not say it, as planned. Raises InvalidInput where that cannot be.

    Below the projects' folder a folder's name says who sends; elsewhere, as in a pipeline, it has none to be held to.
    """
    folder, projects = file.resolve().parent, projects.resolve()
    here = sender_of(folder, projects)
    if here != planned and folder.is_relative_to(projects) and folder != projects:
        words = f"the plan sends as `{planned}`, and what lies in `{folder}` is sent as `{here}`"
        hint = f"say who sends in the manifest, and plan again: `sender: {planned}`"
        raise InvalidInput([refusal("plan-changed", words, str(file), hint)])
    return planned


class Folder:
    """A manifest's folder, and what was read below it: the messages' files by digest, and those that templates made.

    `inputs` are the files that were read, by path; `held` the bytes of messages that were made, by digest.
    """

    def __init__(self, folder: Path, root: Path, max_bytes: int) -> None:
        self._folder, self._root, self._limit = folder, root, max_bytes
        self._resolved = cache(Path.resolve)  # the folders are few
        self._messages: dict[str, Message | None] = {}
        self._texts: dict[str, str | None] = {}
        self.inputs: dict[str, Input] = {}
        self.files: dict[str, Path] = {}
        self.held: dict[str, bytes] = {}

    def message(self, path: str, place: Place | None) -> Message | None:
        if path not in self._messages:
            self._messages[path] = None
            found, content = self._read(path, place)
            message = parse_message(content, place=Place(file=str(found)))
            self._messages[path] = message
            self.files[message.digest] = found
        return self._messages[path]

    def text(self, path: str, place: Place | None) -> str:
        if path not in self._texts:
            self._texts[path] = None
            found, content = self._read(path, place)
            self._texts[path] = decoded(
                content, Place(file=str(found)), code="undecodable-message", whose=" of the template"
            )
        text = self._texts[path]
        if text is None:
            raise InvalidInput([])
        return text

    def files_matching(self, pattern: str, place: Place | None) -> Sequence[str]:
        if pattern.startswith("/") or {"..", "**"} & set(pattern.split("/")):
            hint = "such as outbox/*/*.org: one * for each level, below the manifest's folder"
            message = f"`{pattern}` is not a pattern of files below the manifest's folder"
            raise InvalidInput([Diagnostic(code="outside", message=message, place=place, hint=hint)])
        try:
            if len(pattern) > LONGEST_PATH:
                raise ValueError(f"has more than {LONGEST_PATH} characters")
            found = matching(self._folder, pattern)
        except ValueError as error:
            message = f"`{shortened(pattern, LONGEST_SHOWN)}` {error}"
            raise InvalidInput([Diagnostic(code="too-large", message=message, place=place)]) from error
        for path in found:  # a link on the way may lead outside
            _below(self._folder, path, place, self._resolved)
        return sorted(path for path in found if os.path.isfile(self._folder / path))

    def place(self, path: str) -> Place:
        return Place(file=str(self._folder / path))

    def hold(self, message: Message, content: bytes, place: Place | None) -> None:
        if len(content) > self._limit:
            reason = f"the message is larger than {self._limit} bytes"
            raise InvalidInput([Diagnostic(code="too-large", message=reason, place=place)])
        self.held[message.digest] = content

    def _read(self, path: str, place: Place | None) -> tuple[Path, bytes]:
        found = _below(self._folder, path, place, self._resolved)
        content = read(found, self._limit, place=place)
        self.inputs[path] = _input(found, self._root, digest(content), len(content))
        return found, content


class Single:
    """One message, in the place of a folder: that of `cas send`. None where it cannot be had."""

    def __init__(self, message: Message | None, content: bytes) -> None:
        self._message = message
        self.inputs: dict[str, Input] = {}
        self.files: dict[str, Path] = {}
        self.held = {message.digest: content} if message else {}

    def message(self, path: str, place: Place | None) -> Message | None:
        del path, place
        return self._message

    def text(self, path: str, place: Place | None) -> str:
        raise AssertionError(path, place)

    def files_matching(self, pattern: str, place: Place | None) -> Sequence[str]:
        raise AssertionError(pattern, place)

    def place(self, path: str) -> Place:
        raise AssertionError(path)

    def hold(self, message: Message, content: bytes, place: Place | None) -> None:
        raise AssertionError(message, content, place)


def _below(folder: Path, path: str, place: Place | None, resolved: Callable[[Path], Path]) -> Path:
    """A file below the manifest's own folder; raises InvalidInput when the path, or a link in it, leads elsewhere."""
    try:
        if len(path) > LONGEST_PATH:
            raise ValueError(f"has more than {LONGEST_PATH} characters")
        if _real(folder / path, resolved).is_relative_to(resolved(folder)):
            return folder / path
        reason = "lies outside the manifest's folder"
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, a loop of links
        reason = _reason(error)
    raise _unreadable(
        Path(path),
        reason,
        place,
        ExitCode.ERROR,
        code="outside",
        hint="messages are looked up below the manifest's folder",
    )


def _real(path: Path, resolved: Callable[[Path], Path]) -> Path:
    """Where a path leads. What is a file itself, not a link to one, lies where its folder leads."""
    try:
        is_file = stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        is_file = False
    return resolved(path.parent) / path.name if is_file else path.resolve()


def _input(path: Path, root: Path, sha256: str, size: int) -> Input:
    return Input(path=_absolute(path).relative_to(root).as_posix(), digest=sha256, bytes=size)


def _absolute(path: Path) -> Path:
    """From the root, without `..`; links stay what they are, since messages lie beside a manifest's name."""
    return Path(os.path.abspath(path))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, OSError) and error.errno in (errno.ENXIO, errno.ENODEV):
        return "is not a file that can be read"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror.lower()}"
    return f"cannot be read: {error}"


def _changed(path: Path) -> CasError:
    return CasError(
        f"`{path}` is no longer what it was when this was planned",
        code="changed",
        hint="see that it is what you want to send, then run cas again",
    )


def _unreadable(
    path: Path,
    reason: str,
    place: Place | None,
    exit_code: ExitCode,
    *,
    code: str = "unreadable",
    hint: str | None = None,
) -> InvalidInput:
    message = f"`{path}` {reason}"
    where = place or Place(file=str(path))
    return InvalidInput([Diagnostic(code=code, message=message, place=where, hint=hint, exit_code=exit_code)])
