"""The order that `after` asks for: whether there is one that every lane can keep too. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from cas.diagnostics import Diagnostic, first, listed, suggestion
from cas.drafts import Draft
from cas.plan import loop_of


def against_order(sends: Iterable[str], drafts: Sequence[Draft], lanes: Sequence[Sequence[Draft]]) -> list[Diagnostic]:
    """What `after` names and is not there; else the circle that keeps these drafts from ever being delivered.

    `sends`: the ids of all sends, also of those that no draft is of.
    """
    if not any(draft.after for draft in drafts):
        return []
    known = {*sends, *(draft.id for draft in drafts)}
    if found := list(first(_unknown(drafts, known))):
        return found
    by_id = {draft.id: draft for draft in drafts}
    graph = _graph(by_id.values())
    if circle := _circle(graph):
        return [_in_circle(circle, by_id, "after-cycle", "these wait for each other", "take one `after` away")]
    for lane in lanes:
        for before, draft in pairwise(lane):
            graph[draft.id].add(before.id)
    if circle := _circle(graph):
        reason = "SEQUENCE puts these the other way round than `after`"
        return [
            _in_circle(circle, by_id, "after-against-sequence", reason, "take one `after` away, or change a SEQUENCE")
        ]
    return []


def _unknown(drafts: Sequence[Draft], known: set[str]) -> Iterator[Diagnostic]:
    told, made = set(), {draft.send.id for draft in drafts}
    for wanted in (one for draft in drafts for one in draft.after):
        loop = loop_of(wanted.value)
        # An item of a loop that could not be carried out: that has been told.
        failed = loop in known and loop not in made
        if wanted.value not in known and not failed and (wanted.value, wanted.place) not in told:
            told.add((wanted.value, wanted.place))
            yield Diagnostic(
                code="unknown-after",
                message=f"no send has the id `{wanted.value}`",
                place=wanted.place,
                hint=suggestion(wanted.value, known) or f"there are {listed(known)}",
            )


def _graph(drafts: Iterable[Draft]) -> dict[str, set[str]]:
    """What each draft waits for. A loop's id, which no draft has, stands for all of its items."""
    graph: dict[str, set[str]] = {}
    for draft in drafts:
        graph.setdefault(draft.id, set()).update(one.value for one in draft.after)
        if draft.id != draft.send.id:
            graph.setdefault(draft.send.id, set()).add(draft.id)
    return graph


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []


def _in_circle(circle: Sequence[str], by_id: Mapping[str, Draft], code: str, reason: str, hint: str) -> Diagnostic:
    drafts = [by_id[one] for one in circle if one in by_id]
    shown = " after ".join(f"`{draft.id}`" for draft in drafts)
    place = next((one.place for draft in drafts for one in draft.after), drafts[0].send.place)
    return Diagnostic(code=code, message=f"{reason}: {shown}", place=place, hint=hint)
