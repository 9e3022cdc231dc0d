"""Upkeep: what the ledger holds open, finishing it, and clearing what is old. The verbs status, retry and prune."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from cas import failed_sends, halt, intents, loader, merge, stopping
from cas.batch import World
from cas.diagnostics import Diagnostic, InvalidInput
from cas.engines import Asked, chosen
from cas.errors import CasError, ExitCode, UsageError, most_telling, reason
from cas.inventory import Inventory, resolve
from cas.ledger import FILE, Entry, Ledger
from cas.names import timestamp
from cas.output.console import Console, Form
from cas.output.diagnostics import from_error
from cas.output.result import as_json
from cas.output.status import entry_fields, entry_lines, grouped, missing_lines
from cas.plan import Delivery
from cas.run import MARKERS, Limits, carried_out, world
from cas.surroundings import Surroundings
from cas.transports.transport import Transport

SIGNALED = 128
STANDS = {
    stopping.State.DONE: "HALT is set",
    stopping.State.ALREADY: "HALT is not set",
    stopping.State.FAILED: "nobody knows whether HALT is set",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRequest:
    """What `cas status` was asked for. `by`: run, destination or conversation; `everywhere`: also the peers' HALT.

    `ledgers`: those to look at instead of this machine's; `plan`: to tell what of it none of them has delivered, with
    code 10 in the end where `detailed`.
    """

    by: str
    everywhere: bool = False
    ledgers: tuple[Path, ...] = ()
    plan: Path | None = None
    detailed: bool = False


def status(request: StatusRequest, around: Surroundings, console: Console) -> int:
    """What was delivered from here, or by those that share a plan; and what is open."""
    entries = merge.merged(request.ledgers) if request.ledgers else _entries(around)
    missing = list(merge.missing(merge.planned(request.plan), entries)) if request.plan else []
    standing = halt.standing(around.halts)
    peers = stopping.standing_there(around, console) if request.everywhere else []
    if console.form is not Form.TEXT:
        told = [{"name": one.name, "halt": one.state.value, "words": one.words} for one in peers]
        counts = Counter(entry.state for entry in entries)
        console.result(
            as_json(
                {
                    "format": "cas.status/1",
                    "halted": None if standing is None else standing.reason,
                    **({"peers": told} if request.everywhere else {}),
                    "counts": dict(counts),
                    "deliveries": [entry_fields(entry) for entry in entries],
                    **({"missing": [one.id for one in missing]} if request.plan else {}),
                }
            )
        )
    else:
        if standing:
            console.result(f"HALT is set: {standing.reason or 'no reason given'} ({standing.path})")
        for one in peers:
            console.result(f"{one.machine}: {STANDS[one.state]}{f': {one.words}' if one.words else ''} ({one.where})")
        for line in grouped(entries, request.by):
            console.result(line)
        _list(entries, console)
        if request.plan:
            for line in missing_lines(missing):
                console.result(line)
    return ExitCode.TO_SEND if request.detailed and missing else ExitCode.OK


def retry(
    markers: Sequence[Path],
    *,
    everything: bool,
    anew: bool,
    limits: Limits,
    engine: Asked,
    around: Surroundings,
    console: Console,
) -> int:
    """Finish what failed, was halted or cut off, under the name that it has; asked for nothing, list it.

    `anew`: give up the claims that stand, and deliver the same bytes under new identities. `engine`: who delivers.
    """
    from cas.executor import finish

    entries = [entry for entry in _entries(around) if entry.open]
    if not markers and not (everything and (entries or console.form is not Form.TEXT)):
        return _listed(entries, console)
    if error := around.stop():
        raise error
    wanted = _named(entries, markers, everything=everything)
    inventory, warnings = loader.load_inventory(around.config)
    with (
        chosen(engine, around, console.say) as by,
        world(inventory.policy, around.folder, limits, around, by) as given,
    ):
        found: list[Diagnostic] = []
        ready = [pair for entry in wanted if (pair := _ready(entry, inventory, given, around, found, anew=anew))]
        deliveries = [delivery for delivery, _ in ready]
        events = finish(deliveries, {entry.identity: entry for _, entry in ready}, given)
        code = carried_out("retry", events, deliveries, around.folder, around, console, [*warnings, *found])
        return most_telling([code, *(one.exit_code for one in found)]) if found and code < SIGNALED else code


def prune(age: timedelta, around: Surroundings, console: Console) -> int:
    """Clear rows, receipts and markers of what was delivered longer ago than `age`."""
    before = timestamp(around.now() - age)
    old = [entry for entry in _entries(around) if not entry.open and entry.updated < before]
    unfinished = {entry.identity for entry in _entries(around) if entry.open}
    inventory, _ = loader.load_inventory(around.config)
    code, cleared = ExitCode.OK, 0
    with world(inventory.policy, around.folder, Limits(), around) as given:
        for address in sorted({entry.destination for entry in old}):
            rows = [entry for entry in old if entry.destination == address]
            try:
                destination = resolve(inventory, address, hostname=around.hostname, place=None)
                with given.connect(destination, 30, len(rows), None) as transport:
                    gone = transport.run(
                        transport.forget(destination.inbox, entry.identity, entry.name) for entry in rows
                    )
                done = [row for row, result in zip(rows, gone, strict=True) if not isinstance(result, CasError)]
                given.ledger.forget(entry.identity for entry in done)
                cleared += len(done)
            except CasError as error:
                code = ExitCode.ERROR
                found = from_error(error)
                console.report([replace(found, message=f"{address}: {error}; its receipts and rows stay")])
    markers = _prune_markers(around.state / MARKERS, before, unfinished)
    words = f"cleared: {cleared} deliveries with their receipts, {markers} markers, from before {before}"
    fields = {"format": "cas.prune/1", "deliveries": cleared, "markers": markers, "before": before}
    console.result(words if console.form is Form.TEXT else as_json(fields))
    return code


def _named(entries: Sequence[Entry], markers: Sequence[Path], *, everything: bool) -> list[Entry]:
    wanted = {_identity(marker) for marker in markers}
    if unknown := wanted - {entry.identity for entry in entries}:
        raise CasError(
            f"{len(unknown)} of these markers stand for nothing that is open here",
            code="not-open",
            hint="see `cas status`; what never set out is delivered by sending or applying it again",
        )
    return [entry for entry in entries if everything or entry.identity in wanted]


def _ready(
    entry: Entry, inventory: Inventory, given: World, around: Surroundings, found: list[Diagnostic], *, anew: bool
) -> tuple[Delivery, Entry] | None:
    """An entry's delivery, to where its destination is now; None where that is not to be had, which goes to `found`."""
    try:
        entry = _anew(entry, inventory, given, around) if anew else entry
        destination = resolve(inventory, entry.destination, hostname=around.hostname, place=None)
        return intents.delivery(entry, destination), entry
    except InvalidInput as error:
        found += error.diagnostics
    except CasError as error:
        found.append(from_error(error))
    return None


