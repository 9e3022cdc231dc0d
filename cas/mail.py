"""Mail: what has arrived here, whose it is, and putting it away. The verbs inbox, verify, read and archive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from cas import inbox, loader
from cas.archive import put_away
from cas.arrival import PROCESSED, Arrival, Contents, Kind, contents
from cas.diagnostics import Diagnostic
from cas.errors import CasError, ExitCode, UsageError
from cas.inbox import NoMessage
from cas.inventory import LOCAL, Inventory, resolve
from cas.names import SIGNATURE_SUFFIX, full_fingerprint, is_name, sender_of
from cas.output import diagnostics as diagnostic_view
from cas.output import inbox as inbox_view
from cas.output.console import Console, Form
from cas.output.diagnostics import from_error
from cas.output.result import as_json
from cas.reader import Reader
from cas.replays import Seen, duplicates
from cas.surroundings import Surroundings
from cas.threads import threads
from cas.transports.local import LocalFiles
from cas.verifier import verifier_for

AT_ONCE = max(2, os.cpu_count() or 1)
"""Verifying needs no agent: as many at a time as there are processors."""
TELL_EVERY = 2.0
"""Seconds between two words on how far the verifying is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is wanted of an inbox. `thread`: one conversation; `all`: also what is archived; `unverified`: only what has
    no signature that counts; `verify`: whether gpg is asked."""

    project: str | None = None
    thread: str | None = None
    all: bool = False
    unverified: bool = False
    verify: bool = True


def look(wanted: Look, around: Surroundings, console: Console) -> int:
    """What lies in an inbox, by conversation and SEQUENCE, with whose signature."""
    reader = reader_for(around, console, verify=wanted.verify)
    folder = folder_of(wanted.project, reader.inventory, around)
    names = inbox.names(folder)
    there = contents(names)
    paths = [(folder / name, False) for name in there.messages]
    problems: list[Diagnostic] = []
    if wanted.all and names.get(PROCESSED) is Kind.FOLDER:
        try:
            kept = contents(inbox.names(folder / PROCESSED)).messages
            paths += [(folder / PROCESSED / name, True) for name in kept]
        except CasError as error:
            problems.append(from_error(error))
    arrivals = list(_arrivals(reader, paths, console))
    if not wanted.all and names.get(PROCESSED) is Kind.FOLDER:
        arrivals = marked(arrivals, archived(reader, folder))
    else:
        arrivals = marked(arrivals)
    if wanted.thread is not None:
        arrivals = [one for one in arrivals if one.message and one.message.conversation == wanted.thread]
        there = Contents()
    if wanted.unverified:
        arrivals = [one for one in arrivals if not inbox_view.trusted(one)]
    found = threads(arrivals)
    match console.form:
        case Form.TEXT:
            for line in inbox_view.lines(found, there, around.now()):
                console.result(line)
            console.say(f"{folder}: {inbox_view.counted(arrivals)}")
        case Form.JSON:
            console.result(as_json(inbox_view.document(str(folder), found, there, problems)))
        case Form.JSONL:
            for thread in found:
                for arrival in thread.arrivals:
                    console.result(as_json(inbox_view.fields(arrival)))
    console.report(problems)
    return ExitCode.ERROR if problems else ExitCode.OK


def verify(paths: Sequence[Path], wanted: str | None, around: Surroundings, console: Console) -> int:
    """Whether each of these messages has one good signature, by the key `wanted` if one is named, and by its sender's
    if peers.toml has `[senders]` for it; else an error is the exit code."""
    key = None if wanted is None else full_fingerprint(wanted)
    if wanted is not None and key is None:
        hint = "gpg --fingerprint shows it, 40 digits; a shorter one, or a name, anybody can make a key for"
        raise UsageError(f"`{wanted}` is no whole fingerprint", code="short-key", hint=hint)
    reader = reader_for(around, console)
    documents: list[dict[str, object]] = []
    problems: list[Diagnostic] = []
    good = True
    for path in map(_of_message, paths):
        try:
            arrival = _told_apart(reader.arrival(path)[0], reader)
        except NoMessage as error:
            good = False
            problems.append(from_error(error))
            documents.append({"path": str(path), "good": False, "problem": str(error)})
            continue
        named = bool(key and arrival.verdict and arrival.verdict.good and arrival.verdict.key != key)
        problem = f"and not by the key {key}" if named else arrival.faults[0].message if arrival.unread else None
        fine = inbox_view.sound(arrival) and problem is None
        good &= fine
        documents.append({**inbox_view.fields(arrival), "good": fine, "problem": problem})
        if console.form is Form.TEXT:
            console.result(inbox_view.verified(arrival, problem))
    if console.form is Form.JSON:
        told = diagnostic_view.fields(problems)
        console.result(as_json({"format": "cas.verify/1", "good": good, "messages": documents, "diagnostics": told}))
    if console.form is Form.JSONL:
        for document in documents:
            console.result(as_json(document))
    console.report(problems)
    return ExitCode.OK if good else ExitCode.ERROR


def show(path: Path, around: Surroundings, console: Console) -> int:
    """A message's text, with what would act on a terminal made visible; who signed it goes to standard error."""
    reader = reader_for(around, console)
    arrival, content = reader.arrival(_of_message(path))
    arrival = _told_apart(arrival, reader)
    if console.form is not Form.TEXT:
        text = None if arrival.unread else content.decode("utf-8", "replace")
        console.result(as_json({"format": "cas.message/1", **inbox_view.fields(arrival, text or ""), "text": text}))
    if arrival.unread:
        console.report(arrival.faults)
        return ExitCode.ERROR
    if console.form is not Form.TEXT:
        return ExitCode.OK
    for found in arrival.faults:
        console.problem(f"note: {found.message}")
    console.problem(f"note: this message is {inbox_view.standing(arrival)}")
    for line in content.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n"):
        console.result(line)
    return ExitCode.OK


