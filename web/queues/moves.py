"""By hand: what changes the order or somebody's way, each with a reason that the history keeps."""

from typing import Final

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.refusal import Reason
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.queues import queue_bodies as bodies
from web.queues.rights import duties, must_act_in_room, written_room
from web.queues.steps import OF_TICKET, Step, expected, must_know, step, ticket_answer, with_ticket

_BY_HAND: Final[list[Reason | Fault]] = [Reason.REASON_NEEDED, *OF_TICKET]


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/transfer",
    zh="转到其他医生或队列",
    tags=["queues"],
    errors=[Reason.NO_SUCH_QUEUE, Fault.NO_SUCH_PRACTITIONER, Fault.NOT_ON_DUTY, *_BY_HAND],
)
async def transfer_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.TransferBody,
) -> bodies.TicketStepAnswer:
    """Waits in another queue or for somebody else, in the place that the arrival gives there."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    who = must_know(asked.app, body.practitioner_id)
    if who:
        await _must_be_on_duty(asked, who)
    command = w.TransferTicket(
        asked.command_id,
        path.ticket_id.bytes,
        body.queue_id,
        asked.by,
        body.reason,
        who,
        expected(body.expected_version),
    )
    return await with_ticket(asked, path, "transfer", body, command)


async def _must_be_on_duty(asked: Step, practitioner_id: str) -> None:
    """Raises Problem where nobody would ever call who waits for this one."""
    if duties(asked.app, asked.key, practitioner_id):
        return
    room = await written_room(asked.app, asked.key)
    sits_here = any(
        place.practitioner_id == practitioner_id and place.status != w.CLOSED for place in room.rooms.values()
    )
    if not sits_here and asked.command_id not in room.commands:
        raise Problem(Fault.NOT_ON_DUTY, practitioner_id=practitioner_id)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/move",
    zh="调整顺序",
    tags=["queues"],
    errors=[Reason.TOO_LARGE, *_BY_HAND],
)
async def move_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.MoveTicketBody,
) -> bodies.TicketStepAnswer:
    """Lets so many go first, from now on: 0 is the next one. Emergencies and who is at the door go before."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.MoveTicket(
        asked.command_id,
        path.ticket_id.bytes,
        body.ahead,
        asked.by,
        body.reason,
        expected(body.expected_version),
    )
    return await with_ticket(asked, path, "move", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/classify",
    zh="分诊定级",
    tags=["queues"],
    errors=[Reason.UNKNOWN_PRIORITY, *_BY_HAND],
)
async def classify_ticket(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.ClassifyBody,
) -> bodies.TicketStepAnswer:
    """Triage: another priority class or emergency level. What is left out is taken away."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.ClassifyTicket(
        asked.command_id,
        path.ticket_id.bytes,
        body.priority,
        body.emergency,
        asked.by,
        body.reason,
        expected(body.expected_version),
    )
    return await with_ticket(asked, path, "classify", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/door",
    zh="请到诊室门口候诊",
    tags=["queues"],
    errors=[Reason.ROOM_NOT_OPEN, Reason.NOT_SERVED_HERE, Reason.DOOR_FULL, *_BY_HAND],
)
async def send_ticket_to_door(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.DoorBody,
) -> bodies.TicketStepAnswer:
    """Manual triage: waits at this room's door, where the rules leave room for one more."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    await must_act_in_room(asked.app, staff, asked.key, body.room_id, asked.command_id)
    ticket_id = path.ticket_id.bytes
    command = w.SendToDoor(
        asked.command_id,
        ticket_id,
        body.room_id,
        asked.by,
        body.reason,
        expected(body.expected_version),
    )
    told = await asked.ask("door", ticket_id.hex(), body, command)
    return await ticket_answer(asked, told)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/leave",
    zh="离开，不再候诊",
    tags=["queues"],
    errors=_BY_HAND,
)
async def let_ticket_leave(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.WithReasonBody,
) -> bodies.TicketStepAnswer:
    """Waits no more: went home, or was sent elsewhere."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.LeaveTicket(
        asked.command_id,
        path.ticket_id.bytes,
        asked.by,
        body.reason,
        expected(body.expected_version),
    )
    return await with_ticket(asked, path, "leave", body, command)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/undo",
    zh="撤销上一步",
    tags=["queues"],
    errors=[
        Reason.NOTHING_TO_UNDO,
        Reason.ROOM_BUSY,
        Reason.ROOM_NOT_OPEN,
        Reason.PATIENT_WAITS_ALREADY,
        *_BY_HAND,
    ],
)
async def undo_step(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueTicketPath,
    query: bodies.ActingQuery,
    body: bodies.UndoBody,
) -> bodies.TicketStepAnswer:
    """Takes the last step of a ticket back, with its place and whose turn it was. Only of what was seen."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    command = w.UndoStep(asked.command_id, path.ticket_id.bytes, body.expected_version, asked.by, body.reason)
    return await with_ticket(asked, path, "undo", body, command)
