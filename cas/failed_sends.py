"""Markers: one JSON file for each failed delivery, in `failed-sends/`. Writes them as the events go by."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from cas.creation import make_private, place
from cas.errors import reason
from cas.events import DeliveryFinished, Event, Notice, Outcome, attempt_fields
from cas.names import timestamp

FORMAT = "cas.marker/1"
STDIN = "-"
LONGEST_MESSAGE_NAME = 100
UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def marked(events: Iterator[Event], folder: Path, root: Path) -> Iterator[Event]:
    """The same events; a delivery that failed gets its marker first. A marker that cannot be written is said, no more.

    `root` is what the paths of messages are relative to.
    """
    known = _known(folder)
    for event in events:
        try:
            yield _with_marker(event, folder, root, known)
        except OSError as error:
            message = f"the markers in `{folder}` cannot be written: {reason(error)}"
            yield Notice(time=event.time, id=getattr(event, "id", ""), message=message)
            yield event


def identity_of(marker: Path) -> str | None:
    """The delivery that a marker stands for; None for one that was not written by cas. Raises OSError."""
    try:
        fields = json.loads(marker.read_bytes())
    except ValueError:
        return None
    identity = fields.get("identity") if isinstance(fields, dict) else None
    return identity if isinstance(identity, str) else None


def remove(folder: Path, identity: str) -> None:
    """Take the markers of a delivery away. Raises OSError."""
    for marker in _known(folder).get(identity, []):
        marker.unlink(missing_ok=True)


def _with_marker(event: Event, folder: Path, root: Path, known: dict[str, list[Path]]) -> Event:
    """A delivery that failed gets a marker, one that got there loses those that it had."""
    if not isinstance(event, DeliveryFinished):
        return event
    before = known.pop(event.identity, [])
    if event.outcome in (Outcome.FAILED, Outcome.UNKNOWN):
        event = dataclasses.replace(event, marker=str(_write(event, folder, root)))
    elif event.outcome not in (Outcome.DELIVERED, Outcome.UNCHANGED):
        return event
    for marker in before:
        marker.unlink(missing_ok=True)
    return event


def _known(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for marker in folder.glob("*.json"):
        try:
            identity = identity_of(marker)
        except OSError:  # it has just gone, or is not ours to read
            continue
        if identity:
            found.setdefault(identity, []).append(marker)
    return found


def _write(event: DeliveryFinished, folder: Path, root: Path) -> Path:
    make_private(folder)
    text = json.dumps(_marker(event, root), indent=2, sort_keys=True, ensure_ascii=False)
    # A path that is no UTF-8 holds surrogates; JSON has the escape that takes their place.
    content = text.encode("utf-8", "backslashreplace") + b"\n"
    stem = _stem(event)
    # Two failures in one second keep a marker each.
    names = (f"{stem}.json" if number == 1 else f"{stem}-{number}.json" for number in count(1))
    return place(folder, names, content, mode=0o600)


def _stem(event: DeliveryFinished) -> str:
    """`<YYYYMMDDTHHMMSSZ>-<destination, dots as dashes>-<message file name, unsafe characters as _>`."""
    moment = event.time.strftime("%Y%m%dT%H%M%SZ")
    message = UNSAFE.sub("_", Path(event.source).name)[:LONGEST_MESSAGE_NAME]
    return f"{moment}-{event.destination.replace('.', '-')}-{message}"


def _marker(event: DeliveryFinished, root: Path) -> dict[str, object]:
    return {
        "timestamp": timestamp(event.time),
        "destination": event.destination,
        "message_path": event.source if event.source == STDIN else str(root / event.source),
        "error": event.reason,
        "retry_log": [attempt_fields(attempt) for attempt in event.attempts],
        "id": event.id,
        "identity": event.identity,
        "format": FORMAT,
        **({"traceback": event.traceback} if event.traceback else {}),
    }
