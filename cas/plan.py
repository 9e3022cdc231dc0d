"""Plans: what will be sent, where, under which names and in which order. Pure data, and its canonical form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from cas.inventory import Destination
from cas.manifest import Retry, Sign
from cas.names import digest, timestamp

FORMAT = "cas.plan/1"
DELIVER, SKIP = "deliver", "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that the plan was made from; `path` is relative to the manifests' folder, `bytes` its size."""

    path: str
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMessage:
    """Which message goes, by its digest; never its text."""

    source: str
    digest: str
    bytes: int
    conversation: str
    type: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedManifest:
    """A manifest, relative to the manifests' folder, and who sends what it declares."""

    path: str
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What was asked for of the deliveries when planning, as the options of these names."""

    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()


NO_MESSAGE = PlannedMessage(source="", digest="", bytes=0, conversation="", type="", sequence=0)
"""Of what `when` leaves out: nobody made one."""


class Signing(NamedTuple):
    """A signature that a delivery needs: of its message, by a key, and saying for which inbox and delivery it is."""

    digest: str
    key: str
    address: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one inbox. `sign.key` is a full fingerprint; None for an unsigned send, and one that is skipped.

    `send`: the id of its send, with its item's key. `after`: the ids of the sends, or of their items, that come before.
    `action` is `skip` for what `when` left out, which has no message, or what was not selected; `reason` says which.

    `lane`: deliveries of one lane go one after the other, in the order of the plan. `files`: in the order in which they
    become visible, the message last. `repeatable`: to plan it again gives the same identity.
    """

    id: str
    identity: str
    sender: str
    lane: str
    message: PlannedMessage
    destination: Destination
    files: tuple[str, ...]
    sign: Sign | None
    retry: Retry
    tags: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    repeatable: bool = True
    send: str = ""
    action: str = DELIVER
    reason: str | None = None

    @property
    def name(self) -> str:
        """The canonical name of the message."""
        return self.files[-1]

    @property
    def signing(self) -> Signing | None:
        """The signature that it needs; None for an unsigned send, and one whose key is not known."""
        if self.sign is None or not self.sign.key:
            return None
        return Signing(
            digest=self.message.digest, key=self.sign.key, address=self.destination.address, identity=self.identity
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A complete, static plan. `sender` is None where its manifests have several; `expires` None for never.

    `manifests` are in the order in which they were given; with `variables` and `selected` the plan can be made again.
    """

    clock: datetime
    expires: datetime | None
    name: str
    sender: str | None
    tool_version: str
    variables: Mapping[str, object] = field(default_factory=dict)
    selected: Selected = Selected()
    manifests: tuple[PlannedManifest, ...] = ()
    inputs: tuple[Input, ...]
    deliveries: tuple[Delivery, ...]


def loop_of(send: str) -> str:
    """The id of the send that an item's id, such as `stage[build]`, belongs to; any other is its own."""
    return send.partition("[")[0]


def fields(plan: Plan) -> dict[str, object]:
    """The plan as JSON holds it, with its digest."""
    body: dict[str, object] = {
        "clock": timestamp(plan.clock),
        "expires": timestamp(plan.expires) if plan.expires else None,
        "format": FORMAT,
        "tool": {"name": "cas", "version": plan.tool_version},
        "name": plan.name,
        "sender": plan.sender,
        "variables": dict(plan.variables),
        "selection": {name: list(getattr(plan.selected, name)) for name in ("tags", "skip_tags", "only", "limit")},
        "manifests": [{"path": one.path, "sender": one.sender} for one in plan.manifests],
        "inputs": [{"path": item.path, "digest": item.digest, "bytes": item.bytes} for item in plan.inputs],
        "deliveries": [delivery_fields(delivery) for delivery in plan.deliveries],
    }
    return {**body, "digest": digest_of(body)}


def digest_of(body: Mapping[str, object]) -> str:
    """The digest of a plan that has this in it, beside the digest itself."""
    return digest(compact({key: value for key, value in body.items() if key != "digest"}))


def canonical(plan: Plan) -> bytes:
    """The one form that a plan has: sorted keys, no white space, UTF-8, a final newline."""
    return compact(fields(plan)) + b"\n"


def compact(body: object) -> bytes:
    """JSON in the canonical form, without the final newline."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # A path that is no UTF-8 holds surrogates; JSON has the escape that takes their place.
    return text.encode("utf-8", "backslashreplace")


def delivery_fields(delivery: Delivery) -> dict[str, object]:
    """A delivery as a plan holds it."""
    message, destination, retry = delivery.message, delivery.destination, delivery.retry
    return {
        "id": delivery.id,
        "identity": delivery.identity,
        "sender": delivery.sender,
        "send": delivery.send,
        "action": delivery.action,
        "reason": delivery.reason,
        "lane": delivery.lane,
        "after": list(delivery.after),
        "tags": list(delivery.tags),
        "message": None if message == NO_MESSAGE else _message_fields(message),
        "destination": {  # no identity file: it is the applying user's own, and may lie in a home
            "address": destination.address,
            "host": destination.host,
            "port": destination.port,
            "user": destination.user,
            "inbox": destination.inbox,
            "transport": destination.transport,
            "host_key": destination.host_key,
        },
        "files": list(delivery.files),
        "sign": {"key": delivery.sign.key} if delivery.sign else None,
        "retry": {"retries": retry.retries, "backoff": list(retry.backoff), "timeout": retry.timeout},
    }


def _message_fields(message: PlannedMessage) -> dict[str, object]:
    return {
        "source": message.source,
        "digest": message.digest,
        "bytes": message.bytes,
        "conversation": message.conversation,
        "type": message.type,
        "sequence": message.sequence,
    }
