"""Confined work: a function in one forked child, with bounds on its processor time and memory. Acts.

For what a manifest's templates do: a manifest from a pull request is planned before anyone has read it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from cas.diagnostics import InvalidInput
from cas.errors import CasError

NOTE_BYTES = 4096
PAGE = resource.getpagesize()
T = TypeVar("T")
Note = Callable[[str], None]
"""Is told what the work is at, for the error of the one that is ended."""


class ConfinementError(CasError):
    """The work took more than it may."""


def confined(work: Callable[[Note], T], *, seconds: int, memory: int) -> T:
    """What `work` gives, made in a child with so many seconds of processor time and bytes of memory beyond today's.

    It goes through a pipe, and has to be plain data that can be pickled. InvalidInput and other CasErrors of the work
    are raised here; ConfinementError, when it took too much. To be called before threads are started.
    """
    with mmap.mmap(-1, NOTE_BYTES) as noted:
        reading, writing = os.pipe()
        try:
            child = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if child == 0:
            os.close(reading)
            _carry_out(work, writing, noted, seconds, memory)
        os.close(writing)
        try:
            with open(reading, "rb") as pipe:
                content = pipe.read()
        finally:
            status = _ended(child)
        at = noted[:].partition(b"\0")[0].decode("utf-8", "replace")
    result: T = _result(content, status, at, seconds, memory)
    return result


def _carry_out(work: Callable[[Note], Any], writing: int, noted: mmap.mmap, seconds: int, memory: int) -> NoReturn:
    """In the child, which ends here whatever happens: nothing of the parent's is flushed or cleaned up by it."""
    try:
        for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(caught, signal.SIG_DFL)
        _bound(seconds, memory)

        def note(text: str) -> None:
            content = text.encode("utf-8", "replace")[: NOTE_BYTES - 1]
            noted[: len(content) + 1] = content + b"\0"

        with open(writing, "wb") as pipe:
            pipe.write(_packed(_outcome(work, note)))
        os._exit(0)
    finally:
        os._exit(1)


def _outcome(work: Callable[[Note], Any], note: Note) -> tuple[str, Any]:
    try:
        return "value", work(note)
    except InvalidInput as error:
        return "invalid", error.diagnostics
    except CasError as error:
        return "error", (type(error), str(error), error.code, error.hint)
    except MemoryError:
        return "memory", None
    except Exception:
        return "bug", traceback.format_exc()


def _packed(outcome: tuple[str, Any]) -> bytes:
    try:
        return pickle.dumps(outcome)
    except MemoryError:
        return pickle.dumps(("memory", None))
    except Exception:  # what cannot be pickled
        return pickle.dumps(("bug", traceback.format_exc()))


def _bound(seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_CPU, seconds)
    _lower(resource.RLIMIT_AS, _used() + memory)


def _lower(which: int, wanted: int) -> None:
    _, hard = resource.getrlimit(which)
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(which, (bound, bound))


def _used() -> int:
    """The address space in use, in bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * PAGE
    except OSError:  # no /proc: what a Python with all of cas has at most
        return 1 << 30


def _ended(child: int) -> int:
    """The exit code of the child, negative for a signal. One that still works has nobody left to work for."""
    done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        if sys.exc_info()[0] is not None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _result(content: bytes, status: int, at: str, seconds: int, memory: int) -> Any:
    """What came of it, as the child said it or as its end tells."""
    kind: str
    value: Any
    where = f"; it was at {at}" if at else ""
    if status == -signal.SIGXCPU or (status == -signal.SIGKILL and not content):
        raise _over(f"the templates took more than {seconds} s of processor time{where}")
    kind, value = pickle.loads(content) if status == 0 else ("memory" if status > 0 else "died", None)  # noqa: S301
    match kind:
        case "value":
            return value
        case "invalid":
            raise InvalidInput(value)
        case "error":
            refusal, message, code, hint = value
            raise refusal(message, code=code, hint=hint)
        case "memory":
            raise _over(f"the templates took more than {memory >> 20} MiB of memory{where}")
        case "bug":
            raise RuntimeError(f"in confined work:\n{value}")
        case _:
            raise _over(f"the templates were ended by signal {-status}{where}")


def _over(message: str) -> ConfinementError:
    return ConfinementError(message, code="template-limit", hint="look for a loop or a text that grows without end")
