"""How a day of waiting begins: a queue for everybody, and numbers that nobody else can have."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain import waiting_room as w
from engine.domain.refusal import Refusal
from engine.domain.room_plan import GENERAL, LETTERS, RoomPlan, opening
from engine.domain.waiting_terms import QueueTerms, WaitingTerms, WalkIns

NOW = 1_795_478_400_000
CLOSES_AT = NOW + 8 * 3_600_000
DEFAULT = WaitingTerms()
PHARMACY = QueueTerms("pharmacy", "pharmacy", "P", 1, 999, "药房")


def plan_of(*practitioners: str) -> RoomPlan:
    return RoomPlan("0304", "2026-11-24", CLOSES_AT, practitioners)


def opened(plan: RoomPlan, terms: WaitingTerms = DEFAULT) -> w.WaitingRoom:
    return w.replay(opening(plan, terms, NOW))


def test_each_practitioner_on_duty_has_a_queue_and_a_prefix_of_her_own() -> None:
    room = opened(plan_of("D0002", "D0001"), WaitingTerms(queues=(PHARMACY,)))
    assert (room.department_id, room.day, room.closes_at, room.at) == ("0304", "2026-11-24", CLOSES_AT, NOW)
    told = [(q.queue_id, q.kind, q.prefix, q.first, q.last, q.practitioner_id) for q in room.queues.values()]
    assert told == [
        (GENERAL, "visit", "A", 1, 999, ""),
        ("D0002", "visit", "B", 501, 999, "D0002"),
        ("D0001", "visit", "C", 501, 999, "D0001"),
        ("pharmacy", "pharmacy", "P", 1, 999, ""),
    ]


def test_a_day_without_practitioners_has_the_general_queue() -> None:
    assert list(opened(plan_of()).queues) == [GENERAL]


def test_walk_ins_get_the_numbers_that_the_hospital_decided() -> None:
    terms = WaitingTerms(walk_ins=WalkIns(701, 750, 31, 60, "W"))
    queues = opened(plan_of("D1"), terms).queues
    assert (queues[GENERAL].prefix, queues[GENERAL].first, queues[GENERAL].last) == ("W", 31, 60)
    assert (queues["D1"].prefix, queues["D1"].first, queues["D1"].last) == ("A", 701, 750)


def test_no_practitioner_has_a_prefix_that_is_read_as_a_number() -> None:
    assert not {"I", "O"} & set(LETTERS)
    prefixes = [q.prefix for q in opened(plan_of(*(f"D{n}" for n in range(60)))).queues.values()]
    assert not any(letter in prefix for prefix in prefixes for letter in "IO")


@given(st.integers(0, 60), st.lists(st.sampled_from([*LETTERS, "AA", "AB", "DD"]), unique=True, max_size=8))
def test_no_two_queues_share_a_number(practitioners: int, prefixes: list[str]) -> None:
    general, *others = prefixes or ["A"]
    terms = WaitingTerms(
        queues=tuple(QueueTerms(f"q{p}", "visit", p, 1, 999, p) for p in others),
        walk_ins=WalkIns(general_prefix=general),
    )
    room = opened(plan_of(*(f"D{n}" for n in range(practitioners))), terms)
    assert len(room.queues) == 1 + practitioners + len(others)
    for one, other in combinations(room.queues.values(), 2):
        assert one.prefix != other.prefix or one.last < other.first or other.last < one.first


@given(st.integers(0, 30))
def test_it_is_what_commands_would_have_made(practitioners: int) -> None:
    """`decide` would not have refused any of it, and the same plan always opens the same day."""
    plan = plan_of(*(f"D{n}" for n in range(practitioners)))
    terms = WaitingTerms(queues=(PHARMACY,))
    events = opening(plan, terms, NOW)
    assert events == opening(plan, terms, NOW)
    room = w.WaitingRoom()
    for n, event in enumerate(events):
        id_ = n.to_bytes(16, "big")
        command: w.Command
        match event:
            case w.DayOpened():
                command = w.OpenDay(id_, event.department_id, event.day, event.closes_at)
            case w.QueueSet():
                command = w.SetQueue(
                    id_, event.queue_id, event.kind, event.prefix, event.first, event.last,
                    event.practitioner_id,
                )  # fmt: skip
            case _:
                pytest.fail(f"a day does not begin with {event}")
        assert not isinstance(w.decide(room, command, NOW), Refusal)
        w.apply(room, event)
    assert not room.commands, "nobody gave a command yet"
