"""A receiver's view of an inbox: what is visible, in which order it came, whether its signature is good. Reads only."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

STATUS = "[GNUPG:] "
GOOD = ("NEWSIG", "GOODSIG", "VALIDSIG")
BAD = frozenset({"EXPSIG", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "ERRSIG"})


@dataclass(slots=True, kw_only=True)
class Observer:
    """What a receiver that never stops looking has seen."""

    looks: int = 0
    alone: int = 0
    unsigned: tuple[str, ...] = ()

    def look(self, inbox: Path) -> None:
        self.looks += 1
        names = visible(inbox)
        messages = [name for name in names if name.endswith(".org")]
        self.alone += len(names) > 2 * len(messages)
        self.unsigned += tuple(name for name in messages if not os.path.lexists(inbox / f"{name}.asc"))


def visible(inbox: Path) -> tuple[str, ...]:
    """The names in an inbox that a receiver does not pass by, sorted; none where there is no inbox yet."""
    try:
        return tuple(sorted(name for name in os.listdir(inbox) if not name.startswith(".")))
    except FileNotFoundError:
        return ()


def good_signature(message: Path, gnupghome: Path) -> str | None:
    """The fingerprint of the primary key that signed `message` in the `.asc` beside it, or None.

    gpg exits with 0 for an expired key too: only its status lines tell.
    """
    verify = ("gpg", "--homedir", str(gnupghome), "--batch", "--no-tty", "--no-auto-check-trustdb", "--status-fd", "1")
    files = (f"{message}.asc", str(message))
    run = subprocess.run((*verify, "--verify", *files), capture_output=True, text=True, check=False, timeout=60)
    lines = [line.removeprefix(STATUS).split() for line in run.stdout.splitlines() if line.startswith(STATUS)]
    words = [line[0] for line in lines]
    if BAD.intersection(words) or any(words.count(word) != 1 for word in GOOD):
        return None
    return next(line[-1] for line in lines if line[0] == "VALIDSIG")
