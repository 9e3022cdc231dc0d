"""Causes: what each failure is told as, and which of them a retry may mend."""

from __future__ import annotations

import errno
import socket

import pytest
from paramiko import AuthenticationException, PasswordRequiredException, SSHException
from paramiko.ssh_exception import BadAuthenticationType, ChannelException, IncompatiblePeer, NoValidConnectionsError

from cas.errors import ExitCode, TransferError
from cas.transports.causes import from_connecting, from_os_error, lost

WHERE = "forge:22"

PERMANENT, TRANSIENT = True, False


@pytest.mark.parametrize(
    ("number", "words", "code", "permanent"),
    [
        (errno.ENOSPC, "no space left on device", "no-space", PERMANENT),
        (errno.EDQUOT, "disk quota exceeded", "no-space", PERMANENT),
        (errno.EACCES, "permission denied", "no-permission", PERMANENT),
        (errno.EPERM, "operation not permitted", "no-permission", PERMANENT),
        (errno.EROFS, "read-only file system", "file-operation-failed", PERMANENT),
        (errno.ENOTDIR, "not a directory", "file-operation-failed", PERMANENT),
        (errno.ENOENT, "no such file or directory", "file-operation-failed", PERMANENT),
        (errno.ENAMETOOLONG, "file name too long", "file-operation-failed", PERMANENT),
        (errno.ELOOP, "too many levels of symbolic links", "file-operation-failed", PERMANENT),
        (errno.EFBIG, "file too large", "file-operation-failed", PERMANENT),
        (errno.EIO, "input/output error", "file-operation-failed", PERMANENT),
        (errno.EBUSY, "device or resource busy", "file-operation-failed", TRANSIENT),
        (errno.EINTR, "interrupted system call", "file-operation-failed", TRANSIENT),
        (errno.EAGAIN, "resource temporarily unavailable", "file-operation-failed", TRANSIENT),
        (errno.ETIMEDOUT, "connection timed out", "file-operation-failed", TRANSIENT),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) and not isinstance(value, bool) else None,
)
def test_a_failed_file_operation_says_why_and_where(number: int, words: str, code: str, permanent: bool):
    told = from_os_error(OSError(number, "whatever the locale says"), "~/inbox")

    assert (str(told), told.code, told.permanent) == (f"{words}: `~/inbox`", code, permanent)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR])
def test_what_a_person_can_mend_comes_with_a_hint(number: int):
    assert from_os_error(OSError(number, ""), "x").hint


def test_a_file_error_without_a_number_is_told_in_its_own_words():
    told = from_os_error(OSError("something odd"), "x")

    assert (str(told), told.permanent) == ('the other side says "something odd": `x`', PERMANENT)


@pytest.mark.parametrize(
    ("error", "words", "code", "permanent"),
    [
        (PasswordRequiredException("encrypted"), "asks for a passphrase", "login-refused", PERMANENT),
        (AuthenticationException("Authentication failed."), "refused the login", "login-refused", PERMANENT),
        (BadAuthenticationType("no", ["password"]), "refused the login", "login-refused", PERMANENT),
        (SSHException("No authentication methods available"), "no SSH key", "login-refused", PERMANENT),
        (AuthenticationException("Authentication timeout."), "did not answer in time", "not-connected", TRANSIENT),
        (
            AuthenticationException("Authentication failed: transport shut down or saw EOF"),
            "broke off",
            "not-connected",
            TRANSIENT,
        ),
        (AuthenticationException("timed out"), "did not answer in time", "not-connected", TRANSIENT),
        (NoValidConnectionsError({("::1", 22): OSError()}), "connection refused", "not-connected", TRANSIENT),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), "connection refused", "not-connected", TRANSIENT),
        (TimeoutError("timed out"), "did not answer in time", "not-connected", TRANSIENT),
        (socket.gaierror(socket.EAI_NONAME, "unknown name"), "no address", "unknown-host", PERMANENT),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "no address", "unknown-host", TRANSIENT),
        (SSHException("Incompatible ssh peer (no acceptable kex algorithm)"), "kex", "ssh-incompatible", PERMANENT),
        (IncompatiblePeer("Incompatible ssh server"), "incompatible", "ssh-incompatible", PERMANENT),
        (SSHException("Error reading SSH protocol banner"), "broke off", "not-connected", TRANSIENT),
        (SSHException("Server connection dropped"), "broke off", "not-connected", TRANSIENT),
        (ChannelException(2, "Connect failed"), "broke off", "not-connected", TRANSIENT),
        (ConnectionResetError(errno.ECONNRESET, "reset by peer"), "broke off", "not-connected", TRANSIENT),
        (OSError(errno.EHOSTUNREACH, "no route"), "broke off", "not-connected", TRANSIENT),
        (EOFError(), "EOFError", "not-connected", TRANSIENT),
    ],
    ids=lambda value: f"{type(value).__name__}: {value}" if isinstance(value, Exception) else None,
)
def test_a_connection_that_does_not_come_about_is_told_by_its_cause(
    error: Exception, words: str, code: str, permanent: bool
):
    told = from_connecting(error, WHERE)

    assert (told.code, told.permanent) == (code, permanent)
    assert words in str(told)
    assert WHERE in str(told)


def test_what_has_been_told_already_stays_as_it_is():
    error = TransferError("the host forge:22 is not known", code="host-key-unknown", permanent=True)

    assert from_connecting(error, WHERE) is error


@pytest.mark.parametrize("error", [PasswordRequiredException(""), AuthenticationException("Authentication failed.")])
def test_a_login_that_is_refused_says_what_to_do(error: Exception):
    assert from_connecting(error, WHERE).hint


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), AssertionError("a bug")])
def test_a_bug_is_not_taken_for_a_failed_connection(error: Exception):
    with pytest.raises(type(error), match="a bug"):
        from_connecting(error, WHERE)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "fell silent"),
        (EOFError(), "was lost"),
        (ConnectionResetError(), "was lost"),
        (SSHException("Channel closed."), "was lost"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_connection_that_ends_may_be_tried_again(error: Exception, words: str):
    told = lost(WHERE, error)

    assert (str(told), told.code, told.permanent) == (
        f"the connection to {WHERE} {words}",
        "connection-lost",
        TRANSIENT,
    )


def test_a_failed_transfer_ends_with_the_code_of_its_kind():
    assert lost(WHERE, EOFError()).exit_code is ExitCode.ERROR
