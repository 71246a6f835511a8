"""Numbers for whoever comes without an appointment (现场取号): by the mini-program, at a kiosk, at a desk.

The waiting room alone gives numbers out, one after the other, from the queue's own range. A fee is not asked
for here: that is the window's.
"""

import time
from datetime import UTC, date, datetime
from typing import Final

from aiohttp import web

from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.by import by_staff
from engine.domain.eligibility import Facts, check
from engine.domain.ids import RoomKey, derived
from engine.domain.refusal import Reason
from engine.domain.room_plan import GENERAL
from engine.records import arrivals, patients
from engine.records.arrivals import KnownPatient
from engine.records.identity import IdentityFault
from engine.records.staff import Role
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem, refused
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD, VISITS, uuid
from web.patient.patients import accepted, new_id, person_of, terms_of
from web.queues.asking import ask_room, command_id, today
from web.queues.booking_facts import UNKNOWN_M, metres
from web.queues.documents import is_given, shown_by
from web.queues.kiosk import AT_DESK, check_classes, runs_here, todays_numbers, where_of
from web.queues.rights import duties
from web.queues.sight import Seen
from web.queues.ticket_bodies import TicketAnswer, WalkInBody
from web.queues.ticket_pages import ticket_answer

_OPEN: Final = (s.Status.BOOKED,)


@api.route(
    "POST",
    "/api/v1/walk-ins",
    zh="现场取号",
    status=201,
    tags=["queues"],
    errors=[
        Fault.FORBIDDEN,
        Fault.SAY_WHO,
        *(Fault(fault.value) for fault in IdentityFault),
        Fault.IDENTITY_MISMATCH,
        Fault.QR_INVALID,
        Fault.QR_EXPIRED,
        Fault.NO_NUMBER_TODAY,
        Fault.NO_SUCH_PATIENT,
        Fault.NO_SUCH_DEPARTMENT,
        Fault.NO_WALK_INS,
        Reason.NOT_ELIGIBLE,
        Reason.ALREADY_BOOKED,
        Reason.PLACE_UNKNOWN,
        Reason.TOO_FAR,
        Reason.CHECK_IN_TOO_LATE,
        Reason.PATIENT_WAITS_ALREADY,
        Reason.NO_SUCH_WAITING_ROOM,
        Reason.NO_SUCH_QUEUE,
        Reason.UNKNOWN_PRIORITY,
        Reason.NUMBERS_EXHAUSTED,
        Reason.KEY_REUSED,
        *OVERLOAD,
    ],
)
async def take_number(
    request: web.Request, *, who: bytes | Staff, idempotency_key: str, body: WalkInBody
) -> TicketAnswer:
    """Takes a number without an appointment, for one practitioner or for whoever is free.

    Patients say who by patient_id, and where they are; kiosks by a document or code, or for somebody new by
    `person`; desks by any of them. Desks name a priority class, nurses an emergency level."""
    app = request.app
    _check_rights(app, who, body)
    key = RoomKey(body.department_id, today(app))
    patient = await _patient(request, who, body)
    await _check_patient(app, who, key, patient, body)
    queue_id = await _queue(app, who, key, body.practitioner_id)
    is_account = isinstance(who, bytes)
    command = w.TakeNumber(
        _command_id(who, key, idempotency_key),
        patient.id,
        w.Where.MINI_PROGRAM if isinstance(who, bytes) else where_of(who),
        queue_id,
        _metres(app, body) if is_account else UNKNOWN_M,
        body.practitioner_id or "",
        _session_ends_at(app, key, body.practitioner_id),
        VISITS[body.visit],
        body.priority,
        body.emergency,
        by="" if isinstance(who, bytes) else by_staff(who.id),
    )
    told = await ask_room(app, key, command)
    return await ticket_answer(app, told.ticket_id, _seen(who))


def _command_id(who: bytes | Staff, key: RoomKey, idempotency_key: str) -> bytes:
    """Of this waiting room alone: the ticket's id is made of it, and another room knows nothing of this one's
    commands."""
    mine = command_id(who if isinstance(who, bytes) else who.id, idempotency_key)
    return derived(b"walk-in", mine, key.stream.encode())


def _seen(who: bytes | Staff) -> Seen:
    if isinstance(who, bytes):
        return Seen.OWN
    return Seen.KIOSK if where_of(who) is w.Where.KIOSK else Seen.STAFF


def _metres(app: web.Application, body: WalkInBody) -> int:
    return metres(app, body.department_id, body.latitude, body.longitude, body.accuracy_m)


def _is_by_people(who: bytes | Staff) -> bool:
    """At a desk, where somebody looks at who it is and may make an exception."""
    return isinstance(who, Staff) and where_of(who) is w.Where.DESK


