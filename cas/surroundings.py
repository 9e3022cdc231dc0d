"""The surroundings of a run: home, folders, host, user, time, and what tells it to stop. Read once, then handed on."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cas import halt
from cas.errors import HaltError
from cas.signals import Signals

FOLDER = "cross-agent-comms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`config`: the configuration folder in use; `halts`: every folder whose HALT counts; `state`: the state folder.

    HALT counts in the configuration folder in use, in those of `$HOME` and of the account's own home, and for the whole
    machine: a changed variable does not hide it by accident.
    """

    home: Path
    config: Path
    halts: tuple[Path, ...]
    state: Path
    folder: Path
    hostname: str
    user: str
    environment: Mapping[str, str]
    interactive: bool
    signals: Signals = field(default_factory=Signals)

    @property
    def projects(self) -> Path:
        return self.home / "projects"

    def stop(self) -> HaltError | None:
        """The reason for which nothing more may be sent, if there is one now."""
        if name := self.signals.caught:
            return HaltError(f"interrupted by {name.name}", code="interrupted")
        standing = halt.standing(self.halts)
        return halt.refuse(standing) if standing else None

    def now(self) -> datetime:
        """The time, to the second."""
        return datetime.now(UTC).replace(microsecond=0)


def read_surroundings(config: Path | None, state: Path | None) -> Surroundings:
    """From this process's environment; the folders given on the command line come first."""
    environment = dict(os.environ)
    home = Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    default = home / ".config" / FOLDER
    chosen = config or _path(environment, "CAS_CONFIG_DIR") or default
    interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        environment.setdefault("GPG_TTY", os.ttyname(sys.stdin.fileno()))
    return Surroundings(
        home=home,
        config=chosen,
        halts=tuple(dict.fromkeys((default, chosen, *_of_account(), halt.MACHINE))),
        state=state or _path(environment, "CAS_STATE_DIR") or home / ".local" / "state" / FOLDER,
        folder=Path.cwd(),
        hostname=socket.gethostname().partition(".")[0],
        user=environment.get("USER") or _login_name(),
        environment=environment,
        interactive=interactive,
    )


def _of_account() -> list[Path]:
    """The configuration folder in the home that the account has, whatever `$HOME` says."""
    try:
        return [Path(pwd.getpwuid(os.getuid()).pw_dir) / ".config" / FOLDER]
    except KeyError:  # a container's user without a name
        return []


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None


def _login_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return str(os.getuid())
