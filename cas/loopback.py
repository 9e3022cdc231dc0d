"""Loopback peers: a throw-away gpg key, and an OpenSSH server of one's own on 127.0.0.1. For the demo and the tests."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cas.errors import CasError

PACKAGES = {
    "gpg": "gnupg",
    "gpgconf": "gnupg",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "rsync": "rsync",
}
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
SFTP_SERVERS = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec")
LOGIN = """#!/bin/sh
export HOME={home}
cd "$HOME" && exec sh -c "${{SSH_ORIGINAL_COMMAND:-exec sh}}"
"""
START_SECONDS = 10.0
PORT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A signing key without a passphrase. `gnupghome` is the folder of its keyring and agent."""

    fingerprint: str
    gnupghome: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A running sshd. Whoever logs in with `identity_file` is at home in `home`, whatever passwd says."""

    host: str
    port: int
    user: str
    home: Path
    identity_file: Path
    known_hosts: str
    host_key: str
    process_id: int
    log: Path


class LoopbackError(CasError):
    """A program that a loopback peer needs is missing, or does not do its part."""


def require(*programs: str) -> None:
    """Raises, naming the command that installs them, where programs are missing."""
    missing = [program for program in programs if _found(program) is None]
    if missing:
        names = ", ".join(f"`{program}`" for program in missing)
        packages = " ".join(sorted({PACKAGES.get(program, program) for program in missing}))
        raise LoopbackError(f"{names} not found", code="program-missing", hint=f"apt-get install {packages}")


@contextmanager
def throwaway_key(folder: Path) -> Iterator[Key]:
    """A new ed25519 key in `folder`, which is made; its agent is ended afterwards.

    The path of `folder` must be short: gpg-agent's sockets lie in it, and a socket's path holds 108 bytes.
    """
    require("gpg", "gpgconf")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    gpg = ("gpg", "--homedir", str(folder), "--batch", "--no-tty", "--quiet", "--status-fd", "1")
    try:
        user = "Throw-away key <throw-away@localhost.invalid>"
        output = _output(*gpg, "--passphrase", "", "--quick-gen-key", user, "ed25519", "sign", "never")
        created = next(line for line in output.splitlines() if line.startswith("[GNUPG:] KEY_CREATED "))
        yield Key(fingerprint=created.split()[3], gnupghome=folder)
    finally:
        end_agent(folder)


def end_agent(gnupghome: Path) -> None:
    """Ends the agents of a keyring's folder, and removes the socket folder that gpg made for it below /run/user."""
    for action in (("--kill", "all"), ("--remove-socketdir",)):
        subprocess.run(("gpgconf", "--homedir", str(gnupghome), *action), check=False, capture_output=True, timeout=30)


@contextmanager
def loopback_peer(folder: Path, *, home: Path | None = None, settings: tuple[str, ...] = ()) -> Iterator[Peer]:
    """An sshd with its own keys in `folder`, ended afterwards. `settings` are further lines of its configuration.

    As root as well as any user; it also ends when this process is killed.
    """
    require("sshd", "ssh-keygen")
    home = home if home is not None else folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    host_key, identity_file = _new_key(folder / "host_key"), _new_key(folder / "identity")
    shutil.copyfile(f"{identity_file}.pub", folder / "authorized_keys")
    _write_login(folder / "login", home)
    with _server(folder, (*settings, *_settings(folder, home))) as (port, process_id):
        key_type, key = Path(f"{host_key}.pub").read_text(encoding="ascii").split()[:2]
        yield Peer(
            host="127.0.0.1",
            port=port,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            home=home,
            identity_file=identity_file,
            known_hosts=f"[127.0.0.1]:{port} {key_type} {key}\n",
            host_key=_output("ssh-keygen", "-l", "-f", f"{host_key}.pub").split()[1],
            process_id=process_id,
            log=folder / "sshd.log",
        )


def _new_key(path: Path) -> Path:
    _output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "loopback", "-f", str(path))
    return path


def _write_login(path: Path, home: Path) -> None:
    # Subsystems pass through a forced command too: sftp starts in `home`, as it would on another machine.
    path.write_text(LOGIN.format(home=shlex.quote(str(home))), encoding="utf-8")
    path.chmod(0o755)


def _settings(folder: Path, home: Path) -> tuple[str, ...]:
    sftp_server = next((f"{place}/sftp-server" for place in SFTP_SERVERS if Path(place, "sftp-server").exists()), None)
    if sftp_server is None:
        raise LoopbackError("`sftp-server` not found", code="program-missing", hint="apt-get install openssh-server")
    return (
        f'HostKey "{folder / "host_key"}"',
        f'AuthorizedKeysFile "{folder / "authorized_keys"}"',
        "PidFile none",
        f"ForceCommand {shlex.quote(str(folder / 'login'))}",
        # The login shell looks for its own files before the forced command runs: not in the real home.
        f'SetEnv "HOME={home}"',
        f"Subsystem sftp {sftp_server}",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "PermitUserRC no",
        "PrintLastLog no",
        "StrictModes no",
        "UsePAM no",
        # One peer for many short-lived clients at once: none of their logins is to be dropped by chance.
        "MaxStartups 100",
    )


@contextmanager
def _server(folder: Path, settings: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """The port and the process id of an sshd that accepts connections."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd parks its unprivileged half
    configuration = folder / "sshd_config"
    for _ in range(PORT_ATTEMPTS):
        port = _free_port()
        listen = (f"Port {port}", "ListenAddress 127.0.0.1")
        configuration.write_text("\n".join((*listen, *settings, "")), encoding="utf-8")
        process = _start(folder, configuration)
        try:
            if _listens(process, port, folder / "sshd.log"):
                yield port, process.pid
                return
        finally:
            _end(process)
    log = _text(folder / "sshd.log").strip() or "it left no log"
    raise LoopbackError(f"sshd does not start: {log}", code="sshd-failed")


def _free_port() -> int:
    # sshd knows no "any free port". Another process may take this one before sshd does: hence several attempts.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, configuration: Path) -> subprocess.Popen[bytes]:
    sshd = (str(_found("sshd")), "-D", "-f", str(configuration), "-E", str(folder / "sshd.log"))
    # A watcher reads the pipe that only this process holds open: however we end, sshd ends with us.
    watched = ("sh", "-c", 'exec 3<&0; (read -r _ <&3; kill "$$") & exec "$@" </dev/null 3<&-', "sh")
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        (*watched, *sshd), stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.wait(timeout=30)


def _listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    # Its log tells. A connection to try it would count as a failed login there.
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if f"listening on 127.0.0.1 port {port}." in _text(log):
            return True
        time.sleep(0.005)
    return False


def _found(program: str) -> str | None:
    # Daemons lie where only root's PATH looks.
    return shutil.which(program) or shutil.which(program, path=SYSTEM_FOLDERS)


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        words = error.stderr.strip() if isinstance(error.stderr, str) else str(error)
        raise LoopbackError(f"`{command[0]}` failed: {words}", code="program-failed") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
