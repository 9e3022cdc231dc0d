"""Peers: who there is, and whether they can be reached. The verbs of `cas peers`, but for trust."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TypeVar

from cas import halt, loader
from cas.checks import Check, error, failed, ok, warning
from cas.diagnostics import listed, suggestion
from cas.errors import CasError, ExitCode, TransferError, UsageError
from cas.inventory import Destination, Inventory, at_peer, is_local, resolve
from cas.names import is_machine
from cas.output import checks as check_view
from cas.output.console import Console, Form
from cas.output.result import as_json
from cas.surroundings import Surroundings

AT_ONCE = 16
TIMEOUT = 10
"""Seconds that each wait for a peer is bounded by."""
BOUND = 60
"""Seconds after which a peer is given up, whatever it has answered by then."""
THIS = "this machine"
T = TypeVar("T")


def list_peers(around: Surroundings, console: Console) -> int:
    """All that peers.toml names, as it stands there."""
    inventory = inventory_of(around, console)
    found = [_fields(inventory, name) for name in sorted(inventory.peers)]
    if console.form is not Form.TEXT:
        console.result(as_json({"format": "cas.peers/1", "peers": found}))
        return ExitCode.OK
    for one in found:
        user, port = one["user"], one["port"]
        where = f"{f'{user}@' if user else ''}{one['host']}{f':{port}' if port else ''}"
        console.result(f"{one['name']}: {where}, {one['transport']}")
    if not found:
        console.say(f"`{inventory.file}` names no peers")
    return ExitCode.OK


def check(names: Sequence[str], around: Surroundings, console: Console, *, bound: float = BOUND) -> int:
    """For each peer how far the way to it leads, all of them side by side."""
    inventory = inventory_of(around, console)
    wanted = chosen(inventory, names)
    from cas.transports import peer  # before the threads: paramiko must not be loaded by two

    def one(name: str) -> list[Check]:
        inboxes = [
            resolve(inventory, address, hostname="", place=None).inbox for address in _addresses(inventory, name)
        ]
        return peer.examined(
            destination(inventory, name),
            list(dict.fromkeys(inboxes)),
            home=around.home,
            user=around.user,
            timeout=TIMEOUT,
            now=time.time(),
        )

    found = beside((name for name in wanted if not is_local(name, around.hostname)), one, bound=bound)
    asked = {name: [error("check", str(got))] if isinstance(got, CasError) else got for name, got in found.items()}
    checks = {name: asked[name] if name in asked else _here(around) for name in wanted}
    if console.form is Form.TEXT:
        for name, some in checks.items():
            console.result(f"{name} ({_where(destination(inventory, name)) if name in asked else THIS})")
            for line in check_view.lines(some):
                console.result(f"  {line}")
    else:
        told = [{"name": name, "checks": check_view.fields(some)} for name, some in checks.items()]
        console.result(as_json({"format": "cas.checks/1", "peers": told}))
    return ExitCode.DELIVERY if any(map(failed, checks.values())) else ExitCode.OK


def inventory_of(around: Surroundings, console: Console) -> Inventory:
    """What peers.toml says; warnings about it are told. Raises InvalidInput."""
    inventory, warnings = loader.load_inventory(around.config)
    console.report(warnings)
    return inventory


def chosen(inventory: Inventory, names: Sequence[str]) -> list[str]:
    """The peers that are meant, by default all. Raises UsageError for one that there is not."""
    for name in (name for name in names if name not in inventory.peers):
        hint = suggestion(name, inventory.peers) or f"the peers there are: {listed(inventory.peers)}"
        raise UsageError(f"no peer `{name}` in `{inventory.file}`", code="no-such-peer", hint=hint)
    return list(dict.fromkeys(names)) or sorted(inventory.peers)


def destination(inventory: Inventory, name: str) -> Destination:
    """The way to a peer, of no project in particular; also to one that no destination could name."""
    return at_peer(inventory.peers[name], address=name, inbox="~")


def beside(names: Iterable[str], work: Callable[[str], T], *, bound: float) -> Mapping[str, T | CasError]:
    """What the work gives for each, or the error that it raises, or that it took too long; several at a time."""

    def one(name: str) -> T | CasError:
        try:
            return _in_time(partial(work, name), bound)
        except CasError as problem:
            return problem

    wanted = list(names)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def agreed(question: str, around: Surroundings, console: Console) -> bool | None:
    """Whether somebody at the terminal says yes; None where nobody is there, or would see the question."""
    if not (around.interactive and console.asks(f"{question} [y/N] ")):
        return None
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _here(around: Surroundings) -> list[Check]:
    """Of a peer that is this machine: nothing for it goes over SSH."""
    stands = halt.standing(around.halts)
    return [
        ok("way", "its own file system, without SSH"),
        warning("HALT", f"set here: {stands.reason}") if stands else ok("HALT", "not set here"),
    ]


def _in_time(work: Callable[[], T], bound: float) -> T:
    """What the work gives. Where it takes too long it is left behind: not every wait in it can be cut short."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as problem:  # raised where the result is asked for
            future.set_exception(problem)

    threading.Thread(target=run, daemon=True).start()
    if not wait([future], bound).done:
        message = f"it did not come to an end within {bound} seconds"
        raise TransferError(message, code="connection-lost", permanent=False)
    return future.result()


def _addresses(inventory: Inventory, name: str) -> list[str]:
    """The inboxes of a peer that peers.toml speaks of: in groups, and of projects that have a path of their own."""
    if not is_machine(name):
        return []
    grouped = {one for members in inventory.groups.values() for one in members if one.startswith(f"{name}.")}
    return sorted(grouped | {f"{name}.{project}" for project in inventory.inboxes})


def _fields(inventory: Inventory, name: str) -> dict[str, object]:
    peer = inventory.peers[name]
    return {
        "name": name,
        "host": peer.host,
        "user": peer.user,
        "port": peer.port,
        "transport": peer.transport,
        "host_key": peer.host_key,
        "projects": [one.partition(".")[2] for one in _addresses(inventory, name)],
    }


def _where(to: Destination) -> str:
    return f"{f'{to.user}@' if to.user else ''}{to.host}{f':{to.port}' if to.port else ''}"
