"""A run: what the executor is given, and its events on their way through markers and views to an exit code."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cas import engines
from cas.diagnostics import Diagnostic
from cas.events import DeliveryFinished, Event, RunFinished
from cas.inventory import Destination, Policy
from cas.names import timestamp
from cas.output.console import Console, Form, write
from cas.output.result import ResultView
from cas.output.tenths import MOST_LINES, Tenths
from cas.output.text import TextView
from cas.plan import Delivery
from cas.surroundings import Surroundings
from cas.verdict import State, Verdict

if TYPE_CHECKING:
    from cas.batch import World

MARKERS = "failed-sends"
LOGINS = 8
"""At one host at once: sshd drops some of those that wait beside ten others (sshd_config(5), MaxStartups)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds: until the whole run has to end (None for no limit), and how long another run's lock is waited for.

    `parallel`: how many hosts are delivered to at once; None for as many as suit the engine.
    """

    deadline: int | None = None
    lock_timeout: int = 30
    parallel: int | None = None


@contextmanager
def world(
    policy: Policy, root: Path, limits: Limits, around: Surroundings, engine: engines.Chosen | None = None
) -> Iterator[World]:
    """The doors for one run; `root` is what the paths of messages are relative to. Raises LedgerError.

    `engine`: None for this process.
    """
    # Imported here: `plan` and `validate` go without them.
    from cas import locks, transports
    from cas.batch import World
    from cas.ledger import Ledger

    end = float("inf") if limits.deadline is None else time.monotonic() + limits.deadline
    engine = engine or engines.local(around)
    pause, stop = around.signals.pause, engine.stop
    logins: dict[tuple[str | None, int | None], threading.BoundedSemaphore] = {}

    def login(to: Destination) -> threading.BoundedSemaphore:
        return logins.setdefault((to.host, to.port), threading.BoundedSemaphore(LOGINS))

    with closing(Ledger(around.state)) as ledger:
        yield World(
            connect=partial(transports.opened, home=around.home, user=around.user, login=login),
            engine=engine.attempt,
            places=limits.parallel or engine.places,
            where=cache(partial(transports.told, home=around.home, user=around.user)),
            hold=lambda inboxes: locks.held(
                inboxes,
                around.state,
                patience=min(limits.lock_timeout, max(0.0, end - time.monotonic())),
                pause=pause,
                stop=stop,
            ),
            stop=stop,
            require_durable=policy.require_durable,
            verify=partial(_verdict, policy, around),
            remaining=lambda: end - time.monotonic(),
            now=around.now,
            pause=pause,
            ledger=ledger,
            run=f"{timestamp(around.now())}-{secrets.token_hex(4)}",
            root=root,
        )


def carried_out(
    command: str,
    events: Iterator[Event],
    deliveries: Sequence[Delivery],
    root: Path,
    around: Surroundings,
    console: Console,
    warnings: Sequence[Diagnostic] = (),
    *,
    keep: bool = True,
) -> int:
    """Have the events happen, marked and shown; the exit code. Without `keep` nothing is marked, or open afterwards."""
    from cas import failed_sends

    console.report(dict.fromkeys(warnings))
    result = ResultView(command, console.result, every_event=console.form is Form.JSONL)
    ended: RunFinished | None = None
    with around.signals.noted(), _words(command, deliveries, console, around) as show_words:
        views = [show_words]
        if console.form is not Form.TEXT:
            views.append(result.show)
        if console.record:
            views.append(console.record.show)
        for event in failed_sends.marked(events, around.state / MARKERS, root) if keep else map(_over, events):
            for show in views:
                show(event)
            ended = event if isinstance(event, RunFinished) else ended
    assert ended is not None
    code = 128 + around.signals.caught if around.signals.caught and ended.halted else int(ended.exit_code)
    if console.form is not Form.TEXT:
        result.end(code, ended.halted, warnings)
    return code


def _over(event: Event) -> Event:
    return replace(event, open=False) if isinstance(event, DeliveryFinished) else event


def _verdict(policy: Policy, around: Surroundings, content: bytes, signature: bytes) -> Verdict:
    """By the keys that the policy names, or else by the user's own: those that sign here are among them."""
    from cas.verifier import Verifier, verifier_for

    found = verifier_for(policy, around.environment, around.home).verdict(content, signature)
    if found.state is State.UNKNOWN_KEY and policy.keyring:
        return Verifier(environment=around.environment).verdict(content, signature)
    return found


@contextmanager
def _words(
    command: str, deliveries: Sequence[Delivery], console: Console, around: Surroundings
) -> Iterator[Callable[[Event], None]]:
    """The view for people: a progress display on a terminal; elsewhere a line an event, but for a single send."""
    text = console.form is Form.TEXT
    can_draw = console.err.isatty() and around.environment.get("TERM") != "dumb"
    on_terminal = can_draw and not console.quiet and not console.verbose and command != "send"
    many = len(deliveries) > MOST_LINES and not console.verbose
    view = TextView(
        console.result if text else lambda _: None,
        console.say,
        console.problem,
        events=console.verbose or (command != "send" and not on_terminal and not many),
        recap=text and command != "send",
        arrived="rehearsed" if command == "rehearse" else "sent",
        tracebacks=console.verbose,
    )
    if not on_terminal:
        tenths = Tenths(len(deliveries), console.say)

        def show_both(event: Event) -> None:
            tenths.take(event)
            view.show(event)

        yield show_both if many else view.show
        return
    from cas.output.terminal import progress

    def above(stream: TextIO, line: str) -> None:
        (say(line) if stream.isatty() else write(stream, line))

    with progress(deliveries, console.err, color=console.color, clock=time.monotonic) as (advance, say):
        console.write = above

        def show(event: Event) -> None:
            view.show(event)
            advance(event)

        try:
            yield show
        finally:
            console.write = write
