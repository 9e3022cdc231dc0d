"""A run on a terminal: a progress line for each host, below what is said. Needs rich."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from cas.events import AttemptFailed, DeliveryFinished, Event
from cas.plan import Delivery


@contextmanager
def progress(
    deliveries: Sequence[Delivery], stream: TextIO, *, color: bool
) -> Iterator[tuple[Callable[[Event], None], Callable[[str], None]]]:
    """Shows how far each host is; gives what is told each event, and what puts a line above the display."""
    console = Console(file=stream, no_color=not color, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    hosts = Counter(_host(delivery.destination.address) for delivery in deliveries)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as display:
        tasks = {host: display.add_task(host, total=count, state="") for host, count in hosts.items()}

        def show(event: Event) -> None:
            match event:
                case DeliveryFinished():
                    display.update(tasks[_host(event.destination)], advance=1, state="")
                case AttemptFailed() if event.attempt.wait is not None:
                    display.update(tasks[_host(event.destination)], state=f"retry in {event.attempt.wait} s")
                case _:
                    pass

        def say(line: str) -> None:
            console.print(Text.from_ansi(line), soft_wrap=True)

        yield show, say


def _host(address: str) -> str:
    return address.partition(".")[0]
