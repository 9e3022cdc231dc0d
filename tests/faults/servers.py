"""A peer whose SFTP server is run under strace, to list its system calls or to put a fault into one of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strace import CHANGING, SYNCING, strace

from cas.loopback import Peer, loopback_peer

LOGIN = """#!/bin/sh
export HOME={home}
cd "$HOME" || exit 1
# The fault is for one session: whoever logs in first takes it.
if mv {fault} {fault}.$$ 2>/dev/null; then
    read -r inject < {fault}.$$
    exec {strace} -y -s 200 -o {trace} -e trace={calls} $inject sh -c "exec ${{SSH_ORIGINAL_COMMAND#exec }}"
fi
exec sh -c "${{SSH_ORIGINAL_COMMAND:-exec sh}}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyPeer:
    """A peer in a folder of its own; a fault that is armed meets the next session."""

    server: Peer
    folder: Path

    @property
    def trace(self) -> Path:
        return self.folder / "server.trace"

    def arm(self, inject: str | None) -> None:
        """`inject` as strace has it, such as `fsync:error=EIO:when=2`; None to trace only."""
        self.trace.unlink(missing_ok=True)
        words = f"-e inject={inject}\n" if inject else "\n"
        hidden = self.folder / "fault.new"
        hidden.write_text(words, encoding="ascii")
        os.rename(hidden, self.folder / "fault")


@contextmanager
def faulty_peer(folder: Path) -> Iterator[FaultyPeer]:
    """An sshd whose SFTP server may be given a fault."""
    folder.mkdir()
    home = folder / "home"
    login = folder / "faulty-login"
    login.write_text(
        LOGIN.format(
            home=shlex.quote(str(home)),
            fault=shlex.quote(str(folder / "fault")),
            strace=shlex.quote(strace()),
            trace=shlex.quote(str(folder / "server.trace")),
            calls=",".join(f"?{name}" for name in (*CHANGING, *SYNCING)),
        ),
        encoding="utf-8",
    )
    login.chmod(0o755)
    # Of a setting that is given twice, sshd takes the first.
    with loopback_peer(folder, settings=(f"ForceCommand {shlex.quote(str(login))}",)) as server:
        yield FaultyPeer(server=server, folder=folder)
