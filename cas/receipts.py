"""Receipts: whether what stands in an inbox proves that a delivery was made. Asks gpg, by the function that is given.

Anybody who can write to an inbox can plant a claim or a receipt there. What is in it was compared with the delivery
already, where it lies; what remains is the signature: only the holder of the planned key can have made it.
"""

from __future__ import annotations

from collections.abc import Callable

from cas.errors import TransferError
from cas.parcel import Parcel
from cas.transports.transport import planned_content, refused
from cas.verdict import Verdict

Verify = Callable[[bytes, bytes], Verdict]
"""The verdict on some bytes and their detached signature. Raises SigningError."""


def is_unproved(item: Parcel) -> bool:
    """Whether a signed delivery counts as done by a claim whose signature is not the one that was made for it here."""
    claim, own = item.claim, item.envelope.signature
    return item.done and claim is not None and own is not None and claim.signature != own


def problem(item: Parcel, verify: Verify) -> TransferError | None:
    """Why an unproved delivery does not count as done. Raises CasError where gpg cannot be asked."""
    claim, own = item.claim, item.envelope.signature
    assert claim is not None
    assert own is not None
    if claim.signature is None:
        return refused(claim, "it holds no signature, and the message is not in the inbox any more")
    content = planned_content(item.envelope, claim)
    if content is None:
        return refused(claim, "it has another digest than the delivery")
    planned = item.delivery.sign and item.delivery.sign.key
    key = planned or verify(item.envelope.content(), own).key
    found = verify(content, claim.signature)
    if not found.good:
        return refused(claim, f"the message that is to be delivered {found}")
    if not found.is_for(item.envelope.identity):
        return refused(claim, "its signature was made for another delivery")
    return None if found.key == key else refused(claim, f"it is signed by {found.key}, and not by {key}")
