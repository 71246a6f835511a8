"""改签: a booked number for another one. And families: several numbers at once, all or none."""

import asyncio
import time
from typing import Final

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey, derived
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.policy import Channel
from engine.domain.refusal import Reason
from engine.views.availability import OpenSlot
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.his.truth import changed, shown_number
from web.openapi import api
from web.patient.appointments import CLOSED, OVERLOAD, WORDS, alternatives, answered, find, held_answer, uuid
from web.patient.bodies import ChangeBody, ChangedAnswer, GroupAnswer, GroupBody, IdPath

_BOOKING: Final[list[Reason | Fault]] = [
    Reason.NO_SUCH_SCHEDULE,
    Reason.NO_SUCH_SLOT,
    Reason.SLOT_PAST,
    Reason.SLOT_FULL,
    Reason.KEY_REUSED,
    Reason.ALREADY_BOOKED,
    Reason.TIME_CONFLICT,
    Reason.NOT_ELIGIBLE,
    Reason.CONSENT_NEEDED,
    *CLOSED,
    *OVERLOAD,
]


@api.route(
    "POST",
    "/api/v1/appointments/{id}/reschedule",
    zh="改签",
    tags=["appointments"],
    errors=[
        Reason.NO_SUCH_APPOINTMENT,
        Reason.NOT_BOOKED,
        Reason.ALREADY_CANCELLED,
        Reason.CHANGE_TOO_LATE,
        Reason.TOO_MANY_CHANGES,
        Reason.CHANGE_GIVEN_UP,
        *_BOOKING,
    ],
)
async def reschedule_appointment(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: ChangeBody
) -> ChangedAnswer:
    """Gives a booked number up for one in another slot, on any day of any doctor: both happen, or neither.

    The answer is the new appointment. After 5xx or silence the same key finds what became of it."""
    app = request.app
    old = await find(app, path.id, account_id)
    to, slot = slot_of(app, body.slot_id)
    new_id = derived(b"change", account_id, idempotency_key.encode())
    try:
        answer = answered(await changed(app, old, to, slot, new_id))
    except Problem as problem:
        if problem.code is Reason.SLOT_FULL:
            problem.members["alternatives"] = alternatives(app, body.slot_id)
        raise
    number = await shown_number(app, new_id, answer.number)
    return ChangedAnswer(uuid(new_id), WORDS[answer.status], number, body.slot_id)


@api.route(
    "POST",
    "/api/v1/appointment-groups",
    zh="家庭成员一起预约",
    status=201,
    tags=["appointments"],
    errors=[Reason.GROUP_DOES_NOT_FIT, Reason.TOO_LARGE, *_BOOKING],
)
async def hold_group(
    request: web.Request, *, account_id: bytes, idempotency_key: str, body: GroupBody
) -> GroupAnswer:
    """Holds numbers with one doctor at neighbouring times for several of the account's patients, or none.

    Each number is then confirmed or cancelled by itself."""
    app = request.app
    key, slot = slot_of(app, body.slot_id)
    members = tuple(
        (derived(b"group", account_id, idempotency_key.encode(), bytes([n])), patient_id.bytes)
        for n, patient_id in enumerate(body.patient_ids)
    )
    command = s.HoldGroup(members, slot.clock, account_id)
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    outcome = await app[keys.DIRECTORY].ask(key.stream, command, deadline)
    if isinstance(outcome, s.Many):
        return GroupAnswer(
            [held_answer(app, answer, key.slot_id(answer.clock)) for answer in outcome.answers]
        )
    answered(outcome)
    raise AssertionError(outcome)


def slot_of(
    app: web.Application, slot_id: str, channel: Channel = Channel.MINI_PROGRAM
) -> tuple[ScheduleKey, OpenSlot]:
    """As this channel sees it. Raises Problem when there is no such slot."""
    found = ScheduleKey.of_slot(slot_id)
    if found is None:
        raise Problem(Reason.NO_SUCH_SLOT)
    key, clock = found
    availability = app[keys.AVAILABILITY]
    row = availability.schedule(key.schedule_id)
    if row is None:
        raise Problem(Reason.NO_SUCH_SCHEDULE)
    for slot in availability.slots(row, channel, int(time.time() * 1000)):
        if slot.clock == clock:
            return key, slot
    raise Problem(Reason.NO_SUCH_SLOT)
