"""Signatures for a run: one for each delivery, since a signature says which delivery it is for; several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from cas.errors import CasError, HaltError, SigningError
from cas.plan import Signing

AT_ONCE = max(2, min(4, os.cpu_count() or 1))
"""One gpg-agent serves all: more processes than this gain nothing."""

Content = Callable[[str], bytes]
"""A message's bytes, by digest; raises CasError."""
Sign = Callable[[bytes, Signing], bytes]
"""The signature of some bytes; raises SigningError."""


def signatures(
    wanted: Iterable[Signing], *, content: Content, sign: Sign, stop: Callable[[], HaltError | None]
) -> Mapping[Signing, bytes | CasError]:
    """The signature of each, or why there is none. What `stop` says ends it: the rest gets that error.

    Of each key one goes first, and alone: it may ask for its passphrase, and what it cannot do, it cannot do again.
    """
    keys: dict[str, list[Signing]] = {}
    for one in dict.fromkeys(wanted):
        keys.setdefault(one.key, []).append(one)

    def signed(one: Signing) -> bytes | CasError:
        if error := stop():
            return error
        try:
            return sign(content(one.digest), one)
        except CasError as error:
            return stop() or error  # the signal that stops cas may have ended gpg too

    made: dict[Signing, bytes | CasError] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first, *rest in keys.values():
            result = signed(first)
            again = (result for _ in rest) if _of_the_key(result) else pool.map(signed, rest)
            made.update(zip((first, *rest), chain([result], again), strict=True))
    return made


def _of_the_key(result: bytes | CasError) -> bool:
    """Whether it failed in a way that is the same for every message."""
    return isinstance(result, SigningError) and result.code != "signing-failed"
