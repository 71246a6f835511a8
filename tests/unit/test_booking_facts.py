"""What a waiting room is told of a booking, from the gateway's memory; distances; what is not booked."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from aiohttp import web

from engine.domain import schedule as s
from engine.domain.limits import SLOT_MS
from engine.domain.waiting_room import Where
from engine.records.arrivals import Booked
from engine.records.catalog import NOT_IMPORTED, Campus, Catalog, Department, ScheduleRow, SessionOutline
from engine.views.availability import Availability
from web import keys
from web.faults import BOOKINGS
from web.queues.booking_facts import UNKNOWN_M, facts_of, metres, not_booked, session_ends_at

HOUR = 3_600_000
DAY = date(2026, 11, 24)
MIDNIGHT = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp() * 1000)
CLOCKS = (("0800", 8 * HOUR, 5), ("0830", 8 * HOUR + HOUR // 2, 5), ("1000", 10 * HOUR, 5))
MORNING = SessionOutline("morning", "cardio", "expert", None, 5000, CLOCKS)
EVENING = SessionOutline(
    "night", "cardio", "expert", None, 5000, (("1800", 18 * HOUR, 5),), (), (), "open", "D2"
)
BOOKED = Booked(
    bytes(16),
    "D1-20261124",
    "D1-20261124-0830",
    3,
    bytes(16),
    bytes(16),
    int(s.Status.BOOKED),
    None,
    datetime(2026, 11, 24, 8, 30, tzinfo=UTC),
    "cardio",
    1,
    "张伟",
)


def app_of(*sessions: SessionOutline, campus: Campus | None = None) -> web.Application:
    department = Department("cardio", None, "cardio", "", "east", "", "", None, None, None, 0)
    campuses = {} if campus is None else {"east": campus}
    catalog = Catalog(1, NOT_IMPORTED, {"cardio": department}, {}, {}, {}, campuses)
    app = web.Application()
    app[keys.AVAILABILITY] = Availability(catalog, [ScheduleRow("D1", DAY, False, sessions)])
    return app


def test_a_number_is_of_its_slot_and_its_session() -> None:
    facts = facts_of(app_of(MORNING, EVENING), BOOKED)
    assert (facts.department_id, facts.day, facts.practitioner_id) == ("cardio", "2026-11-24", "D1")
    assert facts.starts_at == MIDNIGHT + 8 * HOUR + HOUR // 2
    assert facts.window_ends_at == facts.starts_at + SLOT_MS
    assert facts.session_ends_at == MIDNIGHT + 10 * HOUR + SLOT_MS
    assert not facts.is_suspended


def test_a_substitutes_patients_are_hers() -> None:
    booked = replace(
        BOOKED, slot_id="D1-20261124-1800", starts_at=BOOKED.starts_at + timedelta(hours=9, minutes=30)
    )
    facts = facts_of(app_of(MORNING, EVENING), booked)
    assert (facts.practitioner_id, facts.session_ends_at) == ("D2", MIDNIGHT + 18 * HOUR + SLOT_MS)


def test_a_session_that_nobody_knows_any_more_ends_with_the_day() -> None:
    facts = facts_of(app_of(EVENING), BOOKED)
    assert (facts.practitioner_id, facts.session_ends_at) == ("D1", 0)


def test_the_last_slot_ends_a_session_in_whatever_order_they_are() -> None:
    row = ScheduleRow("D1", DAY, False, ())
    assert session_ends_at(row, replace(MORNING, slots=CLOCKS[::-1])) == MIDNIGHT + 10 * HOUR + SLOT_MS


@pytest.mark.parametrize(
    ("status", "where", "fault"),
    [
        (s.Status.BOOKED, Where.MINI_PROGRAM, None),
        (s.Status.BOOKED, Where.KIOSK, None),
        (s.Status.ARRIVED, Where.KIOSK, None),
        (s.Status.NOSHOW, Where.DESK, None),
        (s.Status.NOSHOW, Where.KIOSK, "booking_noshow"),
        (s.Status.NOSHOW, Where.MINI_PROGRAM, "booking_noshow"),
        (s.Status.PENDING, Where.DESK, "booking_pending"),
        (s.Status.CANCELLED, Where.DESK, "booking_cancelled"),
        (s.Status.FULFILLED, Where.DESK, "booking_fulfilled"),
        (s.Status.WAITLIST, Where.DESK, "booking_waitlist"),
    ],
)
def test_what_is_booked_and_what_is_not(status: s.Status, where: Where, fault: str | None) -> None:
    booked = replace(BOOKED, status=int(status))
    assert not_booked(booked, facts_of(app_of(MORNING), booked), where) == fault
    assert fault is None or fault in BOOKINGS


@pytest.mark.parametrize("status", [s.Status.BOOKED, s.Status.ARRIVED, s.Status.NOSHOW, s.Status.CANCELLED])
def test_what_was_called_off_says_so_whatever_it_was_before(status: s.Status) -> None:
    off = replace(MORNING, status="suspended")
    booked = replace(BOOKED, status=int(status))
    assert not_booked(booked, facts_of(app_of(off), booked), Where.DESK) == "booking_suspended"
    booked = replace(booked, fate="offered")
    assert not_booked(booked, facts_of(app_of(MORNING), booked), Where.DESK) == "booking_suspended"


def test_how_far_somebody_is() -> None:
    app = app_of(campus=Campus("east", 40.0, 116.0))
    assert metres(app, "cardio", 40.0, 116.0, None) == 0
    assert metres(app, "cardio", 40.001, 116.0, 65.0) == pytest.approx(111, abs=1)
    for nothing in ((None, None, None), (40.0, None, None), (None, 116.0, 5.0), (40.0, 116.0, 1000.5)):
        assert metres(app, "cardio", *nothing) == UNKNOWN_M
    assert metres(app, "elsewhere", 40.0, 116.0, None) == UNKNOWN_M
    assert metres(app_of(), "cardio", 40.0, 116.0, None) == UNKNOWN_M, "nobody has said where it is"
