"""A run on a terminal: how far each host is, below what is said. Needs rich."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from cas.events import Event
from cas.output.progress import Board
from cas.plan import Delivery

DRAWN_A_SECOND = 5


@contextmanager
def progress(
    deliveries: Sequence[Delivery], stream: TextIO, *, color: bool, clock: Callable[[], float]
) -> Iterator[tuple[Callable[[Event], None], Callable[[str], None]]]:
    """Shows how far each host is; gives what is told each event, and what puts a line above the display.

    Neither draws: a run of thousands of deliveries is not to wait for a terminal.
    """
    board = Board(deliveries, clock)
    with _Display(board, Console(file=stream, no_color=not color)) as display:
        yield board.take, display.said.append


class _Display(Live):
    """Draws the board now and then, after what has been said since."""

    def __init__(self, board: Board, console: Console) -> None:
        self.said: deque[str] = deque()
        super().__init__(
            get_renderable=lambda: Text("\n".join(board.lines(*console.size)), no_wrap=True, overflow="crop"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=DRAWN_A_SECOND,
        )

    def refresh(self) -> None:
        with self._lock, suppress(OSError, ValueError):  # whoever read it has gone: the run goes on
            lines = [self.said.popleft() for _ in range(len(self.said))]
            if lines:
                self.console.print(_AsItIs("".join(f"{line}\n" for line in lines)), soft_wrap=True, end="")
            super().refresh()


class _AsItIs:
    """Text that has its colors, and its lines' ends, already."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        yield Segment(self._text)
