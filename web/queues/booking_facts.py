"""What a waiting room is told of a booked number, and how far from the hospital somebody is.

The waiting room knows nothing of schedules: whoever checks somebody in looks the booking up here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import ScheduleKey
from engine.domain.limits import SLOT_MS
from engine.domain.places import Place, metres_between
from engine.records.arrivals import Booked
from engine.records.catalog import ScheduleRow, SessionOutline
from web import keys
from web.patient.appointments import WORDS

ACCURACY_M_MAX: Final = 1_000
"""A position that is known worse than that tells nothing."""
UNKNOWN_M: Final = -1


@dataclass(frozen=True, slots=True)
class Facts:
    """Times in ms."""

    department_id: str
    day: str
    practitioner_id: str  # who sees the patients of this session: a substitute, where there is one
    starts_at: int
    window_ends_at: int
    session_ends_at: int  # 0: the session is not known (any more)
    is_suspended: bool


def facts_of(app: web.Application, booked: Booked) -> Facts:
    key = ScheduleKey.of_schedule(booked.schedule_id)
    assert key is not None
    row = app[keys.AVAILABILITY].schedule(booked.schedule_id)
    clock = booked.slot_id.rpartition("-")[2]
    session = None if row is None else app[keys.AVAILABILITY].session_of(row, clock)
    starts_at = int(booked.starts_at.timestamp() * 1000)
    suspended = booked.fate is not None
    practitioner_id, ends = key.practitioner_id, 0
    if row is not None and session is not None:
        practitioner_id = session.substitute_id or key.practitioner_id
        ends = session_ends_at(row, session)
        suspended = suspended or session.status == "suspended"
    return Facts(
        booked.department_id, key.day, practitioner_id, starts_at, starts_at + SLOT_MS, ends, suspended
    )


def session_ends_at(row: ScheduleRow, session: SessionOutline) -> int:
    """When its last slot is over, in ms."""
    return row.midnight_utc + max(start for _, start, _ in session.slots) + SLOT_MS


def not_booked(booked: Booked, facts: Facts, where: w.Where) -> str | None:
    """Why this number cannot be checked in (web/faults.py BOOKINGS has the words); None where it can."""
    if facts.is_suspended and booked.status not in (s.Status.PENDING, s.Status.FULFILLED):
        return "booking_suspended"
    match booked.status:
        case s.Status.BOOKED | s.Status.ARRIVED:
            return None
        case s.Status.NOSHOW if where is w.Where.DESK:
            return None
        case _:
            return f"booking_{WORDS[booked.status]}"


def metres(
    app: web.Application,
    department_id: str,
    latitude: float | None,
    longitude: float | None,
    accuracy_m: float | None,
) -> int:
    """From the department's campus; UNKNOWN_M where either place is not known, or not known well enough."""
    campus = app[keys.AVAILABILITY].catalog.place_of(department_id)
    if campus is None or latitude is None or longitude is None:
        return UNKNOWN_M
    if accuracy_m is not None and accuracy_m > ACCURACY_M_MAX:
        return UNKNOWN_M
    return metres_between(Place(latitude, longitude), campus)


def time_of(ms: int, app: web.Application) -> datetime | None:
    """In the hospital's zone. None for 0: it has not come to that."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(app[keys.ZONE]) if ms else None
