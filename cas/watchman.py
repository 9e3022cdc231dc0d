"""The watchman: on each Dask worker, knows whether the run that works there may go on. Asks the scheduler; acts.

Where the run was started, a Dask Event is set for HALT, and a Variable counts on as long as the run is there. Who hears
neither, or whose task was taken away, publishes nothing more: whoever ran it may have ended, and HALT been set since.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker
from distributed.utils import sync
from tornado.ioloop import PeriodicCallback

from cas.errors import HaltError
from cas.work import Post

if TYPE_CHECKING:
    from distributed import Worker

LOOK_EVERY = 0.25
"""Seconds between two looks at the scheduler."""
PATIENCE = 5.0
"""Seconds without a sign from where the run was started, until it counts as gone."""
KEEPS_ON = 60.0
"""Seconds without such a sign, until nobody looks for it any more: who was killed takes no plugin away."""
ENDING = ("closing", "closed", "failed", "stopped")
TAKEN_AWAY = ("cancelled", "released", "forgotten")


class Watchman(WorkerPlugin):
    """A plugin of every worker for one run, whose name it has; Dask sets it up, in workers that come later too."""

    def __init__(self, run: str, keeps_on: float = KEEPS_ON) -> None:
        self.name = run
        self._keeps_on = keeps_on

    def setup(self, worker: Worker) -> None:
        """Begin to watch."""
        self._worker = worker
        self._halted = False
        self._beat: object = None
        self._heard = time.monotonic()
        self._looks = PeriodicCallback(self._look, LOOK_EVERY * 1000)
        self._looks.start()

    @property
    def looking(self) -> bool:
        """Whether it still asks the scheduler."""
        return bool(self._looks.is_running())

    def teardown(self, worker: Worker) -> None:
        """The run has ended, or the worker does."""
        del worker
        self._looks.stop()
        self._heard = -PATIENCE

    def stop(self, task: str) -> HaltError | None:
        """Why this task may publish nothing more, if so; from any thread."""
        if self._halted:
            return HaltError("HALT is set where the run was started", code="halt")
        if time.monotonic() - self._heard > PATIENCE:
            return _alone("nothing is heard from where the run was started")
        if self._worker.status.name in ENDING:
            return _alone("the worker is being closed")
        found = self._worker.state.tasks.get(task)
        if found is None or found.state in TAKEN_AWAY:
            return _alone("nobody waits for this any more")
        return None

    def begin(self, task: str) -> bool:
        """Note that this task begins; whether one that has died since had begun it, for Dask runs it again then."""
        return bool(sync(self._worker.loop, self._begin, task, callback_timeout=PATIENCE))

    async def _begin(self, task: str) -> bool:
        keys = [self.name, task]
        again = await self._worker.scheduler.get_metadata(keys=keys, default=False)
        await self._worker.scheduler.set_metadata(keys=keys, value=True)
        return bool(again)

    async def _look(self) -> None:
        if time.monotonic() - self._heard > self._keeps_on:
            self._looks.stop()
            return
        try:
            async with asyncio.timeout(PATIENCE):
                if await self._worker.scheduler.event_is_set(name=self.name):
                    self._halted = True
                beat = await self._worker.scheduler.variable_get(name=self.name, timeout=PATIENCE, client=None)
        except (OSError, TimeoutError):  # Dask's CommClosedError is an OSError
            return
        if beat != self._beat:
            self._beat, self._heard = beat, time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Goes to a worker with each work of a run."""

    run: str

    def __call__(self) -> Post:
        worker: Any = get_worker()
        task = worker.get_current_task()
        watchman: Watchman = worker.plugins[self.run]
        return Post(worker=str(worker.address), stop=lambda: watchman.stop(task), again=watchman.begin(task))


def _alone(words: str) -> HaltError:
    return HaltError(words, code="worker-alone")
