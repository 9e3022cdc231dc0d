"""Parts of a batch: what is attempted together, so that its bytes fit into memory."""

from __future__ import annotations

from test_batch import item, refusal

from cas.parcel import Parcel, parts

SIZE = len(b"message 1")


def sequences(part: list[Parcel]) -> list[int]:
    return [one.delivery.message.sequence for one in part]


def test_a_batch_that_fits_is_one_part():
    items = [item(number) for number in (1, 2, 3)]

    assert list(parts(items, 3 * SIZE)) == [items]


def test_a_larger_batch_goes_in_parts_and_a_message_larger_than_a_part_goes_alone():
    items = [item(number, conversation=f"c{number}") for number in (1, 2, 3)]

    assert [sequences(part) for part in parts(items, 2 * SIZE)] == [[1, 2], [3]]
    assert [sequences(part) for part in parts(items, 1)] == [[1], [2], [3]]


def test_what_stands_of_a_lane_comes_along_with_its_next_part():
    items = [item(number) for number in (1, 2)] + [item(1, conversation="other")]
    found = parts(items, SIZE)

    assert sequences(next(found)) == [1]
    items[0].done = True
    assert sequences(next(found)) == [1, 2]
    assert next(found) == items[2:]


def test_what_follows_an_error_in_its_lane_is_in_no_part():
    items = [item(number) for number in (1, 2)] + [item(1, conversation="other")]
    found = parts(items, SIZE)
    next(found)[0].error = refusal()

    assert list(found) == [items[2:]]
