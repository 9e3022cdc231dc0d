"""Preloaded into Dask workers (`--preload`): at one call of one step it does what a file says, once for all workers.

The folder is in the environment. `fault` holds, as JSON, `step`, `moment` (before or after it), `number` (which of the
calls in one process), and what to do then: `touch` (a file to make), `remove` (a file to take away), `signal` (its
number) to `victim` (a process id, or a file that holds one; this process by default). Who does it renames `fault` to
`struck`, which holds its process id then. The time of each publication is noted in `published`, that of each work's end
in `performed`; `slow` holds the seconds that a publication takes.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin

from cas import worker as workers
from cas.transports.remote import Connection
from cas.transports.transport import Transport

FOLDER = "CAS_TESTS_FAULT"
VERBS = ("prepare", "look", "reserve", "stage", "claim", "sync", "publish_signature", "publish_message", "close")
LINES = ("send", "receive")

_calls: Counter[str] = Counter()


async def dask_setup(worker: Worker) -> None:
    for verb in VERBS:
        _watch(Transport, verb)
    for line in LINES:
        _watch(Connection, line)
    _watch(workers, "perform")
    worker.handlers["get_data"] = _watched("get_data", worker.handlers["get_data"])
    await worker.plugin_add(Tasks(), name="cas-tests")


class Tasks(WorkerPlugin):
    """Sees how the worker's tasks go on."""

    def transition(self, key: object, start: str, finish: str, **_: object) -> None:
        if str(key).startswith("perform"):
            _meet(finish, "after")


def _watch(owner: Any, name: str) -> None:
    setattr(owner, name, _watched(name, getattr(owner, name)))


def _watched(name: str, step: Any) -> Any:
    if inspect.iscoroutinefunction(step):

        @functools.wraps(step)
        async def over(*arguments: Any, **options: Any) -> Any:
            _before(name)
            result = await step(*arguments, **options)
            _after(name)
            return result

    else:

        @functools.wraps(step)
        def over(*arguments: Any, **options: Any) -> Any:
            _before(name)
            result = step(*arguments, **options)
            _after(name)
            return result

    return over


def _before(name: str) -> None:
    if name == "publish_message" and (slow := _text("slow")):
        time.sleep(float(slow))
    _meet(name, "before")


def _after(name: str) -> None:
    if name == "publish_message":
        _note("published")
    if name == "perform":
        _note("performed")
    _meet(name, "after")


def _meet(step: str, moment: str) -> None:
    if not (text := _text("fault")):
        return
    fault = json.loads(text)
    if (fault["step"], fault["moment"]) != (step, moment):
        return
    _calls[fault["name"]] += 1
    if _calls[fault["name"]] != fault["number"]:
        return
    try:
        (_folder() / "fault").rename(_folder() / "struck")
    except FileNotFoundError:  # another worker was first
        return
    (_folder() / "struck").write_text(str(os.getpid()), encoding="ascii")
    _strike(fault)


def _strike(fault: dict[str, Any]) -> None:
    if fault.get("touch"):
        Path(fault["touch"]).parent.mkdir(parents=True, exist_ok=True)
        Path(fault["touch"]).write_text("enough", encoding="ascii")
    if fault.get("remove"):
        Path(fault["remove"]).unlink()
    if number := fault.get("signal"):
        victim = fault.get("victim") or os.getpid()
        os.kill(victim if isinstance(victim, int) else int(Path(victim).read_text(encoding="ascii")), number)


def _folder() -> Path:
    return Path(os.environ[FOLDER])


def _note(name: str) -> None:
    with (_folder() / name).open("a", encoding="ascii") as notes:
        notes.write(f"{time.time()}\n")


def _text(name: str) -> str | None:
    try:
        return (_folder() / name).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
