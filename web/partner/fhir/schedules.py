"""Practitioner, Schedule and Slot: read from the gateway's memory, no query. Free numbers are live, and those
that the partner's own channel may book."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason
from engine.records.catalog import Practitioner, ScheduleRow
from engine.views.availability import OpenSlot
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.partner.fhir import resources
from web.partner.fhir.answers import page_of, told, told_page
from web.partner.fhir.asking import Search, Span, accept_json, asked, now_ms, wrong_parameter
from web.partner.fhir.names import BASE, MEDIA, PRACTITIONER_ID, our_id
from web.partner.fhir.names import DEPARTMENT as DEPARTMENT_SYSTEM
from web.partner.sight import Partner

Json = dict[str, Any]
_MOMENT: Final = timedelta(milliseconds=1)
_SLOT_STATUSES: Final = ("free", "busy", "busy-unavailable", "busy-tentative", "entered-in-error")
SEARCH: Final = [Fault.INVALID_QUERY, Fault.NOT_ACCEPTABLE]


class FhirPath(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9\-.]{1,64}$", description="FHIR id")]


@api.route(
    "GET",
    f"{BASE}/Practitioner/{{id}}",
    zh="医生（FHIR）",
    tags=["fhir"],
    errors=[Fault.NO_SUCH_PRACTITIONER, Fault.NOT_ACCEPTABLE],
    answer=Json,
    media=MEDIA,
)
async def fhir_read_practitioner(request: web.Request, *, path: FhirPath) -> web.Response:
    """One practitioner."""
    accept_json(request)
    found = request.app[keys.AVAILABILITY].catalog.practitioners.get(our_id(path.id))
    if found is None:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    return told(request, resources.practitioner(found))


@api.route(
    "GET",
    f"{BASE}/Practitioner",
    zh="查找医生（FHIR）",
    tags=["fhir"],
    errors=SEARCH,
    answer=Json,
    media=MEDIA,
)
async def fhir_search_practitioners(request: web.Request) -> web.Response:
    """By `name` (how it begins), `identifier` and `_id`; in pages (`_count`)."""
    search = await asked(request, ("name", "identifier"))
    ids = _ids(search)
    codes = search.tokens("identifier", PRACTITIONER_ID)
    names = search.any_of("name")

    def fits(one: Practitioner) -> bool:
        return (
            (ids is None or one.id in ids)
            and (codes is None or one.id in codes)
            and (names is None or any(one.name.startswith(name) for name in names))
        )

    found = [one for one in request.app[keys.AVAILABILITY].catalog.practitioners.values() if fits(one)]
    page = page_of(search, found, resources.practitioner)
    return told_page(request, search, page, len(found), "Practitioner")


@api.route(
    "POST",
    f"{BASE}/Practitioner/_search",
    zh="按表单查找医生（FHIR）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.UNSUPPORTED_MEDIA_TYPE, Fault.BODY_TOO_LARGE],
    answer=Json,
    media=MEDIA,
)
async def fhir_post_search_practitioners(request: web.Request) -> web.Response:
    """As the search by address, with the parameters in a form."""
    return await fhir_search_practitioners(request)


@api.route(
    "GET",
    f"{BASE}/Schedule/{{id}}",
    zh="排班（FHIR）",
    tags=["fhir"],
    errors=[Reason.NO_SUCH_SCHEDULE, Fault.NOT_ACCEPTABLE],
    answer=Json,
    media=MEDIA,
)
async def fhir_read_schedule(request: web.Request, *, path: FhirPath) -> web.Response:
    """One practitioner's day."""
    accept_json(request)
    availability = request.app[keys.AVAILABILITY]
    row = availability.schedule(our_id(path.id))
    if row is None:
        raise Problem(Reason.NO_SUCH_SCHEDULE)
    return told(request, resources.schedule(row, availability.catalog, request.app[keys.ZONE]))


