"""Stopping: HALT set and lifted, here and at the peers. The verbs halt and resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from cas import halt as halts
from cas import peers
from cas.diagnostics import InvalidInput
from cas.errors import CasError, ExitCode, UsageError, most_telling
from cas.inventory import Inventory, is_local
from cas.names import LEDGER, timestamp
from cas.output.console import Console, Form
from cas.output.result import as_json
from cas.surroundings import Surroundings

if TYPE_CHECKING:
    from cas.transports.sftp import SftpFiles

HERE = "here"


class State(Enum):
    """How it is with one machine's HALT: as was wanted, or set; so before, or not set; nobody knows."""

    DONE = "set"
    ALREADY = "as-before"
    FAILED = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`words`: what stands or stood in HALT; or why nobody knows. `fault`: what is wrong with it all the same."""

    state: State
    words: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Found):
    """How it is with the HALT of the machine of this name. `local`: it is this machine, however it is called."""

    name: str
    where: str
    local: bool = False

    @property
    def machine(self) -> str:
        """Which one, as people are told it."""
        return f"{self.name} ({peers.THIS})" if self.local and self.name != HERE else self.name


SET = {
    State.DONE: "HALT is set",
    State.ALREADY: "HALT was set already",
    State.FAILED: "HALT was NOT set",
}
LIFTED = {
    State.DONE: "HALT is lifted",
    State.ALREADY: "HALT was not set",
    State.FAILED: "HALT was NOT lifted",
}


def halt(
    words: str | None,
    *,
    everywhere: bool,
    yes: bool,
    around: Surroundings,
    console: Console,
    bound: float = peers.BOUND,
) -> int:
    """Set HALT here, and on every peer if it is to be everywhere. What stands is left as it is.

    `bound`: the seconds after which a peer is given up.
    """
    said = halts.text(words, f"{around.user}@{around.hostname}", timestamp(around.now()))
    try:
        inventory = _agreed("Set HALT here and on", everywhere=everywhere, yes=yes, around=around, console=console)
    except InvalidInput:  # who the peers are, nobody can read; here it can be set, and is wanted
        if yes and halts.place(around.config, said).new:
            console.problem(f"HALT is set here, in {around.config}, and nowhere else")
        raise
    try:
        results = [_set_here(said, around)]
    except CasError as problem:
        if inventory is None:
            raise
        where = str(around.config / halts.NAME)
        results = [Result(name=HERE, where=where, local=True, state=State.FAILED, words=str(problem))]
    if inventory:
        from cas.transports import peer

        def one(files: SftpFiles) -> Found:
            placed = peer.set_halt(files, said)
            state = State.DONE if placed.new else State.ALREADY
            return Found(state=state, words=peer.halted(files) or "", fault=placed.fault)

        results += _also_here(inventory, results[0], around) + _asked(inventory, one, around, bound)
    return _told("halt", results, SET, console)


def resume(*, everywhere: bool, yes: bool, around: Surroundings, console: Console, bound: float = peers.BOUND) -> int:
    """Lift HALT here, and on every peer if it is to be everywhere; say what stood there, and what is left to finish."""
    inventory = _agreed("Lift HALT here and on", everywhere=everywhere, yes=yes, around=around, console=console)
    results = []
    own = [folder for folder in around.halts if folder != halts.MACHINE]
    while standing := halts.standing(own):
        halts.lift(standing)
        where = str(standing.path)
        results.append(Result(name=HERE, where=where, local=True, state=State.DONE, words=standing.reason))
    if standing := halts.standing([halts.MACHINE]):
        where, words = str(standing.path), f"it is the whole machine's, and root lifts it: rm {standing.path}"
        results.append(Result(name=HERE, where=where, local=True, state=State.FAILED, words=words))
    results = results or [Result(name=HERE, where=str(around.config), local=True, state=State.ALREADY)]
    if inventory:
        from cas.transports import peer

        def one(files: SftpFiles) -> Found:
            stood = peer.halted(files)
            if stood is None:
                return Found(state=State.ALREADY)
            peer.lift_halt(files)
            return Found(state=State.DONE, words=stood)

        results += _also_here(inventory, results[0], around) + _asked(inventory, one, around, bound)
    code = _told("resume", results, LIFTED, console)
    if (around.state / LEDGER).is_file():
        from cas.ledger import Ledger

        with closing(Ledger(around.state)) as ledger:
            left = sum(entry.open for entry in ledger.entries())
        if left:
            console.say(f"{left} {'delivery is' if left == 1 else 'deliveries are'} left to finish: cas retry --all")
    return code


def standing_there(around: Surroundings, console: Console, *, bound: float = peers.BOUND) -> list[Result]:
    """Whether HALT is set on each peer: DONE where it is."""
    inventory = peers.inventory_of(around, console)
    from cas.transports import peer

    def one(files: SftpFiles) -> Found:
        stood = peer.halted(files)
        return Found(state=State.ALREADY) if stood is None else Found(state=State.DONE, words=stood)

    stands = halts.standing(around.halts)
    state, words = (State.DONE, stands.reason) if stands else (State.ALREADY, "")
    where = str(stands.path if stands else around.config)
    here = Result(name=HERE, where=where, local=True, state=state, words=words)
    return _also_here(inventory, here, around) + _asked(inventory, one, around, bound)


def _set_here(words: str, around: Surroundings) -> Result:
    placed = halts.place(around.config, words)
    stands = halts.standing(around.halts) or halts.Halt(path=around.config / halts.NAME, reason="")  # lifted meanwhile
    state = State.DONE if placed.new else State.ALREADY
    where = str(stands.path)
    return Result(name=HERE, where=where, local=True, state=state, words=stands.reason, fault=placed.fault)


def _also_here(inventory: Inventory, here: Result, around: Surroundings) -> list[Result]:
    """The same of each peer that is this machine: its HALT is the one here, and nobody asks it over SSH."""
    return [replace(here, name=name) for name in sorted(inventory.peers) if is_local(name, around.hostname)]


def _others(inventory: Inventory, around: Surroundings) -> list[str]:
    return sorted(name for name in inventory.peers if not is_local(name, around.hostname))


def _asked(
    inventory: Inventory, work: Callable[[SftpFiles], Found], around: Surroundings, bound: float
) -> list[Result]:
    """Do it on each other machine, side by side. For HALT it does not matter whether messages could appear there."""
    from cas.transports import peer  # before the threads: paramiko must not be loaded by two

    def at(name: str) -> AbstractContextManager[SftpFiles]:
        to = peers.destination(inventory, name)
        return peer.files_at(to, home=around.home, user=around.user, timeout=peers.TIMEOUT, needed=frozenset())

    def one(name: str) -> Found:
        with at(name) as files:
            return work(files)

    def result(name: str, got: Found | CasError) -> Result:
        found = Found(state=State.FAILED, words=str(got)) if isinstance(got, CasError) else got
        where = inventory.peers[name].host
        return Result(name=name, where=where, state=found.state, words=found.words, fault=found.fault)

    found = peers.beside(_others(inventory, around), one, bound=bound)
    return [result(name, got) for name, got in found.items()]


def _agreed(what: str, *, everywhere: bool, yes: bool, around: Surroundings, console: Console) -> Inventory | None:
    """The peers, if all of them are meant and somebody has said so. Raises UsageError where nobody can be asked."""
    if not everywhere:
        return None
    inventory = peers.inventory_of(around, console)
    question = f"{what} {', '.join(_others(inventory, around)) or 'no peers'}?"
    answer = True if yes else peers.agreed(question, around, console)
    if answer is None:
        raise UsageError("nobody is there to be asked", code="not-asked", hint="say it at once: --yes")
    if not answer:
        raise CasError("nothing was done", code="declined")
    return inventory


def _told(verb: str, results: Iterable[Result], words_of: Mapping[State, str], console: Console) -> int:
    found = list(results)
    if console.form is Form.TEXT:
        for one in found:
            fault, words = f", but {one.fault}" if one.fault else "", f": {one.words}" if one.words else ""
            console.result(f"{one.machine}: {words_of[one.state]} ({one.where}){fault}{words}")
    else:
        told = [{**asdict(one), "state": one.state.value} for one in found]
        console.result(as_json({"format": f"cas.{verb}/1", "results": told}))
    wrong = [one for one in found if one.state is State.FAILED]
    if wrong:
        console.problem(f"error: not done on {', '.join(one.name for one in wrong)}")
    return most_telling(ExitCode.ERROR if one.local else ExitCode.DELIVERY for one in wrong)
