"""A patient's own tickets: where they stand, who is ahead and why; and what a patient may do with one.

Positions are the gateway's own copy of the waiting room: a tenth of a second old, and never older than what
was just done through this gateway.
"""

from datetime import datetime
from typing import Final

import orjson
from aiohttp import web

from engine.domain import queue_order as order
from engine.domain import waiting_room as w
from engine.domain.refusal import Reason
from engine.records import tickets as records
from engine.records.tickets import TicketRecord
from web import keys
from web.auditing import noted_delegation, noted_reading
from web.auth import Staff
from web.conditional import PRIVATE, digest, etag_of, unchanged, whole
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD, uuid
from web.patient.bodies import IdPath
from web.queues import ticket_bodies as bodies
from web.queues.asking import ask_room, command_id, today
from web.queues.booking_facts import metres
from web.queues.copies import Copy
from web.queues.sight import Seen, find_ticket, key_of, must_be_of_today, seen_by
from web.queues.ticket_pages import (
    WORDS,
    department_answer,
    look_at,
    now_ms,
    position_of,
    room_answer,
    ticket_answer,
    ticket_page,
)
from web.queues.why_words import lane_words, say

LISTED_MAX: Final = 100

# Reasons of what patients do by themselves; `by` is "" then.
GAVE_UP: Final = "gave_up"
ASKED: Final = "asked_by_patient"


@api.route(
    "GET",
    "/api/v1/tickets/{id}",
    zh="候诊号详情",
    tags=["queues"],
    answer=bodies.TicketAnswer,
    revalidated=True,
    errors=[Reason.NO_SUCH_TICKET, Fault.DATABASE_DOWN],
)
async def read_ticket(request: web.Request, *, who: bytes | Staff, path: IdPath) -> web.Response:
    """Where one stands: position, people ahead, the journey, where to go, and how long it still takes.

    Patients see those of their own patients, staff those of their department; kiosks see no names."""
    app = request.app
    found = await find_ticket(app, path.id.bytes)
    seen = await seen_by(app, who, found)
    if isinstance(who, bytes):
        await noted_delegation(request, who, "ticket_read", [found.patient_id])
    elif seen is Seen.STAFF:
        await noted_reading(request, "ticket_read", [found.patient_id], object=("ticket", str(path.id)))
    body = orjson.dumps(await ticket_page(app, found, seen))
    etag = etag_of([digest(body)])
    return unchanged(request, etag, PRIVATE) or whole(etag, body, PRIVATE)


@api.route("GET", "/api/v1/tickets", zh="我的候诊号", tags=["queues"], errors=[Fault.DATABASE_DOWN])
async def list_tickets(
    request: web.Request, *, account_id: bytes, query: bodies.TicketsQuery
) -> bodies.TicketsAnswer:
    """Of all patients of this account, newest first: today's, or from a day on."""
    app = request.app
    first = query.since or datetime.now(app[keys.ZONE]).date()
    found = await records.tickets_of_account(app[keys.POOL], app[keys.VAULT], account_id, first, LISTED_MAX)
    await noted_delegation(request, account_id, "ticket_read", [one.patient_id for one in found])
    return bodies.TicketsAnswer(
        [
            _line(app, one, *await look_at(app, one)) if _is_live(app, one) else _line(app, one)
            for one in found
        ]
    )


def _is_live(app: web.Application, found: TicketRecord) -> bool:
    return not found.is_over and found.day.isoformat() == today(app)


def _line(
    app: web.Application, found: TicketRecord, copy: Copy | None = None, ticket: w.Ticket | None = None
) -> bodies.TicketLineAnswer:
    at = None if copy is None or ticket is None else position_of(app, copy, ticket)
    waits = at is not None and at.position > 0
    return bodies.TicketLineAnswer(
        id=uuid(found.id),
        number=found.label,
        status=WORDS[w.Status(found.status) if ticket is None else ticket.status],
        department_id=found.department_id,
        department=department_answer(app, found.department_id),
        day=found.day.isoformat(),
        patient_id=uuid(found.patient_id),
        patient_name=found.patient_name,
        appointment_id=None if found.appointment_id is None else uuid(found.appointment_id),
        arrived_at=found.arrived_at.astimezone(app[keys.ZONE]),
        finished_at=None if found.finished_at is None else found.finished_at.astimezone(app[keys.ZONE]),
        position=at.position if at is not None and waits else None,
        ahead=at.ahead if at is not None and waits else None,
        room=None if ticket is None else room_answer(app, ticket.standing.room_id),
    )


@api.route(
    "GET",
    "/api/v1/tickets/{id}/ahead",
    zh="前面有谁、为什么",
    tags=["queues"],
    errors=[Reason.NO_SUCH_TICKET, Fault.DATABASE_DOWN],
)
async def read_ahead(request: web.Request, *, who: bytes | Staff, path: IdPath) -> bodies.AllAheadAnswer:
    """Everybody who goes first, the next one first, and for each of them why. Never who it is.

    Whoever does not wait in a queue now has nobody ahead."""
    app = request.app
    found = await find_ticket(app, path.id.bytes)
    await seen_by(app, who, found)
    copy, ticket = await look_at(app, found)
    at = position_of(app, copy, ticket)
    people = _ahead(app, copy, ticket) if at.position else []
    return bodies.AllAheadAnswer(
        ticket.label, WORDS[ticket.status], at.position or None, people, ticket.version
    )