@api.route(
    "GET",
    f"{BASE}/Schedule",
    zh="查找排班（FHIR）",
    tags=["fhir"],
    errors=SEARCH,
    answer=Json,
    media=MEDIA,
)
async def fhir_search_schedules(request: web.Request) -> web.Response:
    """From today on, by `actor` (Practitioner), `specialty` (a department; a first-level one stands for those
    below it), `date` (of the planning horizon, with prefixes), `active` and `_id`; in pages."""
    app = request.app
    availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
    search = await asked(request, ("actor", "specialty", "date", "active"))
    spans, ids, active = search.spans("date"), _ids(search), search.codes("active", ("true", "false"))
    found = []
    for row in rows_of(request, search, "actor"):
        begins = datetime.combine(row.day, time.min, zone)
        ends = datetime.combine(row.day + timedelta(1), time.min, zone)
        is_active = any(session.status != "suspended" for session in row.sessions)
        if (
            (ids is None or row.id in ids)
            and (active is None or str(is_active).lower() in active)
            and all(span.holds(begins, ends) for span in spans)
        ):
            found.append(row)
    page = page_of(search, found, lambda row: resources.schedule(row, availability.catalog, zone))
    return told_page(request, search, page, len(found), "Schedule")


@api.route(
    "POST",
    f"{BASE}/Schedule/_search",
    zh="按表单查找排班（FHIR）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.UNSUPPORTED_MEDIA_TYPE, Fault.BODY_TOO_LARGE],
    answer=Json,
    media=MEDIA,
)
async def fhir_post_search_schedules(request: web.Request) -> web.Response:
    """As the search by address, with the parameters in a form."""
    return await fhir_search_schedules(request)


@api.route(
    "GET",
    f"{BASE}/Slot/{{id}}",
    zh="时段（FHIR）",
    tags=["fhir"],
    errors=[Reason.NO_SUCH_SLOT, Fault.NOT_ACCEPTABLE],
    answer=Json,
    media=MEDIA,
)
async def fhir_read_slot(request: web.Request, *, partner: Partner, path: FhirPath) -> web.Response:
    """Half an hour of a practitioner's day, with the numbers that are free just now."""
    accept_json(request)
    app, now = request.app, now_ms()
    one = slot_of(app, partner, our_id(path.id), now)
    return told(request, resources.slot(one, app[keys.AVAILABILITY].catalog, app[keys.ZONE], now))


@api.route(
    "GET",
    f"{BASE}/Slot",
    zh="查找时段与余号（FHIR）",
    tags=["fhir"],
    errors=SEARCH,
    answer=Json,
    media=MEDIA,
)
async def fhir_search_slots(request: web.Request, *, partner: Partner) -> web.Response:
    """From today on, by `schedule`, `schedule.actor`, `specialty`, `start` (with prefixes), `status` (free,
    busy, busy-unavailable) and `_id`; in pages. A schedule, a practitioner, a department or a day must be
    named: else there are too many."""
    app, now = request.app, now_ms()
    availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
    search = await asked(request, ("schedule", "schedule.actor", "specialty", "start", "status"))
    statuses = search.codes("status", _SLOT_STATUSES)
    found = [
        one
        for one in slots_of(request, partner, search, "schedule.actor", "start", now)
        if statuses is None or resources.slot_status(one, now) in statuses
    ]
    page = page_of(search, found, lambda one: resources.slot(one, availability.catalog, zone, now))
    return told_page(request, search, page, len(found), "Slot")


@api.route(
    "POST",
    f"{BASE}/Slot/_search",
    zh="按表单查找时段与余号（FHIR）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.UNSUPPORTED_MEDIA_TYPE, Fault.BODY_TOO_LARGE],
    answer=Json,
    media=MEDIA,
)
async def fhir_post_search_slots(request: web.Request, *, partner: Partner) -> web.Response:
    """As the search by address, with the parameters in a form."""
    return await fhir_search_slots(request, partner=partner)


# What the searches and $find have in common.


