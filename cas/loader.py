"""The loader: reads what the user wrote, once, and hands it to those who parse. Reads files; writes none."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from cas.root import FILE, OutsideError, Root

PEERS = "peers.toml"
LARGEST_MANIFEST = 4 << 20
LONGEST_SHOWN = 60
BELOW = "messages are looked up below the manifest's folder"
LONGEST_PATH = 4096  # Linux's own bound
LARGEST_PLAN = 256 << 20
SUFFIXES = (".yaml", ".yml")
# A manifest's own key, at the left margin or in braces; told without a parser, since other YAML may be of any kind.
MANIFEST_KEY = re.compile(rb"^(?:\xef\xbb\xbf)?(?:---[ \t]+)?(?:\{[ \t]*)?[\"']?cas[\"']?[ \t]*:(?=\s|$)", re.MULTILINE)
PEERS_TABLE = re.compile(rb"^\[(?:peers|projects|groups|senders|policy)\b", re.MULTILINE)
QUOTED = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|`.*$", re.DOTALL)
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
    content = read(path, inventories.LARGEST)
    try:
        return inventories.parse(content, file=str(path))
    except InvalidInput as error:
        raise error if may_be_shown(path, content) else _without_content(error) from error


def load(
    paths: Sequence[Path],
    *,
    projects: Path,
    max_bytes: int,
    root: Path | None = None,
    within: Root | None = None,
    senders: Mapping[str, str] | None = None,
) -> Loaded:
    """All manifests below these paths, each with the folder that its messages lie in. What is wrong is collected.

    `root`: what paths are relative to; by default the folder that all of them lie below. `within`: what the paths, and
    links in them, may not leave; None where the user named them. `senders`: who sends what a manifest declares that
    does not say it, by path.
    """
    found: list[Diagnostic] = []
    files = {_absolute(file): (file, beneath) for file, beneath in _manifest_files(paths, within, found)}
    if root is None:
        root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
    root = _absolute(root)
    schema = load_schema("manifest") if files else {}
    sources, inputs = [], []
    for file, beneath in files.values():
        try:
            content = read(file, LARGEST_MANIFEST, root=beneath, hint=SPLIT)
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
        directory = Root(file.parent) if beneath is None else beneath.below(_beneath(file.parent, beneath))
        sources.append(
            Source(manifest=manifest, sender=sender, library=Folder(directory, root, max_bytes), origin=inputs[-1].path)
        )
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


def repository_of(path: Path) -> Root | None:
    """What a path may not leave that a repository names: the working folder. None for a path that leads elsewhere as it
    is written, which only a user names."""
    elsewhere = path.is_absolute() or os.path.normpath(path).partition("/")[0] == ".."
    return None if elsewhere else Root(Path())


def manifests_among(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Of the files at these paths those with a key `cas`, and the others. A file that cannot be read is left to `load`.

    The paths are a repository's, as those that the hook for pre-commit gets. Raises InvalidInput for a folder that
    cannot be read, or has no YAML in it.
    """
    found: list[Diagnostic] = []
    files = {file: beneath for path in paths for file, beneath in _manifest_files([path], repository_of(path), found)}
    if found:
        raise InvalidInput(found)
    manifests = {file for file, beneath in files.items() if _may_be_manifest(file, beneath)}
    return [file for file in files if file in manifests], [file for file in files if file not in manifests]


def _may_be_manifest(file: Path, root: Root | None) -> bool:
    try:
        return has_manifest_key(read(file, LARGEST_MANIFEST, root=root))
    except InvalidInput:
        return True


def may_be_shown(path: Path, content: bytes) -> bool:
    """Whether an excerpt of a file may be shown: it means to be a manifest, or is a peers.toml.

    A configuration folder can be a repository's: a link there may lead to a secret.
    """
    if path.name == PEERS:
        return not path.is_symlink() or PEERS_TABLE.search(content) is not None
    return has_manifest_key(content)


def has_manifest_key(content: bytes) -> bool:
    """Whether a file means to be a manifest. Of any other file nothing is shown: it may be somebody's secret."""
    return MANIFEST_KEY.search(content) is not None


def variables(given: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """The values of `--vars-file`, and over them those of `--var NAME=VALUE`. Raises InvalidInput, UsageError."""
    if not given and not files:
        return {}
    from cas import document

    found: dict[str, Any] = {}
    for path in files:
        try:
            parsed = document.parse(read(path, LARGEST_MANIFEST), file=str(path))
        except InvalidInput as error:
            raise _without_content(error) from error
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
    root: Root | None = None,
    place: Place | None = None,
    exit_code: ExitCode = ExitCode.ERROR,
    hint: str | None = None,
) -> bytes:
    """A regular file's bytes, read once. Raises InvalidInput for anything else, and for more than `limit` bytes.

    `root`: what the path, or a link in it, may not leave. Without one the user named the file, and it may be a link.
    `place` is where the path was written, for the diagnostic; the file itself otherwise. `hint`: what to do about one
    that is too large.
    """
    try:
        handle = os.open(path, FILE & ~os.O_NOFOLLOW) if root is None else root.open(_beneath(path, root))
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise _unreadable(path, f"is {_kind(mode)}, not a file", place, exit_code)
            content = _content(handle, limit)
        finally:
            os.close(handle)
    except OutsideError as error:
        raise outside(path, place) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, _reason(error), place, exit_code) from error
    if len(content) > limit:
        raise _unreadable(path, f"is larger than {limit} bytes", place, exit_code, code="too-large", hint=hint)
    return content


