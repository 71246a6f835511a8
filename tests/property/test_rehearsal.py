"""A dry run under the very policy that was in force finds that everything would be as it was."""

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import (
    EVERYBODY,
    Channel,
    Flow,
    Moment,
    Opening,
    Policy,
    Pool,
    Return,
    Returned,
    Terms,
)
from engine.domain.refusal import Refusal
from engine.domain.rehearsal import Recorded, rehearse
from engine.domain.release import release

ZONE = ZoneInfo("Asia/Shanghai")
DAY = date(2026, 11, 24)
EIGHT = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp() * 1000)
MINUTE = 60_000
KEY = ScheduleKey("D1", DAY.isoformat())
ACCOUNT = bytes(16)
PATIENTS = [bytes([n]) * 16 for n in range(1, 9)]
CHANNELS = [int(Channel.MINI_PROGRAM), int(Channel.WINDOW), int(Channel.DOCTOR)]

TERMS = st.builds(
    Terms,
    hold_seconds=st.sampled_from([60, 900, 3600]),
    closes_minutes=st.sampled_from([0, 30, 600]),
    cancel_minutes=st.sampled_from([0, 60, 900]),
    first_visits_max=st.sampled_from([None, 2]),
    follow_ups_max=st.sampled_from([None, 1]),
    openings=st.sampled_from([(), (Opening(60, Moment(1, 450)), Opening(40, Moment(0, 420)))]),
    pools=st.sampled_from(
        [(), (Pool("w", 40, Channel.WINDOW | Channel.DOCTOR, (Flow(Moment(0, 300), EVERYBODY),)),)]
    ),
    returned=st.sampled_from(
        [Returned(), Returned(Return.COOL_DOWN, 1200), Returned(Return.RANDOM, 60, 900)]
    ),
)

HOLDS = st.tuples(
    st.sampled_from(["0800", "0830", "0900"]),
    st.sampled_from(PATIENTS),
    st.sampled_from(CHANNELS),
    st.integers(0, 1),
)
STEPS = st.one_of(
    HOLDS,
    st.tuples(st.just("confirm"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5), st.sampled_from(["", "desk"])),
)


def command_of(step: tuple[Any, ...], held: int) -> s.Command:
    """Confirms and cancels are of one of the last that were asked for."""
    match step:
        case ("confirm", back):
            return s.ConfirmAppointment(uid(max(1, held - back)), ACCOUNT)
        case ("cancel", back, by):
            return s.CancelAppointment(uid(max(1, held - back)), ACCOUNT, by)
        case (clock, patient, channel, visit):
            return s.HoldSeat(uid(held + 1), clock, patient, ACCOUNT, 0, channel, visit)
    raise AssertionError(step)


def uid(number: int) -> bytes:
    return number.to_bytes(16, "big")


@settings(deadline=None, max_examples=200)
@given(
    TERMS,
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from([0, 1, 10, 60, 300]), STEPS), min_size=10, max_size=50),
)
def test_under_its_own_policy_nothing_recorded_is_refused(
    terms: Terms, capacities: list[int], asked: list[tuple[int, tuple[Any, ...]]]
) -> None:
    policy = Policy(
        active_appointments_max=99,
        account_holds_max=99,
        day_appointments_max=99,
        terms={("", ""): terms},
    )
    slots = tuple(
        PlannedSlot(clock, EIGHT + n * 30 * MINUTE, size)
        for n, (clock, size) in enumerate(zip(["0800", "0830", "0900"], capacities, strict=True))
    )
    session = release(Session("morning", "d", "expert", None, 1, slots), terms, DAY, ZONE)
    day = s.Schedule()
    now = EIGHT - 1800 * MINUTE
    recorded: list[Recorded] = []

    def write(events: list[s.Event]) -> None:
        for event in events:
            s.apply(day, event)
            recorded.append(Recorded(now, KEY, event))

    write([s.ScheduleOpened((session,))])
    booked = 0
    held = 0
    for minutes, step in asked:
        command = command_of(step, held)
        held += isinstance(command, s.HoldSeat)
        now += minutes * MINUTE
        swept = s.decide(day, s.ExpireHolds(), now, policy)  # the sweeper comes by every second
        assert not isinstance(swept, Refusal)
        write(swept)
        events = s.decide(day, command, now, policy)
        if not isinstance(events, Refusal):
            booked += any(isinstance(event, s.SeatHeld) for event in events)
            write(events)
    found = rehearse(recorded, policy, ZONE)
    assert found.refused == []
    assert found.asked["book"] == booked
