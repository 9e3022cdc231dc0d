"""Seals: whose seal lets a bundle be applied here. Pure.

A bundle can name any key and leave any seal out, so nothing in it says which seal counts. The command line and
`seals` of [policy] do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cas.diagnostics import Diagnostic
from cas.errors import UsageError
from cas.inventory import Inventory
from cas.names import full_fingerprint
from cas.plan_file import refusal

ASK = "ask whose bundle this is; then name that key: --sealed-by FINGERPRINT, or `seals` of [policy]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """What the command line says of seals. `by`: the keys one of which has to have sealed, as they were typed.

    `unsealed`: a bundle without a seal that counts is applied, too.
    """

    by: tuple[str, ...] = ()
    unsealed: bool = False

    def check(self) -> None:
        """Raise UsageError for what is no whole fingerprint."""
        if short := next((key for key in self.by if full_fingerprint(key) is None), None):
            hint = f"gpg --fingerprint -- '{short}'"
            raise UsageError(f"`--sealed-by {short}` is no whole fingerprint", code="short-key", hint=hint)


def without_seal(sealing: Sealing, file: str) -> Iterator[Diagnostic]:
    """Why a plan file that is no bundle is refused where a seal was asked for."""
    if sealing.by:
        words = "this is a plan, not a bundle: it has no seal; nothing was sent"
        yield refusal("plan-seal", words, file, "leave `--sealed-by` out, or apply the bundle")


def unaccepted(seals: Iterable[str], sealing: Sealing, inventory: Inventory, file: str) -> Iterator[Diagnostic]:
    """Why none of a bundle's seals counts here. Whether each is good is not looked at here."""
    listed = inventory.policy.seals
    typed = frozenset(key for key in map(full_fingerprint, sealing.by) if key)
    if listed is not None and sealing.unsealed:
        words = f"`--unsealed` is not allowed: [policy] of `{inventory.file}` has `seals`"
        yield refusal("plan-seal", words, file, "leave `--unsealed` out")
        return
    if listed is not None and (others := sorted(typed - listed)):
        words = f"`--sealed-by {others[0]}` is not one of the `seals` in [policy] of `{inventory.file}`"
        yield refusal("plan-seal", words, file, f"name one of them, or add it to `{inventory.file}`")
        return
    if sealing.unsealed:
        return
    accepted = typed or listed or frozenset()
    if accepted.isdisjoint(seals):
        sealed = ", ".join(sorted(seals))
        words = f"the bundle is sealed by {sealed}" if sealed else "the bundle has no seal"
        whose = f"; a seal by {' or '.join(sorted(accepted))} is required" if accepted else ", and no key is named"
        yield refusal("plan-seal", f"{words}{whose}; nothing was sent", file, ASK)
