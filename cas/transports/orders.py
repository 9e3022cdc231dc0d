"""Orders: the deliveries of an attempt that another process makes, as data, and what it says came of them. Pure.

That process may be on another machine, and is taken for a stranger: what cannot be so raises ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cas.errors import CasError, HaltError
from cas.names import SIGNATURE_SUFFIX
from cas.transports import wire
from cas.transports.attempt import Progress, lanes_of


def of(batch: Sequence[Progress]) -> Iterator[wire.Fields]:
    """What is missing, each behind what is known to stand before it in its lane."""
    for lane in lanes_of(batch).values():
        after = ""
        for item in lane:
            if item.done:
                after = max(after, item.name)
            else:
                yield {**wire.order(item), "after": max(after, item.after)}


def see(item: Progress, name: str, heard: set[tuple[str, bool]]) -> None:
    """A name has become visible there, and is on disk; raises ValueError where that was said before."""
    message = wire.canonical(name.removesuffix(SIGNATURE_SUFFIX) if isinstance(name, str) else None)
    news = (item.envelope.identity, name == message)
    if news in heard:
        raise ValueError("no news")
    heard.add(news)
    item.envelope = replace(item.envelope, name=message)
    if name == message:
        item.done = item.ours = item.asked = True


def settle(missing: Mapping[str, Progress], found: Sequence[Mapping[str, Any]], *, halted: bool) -> None:
    """Take over where all stand; raises ValueError where that cannot be.

    A lane ends at its first error. Without one, what is not done would be tried again without end.
    """
    if sorted(one["identity"] for one in found) != sorted(missing):
        raise ValueError("not what was ordered")
    for one in found:
        item = missing[one["identity"]]
        seen = item.done
        wire.stand(item, one)
        if seen and not item.done:
            item.done = item.ours = True
            raise ValueError("it was shown")
        if isinstance(item.error, HaltError) and not halted:
            raise ValueError("there is no HALT")
    for lane in lanes_of(list(missing.values())).values():
        stopped = next((item for item in lane if not item.done), None)
        if stopped and stopped.error is None:
            raise ValueError("neither done nor an error")


def lose(items: Iterable[Progress], error: CasError, *, asked: bool) -> None:
    """No answer came. What nobody has seen published may be so all the same, where that was `asked` for."""
    for item in items:
        item.tried = True
        if not item.done:
            item.error, item.asked = error, item.asked or asked
