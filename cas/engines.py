"""Engines by name: what `--engine` asks for, as that which makes a run's attempts, for as long as the run goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cas.errors import CasError, HaltError, UsageError
from cas.surroundings import Surroundings

if TYPE_CHECKING:
    from cas.batch import Engine
    from cas.transports.attempt import Stop

LOCAL = "local"
SCHEMES = {"dask": "tcp", "tls": "tls"}
"""Those of `--engine`, as Dask calls them."""
PLACES, MOST_PLACES = 16, 512
"""How many hosts are delivered to at once by this process; by a cluster at most, if the command line does not say."""
A_THREAD = 2
"""So much work is given to each thread of a cluster, so that none waits for the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for. `insecure`: also a cluster without TLS."""

    name: str = LOCAL
    insecure: bool = False


HERE = Asked()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """`places`: how many hosts are delivered to at once, if the command line does not say; `stop`: why nothing more
    may be sent, here or where the work is done."""

    attempt: Engine
    places: int
    stop: Stop


def local(around: Surroundings) -> Chosen:
    """This process."""
    from cas import engine  # here, as all that delivers: `plan` and `validate` go without

    return Chosen(attempt=engine.here, places=PLACES, stop=around.stop)


@contextmanager
def chosen(asked: Asked, around: Surroundings, say: Callable[[str], None]) -> Iterator[Chosen]:
    """The engine of one run. Raises UsageError for a name that is none, CasError for one that cannot be used."""
    if asked.name == LOCAL:
        yield local(around)
        return
    address = _address(asked.name)
    halts: list[HaltError] = []

    def stop() -> HaltError | None:
        return around.stop() or next(iter(halts), None)

    try:
        from cas import cluster
    except ModuleNotFoundError as error:
        hint = "pip install 'cross-agent-send[dask]'"
        raise CasError("this cas was installed without Dask", code="engine-missing", hint=hint) from error
    from cas import engine, transports, worker

    with cluster.opened(address, insecure=asked.insecure, stop=stop) as found:
        say(f"note: by {found.workers} workers with {found.threads} threads at {asked.name}")
        if found.dashboard:
            say(f"note: Dask's dashboard: {found.dashboard}")
        yield Chosen(
            attempt=engine.Elsewhere(
                executor=found.executor,
                perform=worker.perform,
                watch=found.watch,
                as_here=cache(partial(transports.as_here, home=around.home, user=around.user)),
                lost=found.lost,
                halted=halts.append,
            ),
            places=min(MOST_PLACES, A_THREAD * found.threads),
            stop=stop,
        )


def _address(name: str) -> str:
    """The scheduler's, as Dask has it."""
    scheme, _, rest = name.partition("://")
    try:
        port = urlsplit(f"//{rest}").port
    except ValueError:
        port = None
    if scheme not in SCHEMES or not port or rest.rpartition(":")[0] == "":
        raise UsageError(
            f"`--engine {name}` is no engine",
            code="engine-unknown",
            hint="local, or a Dask scheduler: dask://HOST:PORT, tls://HOST:PORT",
        )
    return f"{SCHEMES[scheme]}://{rest}"
