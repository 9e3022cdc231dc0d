"""`cas apply` with work that does nothing: what the coordinator does for each batch is left, and nothing else.

python -m benchmarks.idle MANIFEST threads|dask://HOST:PORT

Plan, ledger, locks, order, events and words are those of `cas apply`. An attempt reaches no host: in this process, or
on a Dask worker that has this module too, it says at once that all was published.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from cas import cluster, engine, engines, preparation, transports
from cas.batch import World
from cas.executor import execute
from cas.names import signature_name
from cas.output.console import Console, Form
from cas.parcel import Parcel
from cas.run import Limits, carried_out, world
from cas.signer import Signer
from cas.surroundings import Surroundings, read_surroundings
from cas.transports import wire
from cas.transports.attempt import Progress, Shown
from cas.work import Report, Watch, Work

THREADS = "threads"


def attempted(items: Sequence[Parcel], timeout: int, world: World, shown: Shown) -> bool:
    """As `engine.here`, without a host."""
    del timeout, world
    for item in items:
        _publish(item, shown)
    return True


def perform(work: Work, watch: Watch) -> Report:
    """As `worker.perform`, without a host."""
    post = watch()
    batch = [wire.ordered(order) for order in work.orders]
    shown: list[tuple[str, str]] = []
    for item in batch:
        _publish(item, lambda one, name: shown.append((one.envelope.identity, name)))
    return Report(
        worker=post.worker,
        again=post.again,
        shown=tuple(shown),
        standings=tuple(wire.standing(item) for item in batch),
        durable=True,
    )


def _publish(item: Progress, shown: Shown) -> None:
    if item.envelope.signature is not None:
        shown(item, signature_name(item.name))
    item.done = item.ours = item.asked = True
    shown(item, item.name)


@contextmanager
def chosen(name: str, around: Surroundings) -> Iterator[engines.Chosen]:
    """As `engines.chosen`, with work that does nothing."""
    if name == THREADS:
        yield engines.Chosen(attempt=attempted, places=engines.PLACES, stop=around.stop)
        return
    with cluster.opened(name.replace("dask://", "tcp://"), insecure=True, stop=around.stop) as found:
        yield engines.Chosen(
            attempt=engine.Elsewhere(
                executor=found.executor,
                perform=perform,
                watch=found.watch,
                as_here=cache(partial(transports.as_here, home=around.home, user=around.user)),
                lost=found.lost,
            ),
            places=min(engines.MOST_PLACES, engines.A_THREAD * found.threads),
            stop=around.stop,
        )


def main(manifest: str, name: str) -> int:
    around = read_surroundings(None, None)
    console = Console(out=sys.stdout, err=sys.stderr, form=Form.TEXT, quiet=True)
    signer = Signer(environment=around.environment, interactive=around.interactive)
    ready = preparation.of_manifests([Path(manifest)], preparation.Choice(), around, signer.fingerprint)
    with chosen(name, around) as by, world(ready.policy, ready.root, Limits(), around, by) as given:
        events = execute(ready.plan, ready.digest, given, content=ready.contents, sign=signer.signature)
        return carried_out("apply", events, ready.plan.deliveries, ready.root, around, console)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