def archive(paths: Sequence[Path], console: Console) -> int:
    """Put these messages away, each with its signature: into `processed`, in their inbox."""
    moved: list[str] = []
    problems: list[Diagnostic] = []
    for path in map(_of_message, paths):
        try:
            moved.append(str(put_away(path)))
        except CasError as error:
            problems.append(from_error(error))
            continue
        if console.form is Form.TEXT:
            console.result(f"archived: {moved[-1]}")
    if console.form is not Form.TEXT:
        told = diagnostic_view.fields(problems)
        console.result(as_json({"format": "cas.archive/1", "archived": moved, "diagnostics": told}))
    console.report(problems)
    return ExitCode.ERROR if problems else ExitCode.OK


def reader_for(around: Surroundings, console: Console, *, verify: bool = True) -> Reader:
    """What reads messages, and asks gpg with this environment. Raises InvalidInput for a peers.toml that is wrong."""
    inventory, warnings = loader.load_inventory(around.config)
    console.report(warnings)
    return Reader(
        inventory=inventory,
        projects=around.projects,
        verifier=verifier_for(inventory.policy, around.environment, around.home) if verify else None,
    )


def marked(arrivals: Sequence[Arrival], others: Iterable[Seen] = ()) -> list[Arrival]:
    """The same, with what is there a second time marked; `others` are there too."""
    seen = [found for arrival in arrivals if (found := arrival.seen)]
    doubled = duplicates([*seen, *others])
    return [replace(one, duplicate_of=doubled[one.path]) if one.path in doubled else one for one in arrivals]


def archived(reader: Reader, folder: Path) -> list[Seen]:
    """What was put away of an inbox."""
    try:
        return reader.seen(folder / PROCESSED, archived=True)
    except CasError:  # what is archived cannot be listed: nothing to compare with
        return []


def _told_apart(arrival: Arrival, reader: Reader) -> Arrival:
    """A message that was named, compared with all that lie in its folder, and in the archive there."""
    folder = Path(arrival.path).parent
    inbox_folder = folder.parent if folder.name == PROCESSED else folder
    try:
        others = reader.seen(inbox_folder)
    except CasError:
        others = []
    others += archived(reader, inbox_folder)
    arrival = replace(arrival, archived=folder.name == PROCESSED)
    (found,) = marked([arrival], [one for one in others if one.path != arrival.path])
    return replace(found, archived=False)


def folder_of(project: str | None, inventory: Inventory, around: Surroundings) -> Path:
    """The inbox of a project on this machine; by default of that of the working folder. Raises InvalidInput, code 2, or
    UsageError."""
    name = project or sender_of(around.folder.resolve(), around.projects.resolve())
    if not project and not is_name(name):
        raise UsageError(
            f"the working folder `{around.folder}` is that of no project", code="no-project", hint="name one: PROJECT"
        )
    destination = resolve(inventory, f"{LOCAL}.{name}", hostname=around.hostname, place=None)
    return Path(LocalFiles(around.home).absolute(destination.inbox))


def _arrivals(reader: Reader, paths: Sequence[tuple[Path, bool]], console: Console) -> Iterator[Arrival]:
    """Each message that is still there; verified side by side."""

    def one(wanted: tuple[Path, bool]) -> Arrival | None:
        path, archived = wanted
        return reader.listed(path, archived=archived)

    if reader.verifier is None:
        yield from filter(None, map(one, paths))
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from filter(None, _told(pool.map(one, paths), len(paths), console.say))


def _told(results: Iterable[Arrival | None], total: int, say: Callable[[str], None]) -> Iterator[Arrival | None]:
    """The same, and now and then a word on how far it is."""
    told = time.monotonic()
    for number, result in enumerate(results, start=1):
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            say(f"verified {number} of {total}")
        yield result


def _of_message(path: Path) -> Path:
    """The message that a path means, be it that of its signature."""
    return path.with_name(path.name.removesuffix(SIGNATURE_SUFFIX)) if path.name.endswith(".org.asc") else path
