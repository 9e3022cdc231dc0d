"""What each verb does, from what was asked to an exit code: the order of things. The things themselves are below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cas import halt, loader, plan_file, preparation
from cas.diagnostics import Diagnostic, InvalidInput, suggestion
from cas.engines import HERE, Asked, chosen
from cas.errors import CasError, ExitCode, UsageError
from cas.output import diagnostics as diagnostic_view
from cas.output import plans as plan_view
from cas.output.console import Console, Form
from cas.output.result import ResultView, as_json
from cas.run import Limits, carried_out, world
from cas.seals import Sealing, without_seal
from cas.shards import Shard, part
from cas.signer import Signer
from cas.surroundings import Surroundings

EXPLANATIONS = Path(__file__).with_name("explanations.toml")
SENDING = frozenset({"send", "apply", "rehearse", "retry"})


def send(request: preparation.SendRequest, limits: Limits, around: Surroundings, console: Console) -> int:
    """One message now: a manifest of one send, on the way that all manifests go."""
    _unless_halted(around)
    ready = preparation.of_one_send(request, around, _signer(around).fingerprint)
    return deliver("send", ready, limits, around, console)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfPlan:
    """What is said of a plan file that is to be carried out, as options of these names.

    `root`, or `inputs`: where the files are that it was made from, None for the working folder; `shard`: the part.
    `sealing`: what is said of a bundle's seals.
    """

    root: Path | None = None
    inputs: Path | None = None
    shard: Shard | None = None
    sealing: Sealing | None = None

    def check(self) -> None:
        """Raise UsageError: there is no plan."""
        if self.sealing and (self.sealing.by or self.sealing.unsealed):
            option = "--unsealed" if self.sealing.unsealed else "--sealed-by"
            raise UsageError(f"`{option}` is for a bundle, and there is none", code="no-plan", hint="leave it out")
        named = ("root", "inputs", "shard")
        given = next((name for name in named if getattr(self, name) is not None), None)
        if given == "shard":
            hint = "write the plan first, one for all shards: cas plan … -o FILE"
            raise UsageError("`--shard` is for a plan, and there is none", code="no-plan", hint=hint)
        if given:
            hint = "leave it out: manifests know where their files are"
            raise UsageError(f"`--{given}` is for a plan, and there is none", code="no-plan", hint=hint)


def apply(
    paths: Sequence[Path],
    choice: preparation.Choice,
    limits: Limits,
    around: Surroundings,
    console: Console,
    *,
    given: OfPlan = OfPlan(),
    engine: Asked = HERE,
) -> int:
    """Plan these manifests and deliver; or deliver what a plan file says, or a shard of it, if all still holds."""
    ready = made_ready(paths, choice, around, given)
    if given.shard:
        whole = ready.plan
        ready = replace(ready, plan=part(whole, given.shard))
        console.say(f"note: {plan_view.share(ready.plan, whole, str(given.shard))}")
    return deliver("apply", ready, limits, around, console, engine=engine)


def made_ready(
    paths: Sequence[Path], choice: preparation.Choice, around: Surroundings, given: OfPlan
) -> preparation.Ready:
    """The plan of these manifests, or that of a plan file or bundle, proved; not where HALT is set."""
    plans = loader.plans_among(paths)
    if plans:
        _check_alone(paths, choice)
    else:
        given.check()
    _unless_halted(around)
    if not plans:
        return preparation.of_manifests(paths, choice, around, _signer(around).fingerprint)
    ((path, content),) = plans.items()
    held, found = plan_file.parse(content, loader.load_schema("plan"), file=str(path))
    sealing = given.sealing or Sealing()
    sealing.check()
    if held.is_bundle:
        from cas.bundling import proved

        return proved(held, found, choice.selection.only, around, sealing)
    if unsealed := tuple(without_seal(sealing, held.file)):
        raise InvalidInput(unsealed)
    from cas.reproduction import reproduced

    inputs = given.root or given.inputs or around.folder
    return reproduced(held, found, inputs, choice.selection.only, around, _signer(around))


def _check_alone(paths: Sequence[Path], choice: preparation.Choice) -> None:
    """Raise UsageError for what does not go with a plan: it is complete."""
    if len(paths) > 1:
        raise UsageError("a plan is applied alone", code="plan-alone", hint="one call for each plan")
    selection = choice.selection
    given = {
        "--tags": selection.tags,
        "--skip-tags": selection.skip_tags,
        "--limit": selection.limit,
        "--var": choice.variables,
        "--vars-file": choice.variable_files,
    }
    if option := next((option for option, values in given.items() if values), None):
        hint = "give it to cas plan; of a plan, --only takes a part"
        raise UsageError(f"`{option}` does not apply to a plan", code="plan-fixed", hint=hint)


def validate(
    paths: Sequence[Path], choice: preparation.Choice, around: Surroundings, console: Console, *, each: bool = False
) -> int:
    """All that can be known offline, without a key; of all together, or of each manifest among the files by itself."""
    runs: list[Sequence[Path]] = [paths]
    if each:
        manifests, others = loader.manifests_among([_relative(path, around.folder) for path in paths])
        runs = [[manifest] for manifest in manifests]
        for path in others:
            console.say(f"note: {path} has no key `cas`, so that it is no manifest, and was passed over")
    warnings, deliveries = _checked(runs, choice, around, each=each)
    note_halt(around, console)
    if console.form is Form.TEXT:
        console.report(warnings, as_result=True)
        console.result(f"valid: {plan_view.counted(deliveries)}")
    else:
        console.report(warnings)
        console.result(as_json(diagnostic_view.document(warnings)))
    return ExitCode.OK


def _checked(
    runs: Sequence[Sequence[Path]], choice: preparation.Choice, around: Surroundings, *, each: bool
) -> tuple[tuple[Diagnostic, ...], int]:
    """The warnings of all runs, each once, and the number of deliveries. Raises InvalidInput with all that is found."""
    found: list[Diagnostic] = []
    deliveries, failed = 0, False
    for paths in runs:
        try:
            within = loader.repository_of(paths[0]) if each else None
            ready = preparation.of_manifests(paths, choice, around, lambda name: name or "", within=within)
            found += ready.warnings
            deliveries += len(ready.plan.deliveries)
        except InvalidInput as error:
            found += error.diagnostics
            failed = True
    unique = tuple(dict.fromkeys(found))
    if failed:
        raise InvalidInput(unique)
    return unique, deliveries


def _relative(path: Path, folder: Path) -> Path:
    """From the working folder, where the path lies below it."""
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def schema(name: str, console: Console) -> int:
    """A JSON Schema, for editors and CI."""
    console.result(as_json(loader.load_schema(name)))
    return ExitCode.OK


def explain(codes: Sequence[str], console: Console) -> int:
    """What these codes mean and what mends it; without any, all codes there are."""
    from cas import explanations
    from cas.findings import width
    from cas.output import explanations as explanation_view

    known = explanations.parse(loader.read(EXPLANATIONS, loader.LARGEST_MANIFEST).decode())
    if unknown := next((code for code in codes if code not in known), None):
        raise _unknown_code(unknown, known)
    chosen = [known[code] for code in dict.fromkeys(codes) or sorted(known)]
    if console.form is not Form.TEXT:
        console.result(as_json(explanation_view.document(chosen)))
        return ExitCode.OK
    lines = explanation_view.lines if codes else explanation_view.overview
    for line in lines(chosen, width(console.out)):
        console.result(line)
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


def deliver(
    command: str,
    ready: preparation.Ready,
    limits: Limits,
    around: Surroundings,
    console: Console,
    *,
    engine: Asked = HERE,
    keep: bool = True,
) -> int:
    """Carry out what is ready. `engine`: by whom; `keep`: what failed leaves a marker, and can be retried."""
    from cas.executor import execute  # here, since `plan` and `validate` go without it

    sign = ready.sign or _signer(around).signature
    with (
        chosen(engine, around, console.say) as by,
        world(ready.policy, ready.root, limits, around, by) as given,
    ):
        events = execute(ready.plan, ready.digest, given, content=ready.contents, sign=sign)
        deliveries, warnings = ready.plan.deliveries, ready.warnings
        return carried_out(command, events, deliveries, ready.root, around, console, warnings, keep=keep)


def _unless_halted(around: Surroundings) -> None:
    if error := around.stop():
        raise error


def _unknown_code(code: str, known: Iterable[str]) -> UsageError:
    hint = suggestion(code, known, most=3) or "all there are: cas explain"
    return UsageError(f"no code `{code}`", code="unknown-code", hint=hint)


def note_halt(around: Surroundings, console: Console) -> None:
    """Say that HALT is set, where it is."""
    if standing := halt.standing(around.halts):
        why = f": {standing.reason}" if standing.reason else ""
        console.problem(f"note: HALT is set, so that nothing can be sent now{why} ({standing.path})")


def _signer(around: Surroundings) -> Signer:
    return Signer(environment=around.environment, interactive=around.interactive)
