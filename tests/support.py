"""What tests stand on, without pytest: a home, a peer, a run of cas, messages, and what lies in an inbox."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cas.loopback import Key, Peer
from cas.receiver import good_signature

ROOT = Path(__file__).resolve().parent.parent

CLEARED = (
    "GNUPGHOME",
    "SSH_AUTH_SOCK",
    "SOURCE_DATE_EPOCH",
    "NO_COLOR",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "GITHUB_STEP_SUMMARY",
    "CI",
)
CLEARED_PREFIXES = ("CAS_", "XDG_", "_CAS_", "SSH_")
FRONTMATTER = {
    "CONVERSATION_ID": "greeting",
    "MESSAGE_TYPE": "request",
    "SEQUENCE": "1",
    "TIMESTAMP": "2026-11-23T01:31:33Z",
    "PROTOCOL_VERSION": "1.0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A user's home folder with nothing in it but an empty project, `builder`."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / ".config" / "cross-agent-comms"

    @property
    def state(self) -> Path:
        return self.path / ".local" / "state" / "cross-agent-comms"

    @property
    def projects(self) -> Path:
        return self.path / "projects"

    @property
    def known_hosts(self) -> Path:
        return self.path / ".ssh" / "known_hosts"

    def inbox(self, project: str) -> Path:
        """Where CONTRACT's default puts what this machine's `project` receives."""
        return self.projects / project / "inbox" / "from-agents"

    def obstruct(self, project: str) -> None:
        """Puts a file where the inbox would be: no delivery there can succeed."""
        _written(self.inbox(project), "in the way")

    def peers(self, text: str) -> Path:
        """Writes peers.toml, in place of what is there."""
        return _written(self.config / "peers.toml", text)

    def halt(self, text: str = "") -> Path:
        """Sets HALT."""
        return _written(self.config / "HALT", text)

    def markers(self) -> tuple[Path, ...]:
        """The markers of sends that failed."""
        return tuple(sorted((self.state / "failed-sends").glob("*")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """The machine `forge`: a real sshd, behind which the home is another than the sender's."""

    server: Peer

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def user(self) -> str:
        return self.server.user

    @property
    def home(self) -> Path:
        return self.server.home

    @property
    def identity_file(self) -> Path:
        return self.server.identity_file

    def inbox(self, project: str) -> Path:
        """Where CONTRACT's default puts what forge's `project` receives."""
        return self.home / "projects" / project / "inbox" / "from-agents"

    def log(self) -> str:
        """What the server says of its logins so far."""
        return self.server.log.read_text(encoding="utf-8", errors="replace")

    def toml(self, **changes: str | int | None) -> str:
        """Its table for peers.toml, with keys put in, changed, or (None) left out."""
        keys: dict[str, str | int | None] = {
            "host": self.host,
            "port": self.port,
            "ssh_user": self.user,
            "identity_file": str(self.identity_file),
            **changes,
        }
        lines = (f"{key} = {_toml(value)}\n" for key, value in keys.items() if value is not None)
        return "[peers.forge]\n" + "".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run of cas ended, and what it said."""

    code: int
    out: str
    err: str


def run_with_small_files(limit: int, *argv: str, **environment: str) -> Run:
    """A run of cas that can write no file of more bytes than that, as on a disk that fills up."""
    ended = subprocess.run(
        [sys.executable, "-m", "cas", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(code=ended.returncode, out=ended.stdout, err=ended.stderr)


@contextmanager
def running_as_another(*argv: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A run of cas that may not read what its mode forbids; one of root's might."""
    code = """if True:
        import ctypes, os, sys
        if os.geteuid() == 0:
            for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what is run next has them no more
                assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0
        os.execv(sys.executable, [sys.executable, "-m", "cas", *sys.argv[1:]])
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, argv)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def as_another(*argv: str | Path) -> Run:
    """The same, to its end."""
    with running_as_another(*argv) as process:
        out, err = process.communicate(timeout=60)
    return Run(code=process.returncode, out=out, err=err)


def message(path: str | Path, *, body: str = "* Hello\n", **frontmatter: str | int | None) -> Path:
    """Writes a sound message. Keys in lower case change its frontmatter, or (None) leave a line out."""
    changes = {key.upper(): value for key, value in frontmatter.items()}
    lines = (f"#+{key}: {value}\n" for key, value in {**FRONTMATTER, **changes}.items() if value is not None)
    return _written(Path(path), "".join(lines) + "\n" + body)


def signed(path: Path, key: Key) -> Path:
    """A message, with the signature beside it."""
    environment = {**os.environ, "GNUPGHOME": str(key.gnupghome)}
    words = ("gpg", "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--armor")
    subprocess.run((*words, "--detach-sign", str(path)), env=environment, check=True, capture_output=True)
    return path


def pairs(inbox: Path) -> tuple[str, ...]:
    """The names a receiver looks at: visible, ending in `.org` or `.asc`, sorted."""
    if not os.path.lexists(inbox):
        return ()
    visible = (name for name in os.listdir(inbox) if not name.startswith("."))
    return tuple(sorted(name for name in visible if name.endswith((".org", ".asc"))))


def verify(path: Path, gnupghome: Path | None = None) -> str:
    """The fingerprint of the primary key whose good signature lies beside a message; fails where there is none."""
    fingerprint = good_signature(path, gnupghome or Path(os.environ["GNUPGHOME"]))
    assert fingerprint is not None, f"no good signature beside {path}"
    return fingerprint


def called(*argv: str | Path, stdin: str | bytes | None = None) -> Run:
    """Runs `cas` in this process, with the standard streams of a pipe."""
    from cas.cli import main

    content = stdin.encode() if isinstance(stdin, str) else stdin or b""
    with _streams(content) as (out, err):
        code = main([str(word) for word in argv])
        sys.stdout.flush()
        sys.stderr.flush()
        # Before the streams are let go of: they close what they wrote to.
        return Run(code=int(code), out=_decoded(out), err=_decoded(err))


@contextmanager
def _streams(content: bytes) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    out, err = io.BytesIO(), io.BytesIO()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(err, encoding="utf-8", write_through=True, errors="backslashreplace")
    try:
        yield out, err
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _decoded(stream: io.BytesIO) -> str:
    return stream.getvalue().decode("utf-8")


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def _toml(value: str | int) -> str:
    return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
