"""What each verb does, from what was asked to an exit code: the order of things. The things themselves are below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cas import halt, loader, preparation
from cas.diagnostics import InvalidInput
from cas.errors import CasError, ExitCode
from cas.output import diagnostics as diagnostic_view
from cas.output import plans as plan_view
from cas.output.console import Console, Form
from cas.output.result import ResultView, as_json
from cas.plan import canonical, fields
from cas.run import Limits, carried_out, world
from cas.signer import Signer
from cas.surroundings import Surroundings

SENDING = frozenset({"send", "apply", "retry"})


def send(request: preparation.SendRequest, limits: Limits, around: Surroundings, console: Console) -> int:
    """One message now: a manifest of one send, on the way that all manifests go."""
    _unless_halted(around)
    ready = preparation.of_one_send(request, around, _signer(around).fingerprint)
    return _deliver("send", ready, limits, around, console)


def apply(paths: Sequence[Path], limits: Limits, around: Surroundings, console: Console) -> int:
    """Plan these manifests and deliver."""
    _unless_halted(around)
    ready = preparation.of_manifests(paths, around, _signer(around).fingerprint)
    return _deliver("apply", ready, limits, around, console)


def validate(paths: Sequence[Path], around: Surroundings, console: Console) -> int:
    """All that can be known offline, without a key."""
    ready = preparation.of_manifests(paths, around, lambda name: name or "")
    _note_halt(around, console)
    if console.form is Form.TEXT:
        console.report(ready.warnings, as_result=True)
        console.result(f"valid: {plan_view.counted(len(ready.plan.deliveries))}")
    else:
        console.report(ready.warnings)
        console.result(as_json(diagnostic_view.document(ready.warnings)))
    return ExitCode.OK


def plan(paths: Sequence[Path], around: Surroundings, console: Console) -> int:
    """The dry run: shows what would be sent; connects to nothing, writes nothing."""
    ready = preparation.of_manifests(paths, around, _signer(around).fingerprint)
    _note_halt(around, console)
    console.report(ready.warnings)
    if console.form is Form.TEXT:
        for line in plan_view.lines(ready.plan):
            console.result(line)
    else:
        console.result(canonical(ready.plan).decode().removesuffix("\n"))
    return ExitCode.OK


def schema(name: str, console: Console) -> int:
    """A JSON Schema, for editors and CI."""
    console.result(as_json(loader.load_schema(name)))
    return ExitCode.OK


def demo(around: Surroundings, console: Console) -> int:
    """Show a run from beginning to end, in a throw-away home."""
    from cas import demo

    text = console.form is Form.TEXT
    code = demo.run(console.out if text else console.err, around.environment)
    if not text:
        ResultView("demo", console.result, every_event=False).end(code, None)
    return code


def refused(command: str, error: CasError, console: Console) -> int:
    """Report what kept a verb from its work; its exit code."""
    found = error.diagnostics if isinstance(error, InvalidInput) else (diagnostic_view.from_error(error),)
    console.report(found, as_result=command == "validate" and console.form is Form.TEXT)
    if command in SENDING:
        console.problem("nothing was sent")
        if console.form is not Form.TEXT:
            reason = str(error) if error.exit_code is ExitCode.HALT else None
            ResultView(command, console.result, every_event=False).end(error.exit_code, reason, found)
    elif console.form is not Form.TEXT:
        console.result(as_json(diagnostic_view.document(found)))
    return error.exit_code


def _deliver(command: str, ready: preparation.Ready, limits: Limits, around: Surroundings, console: Console) -> int:
    from cas.executor import execute  # here, since `plan` and `validate` go without it

    digest, sign = str(fields(ready.plan)["digest"]), _signer(around).sign
    with world(ready.policy, ready.root, limits, around) as given:
        events = execute(ready.plan, digest, given, content=ready.contents.__getitem__, sign=sign)
        return carried_out(command, events, ready.plan.deliveries, ready.root, around, console, ready.warnings)


def _unless_halted(around: Surroundings) -> None:
    if error := around.stop():
        raise error


def _note_halt(around: Surroundings, console: Console) -> None:
    if standing := halt.standing(around.halts):
        why = f": {standing.reason}" if standing.reason else ""
        console.problem(f"note: HALT is set, so that nothing can be sent now{why} ({standing.path})")


def _signer(around: Surroundings) -> Signer:
    return Signer(environment=around.environment, interactive=around.interactive)