def _check_rights(app: web.Application, who: bytes | Staff, body: WalkInBody) -> None:
    departments = app[keys.AVAILABILITY].catalog.departments
    has_parts = any(one.parent_id == body.department_id for one in departments.values())
    if body.department_id not in departments or has_parts:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    if isinstance(who, Staff):
        check_classes(who, body.priority, body.emergency)
        if not runs_here(app, who, body.department_id):
            raise Problem(Fault.FORBIDDEN)
    elif body.priority or body.emergency:
        raise Problem(Fault.FORBIDDEN, roles=list(AT_DESK) if body.priority else [Role.NURSE])
    terms = app[keys.POLICY].policy.waiting_of(body.department_id)
    if not terms.walk_ins.enabled and not _is_by_people(who):
        raise Problem(Fault.NO_WALK_INS)


async def _patient(request: web.Request, who: bytes | Staff, body: WalkInBody) -> KnownPatient:
    """Raises Problem unless the request says in one way who it is, and may say so."""
    app = request.app
    ways = (body.patient_id is not None, body.person is not None, is_given(body))
    if sum(ways) != 1:
        raise Problem(Fault.SAY_WHO)
    if isinstance(who, bytes):
        if body.patient_id is None:
            raise Problem(Fault.SAY_WHO)
        if not await arrivals.may_act_for(app[keys.POOL], who, body.patient_id.bytes):
            raise Problem(Fault.NO_SUCH_PATIENT)
    elif body.patient_id is not None and not _is_by_people(who):
        raise Problem(Fault.FORBIDDEN, roles=list(AT_DESK))
    if body.patient_id is not None:
        return _known(await arrivals.patient_of_id(app[keys.POOL], app[keys.VAULT], body.patient_id.bytes))
    if body.person is not None:
        return await _registered(request, body)
    return (await shown_by(app, body)).patient


async def _registered(request: web.Request, body: WalkInBody) -> KnownPatient:
    """Somebody new, in the account that the hospital keeps for that person (see web/desk/appointments.py)."""
    assert body.person is not None
    now = datetime.now(UTC)
    person = person_of(request, body.person, now)
    vault = request.app[keys.VAULT]
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        account_id = await patients.account_of_desk(connection, vault, person, new_id(), now)
        new = patients.NewPatient(person, "self")
        added = accepted(
            await patients.add_patient(connection, vault, account_id, new, new_id(), terms_of(request), now)
        )
        await audited(request, connection, "patient_registered", subjects=(added.id,))
    return KnownPatient(added.id, added.name, added.birth_date, added.sex)


def _known(patient: KnownPatient | None) -> KnownPatient:
    if patient is None:
        raise Problem(Fault.NO_SUCH_PATIENT)
    return patient


async def _check_patient(
    app: web.Application, who: bytes | Staff, key: RoomKey, patient: KnownPatient, body: WalkInBody
) -> None:
    """Whom the department sees, and that he has no number already. In an emergency nobody asks."""
    if body.emergency:
        return
    rule = app[keys.AVAILABILITY].catalog.departments[key.department_id].rule
    facts = Facts(True, birth_date=patient.birth_date, sex=patient.sex)
    day = datetime.now(app[keys.ZONE]).date()
    refusal = check(facts, rule, app[keys.POLICY].policy, day, int(time.time() * 1000))
    if refusal is not None:
        raise refused(refusal)
    for booked in await todays_numbers(app, patient.id):
        if booked.department_id == key.department_id and booked.status in _OPEN and booked.fate is None:
            raise Problem(Reason.ALREADY_BOOKED, appointment_id=uuid(booked.id))


async def _queue(app: web.Application, who: bytes | Staff, key: RoomKey, practitioner_id: str | None) -> str:
    """Of the practitioner, or of the department. Raises Problem where nobody is on duty to call from it."""
    room = (await app[keys.ROOMS].look(key)).room
    own = {queue.practitioner_id: queue.queue_id for queue in room.queues.values() if queue.practitioner_id}
    on_duty = _on_duty(app, key)
    if practitioner_id is None:
        if not on_duty and not _is_by_people(who):
            raise Problem(Fault.NO_WALK_INS, rule="nobody_on_duty")
        return GENERAL
    if practitioner_id not in on_duty and not (practitioner_id in own and _is_by_people(who)):
        raise Problem(Reason.NO_SUCH_QUEUE)
    return own.get(practitioner_id, GENERAL)  # a substitute may have come after the day was opened


def _on_duty(app: web.Application, key: RoomKey) -> set[str]:
    """Who sees patients here today, or has done so: a session that was called off is nobody's."""
    day = date.fromisoformat(key.day)
    return {
        session.substitute_id or row.practitioner_id
        for row in app[keys.AVAILABILITY].schedules(key.department_id, first=day, last=day)
        for session in row.sessions
        if session.department_id == key.department_id and session.status != "suspended"
    }


def _session_ends_at(app: web.Application, key: RoomKey, practitioner_id: str | None) -> int:
    """Of the session that is running or comes next; 0 where there is none, or no practitioner is named."""
    now = int(time.time() * 1000)
    ends = (duty.ends_at for duty in duties(app, key, practitioner_id or ""))
    return min((at for at in ends if at > now), default=0)
