"""Reproduction: a plan made again from its inputs and proved to be the same, or every reason why it is not. Reads only.

It is complete before the first byte moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cas import loader, preparation
from cas.comparison import Change, Comparison, compare
from cas.diagnostics import Diagnostic, InvalidInput, Severity
from cas.errors import CasError, ExitCode, SigningError
from cas.names import digest
from cas.output.diagnostics import from_error
from cas.plan import DELIVER, Input, Plan
from cas.plan_file import PlanFile, refusal, untimely
from cas.preparation import Fingerprint, Ready
from cas.root import Root
from cas.selection import part_of
from cas.signer import Signer
from cas.surroundings import Surroundings

ANEW = "see that it is what you want to send, then plan again"
ROOT = "name the folder that the manifests' files lie in: --root DIR"
KEY = "name the key in the manifest, then plan again: `sign: {key: FINGERPRINT}`"
SHOWN = 80


def reproduced(
    held: PlanFile,
    found: Sequence[Diagnostic],
    root: Path,
    only: Sequence[str],
    around: Surroundings,
    signer: Signer,
) -> Ready:
    """The plan of a file, ready to be delivered, or the part of it that `only` names.

    Raises InvalidInput, exit code 6, with these findings and all reasons together; UsageError for what fits nothing.
    """
    plan, file = held.plan, held.file
    part = part_of(plan, only)
    inputs = list(_changed_inputs(plan, root, file))
    reasons = [*found, *untimely(plan, around.now(), file), *inputs, *_faults_of_keys(part, signer, file)]
    ready: Ready | None = None
    try:
        ready = preparation.of_plan(plan, root, around, _key_here(signer))
    except CasError as error:
        if not inputs:  # else it says the same again, of the file that is missing or another
            reasons += refused(error)
    if ready:
        reasons += differences(plan, ready.plan, file, only_destinations=bool(inputs))
    if reasons or ready is None:
        raise InvalidInput(reasons)
    return replace(ready, plan=from_here(part, ready.plan), stated=held.digest)


def from_here(part: Plan, here: Plan) -> Plan:
    """A part of a plan that was proved to be the same here. The inventory here has what no plan says: whose identity
    file it is that logs in."""
    known = {one.id: one for one in here.deliveries}
    deliveries = (replace(one, destination=known[one.id].destination) for one in part.deliveries)
    return replace(part, deliveries=tuple(deliveries))


def _key_here(signer: Signer) -> Fingerprint:
    """The key that a name means here; "" for a default key that there is not, which is told of the planned one."""

    def fingerprint(name: str | None) -> str:
        try:
            return signer.fingerprint(name)
        except SigningError:
            if name is None:
                return ""
            raise

    return fingerprint


def _changed_inputs(plan: Plan, root: Path, file: str) -> Iterator[Diagnostic]:
    beneath = Root(root)
    for planned in plan.inputs:
        try:
            content = loader.read(root / planned.path, max(planned.bytes, loader.LARGEST_MANIFEST), root=beneath)
        except InvalidInput as error:
            for one in error.diagnostics:
                yield refusal("plan-changed", f"an input of the plan: {one.message}", file, ROOT)
            continue
        now = Input(path=planned.path, digest=digest(content), bytes=len(content))
        if now != planned:
            message = (
                f"`{planned.path}` is no longer what was planned: {now.bytes} bytes, {now.digest}, "
                f"and in the plan {planned.bytes} bytes, {planned.digest}"
            )
            yield refusal("plan-changed", message, file, ANEW)


def _faults_of_keys(plan: Plan, signer: Signer, file: str) -> Iterator[Diagnostic]:
    keys = dict.fromkeys(one.sign.key for one in plan.deliveries if one.action == DELIVER and one.sign and one.sign.key)
    for key in keys:
        try:
            fault = signer.fault(key)
        except CasError as error:
            fault = f"cannot be looked up: {error}"
        if fault:
            hint = "renew it, or plan again with a key that can sign: gpg --list-secret-keys shows them"
            yield refusal("plan-key", f"the key {key}, which is to sign, {fault}", file, hint)


def refused(error: CasError) -> list[Diagnostic]:
    """What was found, as reasons for which a plan is not carried out."""
    found = error.diagnostics if isinstance(error, InvalidInput) else [from_error(error)]
    return [replace(one, exit_code=ExitCode.REFUSED) for one in found if one.severity is Severity.ERROR]


def differences(planned: Plan, here: Plan, file: str, *, only_destinations: bool = False) -> Iterator[Diagnostic]:
    """Why a plan is not that which comes out here. `only_destinations`: why the rest differs is known already."""
    comparison = compare(planned, here)
    for name, changes in comparison.changed.items():
        for change in changes:
            if _tells(change, only_destinations=only_destinations):
                message = (
                    f"`{name}`: `{change.field}` is {_shown(change.after)} here, in the plan {_shown(change.before)}"
                )
                yield refusal("plan-changed", message, file, KEY if change.field == "sign.key" else ANEW)
    if not only_destinations:
        yield from _others(planned, here, comparison, file)


def _tells(change: Change, *, only_destinations: bool) -> bool:
    if change.field == "sign.key" and change.after == "" and change.before:
        return False  # there is no default key here; whether the planned one can sign is told by itself
    return change.field.startswith("destination.") or not only_destinations


def _others(planned: Plan, here: Plan, comparison: Comparison, file: str) -> Iterator[Diagnostic]:
    for name in comparison.added:
        yield refusal("plan-changed", f"`{name}` would be sent too, and is not in the plan", file, ANEW)
    for name in comparison.removed:
        yield refusal("plan-changed", f"`{name}` is in the plan, and nothing here declares it", file, ANEW)
    pairs: Mapping[str, tuple[object, object]] = {
        "name": (planned.name, here.name),
        "sender": (planned.sender, here.sender),
        "manifests": (planned.manifests, here.manifests),
        "inputs": (planned.inputs, here.inputs),
        "order of the deliveries": (_ids(planned), _ids(here)),
    }
    same = not (comparison.added or comparison.removed)
    for field, (before, after) in pairs.items():
        if before != after and (same or not field.startswith("order")):
            yield refusal("plan-changed", f"the plan's {field} would be another here", file, ANEW)


def _ids(plan: Plan) -> list[str]:
    return [one.id for one in plan.deliveries]


def _shown(value: object) -> str:
    if value is None:
        return "not said"
    text = str(value)
    return f"`{text if len(text) <= SHOWN else text[:SHOWN] + '…'}`"
