"""A worker: does a host's work where an engine has it done, with this process's own SSH and HALT, and reports."""

from __future__ import annotations

from math import inf

from cas import __version__
from cas.errors import CasError, HaltError, TransferError
from cas.surroundings import Surroundings, read_surroundings
from cas.transports import attempted, opened, wire
from cas.transports.attempt import Progress, Stop
from cas.transports.cutoff import Cutoff, longest
from cas.work import Post, Report, Watch, Work


def perform(work: Work, watch: Watch) -> Report:
    """Make one attempt. What stops it is in the report; what is raised is a fault of cas."""
    post, around = watch(), read_surroundings(None, None)
    stop = _stop(post, around)
    batch = [wire.ordered(order) for order in work.orders]
    for item in batch:
        item.asked = item.asked or post.again
    shown: list[tuple[str, str]] = []

    def show(item: Progress, name: str) -> None:
        shown.append((item.envelope.identity, name))

    seconds = inf if work.seconds is None else work.seconds
    try:
        if error := _unfit(work, post.worker) or stop():
            raise error
        size = sum(len(item.envelope.content()) for item in batch)
        seconds = min(seconds, longest(work.timeout, len(batch), size))
        with Cutoff(seconds, stop, size) as cutoff:
            try:
                with opened(
                    work.destination, work.timeout, len(batch), home=around.home, user=around.user, cutoff=cutoff
                ) as transport:
                    attempted(batch, transport, stop, show, require_durable=work.require_durable)
                    durable = transport.durable
            except CasError as error:
                raise cutoff.reason or error from error
        if cutoff.reason:
            for item in (item for item in batch if not item.done):
                item.error = cutoff.reason
    except CasError as error:
        return Report(worker=post.worker, again=post.again, error=wire.error_fields(error))
    return Report(
        worker=post.worker,
        again=post.again,
        shown=tuple(shown),
        standings=tuple(wire.standing(item) for item in batch),
        durable=durable,
    )


def _stop(post: Post, around: Surroundings) -> Stop:
    """HALT counts where the run was started, and where it is worked for."""

    def stop() -> HaltError | None:
        if error := post.stop():
            return error
        if error := around.stop():
            return HaltError(f"{error} (on the worker {post.worker})", code="halt", hint=error.hint)
        return None

    return stop


def _unfit(work: Work, worker: str) -> TransferError | None:
    if work.version == __version__:
        return None
    return TransferError(
        f"the worker {worker} has cas {__version__}, and {work.version} asks",
        code="engine-version",
        permanent=True,
        hint="install the same cas for the scheduler and all workers",
    )
