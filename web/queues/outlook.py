"""When a booked patient will be called, and when to set out: before check-in and after. And of queues."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import Field

from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.places import Place, metres_between
from engine.domain.refusal import Reason
from engine.records import expected as bookings
from engine.records.appointments import AppointmentRecord
from engine.views.forecasting import Light, Told, Turn, arrive_by, light_of
from web import keys
from web.auditing import audited, noted_delegation
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import find, uuid
from web.patient.bodies import Id, IdPath, Request
from web.queues.asking import today
from web.queues.estimates import (
    MARGIN_MINUTES,
    NOT_EXPECTED,
    OTHER_DAY,
    WHY_NONE,
    minutes_of,
    why_no_estimate,
)
from web.queues.ticket_bodies import Latitude, Longitude, NameAnswer, WhyAnswer

WAY_MINUTES_MAX: Final = 1_440
WAY_MINUTES_ASSUMED: Final = 30
"""Where nobody has said how far it is."""
METRES_A_MINUTE: Final = 250
"""As the crow flies, with all that comes before and after the ride: 15 km an hour."""
WAY_MINUTES_LEAST: Final = 5

Way = Annotated[
    int, Field(ge=0, le=WAY_MINUTES_MAX, description="到医院需几分钟 / minutes from here to the hospital")
]


class OutlookQuery(Request):
    way_minutes: Way | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None


class WayBody(Request):
    """二选一 / one of both."""

    minutes: Way | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None


@dataclass(frozen=True, slots=True)
class TurnAnswer:
    """预计叫号时刻 / when it is called."""

    p10_at: Annotated[datetime, Field(description="十之一更早 / sooner in one case of ten")]
    p50_at: datetime
    p90_at: Annotated[datetime, Field(description="十之一更晚 / later in one case of ten")]
    light: Annotated[
        Light,
        Field(description="绿：十之九半小时内；红：半数超过一小时 / green: 9 of 10 within half an hour"),
    ]


@dataclass(frozen=True, slots=True)
class OutlookAnswer:
    appointment_id: Id
    ticket_id: Annotated[Id | None, Field(description="签到后 / once checked in")]
    appointed_at: datetime
    turn: Annotated[TurnAnswer | None, Field(description="null：见 why / then `why` says why")]
    why: WhyAnswer | None
    late_minutes: Annotated[
        int, Field(description="医生晚于预约时间几分钟 / by how much the practitioner is behind")
    ]
    leave_home_at: Annotated[
        datetime | None,
        Field(
            description="该出发的时刻，可能已过；已到院为 null / when to set out, perhaps past; null: is here"
        ),
    ]
    way_minutes: int
    way: Annotated[
        Literal["asked", "kept", "assumed"],
        Field(description="路程来自本次查询、已保存、或假定 / asked now, said before, or assumed"),
    ]
    margin_minutes: int
    told_at: datetime


@dataclass(frozen=True, slots=True)
class KeptWayAnswer:
    minutes: int


@dataclass(frozen=True, slots=True)
class QueueForecastAnswer:
    """此刻取号者 / who would take a number now."""

    queue_id: str
    p10_minutes: int
    p50_minutes: int
    p90_minutes: int
    light: Light


@dataclass(frozen=True, slots=True)
class LateAnswer:
    practitioner_id: str
    late_minutes: int


@dataclass(frozen=True, slots=True)
class QueueForecastsAnswer:
    department_id: str
    told_at: datetime
    queues: Annotated[
        list[QueueForecastAnswer],
        Field(description="没有开诊的不在内 / those without an open room are not in"),
    ]
    late: list[LateAnswer]


class DepartmentPath(Request):
    department_id: Annotated[str, Field(min_length=1, max_length=32)]


@api.route(
    "GET",
    "/api/v1/appointments/{id}/outlook",
    zh="预计就诊时间与出发时间",
    tags=["queues"],
    errors=[
        Reason.NO_SUCH_APPOINTMENT,
        Reason.NO_SUCH_WAITING_ROOM,
        Fault.INVALID_QUERY,
        Fault.DATABASE_DOWN,
    ],
)
async def read_outlook(
    request: web.Request, *, account_id: bytes, path: IdPath, query: OutlookQuery
) -> OutlookAnswer:
    """When the practitioner will call, how late she runs, and when to leave home. On the day of the visit."""
    app = request.app
    record = await find(app, path.id, account_id)
    await noted_delegation(request, account_id, "appointment_read", [record.patient_id])
    asked = _asked_way(app, record.department_id, query.way_minutes, query.latitude, query.longitude)
    kept = None if asked is not None else await bookings.way_of(app[keys.POOL], record.id)
    way = WAY_MINUTES_ASSUMED if asked is None and kept is None else asked if asked is not None else kept
    assert way is not None
    source: Literal["asked", "kept", "assumed"] = (
        "asked" if asked is not None else "kept" if kept is not None else "assumed"
    )
    return await _outlook(app, record, way, source)


async def _outlook(
    app: web.Application,
    record: AppointmentRecord,
    way: int,
    source: Literal["asked", "kept", "assumed"],
) -> OutlookAnswer:
    zone, forecasts = app[keys.ZONE], app[keys.FORECASTS]
    starts_at = record.starts_at.astimezone(zone)
    key = RoomKey(record.department_id, starts_at.date().isoformat())
    told_at = datetime.now(zone)
    ticket_id: bytes | None = None
    turn: Turn | None = None
    why: str | None = None
    late = 0
    is_here = False
    if record.status not in (s.Status.BOOKED, s.Status.ARRIVED):
        why = NOT_EXPECTED
    elif key.day != today(app):
        why = OTHER_DAY
    else:
        copy = await app[keys.ROOMS].look(key)
        ticket_id = copy.room.by_appointment.get(record.id)
        told = await forecasts.ready(copy, ticket_id or b"") or Told(0)
        told_at = datetime.fromtimestamp(told.at / 1000, zone)
        turn = (told.booked if ticket_id is None else told.tickets).get(ticket_id or record.id)
        if turn is None:
            why = "no_room" if ticket_id is None else why_no_estimate(app, copy, ticket_id)
        is_here = ticket_id is not None and copy.room.tickets[ticket_id].where != w.Where.MINI_PROGRAM
        late = told.late.get(_practitioner(app, record), 0) // 60
    p10_at = None if turn is None else told_at + timedelta(seconds=turn.estimate.p10_seconds)
    leave: datetime | None = None
    if why not in (NOT_EXPECTED, "called", "not_waiting") and not is_here:
        if ticket_id is None:
            rules = app[keys.ROOMS].rules(key).order_of(w.VISIT)
            by = arrive_by(_ms(starts_at), None if p10_at is None else _ms(p10_at), rules, _MARGIN_MS)
            leave = datetime.fromtimestamp(by / 1000, zone) - timedelta(minutes=way)
        elif p10_at is not None:
            leave = p10_at - timedelta(minutes=way + MARGIN_MINUTES)
    return OutlookAnswer(
        uuid(record.id),
        None if ticket_id is None else uuid(ticket_id),
        starts_at,
        None if turn is None else _turn(turn, told_at),
        None if why is None else WhyAnswer(why, NameAnswer(*WHY_NONE[why])),
        late,
        leave,
        way,
        source,
        MARGIN_MINUTES,
        told_at,
    )


@api.route(
    "PUT",
    "/api/v1/appointments/{id}/way",
    zh="告知到医院的路程",
    tags=["queues"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Fault.WAY_UNKNOWN, Fault.DATABASE_DOWN],
)
async def keep_way(request: web.Request, *, account_id: bytes, path: IdPath, body: WayBody) -> KeptWayAnswer:
    """How long the way takes, in minutes or from where the phone is: "leave home now" is told by it. Said
    again, it is as said last. Coordinates are not kept."""
    app = request.app
    record = await find(app, path.id, account_id)
    way = _asked_way(app, record.department_id, body.minutes, body.latitude, body.longitude)
    if way is None:
        raise Problem(Fault.WAY_UNKNOWN)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await bookings.keep_way(connection, record.id, way, datetime.now(UTC))
        await audited(
            request,
            connection,
            "way_kept",
            subjects=(record.patient_id,),
            object=("appointment", str(path.id)),
        )
    day = record.starts_at.astimezone(app[keys.ZONE]).date().isoformat()
    app[keys.FORECASTS].forget(RoomKey(record.department_id, day))
    return KeptWayAnswer(way)


@api.route(
    "GET",
    "/api/v1/queues/{department_id}/forecast",
    zh="现在取号要等多久",
    tags=["queues"],
    errors=[Reason.NO_SUCH_WAITING_ROOM, Fault.DATABASE_DOWN],
)
async def read_queue_forecast(request: web.Request, *, path: DepartmentPath) -> QueueForecastsAnswer:
    """How long somebody would wait who took a number now, queue by queue, and who of the practitioners is
    late. Today."""
    app = request.app
    key = RoomKey(path.department_id, today(app))
    if path.department_id not in app[keys.AVAILABILITY].catalog.departments:
        raise Problem(Reason.NO_SUCH_WAITING_ROOM)
    told = await app[keys.FORECASTS].ready(await app[keys.ROOMS].look(key)) or Told(0)
    queues = [
        QueueForecastAnswer(queue_id, *minutes_of(turn.estimate), light_of(turn.estimate))
        for queue_id, turn in told.newcomers.items()
    ]
    late = [LateAnswer(who, seconds // 60) for who, seconds in sorted(told.late.items()) if seconds >= 60]
    at = datetime.fromtimestamp(told.at / 1000, app[keys.ZONE])
    return QueueForecastsAnswer(path.department_id, at, queues, late)


_MARGIN_MS: Final = MARGIN_MINUTES * 60_000


def _asked_way(
    app: web.Application,
    department_id: str,
    minutes: int | None,
    latitude: float | None,
    longitude: float | None,
) -> int | None:
    """In minutes; None: nobody said it, or nobody knows where the hospital is."""
    if minutes is not None or latitude is None or longitude is None:
        return minutes
    place = app[keys.AVAILABILITY].catalog.place_of(department_id)
    if place is None:
        return None
    metres = metres_between(Place(latitude, longitude), place)
    return min(WAY_MINUTES_MAX, max(WAY_MINUTES_LEAST, ceil(metres / METRES_A_MINUTE)))


def _practitioner(app: web.Application, record: AppointmentRecord) -> str:
    """Who really sees the patient."""
    row = app[keys.AVAILABILITY].schedule(record.schedule_id)
    clock = record.slot_id.rpartition("-")[2]
    for session in () if row is None else row.sessions:
        if session.substitute_id and any(slot[0] == clock for slot in session.slots):
            return session.substitute_id
    return record.schedule_id.rpartition("-")[0]


def _turn(turn: Turn, told_at: datetime) -> TurnAnswer:
    said = turn.estimate
    p10, p50, p90 = (
        told_at + timedelta(seconds=seconds)
        for seconds in (said.p10_seconds, said.p50_seconds, said.p90_seconds)
    )
    return TurnAnswer(p10, p50, p90, light_of(said))


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
