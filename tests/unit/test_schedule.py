"""The guards of the schedule, in the order in which decide has them."""

import copy

import pytest

from engine.domain.planning import PlannedSlot, Session
from engine.domain.refusal import Reason, Refusal
from engine.domain.schedule import (
    CancelAppointment,
    Command,
    ConfirmAppointment,
    Event,
    ExpireHolds,
    HoldSeat,
    OpenSchedule,
    Schedule,
    ScheduleOpened,
    SeatBooked,
    SeatHeld,
    SeatReleased,
    Status,
    answer,
    apply,
    conservation_error,
    decide,
)
from engine.domain.seats import remaining

NOW = 1_000_000
EIGHT, HALF_PAST, PAST = "0800", "0830", "0730"
PLAN = (
    Session(
        "morning",
        "0304",
        "expert",
        "r1",
        5000,
        (
            PlannedSlot(PAST, NOW - 1, 1),
            PlannedSlot(EIGHT, NOW + 3_600_000, 1),
            PlannedSlot(HALF_PAST, NOW + 5_400_000, 2),
        ),
    ),
)


def i(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def hold(name: str, clock: str = EIGHT, patient: str = "ann", seconds: int = 60) -> HoldSeat:
    return HoldSeat(i(name), clock, i(patient), i("account"), seconds)


def confirm(name: str, account: str = "account") -> ConfirmAppointment:
    return ConfirmAppointment(i(name), i(account))


def cancel(name: str, account: str = "account") -> CancelAppointment:
    return CancelAppointment(i(name), i(account))


def run(schedule: Schedule, command: Command, now: int = NOW) -> list[Event] | Refusal:
    outcome = decide(schedule, command, now)
    if not isinstance(outcome, Refusal):
        for event in outcome:
            apply(schedule, event)
    return outcome


@pytest.fixture
def schedule() -> Schedule:
    """0800 is full (ann holds it), bob booked one of two at 0830, cy's hold there was cancelled."""
    schedule = Schedule()
    run(schedule, OpenSchedule(PLAN))
    run(schedule, hold("taken"))
    run(schedule, hold("booked", HALF_PAST, "bob"))
    run(schedule, confirm("booked"))
    run(schedule, hold("gone", HALF_PAST, "cy"))
    run(schedule, cancel("gone"))
    return schedule


LATER = NOW + 60_000


@pytest.mark.parametrize(
    ("command", "now", "expected"),
    [
        # HoldSeat
        (hold("taken"), NOW, []),
        (hold("taken", HALF_PAST), NOW, Refusal(Reason.KEY_REUSED)),
        (hold("taken", EIGHT, "bob"), NOW, Refusal(Reason.KEY_REUSED)),
        (hold("gone", HALF_PAST, "cy"), NOW, []),
        (hold("h", "0900"), NOW, Refusal(Reason.NO_SUCH_SLOT)),
        (hold("h", PAST), NOW, Refusal(Reason.SLOT_PAST)),
        (
            hold("h", HALF_PAST, "ann"),
            NOW,
            Refusal(Reason.ALREADY_BOOKED, {"appointment_id": i("taken").hex()}),
        ),
        (hold("h", EIGHT, "dan"), NOW, Refusal(Reason.SLOT_FULL)),
        (hold("h", EIGHT, "dan"), LATER - 1, Refusal(Reason.SLOT_FULL)),
        (
            hold("h", EIGHT, "dan"),
            LATER,
            [
                SeatReleased(i("taken"), "expired"),
                SeatHeld(i("h"), EIGHT, 0, i("dan"), i("account"), LATER + 60_000),
            ],
        ),
        (
            hold("h", HALF_PAST, "ann"),
            LATER,
            [
                SeatReleased(i("taken"), "expired"),
                SeatHeld(i("h"), HALF_PAST, 1, i("ann"), i("account"), LATER + 60_000),
            ],
        ),
        (
            hold("h", HALF_PAST, "dan"),
            NOW,
            [SeatHeld(i("h"), HALF_PAST, 1, i("dan"), i("account"), NOW + 60_000)],
        ),
        # a hold never outlives the slot's start
        (
            hold("h", HALF_PAST, "dan", 3600),
            NOW + 5_000_000,
            [SeatHeld(i("h"), HALF_PAST, 1, i("dan"), i("account"), NOW + 5_400_000)],
        ),
        # ConfirmAppointment
        (confirm("nobody"), NOW, Refusal(Reason.NO_SUCH_APPOINTMENT)),
        (confirm("taken", "another"), NOW, Refusal(Reason.NO_SUCH_APPOINTMENT)),
        (confirm("booked"), NOW, []),
        (confirm("gone"), NOW, Refusal(Reason.ALREADY_CANCELLED)),
        (confirm("taken"), LATER, Refusal(Reason.HOLD_EXPIRED)),
        (confirm("taken"), LATER - 1, [SeatBooked(i("taken"))]),
        # CancelAppointment
        (cancel("nobody"), NOW, Refusal(Reason.NO_SUCH_APPOINTMENT)),
        (cancel("taken", "another"), NOW, Refusal(Reason.NO_SUCH_APPOINTMENT)),
        (cancel("gone"), NOW, []),
        (cancel("booked"), NOW + 5_400_000, Refusal(Reason.SLOT_PAST)),
        (cancel("taken"), LATER, [SeatReleased(i("taken"), "expired")]),
        (cancel("booked"), LATER, [SeatReleased(i("booked"), "cancelled")]),
        # ExpireHolds, OpenSchedule
        (ExpireHolds(), LATER - 1, []),
        (ExpireHolds(), LATER, [SeatReleased(i("taken"), "expired")]),
        (OpenSchedule(PLAN), NOW, []),
    ],
)
def test_decide(schedule: Schedule, command: Command, now: int, expected: list[Event] | Refusal) -> None:
    before = copy.deepcopy(schedule)
    assert decide(schedule, command, now) == expected
    assert schedule == before, "decide changed the state"


def test_a_closed_day_opens_once() -> None:
    assert decide(Schedule(), OpenSchedule(PLAN), NOW) == [ScheduleOpened(PLAN)]


def test_confirming_what_expired_says_so(schedule: Schedule) -> None:
    run(schedule, ExpireHolds(), LATER)
    assert decide(schedule, confirm("taken"), LATER) == Refusal(Reason.HOLD_EXPIRED)


def test_a_paid_booking_never_expires(schedule: Schedule) -> None:
    assert decide(schedule, ExpireHolds(), NOW + 10**9) == [SeatReleased(i("taken"), "expired")]


def test_numbers_run_through_the_session_and_the_lowest_free_one_is_given(schedule: Schedule) -> None:
    assert answer(schedule, i("booked")).number == 3  # seats 1 (0730), 2 (0800), 3 and 4 (0830)
    run(schedule, hold("dan", HALF_PAST, "dan"))
    assert answer(schedule, i("dan")).number == 4
    run(schedule, cancel("booked"))
    run(schedule, hold("eve", HALF_PAST, "eve"))
    assert answer(schedule, i("eve")).number == 3


def test_a_number_that_lost_its_claim_leaves_no_trace(schedule: Schedule) -> None:
    before = copy.deepcopy(schedule)
    run(schedule, hold("h", HALF_PAST, "dan"))
    apply(schedule, SeatReleased(i("h"), "lost_claim"))
    assert schedule == before


def test_conservation_counts_from_both_sides(schedule: Schedule) -> None:
    assert conservation_error(schedule) == 0
    assert remaining(schedule.slots[HALF_PAST]) == 1
    schedule.slots[HALF_PAST].taken |= 2  # a seat that nobody has
    assert conservation_error(schedule) == 1
    schedule.appointments[i("gone")].status = Status.BOOKED  # and one that two have
    schedule.appointments[i("gone")].seat = 0
    assert conservation_error(schedule) == 2
