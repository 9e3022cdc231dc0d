"""Rehearsals: what `apply` does, by the same executor, into a tree that holds a folder for each destination.

Inboxes, ledger, locks and markers are those of the tree. What is read is real: keys, peers.toml, and HALT.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cas import loader
from cas.commands import OfPlan, deliver, made_ready
from cas.creation import create, make_private
from cas.errors import CasError, reason
from cas.inventory import LOCAL, Destination
from cas.output.console import Console
from cas.plan import DELIVER, Delivery
from cas.preparation import Choice, Ready
from cas.run import Limits
from cas.surroundings import Surroundings
from cas.transports.local import LocalFiles
from cas.transports.transport import WORKSHOP

OF_PLAN = ".rehearsal"
"""In a tree: the digest of the plan that was rehearsed there."""
STATE = ".tmp.state-"
DEFAULT_INBOX = ("inbox", "from-agents")
LARGEST = 1000


def rehearse(
    paths: Sequence[Path],
    choice: Choice,
    limits: Limits,
    around: Surroundings,
    console: Console,
    *,
    root: Path,
    given: OfPlan,
) -> int:
    """Carry out these manifests, or a plan, below `root`. Again, for the same plan: only what is missing."""
    ready = made_ready(paths, choice, around, given)
    root = Path(os.path.abspath(root))
    _refuse_inboxes(root, ready, around)
    _prepare(root, ready)
    ready = _within(root, ready)
    with _state(root) as state:
        code = deliver("rehearse", ready, limits, replace(around, state=state), console, keep=False)
    console.say(f"note: nothing was sent; all that a run would leave is in {root}")
    return code


def _within(root: Path, ready: Ready) -> Ready:
    """The same plan, with each inbox in the tree."""
    deliveries = tuple(replace(one, destination=_place(root, one)) for one in ready.plan.deliveries)
    return replace(ready, plan=replace(ready.plan, deliveries=deliveries), stated=ready.digest)


def _place(root: Path, delivery: Delivery) -> Destination:
    """What an address may hold keeps it within the tree; that it does is not left to it alone."""
    folder = root / delivery.destination.address
    if delivery.action == DELIVER and (folder.parent != root or folder.is_symlink()):
        raise _refused(f"`{folder}` is not a folder in `{root}`")
    return Destination(
        address=delivery.destination.address,
        host=None,
        port=None,
        user=None,
        inbox=str(folder),
        transport=LOCAL,
        identity_file=None,
        host_key=None,
    )


def _prepare(root: Path, ready: Ready) -> None:
    """Make the tree; refuse one that holds anything but this plan, where nobody could tell what is of what."""
    mine, wanted = root / OF_PLAN, f"{ready.digest}\n".encode()
    try:
        make_private(root)
        there = [name for name in os.listdir(root) if not name.startswith(STATE)]
    except OSError as error:
        raise _refused(f"`{root}` cannot be used: {reason(error)}") from error
    if not there:
        create(mine, wanted)
    elif OF_PLAN not in there:
        raise _refused(f"`{root}` is not empty")
    elif loader.read(mine, LARGEST) != wanted:
        raise _refused(f"`{root}` holds the rehearsal of another plan")


@contextmanager
def _state(root: Path) -> Iterator[Path]:
    """A state folder for this run alone: what a rehearsal leaves open, no `cas retry` may take for a delivery."""
    try:
        folder = tempfile.TemporaryDirectory(dir=root, prefix=STATE)
    except OSError as error:
        raise _refused(f"`{root}` cannot be used: {reason(error)}") from error
    with folder as name:
        yield Path(name)


def _refuse_inboxes(root: Path, ready: Ready, around: Surroundings) -> None:
    """Raise CasError where whoever reads an inbox would find the tree in it, or the tree would hold an inbox."""
    real = root.resolve()
    folders = {real / one.destination.address for one in ready.plan.deliveries}
    for inbox in _inboxes(ready, around):
        if real.is_relative_to(inbox) or any(inbox.is_relative_to(folder) for folder in folders):
            raise _refused(f"`{root}` would share its files with the inbox `{inbox}`")
    for folder in (real, *real.parents):
        if folder.parts[-2:] == DEFAULT_INBOX or os.path.isdir(folder / WORKSHOP):
            raise _refused(f"`{root}` would be in the inbox `{folder}`")


def _inboxes(ready: Ready, around: Surroundings) -> Iterator[Path]:
    """The inboxes on this machine that this plan, peers.toml and the projects tell of."""
    inventory, _ = loader.load_inventory(around.config)
    planned = (one.destination.inbox for one in ready.plan.deliveries if one.destination.host is None)
    here = LocalFiles(around.home)
    yield from (Path(here.absolute(inbox)).resolve() for inbox in {*inventory.inboxes.values(), *planned})
    yield from (path.resolve() for path in around.projects.glob("/".join(("*", *DEFAULT_INBOX))))


def _refused(words: str) -> CasError:
    return CasError(words, code="rehearsal-root", hint="name a folder that is not there yet, or is empty: --root DIR")
