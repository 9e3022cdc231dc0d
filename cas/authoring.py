"""Authoring: what people begin with, written once and never over anything. The verbs new and init."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from pathlib import Path

from cas import loader, starter
from cas.creation import create, create_all
from cas.diagnostics import Place
from cas.errors import CasError, ExitCode, SigningError, UsageError
from cas.inventory import EMPTY, LOCAL, Inventory, resolve
from cas.message import TYPES, Message, addressed, frontmatter
from cas.message import parse as parse_message
from cas.names import (
    LONGEST,
    MOMENT,
    NAME_RULE,
    digest,
    identity,
    is_name,
    nearest_name,
    sender_in,
    sender_of,
    timestamp,
)
from cas.output.console import Console, Form
from cas.output.result import as_json
from cas.preparation import STDIN, read_message
from cas.signer import Signer
from cas.surroundings import Surroundings

DAY = "%Y%m%d"
UNNAMED = "message"
MANIFEST = "cas.yaml"
HELLO = "messages/hello.org"
# What answers what; the first is taken where none is named.
ANSWERS: Mapping[str, tuple[str, ...]] = {
    "request": ("complete", "progress", "query", "pushback"),
    "progress": ("progress", "query", "pushback", "release"),
    "query": ("complete", "query", "escalate"),
    "pushback": ("request", "query", "release", "escalate"),
    "complete": ("release", "request", "pushback"),
    "release": ("complete", "request"),
    "escalate": ("request", "query", "release"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """What `cas new` was asked for. `file` is None for standard output; `body` is a path, or `-` for standard input.

    `to`: the destination that its text is to name.
    """

    file: Path | None
    conversation: str | None
    type: str | None
    sequence: int | None
    reply_to: Path | None
    body: str | None
    to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What `cas init` wrote and what it left as it was."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    next: tuple[str, ...]


def new(request: NewMessage, around: Surroundings, console: Console) -> int:
    """Write a message with sound frontmatter, dated now, into a file that is not there or to standard output."""
    if request.conversation is not None and not is_name(request.conversation):
        reason = f"`{request.conversation}` cannot be a CONVERSATION_ID"
        raise UsageError(reason, code="unsafe-conversation", hint=NAME_RULE)
    needed = request.reply_to or request.body or request.to
    inventory = loader.load_inventory(around.config)[0] if needed else EMPTY
    arrived = _arrived(request.reply_to, inventory)
    content = _content(request, arrived, inventory, around)
    message = parse_message(content, place=Place(file=_body_name(request)))
    if request.file is not None:
        create(request.file, content)
    if arrived and request.type is None:
        suited = ", ".join(ANSWERS[arrived.type])
        console.say(f"note: this is `{message.type}`; what answers a `{arrived.type}`: {suited} (--type)")
    following = _send(request, arrived) if request.file else None
    if console.form is not Form.TEXT:
        console.result(as_json(_new_fields(request.file, content, message, following)))
    elif request.file is None:
        _print(content, console)
    else:
        console.result(f"written: {request.file}: {message.type} {message.sequence} of {message.conversation}")
        console.say(
            f"next: {'' if request.body else 'say below its frontmatter what there is to say, then: '}{following}"
        )
    return ExitCode.OK


def init(folder: Path, around: Surroundings, console: Console) -> int:
    """Write a first manifest with its message, or nothing where one of them is there; and peers.toml where none is.

    Half of them would be worse than none: a manifest that is here already would be applied by the next steps, and a
    message that is here already would be sent by the new manifest.
    """
    inventory, _ = loader.load_inventory(around.config)
    begun = _begun(folder, inventory, around, console)
    if console.form is not Form.TEXT:
        fields = {"written": [str(path) for path in begun.written], "kept": [str(path) for path in begun.kept]}
        console.result(as_json({"format": "cas.init/1", **fields, "next": list(begun.next)}))
        return ExitCode.OK
    for path in begun.written:
        console.result(f"written: {path}")
    for path in begun.kept:
        console.result(f"kept: {path}, which was here already")
    console.say("next:")
    for command in begun.next:
        console.say(f"  {command}")
    return ExitCode.OK


def _arrived(path: Path | None, inventory: Inventory) -> Message | None:
    """The message that is answered."""
    if path is None:
        return None
    return parse_message(loader.read(path, inventory.policy.max_bytes), place=Place(file=str(path)))


def _content(request: NewMessage, arrived: Message | None, inventory: Inventory, around: Surroundings) -> bytes:
    conversation = arrived.conversation if arrived else request.conversation or _conversation(request.file, around)
    sequence = _sequence(request, arrived)
    block = partial(
        frontmatter,
        conversation=conversation,
        type=request.type or (ANSWERS[arrived.type][0] if arrived else TYPES[0]),
        sequence=sequence,
        timestamp=timestamp(around.now()),
        place=Place(file=str(request.reply_to or request.file or UNNAMED)),
    )
    body = read_message(request.body, inventory) if request.body else b""
    if request.to is None:
        return block().encode() + body
    address = resolve(inventory, request.to, hostname=around.hostname, place=None).address
    made = identity(_sender(around.folder, around), address, conversation, sequence, digest(block().encode() + body))
    return block(extra=addressed(address, made)).encode() + body


def _conversation(file: Path | None, around: Surroundings) -> str:
    """The file's name without its ending, and the day; without a file, `message` and the second."""
    now = around.now().astimezone(UTC)
    if file is None:
        return f"{UNNAMED}-{now.strftime(MOMENT)}"
    end = f"-{now.strftime(DAY)}"
    return (nearest_name(file.stem, LONGEST - len(end)) or UNNAMED) + end


