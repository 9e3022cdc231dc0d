"""Plan files: bytes into the plan that they hold, or into all that is wrong with them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from cas.diagnostics import Diagnostic, InvalidInput, Place, Severity
from cas.errors import ExitCode
from cas.inventory import Destination
from cas.manifest import Retry, Sign
from cas.names import NAME_RULE, is_name, timestamp
from cas.plan import (
    FORMAT,
    NO_MESSAGE,
    Delivery,
    Input,
    Plan,
    PlannedManifest,
    PlannedMessage,
    Selected,
    digest_of,
)

FAMILY = FORMAT.partition("/")[0] + "/"
BEGINNING = b'{"clock":'
"""Of the canonical form: what was cut off is known by it."""
AHEAD = timedelta(minutes=5)
"""How far clocks of two machines may differ."""
MOST_TOLD = 10
YEARS = range(1970, 3000)
ANEW = "make it anew with cas plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """What a file holds: the plan, and the JSON that says it, with keys that this cas may not know."""

    file: str
    plan: Plan
    body: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """As the file states it."""
        stated: str = self.body["digest"]
        return stated

    @property
    def is_bundle(self) -> bool:
        """Whether its messages and their signatures are in it."""
        return "seals" in self.body


def is_plan(content: bytes) -> bool:
    """Whether this is a plan, of whatever version, also one that was cut off; told by what stands in it."""
    if content.startswith(BEGINNING):
        return True
    if not content.lstrip().startswith(b"{"):
        return False
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and str(body.get("format", "")).startswith(FAMILY)


def parse(content: bytes, schema: Mapping[str, Any], *, file: str) -> tuple[PlanFile, tuple[Diagnostic, ...]]:
    """The plan in a file, and what is wrong with its digest. Raises InvalidInput for what is no plan."""
    body = _body(content, file)
    _check_format(body, file)
    if found := tuple(_differences(body, schema, file)):
        raise InvalidInput(found)
    try:
        plan = _plan(body)
    except (ValueError, OverflowError) as error:  # a day that there is not, a name that none may be
        raise InvalidInput([malformed(str(error), file)]) from error
    stated, right = body["digest"], digest_of(body)
    edited = () if stated == right else (_edited(stated, right, file),)
    return PlanFile(file=file, plan=plan, body=body), edited


def leniently(content: bytes, schema: Mapping[str, Any], *, file: str) -> tuple[Mapping[str, Any], Plan | None]:
    """What a file holds, for looking at it; also of a later format, where the plan is None if it cannot be told.

    Raises InvalidInput for what is no plan at all.
    """
    body = _body(content, file)
    found = tuple(_differences({**body, "format": FORMAT}, schema, file))
    if found and body["format"] == FORMAT:
        raise InvalidInput(found)
    try:
        return body, None if found else _plan(body)
    except (ValueError, OverflowError):  # a day that there is not
        return body, None


def untimely(plan: Plan, now: datetime, file: str) -> Iterator[Diagnostic]:
    """What forbids to carry a plan out at this time."""
    if plan.expires is not None and now >= plan.expires:
        yield refusal(
            "plan-expired",
            f"the plan expired at {timestamp(plan.expires)}; it is {timestamp(now)}",
            file,
            "make it anew with cas plan; --ttl says how long it holds",
        )
    if plan.clock > now + AHEAD:
        yield refusal(
            "plan-from-future",
            f"the plan's clock is {timestamp(plan.clock)}, and here it is {timestamp(now)}",
            file,
            "set the clock that is wrong; a plan may be at most 5 minutes ahead",
        )


def warnings(body: Mapping[str, Any], plan: Plan | None, now: datetime, file: str) -> Iterator[Diagnostic]:
    """Why a plan that is shown could not be carried out."""
    found = []
    if body.get("format") != FORMAT:
        found.append(_other_format(body, file))
    elif body["digest"] != (right := digest_of(body)):
        found.append(_edited(body["digest"], right, file))
    found += untimely(plan, now, file) if plan else ()
    yield from (replace(one, severity=Severity.WARNING) for one in found)


def refusal(code: str, message: str, file: str, hint: str | None = None) -> Diagnostic:
    """A reason for which a plan is not carried out."""
    return Diagnostic(code=code, message=message, place=Place(file=file), hint=hint, exit_code=ExitCode.REFUSED)


def _body(content: bytes, file: str) -> Mapping[str, Any]:
    try:
        body = json.loads(content, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        words = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise InvalidInput([malformed(f"it is no whole JSON: {words}", file)]) from error
    if not isinstance(body, dict) or not str(body.get("format", "")).startswith(FAMILY):
        raise InvalidInput([malformed(f"it has no `format` that begins with `{FAMILY}`", file)])
    return body


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key given twice readers take different values: then nobody knows what was read."""
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key is given twice")
    return body


