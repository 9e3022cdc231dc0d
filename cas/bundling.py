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
from cas.bundle import Bundle
from cas.diagnostics import Diagnostic, InvalidInput
from cas.errors import CasError
from cas.inventory import Inventory, resolve
from cas.output.diagnostics import from_error
from cas.plan import DELIVER, Plan, Signing
from cas.plan_file import ANEW, PlanFile, refusal, untimely
from cas.preparation import Ready
from cas.redraft import redrafted, sends
from cas.reproduction import differences, from_here, refused
from cas.seals import Sealing, unaccepted
from cas.selection import part_of
from cas.signatures import AT_ONCE, signatures
from cas.signer import Signer
from cas.surroundings import Surroundings
from cas.verdict import State, Verdict
from cas.verifier import Verifier, verifier_for

OF_THE_KEY = {
    State.UNKNOWN_KEY: "is not known here",
    State.EXPIRED_KEY: "has expired",
    State.REVOKED_KEY: "is revoked",
    State.WEAK_KEY: "is too weak",
    State.DISTRUSTED: "is disabled here, or never to be trusted",
}
OF_THE_SIGNATURE = {
    State.BAD: "is not that of these bytes",
    State.EXPIRED: "has expired",
    State.WEAK: "is too weak",
    State.TEXT: "is of text, not of bytes",
}
SPLIT = "plan a part of it: --only, --limit, --tags"


def bundled(ready: Ready, signer: Signer, seal_with: Sequence[str] = ()) -> bytes:
    """The bundle of a plan, signed, and sealed by each key that signs and each of `seal_with`.

    Raises InvalidInput, SigningError.
    """
    made = signatures(bundles.signed(ready.plan), content=ready.contents, sign=signer.signature, stop=lambda: None)
    good = {wanted: result for wanted, result in made.items() if not isinstance(result, CasError)}
    if errors := [result for result in made.values() if isinstance(result, CasError)]:
        raise InvalidInput(dict.fromkeys(map(from_error, errors)))
    body = bundles.body(ready.plan, ready.contents, good)
    text = bundles.seal_text(body)
    keys = dict.fromkeys((*bundles.keys(ready.plan), *map(signer.fingerprint, seal_with)))
    content = bundles.canonical(body, {key: signer.sign(text, key) for key in keys})
    if len(content) > loader.LARGEST_PLAN:
        words = f"the bundle has {len(content)} bytes, and no plan file may have more than {loader.LARGEST_PLAN}"
        raise InvalidInput([Diagnostic(code="too-large", message=words, hint=SPLIT)])
    return content


def proved(
    held: PlanFile, found: Sequence[Diagnostic], only: Sequence[str], around: Surroundings, sealing: Sealing
) -> Ready:
    """The plan of a bundle, ready to be delivered, or the part of it that `only` names.

    `sealing`: whose seal counts, next to what the policy says. Raises InvalidInput, exit code 6, with these findings
    and all reasons together; UsageError for what fits nothing.
    """
    plan, file = held.plan, held.file
    part = part_of(plan, only)
    bundle, misfits = bundles.parse(held)
    reasons = [*found, *untimely(plan, around.now(), file), *misfits]
    verifier = Verifier(environment=around.environment)
    try:
        inventory, warnings = loader.load_inventory(around.config)
        verifier = verifier_for(inventory.policy, around.environment, around.home)
        reasons += unaccepted(bundle.seals, sealing, inventory, file)
        reasons += _too_large(bundle, inventory, file)
        here = _again(plan, bundle, inventory, around.hostname, file)
        reasons += differences(plan, here, file)
    except CasError as error:
        reasons += refused(error)
    reasons += _unsound(held, bundle, verifier)
    if reasons:
        raise InvalidInput(dict.fromkeys(reasons))
    return Ready(
        plan=from_here(part, here),
        contents=loader.Contents(held=bundle.contents),
        root=Path(file).absolute(),
        policy=inventory.policy,
        warnings=tuple(warnings),
        stated=held.digest,
        sign=lambda _, signing: bundle.signatures[signing.identity],
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


def _unsound(held: PlanFile, bundle: Bundle, verifier: Verifier) -> Iterator[Diagnostic]:
    """What of the signatures and the seals is not good, or not by the key that is planned."""
    ids = {one.identity: one.id for one in held.plan.deliveries}
    text = bundles.seal_text(held.body)

    def looked_at(wanted: Signing) -> Verdict | CasError:
        sealed = not wanted.identity
        content = text if sealed else bundle.contents[wanted.digest]
        try:
            return verifier.verdict(content, bundle.seals[wanted.key] if sealed else bundle.signatures[wanted.identity])
        except CasError as error:
            return error

    wanted = [Signing(digest="", key=key, address="", identity="") for key in bundle.seals]
    wanted += [one for one in bundles.signed(held.plan) if one.digest in bundle.contents]
    wanted = [one for one in wanted if not one.identity or one.identity in bundle.signatures]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one, found in zip(wanted, pool.map(looked_at, wanted), strict=True):
            if isinstance(found, CasError) or not found.good or found.key != one.key:
                yield _told(ids.get(one.identity), one.key, found, held.file)
            elif one.identity and not found.is_for(one.identity):
                words = f"`{ids[one.identity]}`: the signature of its message was made for another delivery"
                yield refusal("plan-signature", words, held.file, ANEW)


def _told(id_: str | None, key: str, found: Verdict | CasError, file: str) -> Diagnostic:
    """`id_`: of the delivery whose message it is; None for a seal."""
    if isinstance(found, CasError):
        return refusal("plan-key", f"the signatures by {key} cannot be looked at: {found}", file, found.hint)
    if words := OF_THE_KEY.get(found.state):
        unknown = f"where it is: gpg --armor --export {key} >key.asc; and here: gpg --import key.asc"
        hint = unknown if found.state is State.UNKNOWN_KEY else "plan again with a key that is valid"
        return refusal("plan-key", f"the key {key}, which has signed, {words}", file, hint)
    wrong = (
        f"is by the key {found.key}" if found.good else OF_THE_SIGNATURE.get(found.state, "is none that gpg can read")
    )
    if id_ is None:
        return refusal(
            "plan-edited", f"the bundle was edited after the key {key} sealed it: the seal {wrong}", file, ANEW
        )
    return refusal("plan-signature", f"`{id_}`: the signature of its message {wrong}", file, ANEW)
