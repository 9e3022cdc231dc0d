"""A Dask cluster as the engine of one run: opened, looked over, told of HALT for as long as the run goes. Acts."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata

from distributed import Client, Event, Scheduler, Security, Variable

from cas import __version__
from cas.errors import CasError, TransferError
from cas.transports.attempt import Stop
from cas.watchman import Watch, Watchman

DISTRIBUTION = "cross-agent-send"
CONNECT_SECONDS = 10
CLOSE_SECONDS = 2
BEAT_EVERY = 0.25
"""Seconds between two signs of life; before each, HALT is looked for."""
PATIENCE = 10.0
"""Seconds without an answer from the scheduler, until it counts as lost."""


class EngineError(CasError):
    """The cluster cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`threads`: of all workers; `dashboard`: its address, None where there is none; `lost`: why no answer can come
    any more, if so."""

    executor: Executor
    watch: Watch
    workers: int
    threads: int
    dashboard: str | None
    lost: Callable[[], TransferError | None]


@contextmanager
def opened(address: str, *, insecure: bool, stop: Stop) -> Iterator[Cluster]:
    """A cluster, for one run; `address`: its scheduler's, as Dask has it. Raises EngineError.

    `insecure`: also without TLS.
    """
    _silence()
    _refuse_open([] if insecure else [address])
    client = _connected(address)
    run = f"cas-{secrets.token_hex(8)}"
    try:
        scheduler, threads = client.scheduler_info(), dict(client.nthreads())
        _refuse_open([] if insecure else [scheduler["address"], *threads])
        _look_over(client, address, threads)
        pulse = _Pulse(client, run, stop)
        client.register_plugin(Watchman(run))
        with pulse.beating():
            yield Cluster(
                executor=client.get_executor(pure=False),  # or the same work again would get the answer that it got
                watch=Watch(run=run),
                workers=len(threads),
                threads=sum(threads.values()),
                dashboard=client.dashboard_link if "dashboard" in scheduler["services"] else None,
                lost=pulse.lost,
            )
    finally:
        _close(client, run)


def _silence() -> None:
    """What Dask has to say is said here, in words of our own. Some of its loggers have a level of theirs."""
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _refuse_open(addresses: Iterable[str]) -> None:
    """Raise EngineError where others could connect: Dask runs the code that it is sent, as the user that it runs as.

    On loopback every account of this machine can connect.
    """
    for address in addresses:
        if not address.startswith("tls://"):
            raise EngineError(
                f"the engine at {address} has no TLS: every account that can connect to it, on this machine too, could"
                " read messages and run code as you",
                code="engine-insecure",
                hint="set up TLS (docs/how-to/scale.md), then --engine tls://HOST:PORT; or --insecure-engine, where"
                " nobody else can connect",
            )


def _connected(address: str) -> Client:
    try:
        security = Security()
        # A Client that finds this out itself leaves threads behind, which hold up the end of this process.
        if address.startswith("tls://") and security.get_connection_args("client")["ssl_context"] is None:
            raise ValueError("Dask's configuration here has no certificate")
        return Client(address, security=security, timeout=CONNECT_SECONDS, set_as_default=False, name="cas")
    except Exception as error:  # OSError, TimeoutError, ssl.SSLError, and what a wrong answer leads to
        words = str(error).partition("\n")[0] or type(error).__name__
        raise EngineError(
            f"no Dask scheduler answers at {address}: {words}",
            code="engine-unreachable",
            hint="see that it runs: dask scheduler; for tls://, that Dask's configuration here names CA, certificate"
            " and key",
        ) from error


def _look_over(client: Client, address: str, workers: Collection[str]) -> None:
    """Raise EngineError where there is no worker, or one without this cas."""
    if not workers:
        raise EngineError(
            f"the cluster at {address} has no workers",
            code="engine-empty",
            hint=f"start some: dask worker {address}",
        )
    found: dict[str, object] = client.run(metadata.version, DISTRIBUTION, on_error="return")
    try:
        found[f"the scheduler {address}"] = client.run_on_scheduler(metadata.version, DISTRIBUTION)
    except Exception as error:  # as the workers' are returned
        found[f"the scheduler {address}"] = error
    others = {name: version for name, version in found.items() if version != __version__}
    for name, version in others.items():
        has = f"has cas {version}" if isinstance(version, str) else f"has no cas that can be found ({version})"
        raise EngineError(
            f"{name} {has}, and this is {__version__}; so it is with {len(others)} of {len(found)}",
            code="engine-version",
            hint="install the same cas for the scheduler and all workers: pip install cross-agent-send[dask]"
            f"=={__version__}",
        )


def _close(client: Client, run: str) -> None:
    """Let go. What still runs for this client is taken away from its worker, which publishes nothing more then."""
    with suppress(Exception):  # the scheduler may be gone, or answer no more
        if client.status == "running":
            client.sync(_let_go, client, run, callback_timeout=CLOSE_SECONDS)
    with suppress(Exception):
        client.close(timeout=CLOSE_SECONDS)


async def _let_go(client: Client, run: str) -> None:
    """Have the cluster forget a run."""
    await client.unregister_worker_plugin(run)
    await client.run_on_scheduler(_forget, run)


def _forget(run: str, dask_scheduler: Scheduler) -> None:
    """There: its HALT, its signs of life, and which of its tasks had begun."""
    dask_scheduler.extensions["events"].event_clear(run)
    dask_scheduler.extensions["variables"].variables.pop(run, None)
    dask_scheduler.task_metadata.pop(run, None)


class _Pulse:
    """Signs of life for the watchmen, and HALT, in a thread of its own; and what it finds out of the scheduler."""

    def __init__(self, client: Client, run: str, stop: Stop) -> None:
        self._client, self._stop = client, stop
        self._event, self._beat = Event(run, client=client), Variable(run, client=client)
        self._answered = time.monotonic()
        self._over = threading.Event()
        self._send(0)

    @contextmanager
    def beating(self) -> Iterator[None]:
        thread = threading.Thread(target=self._go_on, name="cas-pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(CLOSE_SECONDS)

    def lost(self) -> TransferError | None:
        """Why no answer can come any more, if so."""
        if self._client.status == "running" and time.monotonic() - self._answered < PATIENCE:
            return None
        return TransferError(
            f"the scheduler {self._client.scheduler.address if self._client.scheduler else ''} is gone",
            code="engine-lost",
            permanent=True,
            hint="when it runs again, or without --engine, apply once more: what is there by then is found",
        )

    def _go_on(self) -> None:
        count = 0
        while not self._over.wait(BEAT_EVERY):
            count += 1
            with suppress(Exception):  # that nothing answers is what `lost` tells
                self._send(count)

    def _send(self, count: int) -> None:
        if self._stop():
            self._event.set()
        else:
            self._beat.set(count)
        self._answered = time.monotonic()
