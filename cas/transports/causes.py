"""Why a step failed: exceptions of the operating system and of paramiko into one TransferError each, by cause.

What no retry can mend is permanent and gets one attempt; the rest gets the back-off. The classes mislead (a stall in
the key exchange comes as an AuthenticationException, an unknown host name as an OSError), so texts are looked at too.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from cas.errors import TransferError

if TYPE_CHECKING:
    from paramiko import Channel

MOST_SAID = 500
"""Characters of what the other side says that are shown."""
TRANSIENT = frozenset(
    {errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTUNREACH}
    | {errno.ENETUNREACH, errno.EPIPE, errno.ECONNABORTED, errno.ENETDOWN, errno.EBUSY}
)
HINTS = {
    errno.ENOSPC: "free space there, then: cas retry --all",
    errno.EDQUOT: "free space within the quota, then: cas retry --all",
    errno.EACCES: "give the user who sends the right to write there",
    errno.EPERM: "the file system or its owner does not allow this",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}
CODES = {
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EACCES: "no-permission",
    errno.EPERM: "no-permission",
}


def from_os_error(error: OSError, path: str) -> TransferError:
    """A failed operation on a file."""
    # Without a number the words are those of an SFTP server.
    reason = os.strerror(error.errno).lower() if error.errno else f'the other side says "{str(error)[:MOST_SAID]}"'
    return TransferError(
        f"{reason}: `{path}`",
        code=CODES.get(error.errno or 0, "file-operation-failed"),
        permanent=error.errno not in TRANSIENT,
        hint=HINTS.get(error.errno or 0),
    )


def from_connecting(error: Exception, where: str) -> TransferError:
    """A connection that did not come about. `where` is `host:port`, as the user can find it again."""
    from paramiko import AuthenticationException, PasswordRequiredException, SSHException
    from paramiko.ssh_exception import NoValidConnectionsError

    text = (str(error) or type(error).__name__)[:MOST_SAID]
    match error:
        case TransferError():
            return error
        case PasswordRequiredException():
            return _login(f"the SSH key for {where} asks for a passphrase", "add it to the agent: ssh-add")
        case AuthenticationException() if "shut down" in text:
            return _connection(f"{where} broke off the login")
        case AuthenticationException() if "timeout" in text.lower() or "timed out" in text.lower():
            return _connection(f"{where} did not answer in time")
        case AuthenticationException():
            return _login(f"{where} refused the login: {text.rstrip('.').lower()}", None)
        case FileNotFoundError() | PermissionError():
            return _login(f"the SSH key `{error.filename}` cannot be read: {(error.strerror or text).lower()}", None)
        case NoValidConnectionsError() | ConnectionRefusedError():
            return _connection(f"connection refused on {where}")
        case socket.gaierror():
            passing = error.errno == socket.EAI_AGAIN
            return TransferError(
                f"there is no address for the host of {where}: {(error.strerror or text).lower()}",
                code="unknown-host",
                permanent=not passing,
                hint="check `host` under [peers] in peers.toml, and whether the VPN is up",
            )
        case TimeoutError():
            return _connection(f"{where} did not answer in time")
        case SSHException() if "No authentication methods available" in text:
            return _login(f"there is no SSH key to log in to {where} with", None)
        case SSHException() if "no acceptable" in text.lower() or "incompatible" in text.lower():
            return TransferError(
                f"{where} and this machine have no SSH algorithm in common: {text.lower()}",
                code="ssh-incompatible",
                permanent=True,
                hint="update the older of the two; ssh -vv shows what each side offers",
            )
        case EOFError() | SSHException() | OSError():
            return _connection(f"the connection to {where} broke off: {text.rstrip('.')}")
        case _:
            raise error


def unusable_key(path: str) -> TransferError:
    """A file that should hold a private key, and holds none."""
    return _login(f"`{path}` is no private SSH key", "check `identity_file` under [peers] in peers.toml")


def lost(where: str, error: Exception) -> TransferError:
    """A connection that stood, and broke or fell silent."""
    why = "fell silent" if isinstance(error, TimeoutError) else "was lost"
    return TransferError(f"the connection to {where} {why}", code="connection-lost", permanent=False)


def refused(channel: Channel, where: str, what: str, error: Exception) -> TransferError:
    """A channel that ended before it began. Where the connection still stands, it is the other side that ended it."""
    transport = channel.get_transport()
    if transport is None or not transport.is_active():
        return lost(where, error)
    return TransferError(
        f"{where} offers no {what}",
        code="not-offered",
        permanent=True,
        hint="see `Subsystem sftp` and `ForceCommand` in its sshd_config, and the account's login shell",
    )


def _connection(message: str) -> TransferError:
    hint = "see whether it runs, and `host` and `port` under [peers] in peers.toml; ssh -v tells more"
    return TransferError(message, code="not-connected", permanent=False, hint=hint)


def _login(message: str, hint: str | None) -> TransferError:
    why = hint or "check `ssh_user` and `identity_file` under [peers] in peers.toml, and that the agent holds the key"
    return TransferError(message, code="login-refused", permanent=True, hint=why)
