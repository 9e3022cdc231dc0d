"""Redrafts: the deliveries of a bundle back into the drafts that they were planned from, by their messages. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.drafts import Draft
from cas.inventory import Destination
from cas.manifest import FileMessage, Send, Sign, Target, Value
from cas.message import Message, addressed
from cas.message import parse as parse_message
from cas.names import digest, identity, timestamp
from cas.plan import DELIVER, NO_MESSAGE, Delivery, Plan, PlannedMessage, loop_of

Resolve = Callable[[str], Destination]
"""Where a destination is, by its text; raises InvalidInput."""


def redrafted(
    plan: Plan, contents: Mapping[str, bytes], resolve: Resolve, file: str
) -> tuple[tuple[Draft, ...], tuple[Diagnostic, ...]]:
    """The drafts, each from what its message says and where its destination is here; and what is wrong with the rest.

    `contents`: the messages by digest. Of what is not delivered there is none, and what the plan says of it stands.
    """
    found: list[Diagnostic] = []
    drafts = []
    for one in plan.deliveries:
        try:
            drafts.append(_draft(one, plan, contents.get(one.message.digest), resolve, file))
        except InvalidInput as error:
            found += error.diagnostics
    return tuple(drafts), tuple(found)


def sends(plan: Plan) -> tuple[str, ...]:
    """The ids of all sends that a plan tells of."""
    return tuple(dict.fromkeys(name for one in plan.deliveries for name in (loop_of(one.send), *one.after)))


def _draft(one: Delivery, plan: Plan, content: bytes | None, resolve: Resolve, file: str) -> Draft:
    target = Target(text=one.id.removeprefix(f"{one.send}@"), place=None)
    destination = resolve(target.text) if one.action == DELIVER else one.destination
    message = _message(one.message)
    if one.action == DELIVER and content is not None:
        message = parse_message(content, place=Place(file=f"{file} ({one.id})"))
    return Draft(
        id=one.send,
        sender=one.sender,
        send=Send(
            id=loop_of(one.send),
            destinations=(target,),
            message=FileMessage(path=one.message.source, place=None),
            sign=one.sign,
            retry=one.retry,
            place=None,
            tags=one.tags,
        ),
        target=target,
        destination=destination,
        sign=one.sign or (Sign() if len(one.files) > 1 else None),
        after=tuple(Value(value=name, place=None) for name in one.after),
        message=message,
        identifying=_identifying(one, plan, destination, message, content),
        origin=one.message.source,
        reason=None if one.action == DELIVER else one.reason,
    )


def _message(planned: PlannedMessage) -> Message | None:
    """As the plan tells of it."""
    if planned == NO_MESSAGE:
        return None
    return Message(
        digest=planned.digest,
        size=planned.bytes,
        conversation=planned.conversation,
        type=planned.type,
        sequence=planned.sequence,
        timestamp="",
        protocol_version="",
    )


def _identifying(
    one: Delivery, plan: Plan, destination: Destination, message: Message | None, content: bytes | None
) -> str:
    """Which digest the identity was made from: that of a message which cas made, without the lines that cas added."""
    if message is None or content is None:
        return one.message.digest
    added = "".join(f"#+{key}: {value}\n" for key, value in addressed(destination.address, one.identity).items())
    bare = content.replace(added.encode(), b"", 1)
    undated = bare.replace(f"#+TIMESTAMP: {timestamp(plan.clock)}\n".encode(), b"", 1)
    for lasting in map(digest, (undated, bare)):
        if identity(one.sender, destination.address, message.conversation, message.sequence, lasting) == one.identity:
            return lasting
    return message.digest
