"""The selection: which of a plan's deliveries are wanted in this run, by tag, id and destination. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from cas.diagnostics import listed, suggestion
from cas.drafts import Draft
from cas.errors import UsageError
from cas.plan import SKIP, Delivery, Plan, Selected, loop_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the command line asks for; of each kind that is asked for, one has to fit.

    `only`: ids of sends, of their items, or of deliveries. `limit`: patterns of destinations, as a shell has them.
    """

    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()

    def left_out(self, draft: Draft) -> str | None:
        """The option that leaves a draft out, with its reason; None for one that is wanted."""
        tags = set(draft.send.tags)
        if self.tags and not tags & set(self.tags):
            return f"left out by --tags {','.join(self.tags)}"
        if tags & set(self.skip_tags):
            return f"left out by --skip-tags {','.join(self.skip_tags)}"
        if self.only and not _ids(draft) & set(self.only):
            return f"left out by --only {','.join(self.only)}"
        if self.limit and not any(_fits(draft, pattern) for pattern in self.limit):
            return f"left out by --limit {','.join(self.limit)}"
        return None

    @property
    def selected(self) -> Selected:
        """As a plan holds it."""
        return Selected(tags=self.tags, skip_tags=self.skip_tags, only=self.only, limit=self.limit)

    def check(self, drafts: Sequence[Draft]) -> None:
        """Raise UsageError for what fits nothing: a typo must not look like work that is done."""
        tags = {tag for draft in drafts for tag in draft.send.tags}
        for option, words in (("--tags", self.tags), ("--skip-tags", self.skip_tags)):
            for word in words:
                if word not in tags:
                    raise _unknown(option, word, "tags", tags)
        ids = {one for draft in drafts for one in _ids(draft)}
        for word in self.only:
            if word not in ids:
                raise _unknown("--only", word, "ids", ids)
        for pattern in self.limit:
            if not any(_fits(draft, pattern) for draft in drafts):
                raise _unknown("--limit", pattern, "destinations", {draft.target.text for draft in drafts})


def part_of(plan: Plan, only: Sequence[str]) -> Plan:
    """The plan with nothing to do but these sends, items or deliveries. Raises UsageError for what fits nothing."""
    there = {one for delivery in plan.deliveries for one in _names_of(delivery)}
    for word in only:
        if word not in there:
            raise _unknown("--only", word, "ids", there)
    reason = f"left out by --only {','.join(only)}"
    return replace(
        plan,
        deliveries=tuple(
            delivery
            if not only or delivery.action == SKIP or _names_of(delivery) & set(only)
            else replace(delivery, action=SKIP, reason=reason, sign=None)
            for delivery in plan.deliveries
        ),
    )


def _names_of(delivery: Delivery) -> set[str]:
    return {loop_of(delivery.send), delivery.send, delivery.id}


def _ids(draft: Draft) -> set[str]:
    return {draft.send.id, draft.id, f"{draft.id}@{draft.target.text}"}


def _fits(draft: Draft, pattern: str) -> bool:
    return fnmatchcase(draft.target.text, pattern) or fnmatchcase(draft.destination.address, pattern)


def _unknown(option: str, word: str, kind: str, known: Iterable[str]) -> UsageError:
    there = sorted(known)
    hint = suggestion(word, there) or f"the {kind} there are: {listed(there[:20])}{' …' if len(there) > 20 else ''}"
    return UsageError(f"`{option} {word}` fits nothing", code="unknown-selection", hint=hint)
