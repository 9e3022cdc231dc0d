"""Exit codes, and the errors that the world causes. What the user wrote wrong is a diagnostic instead."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a process says when it ends. 0-5 are what callers in the field rely on; the rest is added beside them."""

    OK = 0
    ERROR = 1
    DESTINATION = 2
    DELIVERY = 3
    MESSAGE = 4
    HALT = 5
    REFUSED = 6
    TO_SEND = 10
    USAGE = 64


PRECEDENCE = (
    ExitCode.HALT,
    ExitCode.REFUSED,
    ExitCode.MESSAGE,
    ExitCode.DESTINATION,
    ExitCode.DELIVERY,
    ExitCode.ERROR,
)


def most_telling(codes: Iterable[int]) -> ExitCode:
    """Of several causes the one to end with: the first that applies of 5, 6, 4, 2, 3, 1; 0 without any."""
    found = set(codes)
    return next((code for code in PRECEDENCE if code in found), ExitCode.OK)


class CasError(Exception):
    """The world refused. `code` is stable and names the cause; `hint` says what to do; `exit_code` ends the process.

    A message starts in lower case, has no final period, and quotes names with backticks.
    """

    exit_code = ExitCode.ERROR

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """With every attribute: left to itself, Exception is made again from its message alone, which does not do."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


class UsageError(CasError):
    """The command line asks for something that does not exist or does not apply."""

    exit_code = ExitCode.USAGE


class HaltError(CasError):
    """HALT is set: nothing may be sent."""

    exit_code = ExitCode.HALT


class SigningError(CasError):
    """gpg is missing, has no such key, or did not sign."""


class TransferError(CasError):
    """A step of a delivery was refused or broke off. `permanent`: no retry can mend it."""

    def __init__(self, message: str, *, code: str, permanent: bool, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.permanent = permanent


def reason(error: OSError) -> str:
    """The system's words for an error, in lower case."""
    return (error.strerror or str(error)).lower()
