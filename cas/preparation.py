"""Preparation: what was asked for into a plan that is ready to be delivered, with the messages it needs. Reads only."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cas import __version__, loader, planner
from cas.diagnostics import Diagnostic, InvalidInput, Place, Severity
from cas.errors import CasError, UsageError
from cas.inventory import Inventory, Policy
from cas.manifest import FileMessage, Manifest, Retry, Send, Sign, Target
from cas.message import Message
from cas.message import parse as parse_message
from cas.names import NAME_RULE, is_name, sender_of
from cas.plan import Plan
from cas.planner import Source
from cas.surroundings import Surroundings

TTL = timedelta(hours=24)
STDIN = "-"
Fingerprint = Callable[[str | None], str]
"""The full fingerprint for a key's name, or for None the default key's; raises SigningError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """What `cas send` was asked for. `message` is a path, or `-` for standard input."""

    destination: str
    message: str
    sign: Sign | None
    retry: Retry
    sender: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A plan with what delivering it needs: the messages, and what their paths are relative to."""

    plan: Plan
    contents: loader.Contents
    root: Path
    policy: Policy
    warnings: tuple[Diagnostic, ...]


def of_one_send(request: SendRequest, around: Surroundings, fingerprint: Fingerprint) -> Ready:
    """A manifest of one send, made in memory; raises as `of_manifests`, UsageError too."""
    inventory, warnings = loader.load_inventory(around.config)
    loaded = _loaded_send(request, inventory, around)
    # Each call is a new delivery, also of the same message: a random word makes its identity its own.
    return _ready(loaded, inventory, warnings, around, fingerprint, word=secrets.token_hex(16))


def of_manifests(paths: Sequence[Path], around: Surroundings, fingerprint: Fingerprint) -> Ready:
    """All manifests at these paths; raises InvalidInput with everything that is wrong, or SigningError."""
    inventory, warnings = loader.load_inventory(around.config)
    loaded = loader.load(paths, projects=around.projects, max_bytes=inventory.policy.max_bytes)
    return _ready(loaded, inventory, warnings, around, fingerprint)


def _ready(
    loaded: loader.Loaded,
    inventory: Inventory,
    warnings: Sequence[Diagnostic],
    around: Surroundings,
    fingerprint: Fingerprint,
    *,
    word: str | None = None,
) -> Ready:
    """The plan of what was loaded; raises InvalidInput with all that loading and planning found, together."""
    found = [*warnings, *loaded.diagnostics]
    try:
        plan = planner.plan(
            loaded.sources,
            inventory,
            clock=around.now(),
            ttl=TTL,
            hostname=around.hostname,
            fingerprint=fingerprint,
            inputs=loaded.inputs,
            version=__version__,
            word=word,
        )
    except InvalidInput as error:
        raise InvalidInput([*found, *error.diagnostics]) from error
    if any(one.severity is Severity.ERROR for one in found):
        raise InvalidInput(found)
    return Ready(plan=plan, contents=loaded.contents, root=loaded.root, policy=inventory.policy, warnings=tuple(found))


def _loaded_send(request: SendRequest, inventory: Inventory, around: Surroundings) -> loader.Loaded:
    place = Place(file="<stdin>" if request.message == STDIN else request.message)
    messages: dict[str, Message] = {}
    held: dict[str, bytes] = {}
    found: tuple[Diagnostic, ...] = ()
    try:
        content = read_message(request.message, inventory)
        message = parse_message(content, place=place)
        messages[request.message], held[message.digest] = message, content
    except InvalidInput as error:
        found = error.diagnostics
    source = Source(manifest=_manifest_of(request), sender=_sender(request, around), messages=messages)
    contents = loader.Contents(held=held)
    return loader.Loaded(sources=(source,), inputs=(), root=around.folder, diagnostics=found, contents=contents)


def _manifest_of(request: SendRequest) -> Manifest:
    return Manifest(
        file="cas send",
        name="send",
        sender=None,
        sends=(
            Send(
                id="send",
                destinations=(Target(text=request.destination, place=None),),
                message=FileMessage(path=request.message, place=None),
                sign=request.sign,
                retry=request.retry,
                place=None,
            ),
        ),
    )


def _sender(request: SendRequest, around: Surroundings) -> str:
    if request.sender is not None:
        if not is_name(request.sender):
            raise UsageError(f"`{request.sender}` cannot name a sender", code="unsafe-sender", hint=NAME_RULE)
        return request.sender
    sender = sender_of(around.folder.resolve(), around.projects.resolve())
    if not is_name(sender):
        raise CasError(
            f"the working folder's name `{sender}` cannot name a sender",
            code="unsafe-sender",
            hint="say who sends: --sender NAME",
        )
    return sender


def read_message(message: str, inventory: Inventory) -> bytes:
    """The bytes of a file, or for `-` of standard input, as many as a message may have. Raises InvalidInput."""
    limit = inventory.policy.max_bytes
    if message != STDIN:
        return loader.read(Path(message), limit)
    content = sys.stdin.buffer.read(limit + 1)
    if len(content) > limit:
        too_large = Diagnostic(
            code="too-large", message=f"the message is larger than {limit} bytes", place=Place(file="<stdin>")
        )
        raise InvalidInput([too_large])
    return content