def _check_format(body: Mapping[str, Any], file: str) -> None:
    if body["format"] != FORMAT:
        raise InvalidInput([_other_format(body, file)])


def _other_format(body: Mapping[str, Any], file: str) -> Diagnostic:
    message = f"the plan is of the format `{body['format']}`, and this cas knows `{FORMAT}`"
    return refusal("plan-format", message, file, "use the cas that it was made with, or make it anew")


def _differences(body: Mapping[str, Any], schema: Mapping[str, Any], file: str) -> Iterator[Diagnostic]:
    from jsonschema import Draft7Validator

    for whole in islice(Draft7Validator(schema).iter_errors(body), MOST_TOLD):
        # Of a choice the branch that came furthest says why, and without all that stands around it.
        error = max(whole.context or [whole], key=lambda one: len(one.absolute_path))
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        yield malformed(f"`{where.removeprefix('.') or 'the whole'}`: {error.message[:200]}", file)


def malformed(words: str, file: str) -> Diagnostic:
    """A reason for which nobody can carry this out, whatever it was made from."""
    return refusal("plan-malformed", f"this is no plan that can be carried out: {words}", file, ANEW)


def _edited(stated: str, right: str, file: str) -> Diagnostic:
    message = f"the plan was edited: it states the digest {stated}, and its content has {right}"
    return refusal("plan-edited", message, file, ANEW)


def _plan(body: Mapping[str, Any]) -> Plan:
    expires = body["expires"]
    selected = body["selection"]
    return Plan(
        clock=_time(body["clock"]),
        expires=_time(expires) if expires else None,
        name=body["name"],
        sender=body["sender"],
        tool_version=body["tool"]["version"],
        variables=body["variables"],
        selected=Selected(
            tags=tuple(selected["tags"]),
            skip_tags=tuple(selected["skip_tags"]),
            only=tuple(selected["only"]),
            limit=tuple(selected["limit"]),
        ),
        manifests=tuple(PlannedManifest(path=one["path"], sender=_name(one["sender"])) for one in body["manifests"]),
        inputs=tuple(Input(path=one["path"], digest=one["digest"], bytes=one["bytes"]) for one in body["inputs"]),
        deliveries=tuple(map(_delivery, body["deliveries"])),
    )


def _time(text: str) -> datetime:
    """Raises ValueError."""
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if moment.year not in YEARS:
        raise ValueError(f"`{text}` is no time from 1970 to 2999")
    return moment


def _name(text: str) -> str:
    """Raises ValueError."""
    if not is_name(text):
        raise ValueError(f"`{text}` cannot name a sender or a conversation: {NAME_RULE}")
    return text


def _delivery(body: Mapping[str, Any]) -> Delivery:
    message, to, retry = body["message"], body["destination"], body["retry"]
    return Delivery(
        id=body["id"],
        identity=body["identity"],
        sender=_name(body["sender"]),
        lane=body["lane"],
        message=_message(message) if message else NO_MESSAGE,
        destination=Destination(
            address=to["address"],
            host=to["host"],
            port=to["port"],
            user=to["user"],
            inbox=to["inbox"],
            transport=to["transport"],
            identity_file=None,
            host_key=to["host_key"],
        ),
        files=tuple(body["files"]),
        sign=Sign(key=body["sign"]["key"]) if body["sign"] else None,
        retry=Retry(retries=retry["retries"], backoff=tuple(retry["backoff"]), timeout=retry["timeout"]),
        tags=tuple(body["tags"]),
        after=tuple(body["after"]),
        send=body["send"],
        action=body["action"],
        reason=body["reason"],
    )


def _message(body: Mapping[str, Any]) -> PlannedMessage:
    return PlannedMessage(
        source=body["source"],
        digest=body["digest"],
        bytes=body["bytes"],
        conversation=_name(body["conversation"]),
        type=body["type"],
        sequence=body["sequence"],
    )