def _sequence(request: NewMessage, arrived: Message | None) -> int:
    if request.sequence is not None:
        return request.sequence
    return arrived.sequence + 1 if arrived else 1


def _body_name(request: NewMessage) -> str:
    return "<stdin>" if request.body == STDIN else request.body or str(request.file or UNNAMED)


def _send(request: NewMessage, arrived: Message | None) -> str:
    """The command that sends what was written; a message's name tells who sent it, and not from which machine."""
    sender = sender_in(request.reply_to.name, arrived.conversation) if request.reply_to and arrived else None
    to = request.to or f"MACHINE.{sender or 'PROJECT'}"
    return f"cas send {to} {_argument(request.file or Path())}"


def _new_fields(file: Path | None, content: bytes, message: Message, following: str | None) -> dict[str, object]:
    return {
        "format": "cas.new/1",
        "file": None if file is None else str(file),
        "conversation": message.conversation,
        "type": message.type,
        "sequence": message.sequence,
        "timestamp": message.timestamp,
        "content": content.decode() if file is None else None,
        "next": following,
    }


def _print(content: bytes, console: Console) -> None:
    """A message as it is: its bytes are for a file or another process, so nothing is made safe for terminals."""
    try:
        console.out.flush()
        console.out.buffer.write(content)
        console.out.flush()
    except BrokenPipeError:  # nobody wants it any more
        pass
    except (OSError, ValueError) as error:
        raise CasError("standard output cannot be written", code="unwritable") from error


def _begun(folder: Path, inventory: Inventory, around: Surroundings, console: Console) -> _Begun:
    _unless_present(folder / MANIFEST, folder / HELLO)
    sender, peers = _sender(folder, around), around.config / loader.PEERS
    reason = _no_key(around)
    files = _files(folder, sender, peers, signed=reason is None or inventory.policy.require_signed, around=around)
    kept = tuple(path for path in (folder / starter.SCHEMA, peers) if os.path.lexists(path))
    create_all({path: content for path, content in files.items() if path not in kept})
    steps = _steps(folder, resolve(inventory, f"{LOCAL}.{sender}", hostname=around.hostname, place=None).inbox, around)
    if reason and inventory.policy.require_signed:
        console.say(f"note: {reason}, and {peers} requires signatures")
        steps = ("gpg --quick-generate-key NAME", *steps)
    elif reason:
        console.say(f"note: {reason}, so that the manifest sends unsigned; it says how to change that")
    return _Begun(written=tuple(path for path in files if path not in kept), kept=kept, next=steps)


def _unless_present(*paths: Path) -> None:
    if present := [path for path in paths if os.path.lexists(path)]:
        names = " and ".join(f"`{path}`" for path in present)
        raise CasError(
            f"{names} {'exist' if len(present) > 1 else 'exists'} already; nothing was written",
            code="exists",
            hint="take another folder: cas init FOLDER",
        )


def _files(folder: Path, sender: str, peers: Path, *, signed: bool, around: Surroundings) -> dict[Path, bytes]:
    """What is to be written, in this order: the manifest only when what it names is there."""
    return {
        folder / HELLO: _hello(sender, around),
        folder / starter.SCHEMA: as_json(loader.load_schema("manifest")).encode() + b"\n",
        folder / MANIFEST: starter.manifest(sender=sender, message=HELLO, signed=signed).encode(),
        peers: starter.PEERS.encode(),
    }


def _sender(folder: Path, around: Surroundings) -> str:
    """As for any manifest there; where the folder's name cannot name a sender, the name nearest to it."""
    sender = sender_of(folder.resolve(), around.projects.resolve())
    return sender if is_name(sender) else nearest_name(sender) or "me"


def _no_key(around: Surroundings) -> SigningError | None:
    """Why nothing can be signed by default."""
    try:
        Signer(environment=around.environment, interactive=around.interactive).fingerprint(None)
    except SigningError as error:
        return error
    return None


def _hello(sender: str, around: Surroundings) -> bytes:
    """In a conversation of its own, so that it is no other message than one that an earlier init has sent."""
    now, place = around.now(), Place(file=HELLO)
    conversation = f"hello-{now.astimezone(UTC).strftime(MOMENT)}"
    block = frontmatter(conversation=conversation, type=TYPES[0], sequence=1, timestamp=timestamp(now), place=place)
    return (block + starter.body(sender)).encode()


def _steps(folder: Path, inbox: str, around: Surroundings) -> tuple[str, ...]:
    """What to type next, in the folder where init was typed."""
    given = around.environment.get("CAS_CONFIG_DIR") or str(around.halts[0])
    options = "" if str(around.config) == given else f" --config-dir {_argument(around.config)}"
    manifest = _argument(folder / MANIFEST)
    verbs = (f"cas {verb} {manifest}{options}" for verb in ("validate", "plan", "apply"))
    shown = "~/" + shlex.quote(inbox[2:]) if inbox.startswith("~/") else shlex.quote(inbox)
    return (*verbs, f"ls {shown}")


def _argument(path: Path) -> str:
    """A path as a shell takes it, never for an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))
