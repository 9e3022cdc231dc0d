"""gpg: one run of it, in an environment that is given. Starts a process; what it said is read by others.

What counts is gpg's status lines (its file doc/DETAILS), not its exit code.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from cas.errors import SigningError

TIMEOUT = 30
TIMEOUT_WITH_PINENTRY = 300
STATUS = "[GNUPG:] "


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    content: bytes = b"",
    keep: Sequence[int] = (),
    interactive: bool = False,
    program: str = "gpg",
) -> subprocess.CompletedProcess[bytes]:
    """Run gpg on some bytes; `keep`: file handles that it gets, too. Raises SigningError where it cannot be run.

    `interactive`: a terminal is there, so that a key may ask for its passphrase.
    """
    quiet = () if interactive else ("--batch", "--no-tty", "--pinentry-mode", "error")
    try:
        return subprocess.run(
            [program, *quiet, "--no-auto-check-trustdb", *arguments],
            input=content,
            env={**environment, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            pass_fds=tuple(keep),
            timeout=TIMEOUT_WITH_PINENTRY if interactive else TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        hint = "install GnuPG, or send unsigned with --no-sign"
        raise SigningError(f"`{program}` is not installed", code="no-gpg", hint=hint) from error
    except OSError as error:
        raise SigningError(f"`{program}` cannot be started: {error.strerror}", code="no-gpg") from error
    except subprocess.TimeoutExpired as error:
        raise SigningError(
            "gpg gave no answer in time",
            code="gpg-timeout",
            hint="see whether its agent hangs: gpgconf --kill gpg-agent",
        ) from error


def listing(
    arguments: Sequence[str], environment: Mapping[str, str], *, interactive: bool = False, program: str = "gpg"
) -> list[list[str]]:
    """The fields of each row of a listing of keys. Raises SigningError where gpg cannot be run."""
    words = ("--with-colons", "--fixed-list-mode", *arguments)
    result = run(words, environment, interactive=interactive, program=program)
    return [line.split(":") for line in result.stdout.decode("utf-8", "replace").split("\n") if line]


def statuses(output: bytes) -> list[list[str]]:
    """The words of each status line in what gpg wrote."""
    lines = output.decode("utf-8", "replace").split("\n")
    return [line.removeprefix(STATUS).split() for line in lines if line.startswith(STATUS)]
