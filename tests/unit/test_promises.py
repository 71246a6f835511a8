"""What people were promised, read from the lines that the load wrote: what SQL must hold afterwards."""

import json
from typing import Any

from benchmarks.check import promises

PENDING, BOOKED, CANCELLED = 1, 2, 5
HELD: dict[str, Any] = {
    "said": "held",
    "id": "a",
    "number": 1,
    "slot_id": "D1-20261201-0800",
    "patient_id": "p",
    "key": "k",
}


def _statuses(*said: dict[str, Any]) -> dict[str, set[int]]:
    found, twice = promises(json.dumps(line) for line in said)
    assert not twice
    return {id_: promise.statuses for id_, promise in found.items()}


def test_a_change_that_was_answered_leaves_one_number_and_cancels_the_other() -> None:
    changed = {"said": "changed", "id": "a", "new": "b", "number": 7, "slot_id": "D2-20261201-0900"}
    told = (HELD, {"said": "booked", "id": "a"}, {"said": "change asked", "id": "a"})
    assert _statuses(*told) == {"a": {BOOKED, CANCELLED}}
    assert _statuses(*told, changed | {"patient_id": "p"}) == {"a": {CANCELLED}, "b": {BOOKED}}


def test_a_change_that_was_refused_leaves_the_number_as_it_was() -> None:
    told = (HELD, {"said": "change asked", "id": "a"}, {"said": "booked", "id": "a"})
    assert _statuses(*told) == {"a": {BOOKED}}


def test_what_was_asked_and_not_answered_may_have_been_done() -> None:
    assert _statuses(HELD, {"said": "confirm asked", "id": "a"}) == {"a": {PENDING, BOOKED}}
    assert _statuses(HELD, {"said": "cancel asked", "id": "a"}) == {"a": {PENDING, CANCELLED}}


def test_one_key_that_gave_two_numbers_is_told() -> None:
    _, twice = promises(json.dumps(line) for line in (HELD, HELD | {"id": "b"}))
    assert twice == ["key k gave a and b"]
