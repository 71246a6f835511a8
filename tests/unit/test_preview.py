"""What a change of a day would do: on a copy, and told by what it does to people and to seats."""

from copy import deepcopy

import pytest

from engine.domain import schedule as s
from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.views.preview import Preview, preview

HOUR = 3_600_000
NOW = 1_800_000_000_000 // HOUR * HOUR
DAY = NOW + 24 * HOUR
STAFF = "staff:" + "0" * 32
POLICY = Policy()


def uid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def morning(slots: int = 4, capacity: int = 2) -> Session:
    return Session(
        "morning",
        "0304",
        "expert",
        "R1",
        1000,
        tuple(
            PlannedSlot(f"{8 + n // 2:02d}{n % 2 * 30:02d}", DAY + n * HOUR // 2, capacity)
            for n in range(slots)
        ),
    )


def do(state: s.Schedule, command: s.Command, now: int = NOW) -> None:
    outcome = s.decide(state, command, now, POLICY)
    assert not isinstance(outcome, Refusal), outcome
    for event in outcome:
        s.apply(state, event)


@pytest.fixture
def state() -> s.Schedule:
    """0800 has one booked and one held, 0830 one booked."""
    state = s.Schedule()
    s.apply(state, s.ScheduleOpened((morning(),)))
    for number, clock in ((1, "0800"), (2, "0800"), (3, "0830")):
        do(state, s.HoldSeat(uid(number), clock, uid(100 + number), uid(9)))
        if number != 2:
            do(state, s.ConfirmAppointment(uid(number), uid(9)))
    return state


def told(found: Preview) -> dict[int, str]:
    return {int.from_bytes(one.appointment_id, "big"): one.effect for one in found.affected}


def command(kind: type, *fields: object, expected: int = 0) -> s.Structural:
    made: s.Structural = kind(uid(50), expected, STAFF, "", *fields)
    return made


@pytest.mark.parametrize(
    ("asked", "effects", "opened", "closed"),
    [
        (command(s.ChangeCapacity, "morning", "", 1), {}, 4, 0),
        (command(s.ChangeCapacity, "morning", "0900", -2), {}, 0, 2),
        (command(s.AddSeats, "0800", 3, 255), {}, 3, 0),
        (command(s.AddPatient, "0800", uid(4), uid(104), uid(9)), {4: "added"}, 0, 0),
        (command(s.MoveSession, "morning", (), "R2"), {1: "room", 2: "room", 3: "room"}, 0, 0),
        (command(s.SetSessionStatus, "morning", "paused", ""), {}, 0, 5),
        (
            command(s.SetSessionStatus, "morning", "suspended", "leave"),
            {1: "suspended", 2: "released", 3: "suspended"},
            0,
            5,
        ),
        (command(s.SubstituteSession, "morning", "D2"), {1: "substitute", 3: "substitute"}, 0, 0),
    ],
)
def test_what_each_change_does(
    state: s.Schedule, asked: s.Structural, effects: dict[int, str], opened: int, closed: int
) -> None:
    before = deepcopy(state)
    found = preview(state, [asked], NOW, POLICY)
    assert state == before
    assert (found.refusal, found.revision) == (None, 1)
    assert (told(found), found.seats_opened, found.seats_closed) == (effects, opened, closed)
    # What is foreseen is what happens.
    do(state, asked)
    assert found.revision == state.revision
    for one in found.affected:
        assert state.appointments[one.appointment_id].clock == one.new_clock


def test_a_moved_slot_keeps_its_line_and_its_number(state: s.Schedule) -> None:
    moves = tuple(
        (f"{8 + n // 2:02d}{n % 2 * 30:02d}", f"{9 + n // 2:02d}{n % 2 * 30:02d}") for n in range(4)
    )
    asked = command(
        s.MoveSession,
        "morning",
        tuple((old, new, DAY + HOUR + n * HOUR // 2) for n, (old, new) in enumerate(moves)),
        "R1",
    )
    found = preview(state, [asked], NOW, POLICY)
    assert [(x.was, x.clock, x.capacity, x.new_capacity, x.free, x.new_free) for x in found.slots] == [
        ("0800", "0900", 2, 2, 0, 0),
        ("0830", "0930", 2, 2, 1, 1),
        ("0900", "1000", 2, 2, 2, 2),
        ("0930", "1030", 2, 2, 2, 2),
    ]
    assert [(x.clock, x.new_clock, x.number, x.effect) for x in found.affected] == [
        ("0800", "0900", 1, "moved"),
        ("0800", "0900", 2, "moved"),
        ("0830", "0930", 3, "moved"),
    ]
    assert found.affected[0].new_starts_at - found.affected[0].starts_at == HOUR


def test_taking_a_session_up_again_frees_those_who_wait_for_their_fate(state: s.Schedule) -> None:
    do(state, command(s.SetSessionStatus, "morning", "suspended", "leave"))
    asked = s.SetSessionStatus(uid(51), 1, STAFF, "", "morning", "open", "")
    found = preview(state, [asked], NOW, POLICY)
    assert told(found) == {1: "restored", 3: "restored"}
    assert found.seats_opened == 6  # the held one went back


def test_a_new_slot_was_nowhere(state: s.Schedule) -> None:
    session = Session("night", "0304", "expert", None, 1000, (PlannedSlot("1800", DAY + 10 * HOUR, 3),))
    found = preview(state, [command(s.OpenSession, session)], NOW, POLICY)
    assert [(x.was, x.clock, x.capacity, x.new_capacity) for x in found.slots] == [("", "1800", 0, 3)]
    empty = preview(s.Schedule(), [command(s.OpenSession, session)], NOW, POLICY)
    assert (empty.refusal, empty.seats_opened, empty.revision) == (None, 3, 1)


def test_seats_that_are_blocked_are_no_capacity(state: s.Schedule) -> None:
    found = preview(state, [command(s.ChangeCapacity, "morning", "0900", -2)], NOW, POLICY)
    assert [(x.clock, x.capacity, x.new_capacity, x.free, x.new_free) for x in found.slots] == [
        ("0900", 2, 0, 2, 0)
    ]


def test_the_first_refusal_ends_it(state: s.Schedule) -> None:
    found = preview(
        state,
        [
            command(s.ChangeCapacity, "morning", "0900", 1),
            command(s.ChangeCapacity, "night", "", 1, expected=-1),
        ],
        NOW,
        POLICY,
    )
    # The second has the id of the first, so it is a retry and changes nothing.
    assert (found.refusal, found.revision) == (None, 1)
    other = s.ChangeCapacity(uid(52), -1, STAFF, "", "night", "", 1)
    found = preview(state, [command(s.ChangeCapacity, "morning", "0900", 1), other], NOW, POLICY)
    assert found.refusal is not None and found.refusal.reason is Reason.NO_SUCH_SESSION
    assert (found.revision, found.affected, found.slots) == (0, (), ())
    stale = preview(state, [command(s.ChangeCapacity, "morning", "", 1, expected=3)], NOW, POLICY)
    assert stale.refusal == Refusal(Reason.STALE_REVISION, {"revision": 0, "by": ""})
