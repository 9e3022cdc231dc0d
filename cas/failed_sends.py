"""Markers: one JSON file for each failed delivery, in `failed-sends/`. Writes them as the events go by."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

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
    for event in events:
        if isinstance(event, DeliveryFinished) and event.outcome in (Outcome.FAILED, Outcome.UNKNOWN):
            try:
                yield dataclasses.replace(event, marker=str(_write(event, folder, root)))
            except OSError as error:
                yield Notice(
                    time=event.time,
                    id=event.id,
                    message=f"no marker could be written in `{folder}`: {(error.strerror or str(error)).lower()}",
                )
                yield event
        else:
            yield event


def _write(event: DeliveryFinished, folder: Path, root: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = json.dumps(_marker(event, root), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    hidden = folder / f".tmp.{os.getpid()}-{event.identity}"
    try:
        with open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return _named(hidden, folder, _stem(event))
    finally:
        hidden.unlink(missing_ok=True)


def _named(hidden: Path, folder: Path, stem: str) -> Path:
    """Link the finished file to the first name that is free: two failures in one second keep a marker each."""
    number = 1
    while True:
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        try:
            os.link(hidden, path)
        except FileExistsError:
            number += 1
            continue
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        return path


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
    }
