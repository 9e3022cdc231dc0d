"""Bundling: a plan into a bundle, signed where the keys are; and a bundle proved, to be delivered where they are not.

Proving is complete before the first byte moves. It reads no manifest: the bundle is made again from its own messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cas import bundle as bundles
from cas import loader, planner
from cas.bundle import Bundle, Wanted
from cas.diagnostics import Diagnostic, InvalidInput
from cas.errors import CasError
from cas.inventory import Inventory, resolve
from cas.names import digest
from cas.output.diagnostics import from_error
from cas.plan import DELIVER, Plan
from cas.plan_file import ANEW, PlanFile, refusal, untimely
from cas.preparation import Ready
from cas.redraft import redrafted, sends
from cas.reproduction import differences, from_here, refused
from cas.selection import part_of
from cas.signatures import AT_ONCE, signatures
from cas.signer import Signer
from cas.surroundings import Surroundings
from cas.verifier import Fault, fault

SPLIT = "plan a part of it: --only, --limit, --tags"


def bundled(ready: Ready, signer: Signer) -> bytes:
    """The bundle of a plan, signed and sealed. Raises InvalidInput, SigningError."""
    made = signatures(bundles.signed(ready.plan), content=ready.contents, sign=signer.sign, stop=lambda: None)
    good = {wanted: result for wanted, result in made.items() if not isinstance(result, CasError)}
    if errors := [result for result in made.values() if isinstance(result, CasError)]:
        raise InvalidInput(dict.fromkeys(map(from_error, errors)))
    body = bundles.body(ready.plan, ready.contents, good)
    text = bundles.seal_text(body)
    content = bundles.canonical(body, {key: signer.sign(text, key) for key in bundles.keys(ready.plan)})
    if len(content) > loader.LARGEST_PLAN:
        words = f"the bundle has {len(content)} bytes, and no plan file may have more than {loader.LARGEST_PLAN}"
        raise InvalidInput([Diagnostic(code="too-large", message=words, hint=SPLIT)])
    return content


def proved(
    held: PlanFile, found: Sequence[Diagnostic], only: Sequence[str], around: Surroundings, signer: Signer
) -> Ready:
    """The plan of a bundle, ready to be delivered, or the part of it that `only` names.

    Raises InvalidInput, exit code 6, with these findings and all reasons together; UsageError for what fits nothing.
    """
    plan, file = held.plan, held.file
    part = part_of(plan, only)
    bundle, misfits = bundles.parse(held)
    reasons = [*found, *untimely(plan, around.now(), file), *misfits]
    try:
        inventory, warnings = loader.load_inventory(around.config)
        reasons += _too_large(bundle, inventory, file)
        here = _again(plan, bundle, inventory, around.hostname, file)
        reasons += differences(plan, here, file)
    except InvalidInput as error:
        reasons += refused(error)
    reasons += _unsound(held, bundle, signer)
    if reasons:
        raise InvalidInput(dict.fromkeys(reasons))
    return Ready(
        plan=from_here(part, here),
        contents=loader.Contents(held=bundle.contents),
        root=Path(file).absolute(),
        policy=inventory.policy,
        warnings=tuple(warnings),
        stated=held.digest,
        sign=lambda content, key: bundle.signatures[digest(content), key],
    )


def _again(plan: Plan, bundle: Bundle, inventory: Inventory, hostname: str, file: str) -> Plan:
    """The plan that the planner makes of these messages, here. Raises InvalidInput."""
    drafts, found = redrafted(
        plan, bundle.contents, lambda text: resolve(inventory, text, hostname=hostname, place=None), file
    )
    if found:
        raise InvalidInput(found)
    made = planner.deliveries(sends(plan), drafts, inventory, clock=plan.clock, fingerprint=lambda name: name or "")
    # What is not delivered has no message here: nobody can tell what its identity was made from.
    left_out = {one.id: one.identity for one in plan.deliveries if one.action != DELIVER}
    return replace(plan, deliveries=tuple(replace(one, identity=left_out.get(one.id, one.identity)) for one in made))


def _too_large(bundle: Bundle, inventory: Inventory, file: str) -> Iterator[Diagnostic]:
    limit = inventory.policy.max_bytes
    for name, content in bundle.contents.items():
        if len(content) > limit:
            words = f"the message {name} has {len(content)} bytes, and `{inventory.file}` allows {limit}"
            yield refusal("too-large", words, file, "see `max_bytes` of [policy]")


def _unsound(held: PlanFile, bundle: Bundle, signer: Signer) -> Iterator[Diagnostic]:
    """What of the signatures and the seals is not good, or not by the key that is planned."""
    ids = {
        (one.message.digest, one.sign.key): one.id
        for one in reversed(held.plan.deliveries)
        if one.action == DELIVER and one.sign and one.sign.key
    }
    text = bundles.seal_text(held.body)

    def looked_at(wanted: Wanted) -> Fault | CasError | None:
        name, key = wanted
        content, signature = (bundle.contents[name], bundle.signatures[wanted]) if name else (text, bundle.seals[key])
        try:
            return fault(content, signature, key, signer)
        except CasError as error:
            return error

    wanted = [("", key) for key in bundle.seals] + [one for one in bundle.signatures if one[0] in bundle.contents]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one, wrong in zip(wanted, pool.map(looked_at, wanted), strict=True):
            if wrong:
                yield _told(ids.get(one), one[1], wrong, held.file)


def _told(id_: str | None, key: str, wrong: Fault | CasError, file: str) -> Diagnostic:
    """`id_`: of the delivery whose message it is; None for a seal."""
    if isinstance(wrong, CasError):
        return refusal("plan-key", f"the signatures by {key} cannot be looked at: {wrong}", file, wrong.hint)
    if wrong.of_key:
        return refusal("plan-key", f"the key {key}, which has signed, {wrong.words}", file, wrong.hint)
    if id_ is None:
        words = f"the bundle was edited after the key {key} sealed it: the seal {wrong.words}"
        return refusal("plan-edited", words, file, ANEW)
    return refusal("plan-signature", f"`{id_}`: the signature of its message {wrong.words}", file, ANEW)
