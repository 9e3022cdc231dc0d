"""What gpg's status lines say of a signature."""

from __future__ import annotations

import pytest

from cas.verdict import State, Verdict, verdict

KEY = "5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"
SUBKEY = "1C724CDDFAFD41550A5B735A8278792A9DEA129D"
SHORT = SUBKEY[-16:]
NEW = "NEWSIG"
VALID = f"VALIDSIG {SUBKEY} 2026-11-24 1800000000 0 4 0 22 10 00 {KEY}"
GOOD = f"GOODSIG {SHORT} Builder <builder@example.org>"


def of(*lines: str) -> Verdict:
    return verdict([line.split() for line in lines])


def test_one_good_signature_is_the_primary_keys_whichever_subkey_made_it():
    found = of(NEW, "KEY_CONSIDERED x 0", "SIG_ID x", GOOD, VALID, "TRUST_UNDEFINED 0 pgp")

    assert found == Verdict(state=State.GOOD, key=KEY, user="Builder <builder@example.org>")
    assert found.good
    assert str(found) == f"is signed by the key {KEY} (Builder <builder@example.org>)"


@pytest.mark.parametrize(
    ("lines", "state", "key"),
    [
        ((NEW, f"BADSIG {SHORT} Builder"), State.BAD, SHORT),
        ((NEW, f"EXPSIG {SHORT} Builder", VALID), State.EXPIRED, KEY),
        ((NEW, f"EXPKEYSIG {SHORT} Builder", VALID), State.EXPIRED_KEY, KEY),
        ((NEW, f"REVKEYSIG {SHORT} Builder", VALID), State.REVOKED_KEY, KEY),
        ((NEW, f"ERRSIG {SHORT} 22 10 00 1800000000 9 {SUBKEY}"), State.UNKNOWN_KEY, SUBKEY),
        ((NEW, f"ERRSIG {SHORT} 22 10 00 1800000000 9 -"), State.UNKNOWN_KEY, SHORT),
        ((NEW, f"ERRSIG {SHORT} 22 10 00 1800000000 9"), State.UNKNOWN_KEY, SHORT),
        ((NEW, f"ERRSIG {SHORT} 22 10 00 1800000000 4 {SUBKEY}"), State.UNREADABLE, SUBKEY),
        ((NEW, "ERRSIG"), State.UNREADABLE, None),
        ((NEW, GOOD, VALID, NEW, GOOD, VALID), State.SEVERAL, None),
        ((NEW, GOOD, VALID, NEW, f"ERRSIG {SHORT} 22 10 00 1800000000 9"), State.SEVERAL, None),
        ((NEW, GOOD, VALID, NEW), State.SEVERAL, None),
        (("NODATA 4",), State.UNREADABLE, None),
        ((), State.UNREADABLE, None),
        ((NEW, GOOD), State.UNREADABLE, None),
        ((NEW, GOOD, VALID.replace(" 00 ", " 13 ")), State.UNREADABLE, None),
    ],
)
def test_all_else_is_not_good_and_says_why(lines: tuple[str, ...], state: State, key: str | None):
    found = of(*lines)

    assert (found.state, found.key, found.good) == (state, key, False)
    assert str(found).startswith(("is ", "has ", "does not "))


def test_why_a_signature_cannot_be_read_is_said_where_it_is_known():
    assert str(Verdict(state=State.UNREADABLE)) == "has a signature that cannot be read"
    assert str(Verdict(state=State.UNREADABLE, why="it is empty")) == "has a signature that cannot be read: it is empty"
