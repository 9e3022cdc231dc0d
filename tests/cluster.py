"""A real Dask cluster on loopback: a scheduler and workers, each a process with a home of its own. Without pytest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from support import CLEARED, CLEARED_PREFIXES, ROOT, Home

from cas.work import Post

START_SECONDS = 60.0
# A watcher reads the pipe that only this process holds open: however we end, the whole group ends with us.
WATCHED = ("sh", "-c", 'exec 3<&0; (read -r _ <&3; kill -KILL 0) & exec "$@" </dev/null 3<&-', "sh")


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A running cluster. `address`: its scheduler's, as Dask has it; `home`: that of all its workers."""

    address: str
    folder: Path
    home: Home
    scheduler: subprocess.Popen[bytes]
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        """What `--engine` calls it."""
        return self.address.replace("tcp://", "dask://")

    @property
    def options_here(self) -> tuple[str, ...]:
        """The options of a run by this cluster; without TLS it has to be said that this is wanted."""
        insecure = ("--insecure-engine",) if self.address.startswith("tcp://") else ()
        return ("--engine", self.engine, *insecure)

    @contextmanager
    def worker(self, name: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """One more worker, of one thread; a process that is none of a nanny's, but with `--nanny`."""
        log = self.folder / f"{name}.log"
        command = (
            *("worker", self.address, "--name", name, "--nthreads", "1", "--memory-limit", "0"),
            *("--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(self.folder / name)),
            *(() if "--nanny" in options else ("--no-nanny",)),
            *self.options,
            *options,
        )
        count = int(options[options.index("--nworkers") + 1]) if "--nworkers" in options else 1
        with _process(command, log, {**self.environment, **environment}) as process:
            _wait_for("Registered to:", process, log, count)
            yield process


@contextmanager
def cluster(
    folder: Path,
    workers: int = 2,
    *,
    options: Sequence[str] = (),
    scheduler_options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """A cluster in a folder, which is made; ended afterwards. `options` are those of its workers."""
    folder.mkdir(parents=True)
    home = Home(path=folder / "home")
    home.path.mkdir()
    # Who logs in by default there is not who does here.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in CLEARED and not name.startswith((*CLEARED_PREFIXES, "COV_", "DASK_"))
    }
    own = {"HOME": str(home.path), "USER": "somebody-else", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    given = {**kept, **own, **(environment or {})}
    log = folder / "scheduler.log"
    nowhere = ("--dashboard-address", "127.0.0.1:0")  # any port
    command = ("scheduler", "--host", "127.0.0.1", "--port", "0", *nowhere, *scheduler_options)
    with ExitStack() as stack:
        process = stack.enter_context(_process(command, log, given))
        line = _wait_for("Scheduler at:", process, log, 1)
        made = Cluster(
            address=line.split()[-1],
            folder=folder,
            home=home,
            scheduler=process,
            options=tuple(options),
            environment=given,
        )
        for worker in [made.worker(f"worker-{number}") for number in range(workers)]:
            stack.enter_context(worker)
        yield made


def unwatched() -> Post:
    """Where a worker of a plain executor stands: nobody tells it to stop."""
    return Post(worker=f"process-{os.getpid()}", stop=lambda: None)


def enter(home: Path) -> None:
    """Has this process be at home elsewhere."""
    os.environ.update(HOME=str(home), USER="somebody-else")


@contextmanager
def _process(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    program = (sys.executable, "-m", f"distributed.cli.dask_{command[0]}", *command[1:])
    with log.open("wb") as output:
        process = subprocess.Popen(
            (*WATCHED, *program),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=dict(environment),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)


def _wait_for(words: str, process: subprocess.Popen[bytes], log: Path, count: int) -> str:
    """The last line of a log with these words, once there are so many."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines(True) if words in line]
        if len(lines) >= count and lines[-1].endswith("\n"):
            return lines[-1].strip()
        time.sleep(0.02)
    raise AssertionError(f"it does not start: {log.read_text(encoding='utf-8', errors='replace')}")
