"""Completing: what may stand in an argument, for the shell that asks. Where it cannot be known, nothing is said."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

    from cas.inventory import Inventory


def destinations(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """`<machine>.<project>` for what peers.toml knows, and groups."""
    del parameter
    inventory = _inventory(context)
    return _fitting(_destinations(inventory) if inventory else (), incomplete)


def peers(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The machines of peers.toml."""
    del parameter
    inventory = _inventory(context)
    return _fitting(inventory.peers if inventory else (), incomplete)


def projects(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The projects of this machine."""
    del parameter
    inventory = _inventory(context)
    return _fitting({*(inventory.inboxes if inventory else ()), *_folders()}, incomplete)


def _destinations(inventory: Inventory) -> Iterator[str]:
    grouped = {one for members in inventory.groups.values() for one in members}
    yield from (f"@{name}" for name in inventory.groups)
    yield from grouped
    yield from (f"local.{project}" for project in {*inventory.inboxes, *_folders()})
    known = {*inventory.inboxes, *(one.partition(".")[2] for one in grouped)}
    yield from (f"{machine}.{project}" for machine in inventory.peers for project in known or {""})


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted(word for word in set(words) if word.startswith(incomplete))


def _folders() -> list[str]:
    from pathlib import Path

    try:
        with os.scandir(Path.home() / "projects") as entries:
            return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except (OSError, RuntimeError):
        return []


def _inventory(context: click.Context) -> Inventory | None:
    from cas import loader
    from cas.errors import CasError
    from cas.surroundings import read_surroundings

    try:
        return loader.load_inventory(read_surroundings(context.params.get("config_dir"), None).config)[0]
    except (CasError, OSError):
        return None
