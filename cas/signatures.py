"""Signatures for a run: each distinct message signed once for each key, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

from cas.errors import CasError, HaltError, SigningError

AT_ONCE = max(2, min(4, os.cpu_count() or 1))
"""One gpg-agent serves all: more processes than this gain nothing."""

Content = Callable[[str], bytes]
"""A message's bytes, by digest; raises CasError."""
Sign = Callable[[bytes, str], bytes]
"""The signature of some bytes by the key with a fingerprint; raises SigningError."""
Wanted = tuple[str, str]
"""A message's digest, and the fingerprint of the key."""


def signatures(
    wanted: Iterable[Wanted], *, content: Content, sign: Sign, stop: Callable[[], HaltError | None]
) -> Mapping[Wanted, bytes | CasError]:
    """The signature of each, or why there is none. What `stop` says ends it: the rest gets that error.

    Of each key one goes first, and alone: it may ask for its passphrase, and what it cannot do, it cannot do again.
    """
    keys: dict[str, list[str]] = {}
    for digest, key in dict.fromkeys(wanted):
        keys.setdefault(key, []).append(digest)

    def signed(key: str, digest: str) -> bytes | CasError:
        if error := stop():
            return error
        try:
            return sign(content(digest), key)
        except CasError as error:
            return stop() or error  # the signal that stops cas may have ended gpg too

    made: dict[Wanted, bytes | CasError] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for key, (first, *rest) in keys.items():
            one = signed(key, first)
            again = (one for _ in rest) if _of_the_key(one) else pool.map(partial(signed, key), rest)
            made.update(zip(((digest, key) for digest in (first, *rest)), chain([one], again), strict=True))
    return made


def _of_the_key(result: bytes | CasError) -> bool:
    """Whether it failed in a way that is the same for every message."""
    return isinstance(result, SigningError) and result.code != "signing-failed"
