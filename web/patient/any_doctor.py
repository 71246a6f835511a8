"""A number with any doctor of a department: for those who want to be seen, by whom does not matter."""

import asyncio
import time
from dataclasses import replace
from datetime import datetime
from datetime import time as clock_time
from typing import Final

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.ids import appointment_id
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.policy import Channel
from engine.domain.refusal import Reason, Refusal
from engine.views.availability import OpenSlot
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.his.truth import placed
from web.openapi import api
from web.patient.appointments import CLOSED, OVERLOAD, VISITS, answered, held_answer
from web.patient.bodies import AnyDoctorBody, HeldAnswer

TRIES_MAX: Final = 8
_MORNING: Final = "08:00"  # where nobody said when
_NEXT: Final = (Reason.SLOT_FULL, Reason.SLOT_PAST, Reason.NO_SUCH_SLOT, Reason.VISIT_LIMIT, *CLOSED)
"""Refusals that speak of the slot alone: another one may do."""


@api.route(
    "POST",
    "/api/v1/appointments/any-doctor",
    zh="预约科室任一医生",
    status=201,
    tags=["appointments"],
    errors=[
        Fault.NO_SUCH_DEPARTMENT,
        Reason.NO_SUCH_SCHEDULE,
        Reason.SLOT_FULL,
        Reason.KEY_REUSED,
        Reason.ALREADY_BOOKED,
        Reason.TIME_CONFLICT,
        Reason.NOT_ELIGIBLE,
        Reason.CONSENT_NEEDED,
        *OVERLOAD,
    ],
)
async def hold_any_doctor(
    request: web.Request, *, account_id: bytes, idempotency_key: str, body: AnyDoctorBody
) -> HeldAnswer:
    """Holds a number on that day with whoever of the department has most room, at the time nearest to the
    wanted one."""
    app = request.app
    availability = app[keys.AVAILABILITY]
    if body.department not in availability.catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    number = appointment_id(account_id, idempotency_key)
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    known = await _known(app, number)
    candidates = [known] if known else [(slot.row.key.stream, slot) for slot in _ranked(app, body)]
    if not candidates:
        raise Problem(Reason.NO_SUCH_SCHEDULE)
    for stream, slot in candidates[:TRIES_MAX]:
        command = s.HoldSeat(number, slot.clock, body.patient_id.bytes, account_id, visit=VISITS[body.visit])
        outcome = await app[keys.DIRECTORY].ask(stream, command, deadline)
        if isinstance(outcome, Refusal) and outcome.reason in _NEXT:
            continue
        held = held_answer(app, answered(outcome), slot.slot_id)
        theirs = await placed(app, number, account_id, slot.row.key, body.department)
        return held if theirs is None else replace(held, number=theirs)
    raise Problem(Reason.SLOT_FULL)


async def _known(app: web.Application, number: bytes) -> tuple[str, OpenSlot] | None:
    """Where a retry was given its number the first time."""
    slot_id = await app[keys.POOL].fetchval("select slot_id from appointment where id = $1", number.hex())
    row = None if slot_id is None else app[keys.AVAILABILITY].schedule(slot_id.rpartition("-")[0])
    if row is None:
        return None
    slots = app[keys.AVAILABILITY].slots(row, Channel.MINI_PROGRAM, int(time.time() * 1000))
    return next(((row.key.stream, slot) for slot in slots if slot.slot_id == slot_id), None)


def _ranked(app: web.Application, body: AnyDoctorBody) -> list[OpenSlot]:
    """Those with room, the nearest time first; at one time whoever has most of his seats left."""
    availability = app[keys.AVAILABILITY]
    now = int(time.time() * 1000)
    at = clock_time.fromisoformat(body.near or _MORNING)
    wanted = datetime.combine(body.date, at, app[keys.ZONE])
    wanted_ms = int(wanted.timestamp() * 1000)
    found = [
        slot
        for row in availability.schedules(body.department, None, body.title, body.date, body.date)
        for slot in availability.slots(row, Channel.MINI_PROGRAM, now)
        if slot.remaining > 0
        and slot.session.department_id == body.department
        and (body.period is None or slot.session.period == body.period)
        and (body.number_class is None or slot.session.number_class_id == body.number_class)
    ]
    return sorted(
        found, key=lambda x: (abs(x.starts_at - wanted_ms), -x.remaining / max(1, x.capacity), x.slot_id)
    )
