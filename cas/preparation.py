"""Preparation: what was asked for into a plan that is ready to be delivered, with the messages it needs. Reads only."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cas import __version__, loader, planner
from cas.diagnostics import Diagnostic, InvalidInput, Place, Severity
from cas.drafts import Draft, Source
from cas.errors import CasError, UsageError
from cas.expansion import expand
from cas.inventory import Inventory, Policy
from cas.manifest import FileMessage, Manifest, Retry, Send, Sign, Target
from cas.message import parse as parse_message
from cas.names import NAME_RULE, is_name, sender_of
from cas.plan import Input, Plan, Signing, fields
from cas.root import Root
from cas.selection import Selection
from cas.surroundings import Surroundings

TTL = timedelta(hours=24)
STDIN = "-"
SECONDS, SENDS_A_SECOND, MEMORY = 10, 500, 256 << 20
"""What the templates of a run may take: processor time, and more of it for many sends; bytes."""
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
    """A plan with what delivering it needs: the messages, and what their paths are relative to.

    `stated`: the digest that a plan file states; None for a plan that was just made. `sign`: has the signatures that
    were made already; None where gpg makes them.
    """

    plan: Plan
    contents: loader.Contents
    root: Path
    policy: Policy
    warnings: tuple[Diagnostic, ...]
    stated: str | None = None
    sign: Callable[[bytes, Signing], bytes] | None = None

    @property
    def digest(self) -> str:
        """The plan's."""
        return self.stated or str(fields(self.plan)["digest"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a run takes from its manifests: the deliveries, and the values of variables that the command line gives."""

    selection: Selection = field(default_factory=Selection)
    variables: tuple[str, ...] = ()
    variable_files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What a plan follows from beside its manifests. `ttl`: None for a plan that never expires.

    `word` makes every identity a new one.
    """

    clock: datetime
    ttl: timedelta | None = TTL
    selection: Selection = field(default_factory=Selection)
    given: Mapping[str, object] = field(default_factory=dict)
    word: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expanded:
    """The drafts of manifests, what is wrong with the rest, what was read for them, and where their messages are."""

    drafts: tuple[Draft, ...]
    diagnostics: tuple[Diagnostic, ...]
    inputs: tuple[Input, ...]
    contents: loader.Contents


def of_one_send(request: SendRequest, around: Surroundings, fingerprint: Fingerprint) -> Ready:
    """A manifest of one send, made in memory; raises as `of_manifests`, UsageError too."""
    inventory, warnings = loader.load_inventory(around.config)
    loaded = _loaded_send(request, inventory, around)
    # Each call is a new delivery, also of the same message: a random word makes its identity its own.
    terms = _Terms(clock=around.now(), word=secrets.token_hex(16))
    return _ready(loaded, inventory, warnings, around, fingerprint, terms)


def of_manifests(
    paths: Sequence[Path],
    choice: Choice,
    around: Surroundings,
    fingerprint: Fingerprint,
    *,
    clock: datetime | None = None,
    ttl: timedelta | None = TTL,
    within: Root | None = None,
) -> Ready:
    """All manifests at these paths; raises InvalidInput with everything that is wrong, UsageError or SigningError.

    `clock`: None for now; `ttl`: None for a plan that never expires; `within`: what the paths may not leave, None where
    the user named them.
    """
    inventory, warnings = loader.load_inventory(around.config)
    loaded = loader.load(paths, projects=around.projects, max_bytes=inventory.policy.max_bytes, within=within)
    given = _in_order(loader.variables(choice.variables, choice.variable_files))
    terms = _Terms(clock=clock or around.now(), ttl=ttl, selection=choice.selection, given=given)
    return _ready(loaded, inventory, warnings, around, fingerprint, terms)


def of_plan(plan: Plan, root: Path, around: Surroundings, fingerprint: Fingerprint) -> Ready:
    """A plan made again, from what it was made from as that is below `root` now; raises as `of_manifests`."""
    inventory, warnings = loader.load_inventory(around.config)
    loaded = loader.load(
        [root / one.path for one in plan.manifests],
        projects=around.projects,
        max_bytes=inventory.policy.max_bytes,
        root=root,
        within=Root(root),
        senders={one.path: one.sender for one in plan.manifests},
    )
    selected = plan.selected
    terms = _Terms(
        clock=plan.clock,
        ttl=plan.expires - plan.clock if plan.expires else None,
        selection=Selection(tags=selected.tags, skip_tags=selected.skip_tags, only=selected.only, limit=selected.limit),
        given=_in_order(plan.variables),
    )
    return _ready(loaded, inventory, warnings, around, fingerprint, terms)


def _in_order(value: Any) -> Any:
    """Maps by their keys, as a plan holds them: else a loop over one would go another way when it is applied."""
    if isinstance(value, Mapping):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(one) for one in value] if isinstance(value, list) else value


def _ready(
    loaded: loader.Loaded,
    inventory: Inventory,
    warnings: Sequence[Diagnostic],
    around: Surroundings,
    fingerprint: Fingerprint,
    terms: _Terms,
) -> Ready:
    """The plan of what was loaded; raises InvalidInput with all that loading and planning found, together."""
    expanded = _expanded(loaded, inventory, terms.clock, around.hostname, terms.given)
    found = [*warnings, *loaded.diagnostics, *expanded.diagnostics]
    wrong = any(one.severity is Severity.ERROR for one in found)
    if not wrong:
        terms.selection.check(expanded.drafts)
    try:
        plan = planner.plan(
            loaded.sources,
            expanded.drafts,
            inventory,
            clock=terms.clock,
            ttl=terms.ttl,
            fingerprint=fingerprint,
            left_out=terms.selection.left_out,
            variables=terms.given,
            selected=terms.selection.selected,
            inputs=[*loaded.inputs, *expanded.inputs],
            version=__version__,
            word=terms.word,
        )
    except InvalidInput as error:
        raise InvalidInput([*found, *error.diagnostics]) from error
    if wrong:
        raise InvalidInput(found)
    return Ready(
        plan=plan, contents=expanded.contents, root=loaded.root, policy=inventory.policy, warnings=tuple(found)
    )


def _expanded(
    loaded: loader.Loaded, inventory: Inventory, clock: datetime, hostname: str, given: Mapping[str, object]
) -> _Expanded:
    """The drafts; where there are templates, a child with bounds on time and memory makes them."""

    def work(note: Callable[[Place], None]) -> _Expanded:
        drafts, found = expand(loaded.sources, inventory, clock=clock, hostname=hostname, given=given, note=note)
        places: dict[str, Path] = {}
        held: dict[str, bytes] = {}
        inputs: dict[str, Input] = {}
        for library in (source.library for source in loaded.sources):
            places |= library.files
            held |= library.held
            inputs |= {one.path: one for one in library.inputs.values()}
        contents = loader.Contents(files=places, held=held, limit=inventory.policy.max_bytes)
        return _Expanded(drafts=drafts, diagnostics=found, inputs=tuple(inputs.values()), contents=contents)

    if not any(source.manifest.templated for source in loaded.sources):
        return work(lambda _: None)
    from cas.confined import ConfinementError, confined  # here, since `cas send` and plain manifests go without

    sends = sum(len(source.manifest.sends) for source in loaded.sources)
    try:
        return confined(
            lambda note: work(lambda place: note(json.dumps(asdict(place)))),
            seconds=SECONDS + sends // SENDS_A_SECOND,
            memory=MEMORY,
        )
    except ConfinementError as error:
        place = Place(**json.loads(error.at)) if error.at else None
        raise InvalidInput([Diagnostic(code=error.code, message=str(error), place=place, hint=error.hint)]) from error


def _loaded_send(request: SendRequest, inventory: Inventory, around: Surroundings) -> loader.Loaded:
    place = Place(file="<stdin>" if request.message == STDIN else request.message)
    library = loader.Single(None, b"")
    found: tuple[Diagnostic, ...] = ()
    try:
        content = read_message(request.message, inventory)
        library = loader.Single(parse_message(content, place=place), content)
    except InvalidInput as error:
        found = error.diagnostics
    source = Source(manifest=_manifest_of(request), sender=_sender(request, around), library=library)
    return loader.Loaded(sources=(source,), inputs=(), root=around.folder, diagnostics=found)


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