def slot_of(app: web.Application, partner: Partner, slot_id: str, now: int) -> OpenSlot:
    """As the partner's channel sees it. Raises Problem no_such_slot."""
    key = ScheduleKey.of_slot(slot_id)
    availability = app[keys.AVAILABILITY]
    row = None if key is None else availability.schedule(key[0].schedule_id)
    if row is not None:
        for one in availability.slots(row, partner.channel, now):
            if one.slot_id == slot_id:
                return one
    raise Problem(Reason.NO_SUCH_SLOT)


def rows_of(request: web.Request, search: Search, actor: str) -> Iterator[ScheduleRow]:
    """From today on, of the practitioners and departments that a search names."""
    availability, zone = request.app[keys.AVAILABILITY], request.app[keys.ZONE]
    today = datetime.now(zone).date()
    departments = _departments(request, search)
    people = search.references(actor, "Practitioner") if actor in search else None
    if people is None:
        rows: Iterator[ScheduleRow] = availability.schedules(first=today)
    else:
        rows = (
            row
            for person in dict.fromkeys(people)
            for row in availability.schedules(practitioner_id=our_id(person), first=today)
        )
    for row in rows:
        if departments is None or any(session.department_id in departments for session in row.sessions):
            yield row


def slots_of(
    request: web.Request, partner: Partner, search: Search, actor: str, start: str, now: int
) -> Iterator[OpenSlot]:
    """In order of day and practitioner. Raises Problem for what would be most of the hospital."""
    if not any(name in search for name in ("schedule", actor, "specialty", "_id")) and not _is_short(
        search.spans(start)
    ):
        raise wrong_parameter(start, "too_wide")
    app = request.app
    availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
    departments = _departments(request, search)
    schedules = search.references("schedule", "Schedule")
    wanted = None if schedules is None else {our_id(one) for one in schedules}
    ids, spans = _ids(search), search.spans(start)
    days = None if ids is None else {one.rpartition("-")[0] for one in ids}
    for row in rows_of(request, search, actor):
        if (wanted is not None and row.id not in wanted) or (days is not None and row.id not in days):
            continue
        begins = datetime.combine(row.day, time.min, zone)
        if any(_is_outside(span.prefix, span.begins, span.ends, begins) for span in spans):
            continue
        for one in availability.slots(row, partner.channel, now):
            if departments is not None and one.session.department_id not in departments:
                continue
            if ids is not None and one.slot_id not in ids:
                continue
            at = datetime.fromtimestamp(one.starts_at / 1000, UTC)
            if all(span.holds(at, at + _MOMENT) for span in spans):
                yield one


def _is_short(spans: list[Span]) -> bool:
    """Whether they say a time of a day at most: all slots of a hospital for longer are no question."""
    begins = [s.begins if s.prefix in ("eq", "ge") else s.ends for s in spans if s.prefix in _AFTER]
    ends = [s.ends if s.prefix in ("eq", "le") else s.begins for s in spans if s.prefix in _BEFORE]
    return bool(begins and ends) and min(ends) - max(begins) <= timedelta(1)


_AFTER: Final = ("eq", "ge", "gt", "sa")
_BEFORE: Final = ("eq", "le", "lt", "eb")


def _is_outside(prefix: str, begins: datetime, ends: datetime, midnight: datetime) -> bool:
    """Whether no slot of this day can do. Sessions may run into the next morning."""
    if prefix in ("le", "lt", "eb"):
        return midnight - timedelta(1) > ends
    if prefix in ("ge", "gt", "sa"):
        return midnight + timedelta(2) < begins
    return midnight + timedelta(2) < begins or midnight - timedelta(1) > ends


def _departments(request: web.Request, search: Search) -> set[str] | None:
    given = search.tokens("specialty", DEPARTMENT_SYSTEM)
    if given is None:
        return None
    availability = request.app[keys.AVAILABILITY]
    found: set[str] = set()
    for one in given:
        if one not in availability.catalog.departments:
            raise wrong_parameter("specialty", "no_such_department")
        found |= availability.departments_below(one)
    return found


def _ids(search: Search) -> set[str] | None:
    given = search.any_of("_id")
    return None if given is None else {our_id(one) for one in given}
