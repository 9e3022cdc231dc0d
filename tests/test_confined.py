"""Functions with bounds: real children, real limits."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cas.confined import ConfinementError, confined
from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.errors import HaltError
from cas.signals import Interrupted, raised
from cas.template import Engine, TemplateError

ROOT = Path(__file__).resolve().parent.parent
MB = 1 << 20


def bounded(work: Callable[..., Any], *, seconds: int = 20, memory: int = 300 * MB) -> Any:
    return confined(work, seconds=seconds, memory=memory)


def refusal(work: Callable[..., Any], **bounds: int) -> str:
    with pytest.raises(ConfinementError) as caught:
        bounded(work, **bounds)
    assert caught.value.code == "template-limit"
    return f"{caught.value}; at `{caught.value.at}`"


def rendered(text: str) -> Callable[..., Any]:
    """Work that renders a template."""

    def work(note: Callable[[str], None]) -> str:
        note("stage[build]")
        return Engine().text(text, {})

    return work


def spinning(note: Callable[[str], None]) -> None:
    note("stage[build]")
    while True:
        pass


def alive(process: int) -> bool:
    """Whether a process still runs; what has ended and waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until(reached: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)
    return reached()


def test_what_the_work_returns_is_returned():
    value = {"stages": ["build", "test"], "count": 3, "none": None, "text": "ä\n"}

    assert bounded(lambda note: value) == value


def test_the_work_is_done_in_another_process():
    changed = []

    child = bounded(lambda note: changed.append(1) or os.getpid())

    assert child != os.getpid()
    assert changed == []


def test_a_result_of_50_mb_comes_whole():
    text = bounded(lambda note: "0123456789" * 5 * MB)

    assert len(text) == 50 * MB
    assert text == "0123456789" * 5 * MB


def test_what_the_user_wrote_wrong_comes_with_every_diagnostic():
    found = Diagnostic(code="x", message="y", place=Place(file="a.yaml", line=3), hint="z")

    def work(note: object) -> None:
        raise InvalidInput([found])

    with pytest.raises(InvalidInput) as caught:
        bounded(work)

    assert caught.value.diagnostics == (found,)


def test_an_error_of_the_world_comes_as_it_is():
    def work(note: object) -> None:
        raise HaltError("HALT is set", code="halt", hint="cas resume")

    with pytest.raises(HaltError, match="HALT is set") as caught:
        bounded(work)

    assert (caught.value.code, caught.value.hint) == ("halt", "cas resume")


def test_a_bug_shows_the_traceback_of_the_child():
    def broken(note: object) -> None:
        raise KeyError("stages")

    with pytest.raises(RuntimeError, match=r"(?s)in broken\n.*KeyError: 'stages'"):
        bounded(broken)


@pytest.mark.parametrize("leave", [lambda note: sys.exit(0), lambda note: lambda: 1], ids=["exit", "no plain data"])
def test_leaving_otherwise_or_with_no_data_is_a_bug_too(leave: Callable[..., Any]):
    with pytest.raises(RuntimeError, match="Traceback"):
        bounded(leave)


def test_over_its_time_it_ends_and_says_where_it_was():
    words = refusal(spinning, seconds=1)

    assert words == "the templates took more than 1 s of processor time; at `stage[build]`"


def test_without_a_note_nothing_is_said_of_where_it_was():
    assert refusal(lambda note: 10**10**10, seconds=1) == "the templates took more than 1 s of processor time; at ``"


def test_time_that_it_sleeps_is_not_its_processor_time():
    assert bounded(lambda note: time.sleep(1.3), seconds=1) is None


def test_the_last_note_counts_however_long_the_one_before_was():
    def work(note: Callable[[str], None]) -> None:
        note("ä" * 5000)
        note("short")
        os.kill(os.getpid(), signal.SIGKILL)

    assert refusal(work) == "the process of the templates was ended by SIGKILL; at `short`"


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 10 ** (10 ** 10) }}",
    ],
)
def test_a_template_without_an_end_is_ended(text: str):
    assert "more than 1 s of processor time; at `stage[build]`" in refusal(rendered(text), seconds=1)


@pytest.mark.parametrize(
    "text", ["{{ 'a' * 10**9 }}", "{{ 'a'|center(10**9) }}", "{{ '{:>1000000000}'.format(1) }}", "{{ [0] * 10**9 }}"]
)
def test_a_template_that_makes_too_much_says_so_itself(text: str):
    with pytest.raises(TemplateError, match="more memory than a template may have") as caught:
        bounded(rendered("\n" + text), memory=100 * MB)

    assert (caught.value.code, caught.value.line) == ("template-limit", 2)


def test_a_macro_that_calls_itself_without_end_says_so_itself():
    with pytest.raises(TemplateError, match="it goes round in circles"):
        bounded(rendered("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"))


@pytest.mark.threat("manifest author", "fill the memory by a template")
def test_too_much_memory_says_where_it_was():
    def work(note: Callable[[str], None]) -> int:
        note("stage[build]")
        return len("a" * 10**9)

    assert refusal(work) == "the templates took more memory than they may have; at `stage[build]`"


def test_memory_that_is_short_only_for_the_report_is_told_as_well():
    assert "more memory" in refusal(lambda note: "a" * (180 * MB))


