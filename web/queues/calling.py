"""Calling: the next one, this one, again; here, not there, seen.

Of consoles that ask with the same version of a room one gets an answer and the others `stale_version`.
"""

from typing import Final

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.refusal import Reason
from web.auth import Staff
from web.faults import Fault
from web.openapi import api
from web.queues import queue_bodies as bodies
from web.queues.rights import must_act_in_room
from web.queues.steps import OF_TICKET, REFUSED, expected, ms_of, must_know, step, ticket_answer, with_ticket

_CALLING: Final[list[Reason | Fault]] = [
    Reason.ROOM_NOT_OPEN,
    Reason.ROOM_BUSY,
    Reason.TOO_SOON,
]


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/call-next",
    zh="叫下一位",
    tags=["queues"],
    errors=[Reason.NOBODY_WAITS, *_CALLING, *REFUSED],
)
async def call_next(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueDepartmentPath,
    query: bodies.ActingQuery,
    body: bodies.CallNextBody,
) -> bodies.TicketStepAnswer:
    """Calls whoever is next for this room, by its queues and the rules. `why` says why that one."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    await must_act_in_room(asked.app, staff, asked.key, body.room_id, asked.command_id)
    command = w.CallNext(
        asked.command_id, body.room_id, asked.by, expected(body.expected_version), body.finishes
    )
    told = await asked.ask("call-next", body.room_id, body, command)
    return await ticket_answer(asked, told)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/call",
    zh="指定呼叫",
    tags=["queues"],
    errors=[Reason.NOT_SERVED_HERE, Reason.REASON_NEEDED, *_CALLING, *OF_TICKET],
)
async def call_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.CallTicketBody,
) -> bodies.TicketStepAnswer:
    """Calls this one to a room, out of turn: with a reason, unless it is the next one anyway."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    await must_act_in_room(asked.app, staff, asked.key, body.room_id, asked.command_id)
    ticket_id = path.ticket_id.bytes
    command = w.CallTicket(
        asked.command_id,
        body.room_id,
        ticket_id,
        asked.by,
        body.reason.strip(),
        expected(body.expected_version),
    )
    told = await asked.ask("call", ticket_id.hex(), body, command)
    return await ticket_answer(asked, told)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/recall",
    zh="重呼",
    tags=["queues"],
    errors=[Reason.TOO_SOON, Reason.CALLS_MAX, *OF_TICKET],
)
async def recall_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.TicketStepBody,
) -> bodies.TicketStepAnswer:
    """Calls again who was called and has not come in, so often and so far apart as the rules allow."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.Recall(asked.command_id, path.ticket_id.bytes, asked.by, expected(body.expected_version))
    return await with_ticket(asked, path, "recall", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/start",
    zh="开始就诊",
    tags=["queues"],
    errors=OF_TICKET,
)
async def start_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.TicketStepBody,
) -> bodies.TicketStepAnswer:
    """Who was called has come in."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.StartService(
        asked.command_id, path.ticket_id.bytes, asked.by, expected(body.expected_version)
    )
    return await with_ticket(asked, path, "start", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/pass",
    zh="过号",
    tags=["queues"],
    errors=OF_TICKET,
)
async def pass_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.TicketStepBody,
) -> bodies.TicketStepAnswer:
    """Who was called is not there."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.PassTicket(asked.command_id, path.ticket_id.bytes, asked.by, expected(body.expected_version))
    return await with_ticket(asked, path, "pass", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/park",
    zh="暂离",
    tags=["queues"],
    errors=[Reason.IN_THE_PAST, *OF_TICKET],
)
async def park_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.ParkBody,
) -> bodies.TicketStepAnswer:
    """Put aside for a while, with the place kept: until somebody says so, or until a time."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.ParkTicket(
        asked.command_id,
        path.ticket_id.bytes,
        asked.by,
        body.reason,
        ms_of(body.until),
        expected(body.expected_version),
    )
    return await with_ticket(asked, path, "park", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/return",
    zh="报到回队",
    tags=["queues"],
    errors=OF_TICKET,
)
async def readmit_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.ReturnTicketBody,
) -> bodies.TicketStepAnswer:
    """Is here again: after being passed over, from an examination, or no longer put aside."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.ReturnTicket(asked.command_id, path.ticket_id.bytes, w.Where.DESK, by=asked.by)
    return await with_ticket(asked, path, "return", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/finish",
    zh="就诊完成",
    tags=["queues"],
    errors=[Reason.NO_SUCH_QUEUE, Reason.TOO_LARGE, Fault.NO_SUCH_PRACTITIONER, *OF_TICKET],
)
async def finish_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.FinishBody,
) -> bodies.TicketStepAnswer:
    """Seen. Goes on as planned, or by the given stages: to an examination and back, to the pharmacy."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    stages = None
    if body.stages is not None:
        stages = tuple(
            (one.kind, one.queue_id or "", must_know(asked.app, one.practitioner_id), int(one.comes_back))
            for one in body.stages
        )
    command = w.FinishTicket(
        asked.command_id, path.ticket_id.bytes, asked.by, stages, expected(body.expected_version)
    )
    return await with_ticket(asked, path, "finish", body, command)
