"""The demonstration: a playbook applied in a throw-away home, to an inbox here and to one behind a real sshd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from cas.errors import CasError
from cas.loopback import Key, Peer, loopback_peer, require, throwaway_key
from cas.receiver import Observer, good_signature, visible

PLAYBOOK = "playbooks/demo.yaml"
INBOX = "projects/{project}/inbox/from-agents"
INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONDONTWRITEBYTECODE")
LONGEST_TEMPORARY_FOLDER = 60
APPLY_SECONDS = 120.0
LOOK_SECONDS = 0.0005


class DemoError(CasError):
    """Something was not as cas promises it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where the demonstration takes place. `inboxes` are by address."""

    project: Path
    key: Key
    peer: Peer
    inboxes: Mapping[str, Path]
    environment: Mapping[str, str]


def run(stdout: TextIO, environment: Mapping[str, str]) -> int:
    """Shows a run to `stdout`. Whatever ends it, folder, sshd and gpg-agent are gone afterwards."""
    require("gpg", "gpgconf", "sshd", "ssh-keygen")

    def say(*lines: str) -> None:
        print(*lines, sep="\n", file=stdout, flush=True)

    def show(command: str) -> None:
        colored = stdout.isatty() and not environment.get("NO_COLOR")
        say("", f"\x1b[1m$ {command}\x1b[0m" if colored else f"$ {command}")

    with _stage(environment) as stage:
        say("A throw-away key, an inbox on this machine, and one behind an OpenSSH server of its own:")
        say(f"  key    {stage.key.fingerprint}", f"  forge  {stage.peer.user}@{stage.peer.host}:{stage.peer.port}")
        show(f"cas apply {PLAYBOOK}")
        observer = Observer()
        say(*_indented(_applied(stage, observer)), "", "What arrived:")
        say(*_arrivals(stage), "", *_order(observer))
        show(f"cas apply {PLAYBOOK} --output json")
        say(*_indented(_applied_again(stage)), "")
    say("Applied twice, delivered once. Nothing of this is left on the machine.")
    return 0


@contextmanager
def _stage(environment: Mapping[str, str]) -> Iterator[Stage]:
    with ExitStack() as stack:
        folder = Path(_temporary_folder())
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        home, forge = folder / "home", folder / "forge"
        forge.mkdir()
        key = stack.enter_context(throwaway_key(folder / "gnupg"))
        peer = stack.enter_context(loopback_peer(forge))
        _write_configuration(home, peer)
        project = home / "projects" / "builder"
        shutil.copytree(_playbooks(), project / "playbooks")
        docs, site = home / INBOX.format(project="docs"), peer.home / INBOX.format(project="site")
        inherited = {name: environment[name] for name in INHERITED if name in environment}
        packages = os.pathsep.join(filter(None, (str(Path(__file__).parent.parent), environment.get("PYTHONPATH"))))
        own = {"HOME": str(home), "GNUPGHOME": str(key.gnupghome), "PYTHONPATH": packages}
        inboxes = {"local.docs": docs, "forge.site": site}
        yield Stage(project=project, key=key, peer=peer, inboxes=inboxes, environment={**inherited, **own})


def _temporary_folder() -> str:
    # gpg-agent's sockets will lie in it, and their paths have little room.
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="cas-", dir=usual if len(usual) <= LONGEST_TEMPORARY_FOLDER else "/tmp")  # noqa: S108


def _write_configuration(home: Path, peer: Peer) -> None:
    configuration = home / ".config" / "cross-agent-comms"
    configuration.mkdir(parents=True)
    keys = {"host": peer.host, "port": peer.port, "ssh_user": peer.user, "identity_file": str(peer.identity_file)}
    # What JSON writes for text and numbers, TOML reads alike.
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    (configuration / "peers.toml").write_text(f"[peers.forge]\n{table}", encoding="utf-8")
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "known_hosts").write_text(peer.known_hosts, encoding="ascii")


def _playbooks() -> Path:
    # In a wheel they lie inside the package, in a checkout beside it.
    package = Path(__file__).parent
    return next(place for place in (package / "playbooks", package.parent / "playbooks") if place.is_dir())


def _applied(stage: Stage, observer: Observer, *options: str) -> str:
    """What `cas apply` gives as its result; both inboxes are looked at as long as it runs."""
    command = (sys.executable, "-m", "cas", "apply", PLAYBOOK, *options)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, cwd=stage.project, env=stage.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        try:
            _observe(process, observer, stage.inboxes.values())
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise DemoError(f"`cas apply` ended with {process.returncode}: {_content(err)}", code="demo-failed")
        return _content(out)


def _observe(process: subprocess.Popen[bytes], observer: Observer, inboxes: Iterable[Path]) -> None:
    deadline = time.monotonic() + APPLY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for inbox in inboxes:
            observer.look(inbox)
        time.sleep(LOOK_SECONDS)


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")


def _arrivals(stage: Stage) -> Iterator[str]:
    for address, inbox in stage.inboxes.items():
        names = visible(inbox)
        if len(names) != 4:
            raise DemoError(f"2 signed messages for `{address}`, but {len(names)} files there", code="demo-failed")
        yield f"  {address}"
        for name in names[::2]:
            yield from (
                f"    {name}.asc  {_signature(inbox / name, stage.key)}",
                f"    {name}      {_title(inbox / name)}",
            )


def _signature(message: Path, key: Key) -> str:
    if good_signature(message, key.gnupghome) != key.fingerprint:
        raise DemoError(f"`{message.name}` has no good signature", code="demo-failed")
    return "good signature"


def _title(message: Path) -> str:
    lines = message.read_text(encoding="utf-8").split("\n")
    return next(line for line in lines if line.startswith("* "))


def _order(observer: Observer) -> tuple[str, ...]:
    if observer.unsigned:
        raise DemoError(f"`{observer.unsigned[0]}` was seen before its signature", code="demo-failed")
    return (
        f"In {observer.looks} looks at the inboxes meanwhile, no .org was there without its .asc;",
        f"{observer.alone} times an .asc was there, and its .org not yet.",
    )


def _applied_again(stage: Stage) -> str:
    before = [visible(inbox) for inbox in stage.inboxes.values()]
    counts = json.loads(_applied(stage, Observer(), "--output", "json"))["counts"]
    if [visible(inbox) for inbox in stage.inboxes.values()] != before or counts["unchanged"] != 4:
        raise DemoError("applying a second time changed something", code="demo-failed")
    return ", ".join(f"{outcome}: {count}" for outcome, count in counts.items() if count)


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}".rstrip() for line in text.splitlines())
