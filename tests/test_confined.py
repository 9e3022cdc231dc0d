"""Confined work: what comes back from the child, what ends it, and that nothing of it is left."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cas import confined as module
from cas.confined import ConfinementError, Note, confined
from cas.diagnostics import Diagnostic, InvalidInput, Place, Severity
from cas.errors import CasError, ExitCode, UsageError

MEMORY = 64 << 20


def run(work: Callable[[Note], Any], *, seconds: int = 5, memory: int = MEMORY) -> Any:
    return confined(work, seconds=seconds, memory=memory)


def open_files() -> set[str]:
    """Without the one by which they are listed."""
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("value", [None, 1, "é\ud800", b"\x00", [1, {"a": (2,)}], ExitCode.HALT], ids=repr)
def test_a_value_comes_back_as_it_was(value: object):
    assert run(lambda _: value) == value


def test_twenty_megabytes_come_back():
    content = os.urandom(20 << 20)

    assert run(lambda _: content, memory=256 << 20) == content


def test_the_work_is_done_in_a_process_of_its_own():
    changed: list[int] = []

    child = run(lambda _: changed.append(1) or os.getpid())

    assert child != os.getpid()
    assert changed == []


def test_its_bounds_are_not_those_of_the_caller():
    before = [resource.getrlimit(which) for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_CORE)]

    inside = run(lambda _: (resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_CORE)))

    assert inside == ((5, 5), (0, 0))
    assert before == [
        resource.getrlimit(which) for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_CORE)
    ]


# What the work raises


def test_invalid_input_comes_back_with_every_diagnostic():
    found = (
        Diagnostic(
            code="one",
            message="`a` is wrong",
            place=Place(file="m.yaml", line=2, column=3),
            hint="mend it",
            exit_code=ExitCode.MESSAGE,
            related=((Place(file="x.org"), "there"),),
        ),
        Diagnostic(code="two", message="a note", severity=Severity.NOTE),
    )

    def work(_: Note) -> None:
        raise InvalidInput(found)

    with pytest.raises(InvalidInput) as caught:
        run(work)

    assert caught.value.diagnostics == found
    assert (str(caught.value), caught.value.exit_code) == ("`a` is wrong", ExitCode.MESSAGE)


@pytest.mark.parametrize("hint", ["take another", None])
def test_another_error_comes_back_with_its_words_its_code_and_its_hint(hint: str | None):
    def work(_: Note) -> None:
        raise CasError("the key is gone", code="no-key", hint=hint)

    with pytest.raises(CasError) as caught:
        run(work)

    assert (str(caught.value), caught.value.code, caught.value.hint) == ("the key is gone", "no-key", hint)


def test_another_error_comes_back_with_its_exit_code():
    def work(_: Note) -> None:
        raise UsageError("`--only x` fits nothing", code="unknown-selection")

    with pytest.raises(CasError) as caught:
        run(work)

    assert caught.value.exit_code == ExitCode.USAGE


def test_a_bug_shows_where_it_is():
    def broken(_: Note) -> None:
        raise KeyError("nobody thought of it")

    with pytest.raises(RuntimeError) as caught:
        run(broken)

    assert "Traceback" in str(caught.value)
    assert "in broken" in str(caught.value)
    assert "KeyError: 'nobody thought of it'" in str(caught.value)


def test_a_value_that_cannot_be_sent_back_is_a_bug_and_not_said_to_be_too_large():
    with pytest.raises(RuntimeError, match="pickle"):
        run(lambda _: lambda: None)


# What ends it


def test_work_that_takes_too_much_memory_is_ended():
    def work(note: Note) -> int:
        note("`m.yaml:7`")
        return len(bytearray(MEMORY * 2))

    with pytest.raises(ConfinementError) as caught:
        run(work)

    assert str(caught.value) == "the templates took more than 64 MiB of memory; it was at `m.yaml:7`"
    assert (caught.value.code, caught.value.exit_code) == ("template-limit", ExitCode.ERROR)
    assert caught.value.hint == "look for a loop or a text that grows without end"


def test_memory_that_grows_in_small_steps_is_ended_too():
    def work(_: Note) -> None:
        found = []
        while True:
            found.append(bytearray(10_000))

    with pytest.raises(ConfinementError, match="64 MiB of memory"):
        run(work)


def test_work_that_takes_too_long_is_ended():
    def work(note: Note) -> None:
        note("`a.yaml:1`")
        note("`b.yaml:12`")
        while True:
            pass

    start = time.monotonic()
    with pytest.raises(ConfinementError) as caught:
        run(work, seconds=1)

    assert str(caught.value) == "the templates took more than 1 s of processor time; it was at `b.yaml:12`"
    assert caught.value.code == "template-limit"
    assert time.monotonic() - start < 30


def test_work_that_is_ended_without_a_note_says_no_place():
    with pytest.raises(ConfinementError, match=r"processor time$"):
        run(lambda _: os.kill(os.getpid(), signal.SIGXCPU))


def test_a_child_that_is_killed_from_without_counts_as_ended():
    with pytest.raises(ConfinementError):
        run(lambda _: os.kill(os.getpid(), signal.SIGKILL))


def test_a_child_that_is_terminated_says_by_which_signal():
    with pytest.raises(ConfinementError, match="ended by signal 15"):
        run(lambda _: os.kill(os.getpid(), signal.SIGTERM))


def test_a_child_that_ends_itself_gives_no_value():
    with pytest.raises(ConfinementError):
        run(lambda _: os._exit(3))


def test_what_the_work_raises_to_leave_python_ends_only_the_child():
    with pytest.raises(ConfinementError):
        run(lambda _: sys.exit(0))


def test_what_stood_in_a_buffer_is_written_once(tmp_path: Path):
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8") as file:
        file.write("before\n")
        run(lambda _: None)

    assert path.read_text(encoding="utf-8") == "before\n"


def test_an_interrupted_caller_leaves_no_child_behind():
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            run(lambda _: time.sleep(60))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_fork_that_fails_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch):
    def fork() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    before = open_files()
    monkeypatch.setattr(module.os, "fork", fork)
    with pytest.raises(OSError, match="no more processes"):
        run(lambda _: None)
    left = open_files() - before
    for handle in left:
        os.close(int(handle))

    assert not left


# What it is at


@pytest.mark.parametrize("text", ["é" * 5000, "a" * 4095, "a\ud800b", ""])
def test_a_note_of_any_length_is_no_matter(text: str):
    assert run(lambda note: note(text)) is None


def test_a_shorter_note_takes_the_place_of_a_longer_one():
    def work(note: Note) -> None:
        note("a long one")
        note("b")
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(ConfinementError, match=r"it was at b$"):
        run(work)
