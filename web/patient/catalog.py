"""Departments, practitioners, schedules and slots: read from the gateway's memory, no query.

All of them have an ETag; who asks again for what has not changed is told so (304).
"""

from datetime import UTC, datetime, timedelta, tzinfo

from aiohttp import web

from engine.domain.limits import SLOT_MINUTES
from engine.domain.refusal import Reason
from engine.records.catalog import Practitioner
from engine.views.availability import Availability, OpenSlot
from web import keys
from web.conditional import etag_of, unchanged, whole
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import (
    AlternativeAnswer,
    DepartmentAnswer,
    DepartmentsAnswer,
    PractitionerAnswer,
    PractitionersAnswer,
    SchedulesAnswer,
    SchedulesQuery,
    SlotsAnswer,
    WordPath,
)
from web.patient.pages import Part, Wanted

_SLOT = timedelta(minutes=SLOT_MINUTES)


@api.route(
    "GET",
    "/api/v1/departments",
    zh="科室",
    tags=["catalog"],
    answer=DepartmentsAnswer,
    revalidated=True,
)
async def list_departments(request: web.Request) -> web.Response:
    """Both levels, in the hospital's own order."""
    catalog = request.app[keys.AVAILABILITY].catalog

    def make() -> DepartmentsAnswer:
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

    return _answered(request, request.app[keys.PAGES].of_catalog("departments", make))


@api.route(
    "GET",
    "/api/v1/departments/{id}/practitioners",
    zh="科室的医生",
    tags=["catalog"],
    errors=[Fault.NO_SUCH_DEPARTMENT],
    answer=PractitionersAnswer,
    revalidated=True,
)
async def list_practitioners(request: web.Request, *, path: WordPath) -> web.Response:
    """Of a department and those below it."""
    availability = request.app[keys.AVAILABILITY]
    if path.id not in availability.catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)

    def make() -> PractitionersAnswer:
        departments = availability.departments_below(path.id)
        people = availability.catalog.practitioners.values()
        return PractitionersAnswer([_practitioner(p) for p in people if p.department_id in departments])

    return _answered(request, request.app[keys.PAGES].of_catalog(f"department/{path.id}", make))


@api.route(
    "GET",
    "/api/v1/practitioners/{id}",
    zh="医生",
    tags=["catalog"],
    errors=[Fault.NO_SUCH_PRACTITIONER],
    answer=PractitionerAnswer,
    revalidated=True,
)
async def read_practitioner(request: web.Request, *, path: WordPath) -> web.Response:
    """Title, department and introduction."""
    found = request.app[keys.AVAILABILITY].catalog.practitioners.get(path.id)
    if found is None:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    page = request.app[keys.PAGES].of_catalog(f"practitioner/{path.id}", lambda: _practitioner(found))
    return _answered(request, page)


@api.route(
    "GET",
    "/api/v1/schedules",
    zh="排班",
    tags=["catalog"],
    errors=[Fault.NO_SUCH_DEPARTMENT, Fault.NO_SUCH_PRACTITIONER],
    answer=SchedulesAnswer,
    revalidated=True,
)
async def list_schedules(request: web.Request, *, query: SchedulesQuery) -> web.Response:
    """By department, practitioner, title and date, each with the seats that are left; from today on."""
    app = request.app
    catalog = app[keys.AVAILABILITY].catalog
    if query.department is not None and query.department not in catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    if query.practitioner is not None and query.practitioner not in catalog.practitioners:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    now = datetime.now(app[keys.ZONE])
    today = now.date()
    wanted = Wanted(
        query.department,
        query.practitioner,
        query.title,
        max(today, query.since) if query.since else today,
        query.until,
    )
    selection = await app[keys.PAGES].selection(wanted, _ms(now))
    return unchanged(request, selection.etag) or whole(selection.etag, selection.body())


@api.route(
    "GET",
    "/api/v1/schedules/{id}/slots",
    zh="时段与余号",
    tags=["catalog"],
    errors=[Reason.NO_SUCH_SCHEDULE],
    answer=SlotsAnswer,
    revalidated=True,
)
async def list_slots(request: web.Request, *, path: WordPath) -> web.Response:
    """The 30-minute slots of a practitioner's day, with the seats that are left."""
    app = request.app
    row = app[keys.AVAILABILITY].schedule(path.id)
    if row is None:
        raise Problem(Reason.NO_SUCH_SCHEDULE)
    return _answered(request, app[keys.PAGES].slots(row, _ms(datetime.now(UTC))))


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


def _answered(request: web.Request, page: Part) -> web.Response:
    etag = etag_of((page.digest,))
    return unchanged(request, etag) or whole(etag, page.body)


def _practitioner(p: Practitioner) -> PractitionerAnswer:
    return PractitionerAnswer(p.id, p.name, p.title, p.department_id, p.specialty, p.intro)


def _time(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