def _beneath(path: Path, root: Root) -> str:
    """The path from the root, as it is written: what links in it lead to is for the root to say."""
    try:
        beneath = str(path.relative_to(root.directory))
    except ValueError:
        raise OutsideError(str(path)) from None
    if os.path.normpath(beneath).partition("/")[0] == "..":
        raise OutsideError(str(path))
    return beneath


def _content(handle: int, limit: int) -> bytes:
    """To the end, or beyond the limit. In growing parts: a read takes as much memory as it might give."""
    content = b""
    while len(content) <= limit and (more := os.read(handle, max(CHUNK, len(content)))):
        content += more
    return content


def _manifest_files(
    paths: Iterable[Path], within: Root | None, found: list[Diagnostic]
) -> Iterable[tuple[Path, Root | None]]:
    """The manifests at these paths, each with what its path may not leave: for those of a directory, the directory."""
    for path in paths:
        if not os.path.isdir(path):  # unlike Path.is_dir, false for a path that is none
            yield path, within
            continue
        directory = Root(path) if within is None else within.below(_beneath(path, within))
        try:
            names = sorted(name for name, _ in directory.entries("") if Path(name).suffix in SUFFIXES)
        except OutsideError:
            found += outside(path, None).diagnostics
            continue
        except OSError as error:
            found += _unreadable(path, _reason(error), None, ExitCode.ERROR).diagnostics
            continue
        if not names:
            found.append(
                Diagnostic(
                    code="no-manifest",
                    message=f"no manifest in the folder `{path}`",
                    place=Place(file=str(path)),
                    hint=f"a manifest's name ends in {' or '.join(SUFFIXES)}",
                )
            )
        yield from ((path / name, directory) for name in names)


def _parsed(content: bytes, file: Path, schema: Mapping[str, Any]) -> Manifest:
    # Imported here: `cas send` goes without YAML and JSON Schema.
    from cas import document, manifest
    from cas import schema as schemas

    if is_plan(content):
        reason, hint = f"`{file}` is a plan, not a manifest", "keep it elsewhere, or under a name like release.plan"
        raise InvalidInput([Diagnostic(code="not-a-manifest", message=reason, place=Place(file=str(file)), hint=hint)])
    try:
        parsed = document.parse(content, file=str(file))
        if found := schemas.check(parsed, schema):
            raise InvalidInput(found)
    except InvalidInput as error:
        raise error if has_manifest_key(content) else _without_content(error) from error
    return manifest.parse(parsed)


def _without_content(error: InvalidInput) -> InvalidInput:
    """The same findings without what they quote: a file that is no manifest may be anything, a secret too."""
    return InvalidInput(
        replace(
            found,
            message=_without_quotes(found.message),
            hint=None if found.hint and QUOTED.search(found.hint) else found.hint,
            related=tuple((place, _without_quotes(words)) for place, words in found.related),
        )
        for found in error.diagnostics
    )


def _without_quotes(words: str) -> str:
    return QUOTED.sub(lambda quoted: quoted[0] if quoted[0] == "`cas`" else "`…`", words)


def _sender(manifest: Manifest, file: Path, projects: Path) -> str:
    said = manifest.sender is not None
    sender = manifest.sender or sender_of(file.parent.resolve(), projects.resolve())
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
    folder, projects = file.parent.resolve(), projects.resolve()
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

    def __init__(self, directory: Root, root: Path, max_bytes: int) -> None:
        self._directory, self._root, self._limit = directory, root, max_bytes
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
            found = matching(self._directory, pattern)
            return sorted(path for path in found if self._directory.is_file(path))
        except OutsideError as error:
            raise outside(Path(pattern), place) from error
        except ValueError as error:
            message = f"`{shortened(pattern, LONGEST_SHOWN)}` {error}"
            raise InvalidInput([Diagnostic(code="too-large", message=message, place=place)]) from error

    def place(self, path: str) -> Place:
        return Place(file=str(self._directory.directory / path))

    def hold(self, message: Message, content: bytes, place: Place | None) -> None:
        if len(content) > self._limit:
            reason = f"the message is larger than {self._limit} bytes"
            raise InvalidInput([Diagnostic(code="too-large", message=reason, place=place)])
        self.held[message.digest] = content

    def _read(self, path: str, place: Place | None) -> tuple[Path, bytes]:
        if len(path) > LONGEST_PATH:
            reason = f"has more than {LONGEST_PATH} characters"
            raise _unreadable(Path(path), reason, place, ExitCode.ERROR, code="outside", hint=BELOW)
        found = self._directory.directory / path
        content = read(found, self._limit, root=self._directory, place=place)
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


def outside(path: Path, place: Place | None) -> InvalidInput:
    """The error of a path, or of a link in it, that leads outside."""
    return _unreadable(path, "lies outside the manifest's folder", place, ExitCode.ERROR, code="outside", hint=BELOW)


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