def _anew(entry: Entry, inventory: Inventory, given: World, around: Surroundings) -> Entry:
    """The same bytes as another delivery, once the claim of this one is given up; itself, when it is there already."""
    destination = resolve(inventory, entry.destination, hostname=around.hostname, place=None)
    retry = intents.delivery(entry, destination).retry
    with given.hold([given.where(destination)]), given.connect(destination, retry.timeout, 1, None) as transport:
        (withdrawn,) = transport.run([_withdrawn(transport, destination.inbox, entry.identity)])
    if isinstance(withdrawn, CasError):
        raise withdrawn
    if not withdrawn:
        return entry
    new = intents.anew(entry, around.now(), given.run, secrets.token_hex(16))
    given.ledger.replace(entry.identity, new, timestamp(around.now()))
    with suppress(OSError):  # a marker that stays is no harm
        failed_sends.remove(around.state / MARKERS, entry.identity)
    return new


async def _withdrawn(transport: Transport, inbox: str, identity: str) -> bool:
    claim = await transport.look(inbox, identity)
    return claim is None or await transport.withdraw(claim)


def _entries(around: Surroundings) -> list[Entry]:
    if not (around.state / FILE).exists():  # looking leaves nothing behind
        return []
    with closing(Ledger(around.state)) as ledger:
        return ledger.entries()


def _listed(entries: Sequence[Entry], console: Console) -> int:
    if console.form is not Form.TEXT:
        fields = [entry_fields(entry) for entry in entries]
        console.result(as_json({"format": "cas.status/1", "deliveries": fields}))
    elif entries:
        _list(entries, console)
        console.say("finish them: cas retry --all, or cas retry MARKER…")
    else:
        console.result("nothing is open")
    return ExitCode.OK


def _list(entries: Sequence[Entry], console: Console) -> None:
    for entry in (entry for entry in entries if entry.open):
        for line in entry_lines(entry):
            console.result(line)


def _identity(marker: Path) -> str:
    try:
        identity = failed_sends.identity_of(marker)
    except OSError as error:
        raise UsageError(f"the marker `{marker}` cannot be read: {reason(error)}", code="no-marker") from error
    if identity is None:
        raise UsageError(
            f"`{marker}` is not a marker of cas",
            code="no-marker",
            hint="what another sender marked has to be sent again by itself",
        )
    return identity


def _prune_markers(folder: Path, before: str, unfinished: set[str]) -> int:
    moment = before.replace("-", "").replace(":", "")
    count = 0
    for marker in folder.glob("*.json"):
        if marker.name < moment and failed_sends.identity_of(marker) not in unfinished:
            marker.unlink(missing_ok=True)
            count += 1
    return count
