"""Departments, practitioners, schedules and slots: read from the gateway's memory, no query."""

from datetime import UTC, datetime, timedelta, tzinfo

from aiohttp import web

from engine.domain.limits import SLOT_MINUTES
from engine.domain.refusal import Reason
from engine.records.catalog import Practitioner, ScheduleRow
from engine.views.availability import Availability, OpenSlot
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import (
    AlternativeAnswer,
    DepartmentAnswer,
    DepartmentsAnswer,
    PractitionerAnswer,
    PractitionersAnswer,
    ScheduleAnswer,
    SchedulesAnswer,
    SchedulesQuery,
    SessionOutlineAnswer,
    SlotAnswer,
    SlotsAnswer,
    WordPath,
)

_SLOT = timedelta(minutes=SLOT_MINUTES)


@api.route("GET", "/api/v1/departments", zh="科室", tags=["catalog"], security=None)
async def list_departments(request: web.Request) -> DepartmentsAnswer:
    """Both levels, in the hospital's own order."""
    catalog = request.app[keys.AVAILABILITY].catalog
    return DepartmentsAnswer(
        [
            DepartmentAnswer(
                d.id,
                d.parent_id,
                d.name,
                d.name_en,
                d.campus,
                d.location,
                d.intro,
                d.sex,
                d.age_min,
                d.age_max,
            )
            for d in catalog.departments.values()
        ]
    )


@api.route(
    "GET",
    "/api/v1/departments/{id}/practitioners",
    zh="科室的医生",
    tags=["catalog"],
    security=None,
    errors=[Fault.NO_SUCH_DEPARTMENT],
)
async def list_practitioners(request: web.Request, *, path: WordPath) -> PractitionersAnswer:
    """Of a department and those below it."""
    availability = request.app[keys.AVAILABILITY]
    if path.id not in availability.catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    departments = availability.departments_below(path.id)
    return PractitionersAnswer(
        [
            _practitioner(p)
            for p in availability.catalog.practitioners.values()
            if p.department_id in departments
        ]
    )


@api.route(
    "GET",
    "/api/v1/practitioners/{id}",
    zh="医生",
    tags=["catalog"],
    security=None,
    errors=[Fault.NO_SUCH_PRACTITIONER],
)
async def read_practitioner(request: web.Request, *, path: WordPath) -> PractitionerAnswer:
    """Title, department and introduction."""
    found = request.app[keys.AVAILABILITY].catalog.practitioners.get(path.id)
    if found is None:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    return _practitioner(found)


@api.route(
    "GET",
    "/api/v1/schedules",
    zh="排班",
    tags=["catalog"],
    security=None,
    errors=[Fault.NO_SUCH_DEPARTMENT, Fault.NO_SUCH_PRACTITIONER],
)
async def list_schedules(request: web.Request, *, query: SchedulesQuery) -> SchedulesAnswer:
    """By department, practitioner, title and date, each with the seats that are left; from today on."""
    availability = request.app[keys.AVAILABILITY]
    zone = request.app[keys.ZONE]
    if query.department is not None and query.department not in availability.catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    if query.practitioner is not None and query.practitioner not in availability.catalog.practitioners:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    today = datetime.now(zone).date()
    rows = availability.schedules(
        query.department,
        query.practitioner,
        query.title,
        max(today, query.since) if query.since else today,
        query.until,
    )
    return SchedulesAnswer([_schedule(availability, row, zone) for row in rows])


@api.route(
    "GET",
    "/api/v1/schedules/{id}/slots",
    zh="时段与余号",
    tags=["catalog"],
    security=None,
    errors=[Reason.NO_SUCH_SCHEDULE],
)
async def list_slots(request: web.Request, *, path: WordPath) -> SlotsAnswer:
    """The 30-minute slots of a practitioner's day, with the seats that are left."""
    availability = request.app[keys.AVAILABILITY]
    zone = request.app[keys.ZONE]
    row = availability.schedule(path.id)
    if row is None:
        raise Problem(Reason.NO_SUCH_SCHEDULE)
    slots = [
        SlotAnswer(
            slot.slot_id,
            start := _time(slot.starts_at, zone),
            start + _SLOT,
            slot.capacity,
            slot.remaining,
            slot.session.fee_fen,
        )
        for slot in availability.slots(row)
    ]
    return SlotsAnswer(slots, availability.version(path.id))


def alternative(availability: Availability, slot: OpenSlot, zone: tzinfo) -> AlternativeAnswer:
    practitioner = availability.catalog.practitioners[slot.row.practitioner_id]
    start = _time(slot.starts_at, zone)
    return AlternativeAnswer(
        slot.slot_id,
        slot.row.id,
        practitioner.id,
        practitioner.name,
        practitioner.title,
        slot.session.department_id,
        start,
        start + _SLOT,
        slot.remaining,
        slot.session.fee_fen,
    )


def _schedule(availability: Availability, row: ScheduleRow, zone: tzinfo) -> ScheduleAnswer:
    free: dict[int, int] = {}
    for slot in availability.slots(row):
        free[id(slot.session)] = free.get(id(slot.session), 0) + slot.remaining
    practitioner = availability.catalog.practitioners[row.practitioner_id]
    midnight = row.midnight_utc
    sessions = [
        SessionOutlineAnswer(
            s.period,
            s.department_id,
            s.number_class_id,
            s.room_id,
            s.fee_fen,
            _time(midnight + s.slots[0][1], zone),
            _time(midnight + s.slots[-1][1], zone) + _SLOT,
            sum(capacity for _, _, capacity in s.slots),
            free[id(s)],
        )
        for s in row.sessions
        if s.slots
    ]
    return ScheduleAnswer(
        row.id,
        practitioner.id,
        practitioner.name,
        practitioner.title,
        row.day.isoformat(),
        sum(s.capacity for s in sessions),
        sum(s.remaining for s in sessions),
        sessions,
    )


def _practitioner(p: Practitioner) -> PractitionerAnswer:
    return PractitionerAnswer(p.id, p.name, p.title, p.department_id, p.specialty, p.intro)


def _time(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)
