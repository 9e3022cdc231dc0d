"""What each verb does, from what was asked to an exit code: the order of things. The things themselves are below."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from cas import __version__, halt, loader, planner
from cas.diagnostics import Diagnostic, InvalidInput, Place, Severity
from cas.errors import CasError, ExitCode, UsageError
from cas.events import Event
from cas.inventory import Inventory
from cas.manifest import FileMessage, Manifest, Retry, Send, Sign, Target
from cas.message import Message
from cas.message import parse as parse_message
from cas.names import NAME_RULE, is_name, sender_of
from cas.output import diagnostics as diagnostic_view
from cas.output import plans as plan_view
from cas.output.console import Console, Form
from cas.output.result import ResultView, as_json
from cas.output.text import TextView
from cas.plan import Input, Plan, canonical, fields
from cas.planner import Source
from cas.signer import Signer
from cas.surroundings import Surroundings

TTL = timedelta(hours=24)
STDIN = "-"
SENDING = frozenset({"send", "apply"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """What `cas send` was asked for. `message` is a path, or `-` for standard input."""

    destination: str
    message: str
    sign: Sign | None
    retry: Retry
    sender: str | None


def send(request: SendRequest, around: Surroundings, console: Console) -> int:
    """One message now: a manifest of one send, on the way that all manifests go."""
    _unless_halted(around)
    inventory, warnings = loader.load_inventory(around.config)
    place = Place(file="<stdin>" if request.message == STDIN else request.message)
    found: list[Diagnostic] = list(warnings)
    messages: dict[str, Message] = {}
    try:
        messages[request.message] = parse_message(_content(request.message, inventory), place=place)
    except InvalidInput as error:
        found += error.diagnostics
    source = Source(manifest=_manifest_of(request), sender=_sender(request, around), messages=messages)
    # Each call is a new delivery, also of the same message: a random word makes its identity its own.
    plan = _planned([source], inventory, around, _signer(around).fingerprint, found, word=secrets.token_hex(16))
    contents = {message.digest: message.content for message in messages.values()}
    return _deliver("send", plan, contents, around.folder, around, console, found)


def apply(paths: Sequence[Path], around: Surroundings, console: Console) -> int:
    """Plan these manifests and deliver."""
    _unless_halted(around)
    plan, loaded, found = _planned_from(paths, around, _signer(around).fingerprint)
    return _deliver("apply", plan, loaded.contents, loaded.root, around, console, found)


def validate(paths: Sequence[Path], around: Surroundings, console: Console) -> int:
    """All that can be known offline, without a key."""
    plan, _, found = _planned_from(paths, around, lambda name: name or "")
    _note_halt(around, console)
    if console.form is Form.TEXT:
        for line in diagnostic_view.lines(found):
            console.result(line)
        console.result(f"valid: {plan_view.counted(len(plan.deliveries))}")
    else:
        console.result(as_json(diagnostic_view.document(found)))
    return ExitCode.OK


def plan(paths: Sequence[Path], around: Surroundings, console: Console) -> int:
    """The dry run: shows what would be sent; connects to nothing, writes nothing."""
    made, _, found = _planned_from(paths, around, _signer(around).fingerprint)
    _note_halt(around, console)
    for line in diagnostic_view.lines(found):
        console.say(line)
    if console.form is Form.TEXT:
        for line in plan_view.lines(made):
            console.result(line)
    else:
        console.result(canonical(made).decode().removesuffix("\n"))
    return ExitCode.OK


def schema(name: str, console: Console) -> int:
    """A JSON Schema, for editors and CI."""
    console.result(as_json(loader.load_schema(name)))
    return ExitCode.OK


def refused(command: str, error: CasError, console: Console) -> int:
    """Report what kept a verb from its work; its exit code."""
    found = error.diagnostics if isinstance(error, InvalidInput) else (diagnostic_view.from_error(error),)
    findings_are_the_result = command == "validate" and console.form is Form.TEXT
    for line in diagnostic_view.lines(found):
        (console.result if findings_are_the_result else console.problem)(line)
    if command in SENDING:
        console.problem("nothing was sent")
        if console.form is not Form.TEXT:
            reason = str(error) if error.exit_code is ExitCode.HALT else None
            ResultView(command, console.result, every_event=False).end(error.exit_code, reason, found)
    elif console.form is not Form.TEXT:
        console.result(as_json(diagnostic_view.document(found)))
    return error.exit_code


def _deliver(
    command: str,
    plan: Plan,
    contents: Mapping[str, bytes],
    root: Path,
    around: Surroundings,
    console: Console,
    found: Sequence[Diagnostic],
) -> int:
    # Imported here: `plan` and `validate` go without them.
    from cas import failed_sends, transports
    from cas.batch import World
    from cas.events import RunFinished
    from cas.executor import execute

    for line in diagnostic_view.lines(found):
        console.say(line)
    world = World(
        connect=partial(transports.opened, home=around.home, user=around.user),
        where=partial(transports.told, home=around.home, user=around.user),
        stop=around.stop,
        now=around.now,
        pause=around.signals.pause,
    )
    digest = str(fields(plan)["digest"])
    result = ResultView(command, console.result, every_event=console.form is Form.JSONL)
    ended: RunFinished | None = None
    with around.signals.noted(), _words(command, plan, console) as show_words:
        views = (show_words,) if console.form is Form.TEXT else (show_words, result.show)
        events = execute(plan, digest, world, content=contents.__getitem__, sign=_signer(around).sign)
        for event in failed_sends.marked(events, around.state / "failed-sends", root):
            for show in views:
                show(event)
            ended = event if isinstance(event, RunFinished) else ended
    assert ended is not None
    code = 128 + around.signals.caught if around.signals.caught and ended.halted else int(ended.exit_code)
    if console.form is not Form.TEXT:
        result.end(code, ended.halted, found)
    return code


@contextmanager
def _words(command: str, plan: Plan, console: Console) -> Iterator[Callable[[Event], None]]:
    """The view for people: a progress display on a terminal; elsewhere a line an event, but for a single send."""
    text = console.form is Form.TEXT
    on_terminal = console.err.isatty() and not console.quiet and not console.verbose and command != "send"
    view = TextView(
        console.result if text else lambda _: None,
        console.say,
        console.problem,
        events=console.verbose or (command != "send" and not on_terminal),
        recap=text and command != "send",
    )
    if not on_terminal:
        yield view.show
        return
    from cas.output.terminal import progress

    with progress(plan, console.err, color=console.color) as advance:

        def show(event: Event) -> None:
            view.show(event)
            advance(event)

        yield show


def _unless_halted(around: Surroundings) -> None:
    if error := around.stop():
        raise error


def _note_halt(around: Surroundings, console: Console) -> None:
    if standing := halt.standing(around.halts):
        why = f": {standing.reason}" if standing.reason else ""
        console.problem(f"note: HALT is set, so that nothing can be sent now{why} ({standing.path})")


def _signer(around: Surroundings) -> Signer:
    return Signer(environment=around.environment, interactive=around.interactive)


def _planned_from(
    paths: Sequence[Path], around: Surroundings, fingerprint: Callable[[str | None], str]
) -> tuple[Plan, loader.Loaded, list[Diagnostic]]:
    inventory, warnings = loader.load_inventory(around.config)
    loaded = loader.load(paths, projects=around.projects, max_bytes=inventory.policy.max_bytes)
    found = [*warnings, *loaded.diagnostics]
    return _planned(loaded.sources, inventory, around, fingerprint, found, inputs=loaded.inputs), loaded, found


def _planned(
    sources: Sequence[Source],
    inventory: Inventory,
    around: Surroundings,
    fingerprint: Callable[[str | None], str],
    found: Sequence[Diagnostic],
    *,
    inputs: Sequence[Input] = (),
    word: str | None = None,
) -> Plan:
    """The plan; raises InvalidInput with what was found before and what planning finds, all together."""
    try:
        plan = planner.plan(
            sources,
            inventory,
            clock=around.now(),
            ttl=TTL,
            hostname=around.hostname,
            fingerprint=fingerprint,
            inputs=inputs,
            version=__version__,
            word=word,
        )
    except InvalidInput as error:
        raise InvalidInput([*found, *error.diagnostics]) from error
    if any(one.severity is Severity.ERROR for one in found):
        raise InvalidInput(found)
    return plan


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


def _content(message: str, inventory: Inventory) -> bytes:
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
