"""Schedule work and refunds that wait for consent: who may agree sees them and decides."""

from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import asyncpg
from aiohttp import web
from pydantic import TypeAdapter

from engine.domain.by import by_staff
from engine.domain.refusal import Reason
from engine.records import change_requests as records
from engine.records.change_requests import ChangeRequest, RequestStatus
from web import keys
from web.auditing import audited
from web.auth import Staff, agrees, may_manage
from web.cashier import refunds
from web.desk import templates
from web.desk.day import read_day
from web.desk.schedule_bodies import (
    ConsentBody,
    NamedChange,
    RequestAnswer,
    RequestsAnswer,
    RequestsQuery,
)
from web.desk.schedules import carry_out
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD, uuid
from web.patient.bodies import IdPath

_CHANGE: Final[TypeAdapter[Any]] = TypeAdapter(NamedChange)
_STATUSES: Final = {
    "waiting": (RequestStatus.PENDING, RequestStatus.EXECUTING),
    "approved": (RequestStatus.APPROVED,),
    "rejected": (RequestStatus.REJECTED,),
}


@api.route(
    "GET",
    "/api/v1/desk/change-requests",
    zh="变更申请",
    tags=["desk"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_change_requests(request: web.Request, *, staff: Staff, query: RequestsQuery) -> RequestsAnswer:
    """Who has waited longest first: one's own, and those of the departments that one looks after."""
    app = request.app
    async with app[keys.POOL].acquire() as connection:
        found = await records.requests(connection, _STATUSES[query.status], query.after, query.limit + 1)
    page = found[: query.limit]
    more = page[-1].asked_at if len(found) > query.limit else None
    zone = app[keys.ZONE]
    return RequestsAnswer([_answer(x, zone) for x in page if _is_seen(app, staff, x)], more)


@api.route(
    "POST",
    "/api/v1/desk/change-requests/{id}/decision",
    zh="批准或驳回变更申请",
    tags=["desk"],
    errors=[
        Fault.NO_SUCH_REQUEST,
        Fault.REQUEST_DECIDED,
        Fault.NO_SUCH_DEPARTMENT,
        Fault.NO_SUCH_NUMBER_CLASS,
        Fault.NO_SUCH_PATIENT,
        Fault.NO_SUCH_PRACTITIONER,
        Fault.NO_SUCH_ROOM,
        Fault.INVALID_TIMES,
        Fault.INVALID_WEEK,
        Fault.NOTHING_TO_CHANGE,
        Fault.ROOM_TAKEN,
        Fault.PRACTITIONER_BUSY,
        Fault.SUBSTITUTE_UNFIT,
        Reason.NO_SUCH_SCHEDULE,
        Reason.NO_SUCH_SESSION,
        Reason.NO_SUCH_SLOT,
        Reason.NO_SUBSTITUTE,
        Reason.STALE_REVISION,
        Reason.SESSIONS_OVERLAP,
        Reason.SESSION_SUSPENDED,
        Reason.BELOW_SOLD,
        Reason.TOO_LARGE,
        Reason.IN_THE_PAST,
        Reason.KEY_REUSED,
        Reason.ALREADY_BOOKED,
        Reason.TIME_CONFLICT,
        Reason.NOT_ELIGIBLE,
        *refunds.REFUSALS,
        *OVERLOAD,
    ],
)
async def decide_change_request(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: ConsentBody
) -> RequestAnswer:
    """Approving does what was asked, in the name of who asked, on the revision that they looked at. Where
    that is refused (a stale revision, say) the request stays pending, and the refusal is the answer."""
    app = request.app
    found = await _find(app, path.id.bytes)
    new = found.new
    departments = app[keys.AVAILABILITY].catalog.departments
    if (
        not agrees(staff, new.role)
        or new.asked_by == staff.id
        or not all(may_manage(staff, one, new.practitioner_id, departments) for one in new.department_ids)
    ):
        raise Problem(Fault.FORBIDDEN, roles=[new.role])
    now = datetime.now(UTC)
    if body.decision == "reject":
        async with app[keys.POOL].acquire() as connection, connection.transaction():
            if not await records.reject(connection, new.id, staff.id, body.reason, now):
                raise await _decided(app, new.id)
            await _audit(request, connection, "change_rejected", new, body.reason)
    elif found.status is not RequestStatus.APPROVED or found.decided_by != staff.id:  # else a retry
        async with app[keys.POOL].acquire() as connection:
            is_ours = await records.claim(connection, new.id, staff.id, body.reason, now)
        if not is_ours:
            raise await _decided(app, new.id)
        await _carry_out(request, found, staff, body.reason)
    return _answer(await _find(app, new.id), app[keys.ZONE])


async def _carry_out(request: web.Request, found: ChangeRequest, staff: Staff, reason: str) -> None:
    """Raises Problem: the request then waits again, unless nobody knows whether it was done."""
    app, new = request.app, found.new
    try:
        if new.command == "change_template":
            await templates.carry_out(request, new)
        elif new.command == refunds.COMMAND:
            await refunds.carry_out(request, new)
        else:
            change = _CHANGE.validate_python(new.body, strict=False)
            day = await read_day(app, new.target)
            await carry_out(app, day, change, new.id, by_staff(new.asked_by))
    except Problem as problem:
        if problem.code not in (Fault.OUTCOME_UNKNOWN, Fault.DATABASE_DOWN):
            async with app[keys.POOL].acquire() as connection:
                await records.give_back(connection, new.id, staff.id)
        raise
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await records.done(connection, new.id, staff.id, reason, datetime.now(UTC))
        await _audit(request, connection, "change_approved", new, reason)


async def _audit(
    request: web.Request, connection: asyncpg.Connection, action: str, new: records.NewRequest, reason: str
) -> None:
    await audited(
        request,
        connection,
        action,
        object=("change_request", uuid(new.id)),
        reason=reason,
        detail={"command": new.command, "target": new.target, "asked_by": new.asked_by},
    )


async def _find(app: web.Application, request_id: bytes) -> ChangeRequest:
    async with app[keys.POOL].acquire() as connection:
        found = await records.request_of(connection, request_id)
    if found is None:
        raise Problem(Fault.NO_SUCH_REQUEST)
    return found


async def _decided(app: web.Application, request_id: bytes) -> Problem:
    found = await _find(app, request_id)
    return Problem(Fault.REQUEST_DECIDED, request_status=found.status.value, by=found.decided_by_name)


def _is_seen(app: web.Application, staff: Staff, found: ChangeRequest) -> bool:
    departments = app[keys.AVAILABILITY].catalog.departments
    new = found.new
    return new.asked_by == staff.id or all(
        may_manage(staff, one, new.practitioner_id, departments) for one in new.department_ids
    )


def _answer(found: ChangeRequest, zone: tzinfo) -> RequestAnswer:
    new = found.new
    return RequestAnswer(
        uuid(new.id),
        new.command,
        new.role,
        new.target,
        new.practitioner_id,
        new.body,
        new.revision,
        new.note,
        found.status.value,
        found.asked_by_name,
        found.asked_at.astimezone(zone),
        found.decided_by_name,
        None if found.decided_at is None else found.decided_at.astimezone(zone),
        found.reason,
    )