def _ahead(app: web.Application, copy: Copy, ticket: w.Ticket) -> list[bodies.AheadAnswer]:
    """Who is in a room of this queue, then who stands before in the line."""
    room, queue_id = copy.room, ticket.queue_id
    inside = [
        other
        for place in room.rooms.values()
        if (other := room.tickets.get(place.ticket_id)) is not None and other.queue_id == queue_id
    ]
    people = [
        _one(app, ticket, other, order.Explanation(other.ticket_id, order.Why.CALLED), "ordinary")
        for other in inside
    ]
    ranks = w.line(room, queue_id, app[keys.ROOMS].rules(copy.key), max(now_ms(), room.at))
    mine = next(rank for rank in ranks if rank.ticket_id == ticket.ticket_id)
    for rank in ranks:
        if rank is mine:
            break
        found = order.why([rank, mine], rank.ticket_id, mine.ticket_id)
        assert found is not None
        people.append(_one(app, ticket, room.tickets[rank.ticket_id], found, rank.lane))
    return people


def _one(
    app: web.Application, mine: w.Ticket, other: w.Ticket, why: order.Explanation, lane: str
) -> bodies.AheadAnswer:
    said, lane_said = say(why, app[keys.ZONE]), lane_words(lane)
    return bodies.AheadAnswer(
        other.label,
        WORDS[other.status],
        bodies.NameAnswer(lane_said.zh, lane_said.en),
        not mine.practitioner_id or other.practitioner_id in ("", mine.practitioner_id),
        bodies.WhyAnswer(why.why.value, bodies.NameAnswer(said.zh, said.en)),
    )


@api.route(
    "POST",
    "/api/v1/tickets/{id}/return",
    zh="过号或检查后报到",
    tags=["queues"],
    errors=[
        Reason.NO_SUCH_TICKET,
        Reason.WRONG_DAY,
        Reason.PLACE_UNKNOWN,
        Reason.TOO_FAR,
        Reason.PASSED_TOO_OFTEN,
        Reason.WRONG_STATUS,
        Reason.KEY_REUSED,
        *OVERLOAD,
    ],
)
async def return_ticket(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: bodies.PlaceBody
) -> bodies.TicketAnswer:
    """Says that one is here again: after being passed over, from an examination, or from a break."""
    app = request.app
    found = await _own(app, path, account_id)
    far = metres(app, found.department_id, body.latitude, body.longitude, body.accuracy_m)
    mine = command_id(account_id, idempotency_key)
    return await _done(app, found, w.ReturnTicket(mine, found.id, w.Where.MINI_PROGRAM, far))


@api.route(
    "POST",
    "/api/v1/tickets/{id}/leave",
    zh="不再候诊",
    tags=["queues"],
    errors=[Reason.NO_SUCH_TICKET, Reason.WRONG_DAY, Reason.WRONG_STATUS, Reason.KEY_REUSED, *OVERLOAD],
)
async def leave_ticket(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath
) -> bodies.TicketAnswer:
    """Gives up waiting. The number stays booked and is not paid back by this: cancel it for that."""
    found = await _own(request.app, path, account_id)
    mine = command_id(account_id, idempotency_key)
    return await _done(request.app, found, w.LeaveTicket(mine, found.id, "", GAVE_UP))


@api.route(
    "POST",
    "/api/v1/tickets/{id}/delay",
    zh="延后就诊",
    tags=["queues"],
    errors=[
        Reason.NO_SUCH_TICKET,
        Reason.WRONG_DAY,
        Reason.WRONG_STATUS,
        Reason.TOO_LARGE,
        Reason.KEY_REUSED,
        *OVERLOAD,
    ],
)
async def delay_ticket(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: bodies.DelayBody
) -> bodies.TicketAnswer:
    """Lets so many more people go first. There is no way forward again but the desk's.

    Only while one waits in the hall: whoever is at a door or called has his turn."""
    app = request.app
    found = await _own(app, path, account_id)
    copy, ticket = await look_at(app, found)
    before = max(position_of(app, copy, ticket).position - 1, 0)
    mine = command_id(account_id, idempotency_key)
    return await _done(app, found, w.MoveTicket(mine, found.id, before + body.ahead, "", ASKED))


async def _own(app: web.Application, path: IdPath, account_id: bytes) -> TicketRecord:
    found = await find_ticket(app, path.id.bytes)
    await seen_by(app, account_id, found)
    must_be_of_today(app, found)
    return found


async def _done(app: web.Application, found: TicketRecord, command: w.Command) -> bodies.TicketAnswer:
    await ask_room(app, key_of(found), command)
    return await ticket_answer(app, found.id, Seen.OWN)
