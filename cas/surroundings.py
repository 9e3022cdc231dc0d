"""The surroundings of a run: home, folders, host, user, time, and what tells it to stop. Read once, then handed on."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from cas import halt
from cas.errors import HaltError

FOLDER = "cross-agent-comms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`config`: the configuration folder in use; `halts`: every folder whose HALT counts; `state`: the state folder."""

    home: Path
    config: Path
    halts: tuple[Path, ...]
    state: Path
    folder: Path
    hostname: str
    user: str
    environment: Mapping[str, str]
    interactive: bool
    signals: Signals = field(default_factory=lambda: Signals())

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


class Signals:
    """SIGINT, SIGTERM and SIGHUP while deliveries are under way: noted, so that the run ends between two steps.

    A second one ends the process at once. That too is safe: the next run finds whatever step it was at.
    """

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self._woken = threading.Event()

    def pause(self, seconds: float) -> None:
        """Wait; a signal ends it."""
        self._woken.wait(seconds)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals, instead of ending at the first."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [(name, signal.getsignal(name)) for name in names]
        for name, handler in before:
            if handler is not signal.SIG_IGN:  # nohup, or a shell's background job
                signal.signal(name, self._note)
        try:
            yield
        finally:
            for name, handler in before:
                signal.signal(name, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.caught:
            os._exit(128 + number)
        self.caught = signal.Signals(number)
        # Not through sys.stderr: the signal may have come while it was being written to.
        os.write(2, b"interrupted: ending after the step that is under way; once more ends it at once\n")
        self._woken.set()


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
        halts=tuple(dict.fromkeys((default, chosen))),
        state=state or _path(environment, "CAS_STATE_DIR") or home / ".local" / "state" / FOLDER,
        folder=Path.cwd(),
        hostname=socket.gethostname().partition(".")[0],
        user=environment.get("USER") or _login_name(),
        environment=environment,
        interactive=interactive,
    )


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None


def _login_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return str(os.getuid())
