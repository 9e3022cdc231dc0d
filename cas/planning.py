"""Planning: plans shown, written and compared. The verbs plan and show; nothing is sent, and only a plan is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cas import loader, plan_file, preparation
from cas.commands import note_halt
from cas.comparison import compare, lasting
from cas.creation import create
from cas.diagnostics import Diagnostic, Severity
from cas.errors import CasError, ExitCode, UsageError
from cas.names import LEDGER, timestamp
from cas.output import plans as plan_view
from cas.output.console import Console, Form
from cas.output.result import as_json
from cas.plan import DELIVER, Plan, canonical
from cas.signer import Signer
from cas.surroundings import Surroundings

STDOUT = "-"
DONE = frozenset({"delivered", "unchanged"})
EPOCH = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What `cas plan` was asked for. `file`: where the plan goes, `-` for standard output; `ttl`: None for never.

    `bundle`: where it goes with its messages and their signatures; `seal_with`: further keys that seal it.
    """

    paths: tuple[Path, ...]
    file: str | None
    bundle: Path | None
    at: str | None
    ttl: timedelta | None
    diff: bool
    detailed: bool
    seal_with: tuple[str, ...] = ()


def plan(request: PlanRequest, choice: preparation.Choice, around: Surroundings, console: Console) -> int:
    """The dry run: the plan for people, as a file, or as what differs; connects to nothing."""
    paths, older, warnings = _older(request)
    clock = _clock(request.at, around)
    signer = Signer(environment=around.environment, interactive=around.interactive)
    ready = preparation.of_manifests(paths, choice, around, signer.fingerprint, clock=clock, ttl=request.ttl)
    states = _states(ready.plan, around, console, needed=request.detailed or request.diff)
    if request.file and request.file != STDOUT:
        create(Path(request.file), canonical(ready.plan))
    bundled = _write_bundle(request.bundle, ready, signer, request.seal_with) if request.bundle else None
    note_halt(around, console)
    console.report([*warnings, *ready.warnings])
    if ready.plan.expires and ready.plan.expires <= around.now():
        console.say(f"note: this plan expired at {timestamp(ready.plan.expires)} already; see --ttl")
    if bundled:
        console.say(f"note: {request.bundle} holds the text of its messages, and can be sent by whoever has it")
    _show(request, ready, older, states, console, bundled)
    return ExitCode.TO_SEND if request.detailed and _new(ready.plan, states) else ExitCode.OK


def show(path: Path, around: Surroundings, console: Console) -> int:
    """A plan file for people, with all that would keep it from being applied as a warning."""
    content = loader.read(path, loader.LARGEST_PLAN)
    body, held = plan_file.leniently(content, loader.load_schema("plan"), file=str(path))
    console.report(plan_file.warnings(body, held, around.now(), str(path)))
    if console.form is not Form.TEXT or held is None:
        console.document(as_json(body))
    else:
        states = _states(held, around, console, needed=False)
        for line in plan_view.whole(held, str(body.get("digest")), states, body.get("seals")):
            console.result(line)
    return ExitCode.OK


def _write_bundle(file: Path, ready: preparation.Ready, signer: Signer, seal_with: Sequence[str]) -> str:
    """Sign, and write; gives the bundle's digest."""
    from cas.bundling import bundled  # here, since few ask for it

    content = bundled(ready, signer, seal_with)
    create(file, content, mode=0o600)
    digest: str = json.loads(content)["digest"]
    return digest


def _older(request: PlanRequest) -> tuple[list[Path], Plan | None, list[Diagnostic]]:
    """The manifests, the plan that is compared with, and what is wrong with it.

    Raises UsageError for a plan that is asked for nothing.
    """
    plans = loader.plans_among(request.paths)
    manifests = [path for path in request.paths if path not in plans]
    if not plans:
        return manifests, None, []
    if not request.diff or len(plans) > 1 or not manifests:
        hint = "show it with cas show PLAN; compare with it: cas plan MANIFEST --diff PLAN"
        raise UsageError("a plan is made from manifests, not from a plan", code="plan-alone", hint=hint)
    ((path, content),) = plans.items()
    held, edited = plan_file.parse(content, loader.load_schema("plan"), file=str(path))
    return manifests, held.plan, [replace(one, severity=Severity.WARNING) for one in edited]


def _clock(at: str | None, around: Surroundings) -> datetime:
    """The one time of a plan: as it was said, else the build's, else now."""
    if at is not None:
        return _moment(at, "--at")
    if epoch := around.environment.get(EPOCH):
        return _moment_of_epoch(epoch)
    return around.now()


def _moment(text: str, what: str) -> datetime:
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        moment = None
    if moment is None or moment.year not in plan_file.YEARS:
        hint = "such as 2026-11-23T01:31:33Z, in UTC"
        raise UsageError(f"`{what} {text}` is no time from 1970 to 2999", code="malformed-time", hint=hint)
    return moment


def _moment_of_epoch(text: str) -> datetime:
    if text.isascii() and text.isdecimal() and len(text) <= 11:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(text))
        if moment.year in plan_file.YEARS:
            return moment
    hint = "whole seconds since 1970, as of `date +%s`"
    raise UsageError(f"`{EPOCH}={text}` is no time from 1970 to 2999", code="malformed-time", hint=hint)


def _states(plan: Plan, around: Surroundings, console: Console, *, needed: bool) -> Mapping[str, str]:
    """What the ledger here knows of these deliveries. Where that is only for show, none is better than no plan."""
    if not (around.state / LEDGER).is_file():
        return {}
    from cas.ledger import states  # here, since most have nothing to look up

    try:
        return states(around.state, (one.identity for one in plan.deliveries))
    except CasError as error:
        if needed:
            raise
        console.problem(f"note: what was delivered before is not shown: {error}")
        return {}


def _new(plan: Plan, states: Mapping[str, str]) -> list[str]:
    """The ids of what is not known to be there."""
    return [one.id for one in plan.deliveries if one.action == DELIVER and states.get(one.identity) not in DONE]


def _show(
    request: PlanRequest,
    ready: preparation.Ready,
    older: Plan | None,
    states: Mapping[str, str],
    console: Console,
    bundled: str | None,
) -> None:
    """`bundled`: the digest of the bundle that was written."""
    if request.diff:
        _show_difference(ready, older, states, console)
    elif console.form is not Form.TEXT or request.file == STDOUT:
        console.document(canonical(ready.plan).decode().removesuffix("\n"))
    elif bundled:
        console.result(plan_view.written(ready.plan, str(request.bundle), bundled, bundled=True))
    elif request.file:
        console.result(plan_view.written(ready.plan, request.file, ready.digest))
    else:
        for line in plan_view.lines(ready.plan, states):
            console.result(line)


def _show_difference(ready: preparation.Ready, older: Plan | None, states: Mapping[str, str], console: Console) -> None:
    comparison = lasting(compare(older, ready.plan)) if older else None
    texts = [] if comparison else _texts(ready, states)
    if console.form is not Form.TEXT:
        console.result(as_json(plan_view.difference_fields(comparison, texts)))
        return
    for line in plan_view.difference(comparison, texts):
        console.result(line)


def _texts(ready: preparation.Ready, states: Mapping[str, str]) -> Sequence[tuple[str, str, str]]:
    """Of each delivery that is new its id, its name and its message's text."""
    new = set(_new(ready.plan, states))
    return [
        (one.id, one.name, ready.contents(one.message.digest).decode("utf-8", "replace"))
        for one in ready.plan.deliveries
        if one.id in new
    ]