def test_memory_that_this_process_has_already_does_not_count():
    held = bytearray(200 * MB)

    assert bounded(lambda note: len(held), memory=50 * MB) == 200 * MB


def test_an_end_without_a_result_is_told():
    words = refusal(lambda note: os._exit(0))

    assert words == "the process of the templates ended without a result, with exit code 0; at ``"


def test_a_lower_limit_that_stands_already_stays():
    code = """if True:
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
        from cas.confined import confined
        print(confined(lambda note: resource.getrlimit(resource.RLIMIT_CPU), seconds=500, memory=1 << 28))
    """

    assert _python(code).stdout == "(100, 100)\n"


def test_it_cannot_put_anything_into_a_file(tmp_path: Path):
    path = tmp_path / "file"

    def work(note: object) -> None:
        os.write(os.open(path, os.O_CREAT | os.O_WRONLY), b"text")

    with pytest.raises(RuntimeError, match="File too large"):
        bounded(work)

    assert path.read_bytes() == b""


def test_it_leaves_no_core_behind():
    assert bounded(lambda note: resource.getrlimit(resource.RLIMIT_CORE)) == (0, 0)


def test_this_process_keeps_its_own_limits():
    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
    before = [resource.getrlimit(kind) for kind in kinds]

    bounded(lambda note: 1)

    assert [resource.getrlimit(kind) for kind in kinds] == before


@pytest.mark.parametrize("work", [lambda note: 1, lambda note: 1 / 0, lambda note: os._exit(3), spinning])
def test_no_file_stays_open_and_no_child_unreaped(work: Callable[..., Any]):
    files, children = _open_files(), _children()

    with suppress(RuntimeError, ConfinementError):
        bounded(work, seconds=1)

    assert _open_files() == files
    assert _children() == children


def test_what_waits_in_a_buffer_is_written_once_and_what_runs_at_exit_runs_once():
    code = """if True:
        import atexit, sys
        from cas.confined import confined
        atexit.register(print, "at exit")
        sys.stdout.write("waiting ")
        confined(lambda note: sys.stdout.write("child"), seconds=9, memory=1 << 28)
    """

    assert _python(code).stdout == "waiting at exit\n"


def test_a_child_that_is_killed_from_outside_is_told():
    reading, writing = os.pipe()
    killer = os.fork()
    if not killer:
        os.kill(int(os.read(reading, 20)), signal.SIGKILL)
        os._exit(0)

    def work(note: Callable[[str], None]) -> None:
        note("stage[build]")
        os.write(writing, str(os.getpid()).encode())
        spinning(note)

    words = refusal(work)

    os.waitpid(killer, 0)
    os.close(reading)
    os.close(writing)
    assert words == "the process of the templates was ended by SIGKILL; at `stage[build]`"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_this_process_ends_the_child_first(number: signal.Signals):
    """In a process of its own, with one thread, as confined wants it: another thread would take the signal."""
    command = f"import test_confined; test_confined.end_the_child_first({int(number)})"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    ended = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout) == (0, "all of it held\n"), ended.stderr


def end_the_child_first(number: int) -> None:
    reading, writing = os.pipe()
    files = _open_files()

    def work(note: Callable[[str], None]) -> None:
        os.write(writing, str(os.getpid()).encode())
        os.kill(os.getppid(), number)
        spinning(note)

    with pytest.raises(Interrupted), raised():
        bounded(work)

    child = int(os.read(reading, 20))
    assert not Path(f"/proc/{child}").exists()
    assert _open_files() == files
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    print("all of it held")


def test_a_signal_that_is_only_noted_ends_nothing():
    noted = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    try:
        value = bounded(lambda note: os.kill(os.getppid(), signal.SIGTERM) or "done")
    finally:
        signal.signal(signal.SIGTERM, before)

    assert (value, noted) == ("done", [signal.SIGTERM])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_both_is_for_the_parent_alone(number: signal.Signals):
    def work(note: object) -> str:
        os.kill(os.getpid(), number)
        return "done"

    with raised():
        assert bounded(work) == "done"


def test_the_handlers_of_this_process_do_not_run_in_the_child():
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        words = refusal(lambda note: os.kill(os.getpid(), signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert "was ended by SIGUSR1" in words


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_child_does_not_survive_its_parent(number: signal.Signals):
    code = """if True:
        import os
        from cas.confined import confined
        from cas.signals import raised
        def work(note):
            os.write(1, f"{os.getpid()}\\n".encode())
            while True: pass
        with raised():
            confined(work, seconds=60, memory=1 << 28)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    child = int(parent.stdout.readline())

    parent.send_signal(number)

    assert parent.wait(20) != 0
    parent.stdout.close()
    assert until(lambda: not alive(child))


def test_where_no_process_can_be_started_it_is_said():
    code = """if True:
        import os, resource
        from cas.confined import ConfinementError, confined
        if os.getuid() == 0:
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = len(os.listdir("/proc/self/fd"))
        try:
            confined(lambda note: 1, seconds=1, memory=1 << 28)
        except ConfinementError as error:
            print(error.code, len(os.listdir("/proc/self/fd")) - before)
    """

    assert _python(code).stdout == "no-process 0\n"


def test_it_costs_little_more_than_the_work():
    times = []
    for _ in range(20):
        start = time.perf_counter()
        bounded(lambda note: 1)
        times.append(time.perf_counter() - start)

    assert min(times) < 0.05


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-E", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
