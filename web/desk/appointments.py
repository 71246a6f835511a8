"""Registration at the window, by phone, by a referring hospital, or by the HIS: the same actors and the same
rules as everybody's, through the channel of whoever asks. And who came, and who did not."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.by import by_staff
from engine.domain.ids import ScheduleKey, appointment_id, derived
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refusal import Reason
from engine.records import appointments, patients
from engine.records.appointments import AppointmentRecord
from web import keys
from web.auditing import audited
from web.auth import Staff, may_manage
from web.desk.appointment_bodies import (
    AttendanceBody,
    CancelBody,
    RegisteredAnswer,
    RegistrationBody,
    StaffChangeBody,
)
from web.errors import Problem
from web.faults import Fault
from web.his.truth import changed, placed, shown_number
from web.openapi import api
from web.patient.appointments import (
    CLOSED,
    OVERLOAD,
    VISITS,
    WORDS,
    alternatives,
    answered,
    channel_word,
    uuid,
)
from web.patient.bodies import ChangedAnswer, IdPath
from web.patient.changes import slot_of
from web.patient.patients import accepted, new_id, person_of, terms_of

STATUSES: Final = {
    "arrived": s.Status.ARRIVED,
    "fulfilled": s.Status.FULFILLED,
    "noshow": s.Status.NOSHOW,
    "booked": s.Status.BOOKED,
}


@api.route(
    "POST",
    "/api/v1/desk/appointments",
    zh="窗口登记预约",
    status=201,
    tags=["desk"],
    errors=[
        Fault.INVALID_NAME,
        Fault.INVALID_ID_NUMBER,
        Fault.INVALID_BIRTH_DATE,
        Fault.INVALID_SEX,
        Fault.INVALID_PHONE,
        Fault.IDENTITY_MISMATCH,
        Reason.NO_SUCH_SCHEDULE,
        Reason.NO_SUCH_SLOT,
        Reason.SLOT_PAST,
        Reason.SLOT_FULL,
        Reason.KEY_REUSED,
        Reason.ALREADY_BOOKED,
        Reason.TIME_CONFLICT,
        Reason.NOT_ELIGIBLE,
        *CLOSED,
        *OVERLOAD,
    ],
)
async def register_at_desk(
    request: web.Request, *, staff: Staff, idempotency_key: str, body: RegistrationBody
) -> RegisteredAnswer:
    """Books a number for somebody who stands at the window or is on the phone, to be paid there.

    The number counts for the channel of whoever asks; seats that are kept for it are used first."""
    app = request.app
    now = datetime.now(UTC)
    person = person_of(request, body.patient, now)
    key, slot = slot_of(app, body.slot_id, staff.channel)
    # Everybody who was ever registered by the hospital has an account of their own for that, which nobody
    # signs in to: limits and penalties stay with the person.
    vault = app[keys.VAULT]
    async with app[keys.POOL].acquire() as conn, conn.transaction():
        account_id = await patients.account_of_desk(conn, vault, person, new_id(), now)
        new = patients.NewPatient(person, "self")
        patient = accepted(
            await patients.add_patient(conn, vault, account_id, new, new_id(), terms_of(request), now)
        )
        await audited(request, conn, "patient_registered", subjects=(patient.id,))
    number = appointment_id(staff.id, idempotency_key)
    by = by_staff(staff.id)
    command = s.HoldSeat(
        number,
        slot.clock,
        patient.id,
        account_id,
        channel=int(staff.channel),
        visit=VISITS[body.visit],
        by=by,
    )
    try:
        held = await _ask(app, key, command)
    except Problem as problem:
        if problem.code is Reason.SLOT_FULL:
            problem.members["alternatives"] = alternatives(app, body.slot_id, staff.channel)
        raise
    if held.status == s.Status.PENDING:
        theirs = await placed(app, number, account_id, key)
        held = await _ask(app, key, s.ConfirmAppointment(number, account_id, by))
        if theirs is not None:
            held = replace(held, number=theirs)
    return RegisteredAnswer(
        uuid(number),
        WORDS[held.status],
        held.number,
        body.slot_id,
        uuid(patient.id),
        channel_word(int(staff.channel)),
        slot.session.fee_fen,
    )


@api.route(
    "POST",
    "/api/v1/desk/appointments/{id}/attendance",
    zh="登记到诊、就诊完成或爽约",
    tags=["desk"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Reason.WRONG_STATE, Reason.SLOT_FULL, *OVERLOAD],
)
async def record_attendance(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: AttendanceBody
) -> ChangedAnswer:
    """Says that somebody arrived, was seen, did not come, or takes that back."""
    found = await _managed(request.app, path.id.bytes, staff)
    command = s.RecordAttendance(found.id, STATUSES[body.status], by_staff(staff.id))
    return await _changed(request.app, found, command)


@api.route(
    "POST",
    "/api/v1/desk/appointments/{id}/cancel",
    zh="窗口退号",
    tags=["desk"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Reason.SLOT_PAST, *OVERLOAD],
)
async def cancel_at_desk(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: CancelBody
) -> ChangedAnswer:
    """Gives a number back for somebody, also after the time to do so by oneself. A reason is asked for."""
    found = await _managed(request.app, path.id.bytes, staff)
    command = s.CancelAppointment(found.id, found.account_id, by_staff(staff.id), body.note)
    return await _changed(request.app, found, command)


@api.route(
    "POST",
    "/api/v1/desk/appointments/{id}/reschedule",
    zh="窗口改签",
    tags=["desk"],
    errors=[
        Reason.NO_SUCH_APPOINTMENT,
        Reason.NOT_BOOKED,
        Reason.ALREADY_CANCELLED,
        Reason.CHANGE_GIVEN_UP,
        Reason.NO_SUCH_SCHEDULE,
        Reason.NO_SUCH_SLOT,
        Reason.SLOT_PAST,
        Reason.SLOT_FULL,
        Reason.KEY_REUSED,
        Reason.ALREADY_BOOKED,
        Reason.TIME_CONFLICT,
        Reason.NOT_ELIGIBLE,
        *CLOSED,
        *OVERLOAD,
    ],
)
async def reschedule_at_desk(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: StaffChangeBody
) -> ChangedAnswer:
    """Changes somebody's number for another one, whatever the cut-offs say."""
    app = request.app
    old = await _managed(app, path.id.bytes, staff)
    to, slot = slot_of(app, body.slot_id, staff.channel)
    new = derived(b"change", staff.id, idempotency_key.encode())
    answer = answered(await changed(app, old, to, slot, new, by_staff(staff.id), int(staff.channel)))
    number = await shown_number(app, new, answer.number)
    return ChangedAnswer(uuid(new), WORDS[answer.status], number, body.slot_id)


async def _managed(app: web.Application, wanted: bytes, staff: Staff) -> AppointmentRecord:
    """Raises Problem where it is not there, or not theirs to touch."""
    found = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], wanted)
    if found is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    practitioner_id = found.schedule_id.rpartition("-")[0]
    departments = app[keys.AVAILABILITY].catalog.departments
    if not may_manage(staff, found.department_id, practitioner_id, departments):
        raise Problem(Fault.FORBIDDEN)
    return found


async def _changed(app: web.Application, found: AppointmentRecord, command: s.Command) -> ChangedAnswer:
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert key is not None
    answer = await _ask(app, key, command)
    return ChangedAnswer(uuid(found.id), WORDS[answer.status], answer.number, found.slot_id)


async def _ask(app: web.Application, key: ScheduleKey, command: s.Command) -> s.Answer:
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    return answered(await app[keys.DIRECTORY].ask(key.stream, command, deadline))
