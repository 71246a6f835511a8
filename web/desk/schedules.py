"""Live schedule work by doctors and desks: look at a day, see what a change would do, change it.

Every change names the revision that was looked at: of two desks that change one day at once one is told what
the other did. Its Idempotency-Key makes the command's id, so a retry is harmless. Where the policy binds it
to somebody's consent (docs/SCHEDULES.md), it is stored and answered 202.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, cast

import orjson
from aiohttp import web

from actors.directory import Unknown
from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.by import by_staff, staff_id_of
from engine.domain.ids import ScheduleKey, derived
from engine.domain.limits import ANSWER_MS_MAX, SLOT_MINUTES
from engine.domain.policy import Channel
from engine.domain.refusal import Reason, Refusal
from engine.records import change_requests
from engine.records.change_requests import ChangeRequest, NewRequest
from engine.records.day_people import patient_names, staff_names
from engine.records.request_keys import KeyUse, use_key
from engine.views.preview import preview
from web import keys
from web.auditing import audited, noted_reading
from web.auth import Staff, agrees, may_manage
from web.desk import schedule_bodies as bodies
from web.desk.commands import AnyChange, commands_of, departments_of, word_of
from web.desk.day import Day, must_manage, read_day
from web.errors import Problem, refused
from web.faults import Fault
from web.openapi import PRIVATE_HEADERS, api
from web.patient.appointments import OVERLOAD, WORDS, channel_word, uuid
from web.patient.bodies import Period, WordPath

_SLOT: Final = timedelta(minutes=SLOT_MINUTES)
_CHANGED: Final[list[Reason | Fault]] = [
    Reason.NO_SUCH_SCHEDULE,
    Reason.KEY_REUSED,
    Reason.STALE_REVISION,
    Reason.IN_THE_PAST,
    *OVERLOAD,
]
_OF_SESSION: Final[list[Reason | Fault]] = [Reason.NO_SUCH_SESSION, *_CHANGED]
_OF_SLOT: Final[list[Reason | Fault]] = [
    Reason.NO_SUCH_SLOT,
    Reason.SESSION_SUSPENDED,
    Reason.TOO_LARGE,
    *_CHANGED,
]
_OF_HOURS: Final[list[Reason | Fault]] = [
    Reason.SESSIONS_OVERLAP,
    Fault.INVALID_TIMES,
    Fault.NO_SUCH_ROOM,
    Fault.ROOM_TAKEN,
    Fault.PRACTITIONER_BUSY,
]


@api.route(
    "GET",
    "/api/v1/desk/schedules/{id}",
    zh="排班表",
    tags=["desk"],
    errors=[Reason.NO_SUCH_SCHEDULE, Fault.DATABASE_DOWN],
)
async def read_day_sheet(request: web.Request, *, staff: Staff, path: WordPath) -> bodies.DayAnswer:
    """A practitioner's day as it is committed: sessions, seats by pool, who is booked, and the revision.

    A day without a clinic has no sessions and revision 0: a session can be opened on it."""
    app = request.app
    day = await read_day(app, path.id)
    catalog = app[keys.AVAILABILITY].catalog
    own = {
        department_id
        for department_id in day.departments
        if may_manage(staff, department_id, day.practitioner.id, catalog.departments)
    }
    async with app[keys.POOL].acquire() as connection:
        patients = {x.patient_id for x in day.state.appointments.values()}
        await noted_reading(
            request, "day_sheet_read", patients, object=("schedule", path.id), connection=connection
        )
        names = await patient_names(connection, app[keys.VAULT], patients)
    who = await name_of(app, day.state.revised_by)
    now = now_ms()
    return bodies.DayAnswer(
        day.key.schedule_id,
        day.practitioner.id,
        day.practitioner.name,
        day.date,
        day.state.revision,
        who,
        [_session(app, day, period, mine, now) for period, mine in day.sessions.items()],
        [
            _appointment(app, day, appointment_id, x, names, own)
            for appointment_id, x in sorted(
                day.state.appointments.items(),
                key=lambda one: (day.state.slots[one[1].clock].starts_at, one[1].seat, one[0]),
            )
            if x.status <= s.Status.FULFILLED or x.status is s.Status.NOSHOW or x.fate
        ],
        len(day.state.wishes),
    )


def _session(
    app: web.Application, day: Day, period: str, mine: Sequence[seats.Slot], now: int
) -> bodies.DaySessionAnswer:
    catalog = app[keys.AVAILABILITY].catalog
    session = mine[0].session
    department = catalog.departments.get(session.department_id)
    substitute = catalog.practitioners.get(session.substitute_id or "")
    return bodies.DaySessionAnswer(
        cast(Period, period),
        session.status,  # type: ignore[arg-type]  # the engine's words are the contract's
        session.department_id,
        None if department is None else department.name,
        session.number_class_id,
        session.room_id,
        session.fee_fen,
        session.substitute_id,
        None if substitute is None else substitute.name,
        [_slot(app, day, slot, now) for slot in mine],
    )


def _slot(app: web.Application, day: Day, slot: seats.Slot, now: int) -> bodies.DaySlotAnswer:
    start = time_of(slot.starts_at, app[keys.ZONE])
    free = seats.free(slot)
    pools = [
        bodies.PoolAnswer(
            share.pool,
            mask.bit_count(),
            (mask & free).bit_count(),
            [channel_word(int(one)) for one in Channel if one & share.channels(now)],
        )
        for share, mask in zip(slot.session.shares, slot.masks, strict=False)
        if mask
    ]
    return bodies.DaySlotAnswer(
        day.key.slot_id(slot.clock),
        start,
        start + _SLOT,
        slot.capacity,
        slot.taken.bit_count(),
        slot.blocked.bit_count(),
        slot.cooling.bit_count(),
        free.bit_count(),
        len(slot.added),
        pools,
    )


def _appointment(
    app: web.Application,
    day: Day,
    appointment_id: bytes,
    x: s.Appointment,
    names: dict[bytes, str],
    own: set[str],
) -> bodies.DayAppointmentAnswer:
    slot = day.state.slots[x.clock]
    is_own = slot.session.department_id in own
    name = names.get(x.patient_id, "")
    return bodies.DayAppointmentAnswer(
        uuid(appointment_id),
        day.key.slot_id(x.clock),
        seats.number_of(slot, x.seat),
        WORDS[x.status],
        uuid(x.patient_id) if is_own else None,
        name if is_own else masked(name),
        "follow_up" if x.visit else "first",
        channel_word(x.channel),
        time_of(x.hold_until, app[keys.ZONE]) if x.status is s.Status.PENDING else None,
        x.fate or None,  # type: ignore[arg-type]  # the engine's words are the contract's
        x.consent,
    )


# Changes.


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/sessions",
    zh="加开门诊",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=[Fault.NO_SUCH_DEPARTMENT, Fault.NO_SUCH_NUMBER_CLASS, Reason.TOO_LARGE, *_OF_HOURS, *_CHANGED],
)
async def open_session(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.ExtraSessionBody
) -> bodies.RevisedAnswer:
    """Opens one more session, or more slots of one that there is; also on a day without a clinic."""
    return await _change(request, staff, idempotency_key, path.id, body)


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/capacity",
    zh="调整号数",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=[
        Reason.NO_SUCH_SLOT,
        Reason.BELOW_SOLD,
        Reason.TOO_LARGE,
        Fault.NOTHING_TO_CHANGE,
        *_OF_SESSION,
    ],
)
async def change_capacity(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.CapacityBody
) -> bodies.RevisedAnswer:
    """So many seats a slot more or fewer, in one slot or in all that have not begun. Never below what is
    sold; all of it or nothing."""
    return await _change(request, staff, idempotency_key, path.id, body)


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/extra-seats",
    zh="加号（号数）",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=_OF_SLOT,
)
async def add_seats(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.SeatsBody
) -> bodies.RevisedAnswer:
    """Seats beyond the plan (jia hao) in one slot, for everybody or for one channel."""
    return await _change(request, staff, idempotency_key, path.id, body)


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/extra-patient",
    zh="加号（指定患者）",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=[
        Fault.NO_SUCH_PATIENT,
        Reason.ALREADY_BOOKED,
        Reason.TIME_CONFLICT,
        Reason.NOT_ELIGIBLE,
        *_OF_SLOT,
    ],
)
async def add_patient_to_slot(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.ExtraPatientBody
) -> bodies.RevisedAnswer:
    """A seat beyond the plan for one patient, booked at once."""
    return await _change(request, staff, idempotency_key, path.id, body)


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/move",
    zh="调整时间或诊室",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=[Fault.NOTHING_TO_CHANGE, *_OF_HOURS, *_OF_SESSION],
)
async def move_session(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.MoveBody
) -> bodies.RevisedAnswer:
    """Another time of the day, another room, or both. Who is booked keeps the number and goes along."""
    return await _change(request, staff, idempotency_key, path.id, body)


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/status",
    zh="暂停或恢复预约",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=[Fault.NOTHING_TO_CHANGE, *_OF_SESSION],
)
async def set_session_status(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.StatusBody
) -> bodies.RevisedAnswer:
    """Pauses booking, resumes it, or takes a session up again that was called off."""
    return await _change(request, staff, idempotency_key, path.id, body)


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/suspend",
    zh="停诊",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=[Fault.NOTHING_TO_CHANGE, *_OF_SESSION],
)
async def suspend_session(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.SuspendBody
) -> bodies.RevisedAnswer:
    """Calls a session or the whole day off, with a reason. What becomes of those who are booked is decided
    for each of them by itself; GET /api/v1/desk/schedules/{id}/suspension tells."""
    return await _change(request, staff, idempotency_key, path.id, body)


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/substitute",
    zh="替诊",
    tags=["desk"],
    accepted=bodies.PendingAnswer,
    errors=[
        Fault.NO_SUCH_PRACTITIONER,
        Fault.SUBSTITUTE_UNFIT,
        Fault.PRACTITIONER_BUSY,
        Fault.NOTHING_TO_CHANGE,
        Reason.NO_SUBSTITUTE,
        Reason.SESSION_SUSPENDED,
        *_OF_SESSION,
    ],
)
async def substitute_session(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: WordPath, body: bodies.SubstituteBody
) -> bodies.RevisedAnswer:
    """Somebody else of the same department and at least the same title holds the session. Whoever is booked
    is asked to agree."""
    return await _change(request, staff, idempotency_key, path.id, body)


async def _change(
    request: web.Request, staff: Staff, key: str, schedule_id: str, body: AnyChange
) -> bodies.RevisedAnswer:
    """Does it, or stores it for whoever must agree (and then answers 202 by itself). Raises Problem."""
    app = request.app
    day = await read_day(app, schedule_id)
    departments = departments_of(app, day, body)
    must_manage(app, staff, day.practitioner.id, departments)
    command_id = derived(b"command", staff.id, key.encode())
    await take_key(app, staff, key, ("schedule", schedule_id, word_of(body), *_told(body)))
    role = role_needed(app, staff, word_of(body))
    if role is None:
        return await carry_out(app, day, body, command_id, by_staff(staff.id))
    async with app[keys.POOL].acquire() as connection:
        found = await change_requests.request_of(connection, command_id)
    if found is None:
        await _refuse_early(app, day, body, command_id, by_staff(staff.id))
        new = NewRequest(
            command_id,
            word_of(body),
            role,
            schedule_id,
            day.practitioner.id,
            tuple(sorted(departments)),
            named(body),
            str(body.revision),
            body.note,
            staff.id,
        )
        async with app[keys.POOL].acquire() as connection, connection.transaction():
            found = await change_requests.ask(connection, new, datetime.now(UTC))
            await audited(
                request,
                connection,
                "change_requested",
                object=("schedule", schedule_id),
                reason=body.note,
                detail={"command": new.command, "request": command_id},
            )
    return pending(found)  # type: ignore[return-value]  # a response of its own, as `accepted` declares


async def take_key(app: web.Application, staff: Staff, key: str, asked: tuple[str, ...]) -> None:
    """Raises Problem when the key belongs to another request. A refused one keeps it."""
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        if await use_key(connection, staff.id, key, asked, datetime.now(UTC)) is KeyUse.OTHER:
            raise Problem(Reason.KEY_REUSED)


def role_needed(app: web.Application, staff: Staff, word: str) -> str | None:
    """Whose consent the policy wants that this one does not have by themselves."""
    role = app[keys.POLICY].policy.approvals.get(word)
    return None if role is None or agrees(staff, role) else role


def pending(found: ChangeRequest) -> web.Response:
    answer = bodies.PendingAnswer(uuid(found.new.id), found.status.value, found.new.role)
    return web.Response(body=orjson.dumps(answer), status=202, headers=PRIVATE_HEADERS)


async def carry_out(
    app: web.Application, day: Day, body: AnyChange, command_id: bytes, by: str
) -> bodies.RevisedAnswer:
    """Raises Problem for whatever was not done."""
    known = day.state.commands.get(command_id)
    if known is not None and not isinstance(body, bodies.ExtraPatientBody):
        return bodies.RevisedAnswer(day.key.schedule_id, "done", known)
    revised = None
    for command in await commands_of(app, day, body, command_id, by):
        revised = await _ask(app, day.key, command)
    assert revised is not None
    added = revised.appointment
    return bodies.RevisedAnswer(
        day.key.schedule_id,
        "done",
        revised.revision,
        None
        if added is None
        else bodies.AddedAnswer(
            uuid(added.appointment_id), added.number, day.key.slot_id(added.clock), WORDS[added.status]
        ),
    )


async def _refuse_early(app: web.Application, day: Day, body: AnyChange, command_id: bytes, by: str) -> None:
    """What cannot be done is refused at once, and nobody is asked to agree to it."""
    commands = await commands_of(app, day, body, command_id, by)
    found = preview(day.state, commands, now_ms(), app[keys.POLICY].policy)
    if found.refusal is not None:
        raise await refused_by_name(app, found.refusal)


async def _ask(app: web.Application, key: ScheduleKey, command: s.Structural) -> s.Revised:
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    outcome = await app[keys.DIRECTORY].ask(key.stream, command, deadline)
    if isinstance(outcome, Refusal):
        raise await refused_by_name(app, outcome)
    if isinstance(outcome, Unknown):
        raise Problem(Fault.OUTCOME_UNKNOWN)
    assert isinstance(outcome, s.Revised)
    return outcome


async def refused_by_name(app: web.Application, refusal: Refusal) -> Problem:
    """Of a stale revision also tells whose the newer one is."""
    problem = refused(refusal)
    if refusal.reason is Reason.STALE_REVISION:
        problem.members["by"] = await name_of(app, str(refusal.detail.get("by", "")))
    return problem


async def name_of(app: web.Application, by: str) -> str | None:
    """Who a change was made by, as they are called; None: nobody, or the system."""
    staff_id = staff_id_of(by)
    if staff_id is None:
        return None
    async with app[keys.POOL].acquire() as connection:
        return (await staff_names(connection, [staff_id])).get(staff_id)


def _told(body: AnyChange) -> Iterable[str]:
    return (orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS).decode(),)


def named(body: AnyChange) -> dict[str, Any]:
    """As schedule_bodies.NamedChange reads it."""
    return {"command": _COMMANDS[type(body)], **body.model_dump(mode="json")}


_COMMANDS: Final[dict[type, str]] = {
    bodies.ExtraSessionBody: "open_session",
    bodies.CapacityBody: "change_capacity",
    bodies.SeatsBody: "add_seats",
    bodies.ExtraPatientBody: "add_patient",
    bodies.MoveBody: "move_session",
    bodies.StatusBody: "set_status",
    bodies.SuspendBody: "suspend",
    bodies.SubstituteBody: "substitute",
}


def masked(name: str) -> str:
    """The family name of most; what remains tells nobody who it is."""
    return name[:1] + "*" * max(1, len(name) - 1) if name else ""


def time_of(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
