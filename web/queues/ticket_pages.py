"""A ticket as its patient, a kiosk or staff see it, made from the gateway's copy of the waiting room."""

import time
from datetime import datetime
from typing import Final

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.masking import masked
from engine.domain.refusal import Reason
from engine.records.tickets import TicketRecord
from web import keys
from web.errors import Problem
from web.patient.appointments import uuid
from web.queues import ticket_bodies as bodies
from web.queues.booking_facts import time_of
from web.queues.copies import Copy
from web.queues.estimates import WHY_NONE, estimate_of, why_no_estimate
from web.queues.place_names import department_name, practitioner_name, queue_name, room_name
from web.queues.sight import Seen, find_ticket, key_of

LOOKS_MAX: Final = 3
"""Each waits for the feed, or reads the journal."""

WORDS: Final[dict[w.Status, bodies.TicketWord]] = {
    w.Status.WAITING: "waiting",
    w.Status.DOOR: "door",
    w.Status.CALLED: "called",
    w.Status.SERVING: "serving",
    w.Status.PARKED: "parked",
    w.Status.AWAY: "away",
    w.Status.PASSED: "passed",
    w.Status.FINISHED: "finished",
    w.Status.LEFT: "left",
}


async def look_at(app: web.Application, found: TicketRecord) -> tuple[Copy, w.Ticket]:
    """The waiting room and the ticket in it, no older than the row: another gateway may just have written it.
    Raises Problem where there is no such ticket."""
    rooms, key = app[keys.ROOMS], key_of(found)
    for _ in range(LOOKS_MAX):
        copy = await rooms.look(key)
        ticket = copy.room.tickets.get(found.id)
        missing = found.version - (0 if ticket is None else ticket.version)
        if ticket is not None and missing <= 0:
            return copy, ticket
        rooms.expect(key, copy.version + missing)
    raise Problem(Reason.NO_SUCH_TICKET)


async def ticket_page(app: web.Application, found: TicketRecord, seen: Seen) -> bodies.TicketAnswer:
    """Raises Problem where there is no such ticket."""
    copy, ticket = await look_at(app, found)
    return _answer(app, copy, ticket, found.patient_name, seen)


async def ticket_answer(app: web.Application, ticket_id: bytes, seen: Seen) -> bodies.TicketAnswer:
    """Right after something was done with it, or was found to have been done. Raises Problem."""
    return await ticket_page(app, await find_ticket(app, ticket_id), seen)


def _answer(app: web.Application, copy: Copy, ticket: w.Ticket, name: str, seen: Seen) -> bodies.TicketAnswer:
    key, standing = copy.key, ticket.standing
    department = app[keys.AVAILABILITY].catalog.departments.get(key.department_id)
    practitioner_id = practitioner_of(copy, ticket)
    at = position_of(app, copy, ticket)
    is_clinical = seen is not Seen.KIOSK
    return bodies.TicketAnswer(
        id=uuid(ticket.ticket_id),
        number=ticket.label,
        status=WORDS[ticket.status],
        department_id=key.department_id,
        department=department_answer(app, key.department_id),
        location="" if department is None else department.location,
        day=key.day,
        patient_id=uuid(ticket.patient_id),
        patient_name=masked(name) if seen is Seen.KIOSK else name,
        appointment_id=uuid(ticket.appointment_id) if ticket.appointment_id else None,
        queue=_queue(app, copy, ticket),
        practitioner_id=practitioner_id or None,
        practitioner_name=practitioner_name(app, practitioner_id) if practitioner_id else None,
        room=room_answer(app, standing.room_id),
        stage=at.stage,
        stages=at.stages,
        journey=_journey(app, copy, ticket),
        position=at.position or None,
        ahead=at.ahead if at.position else None,
        starts_at=time_of(ticket.starts_at, app),
        arrived_at=datetime.fromtimestamp(ticket.arrived_at / 1000, app[keys.ZONE]),
        called_at=time_of(standing.called_at, app),
        calls=standing.calls,
        started_at=time_of(standing.started_at, app),
        finished_at=time_of(standing.done[-1].finished_at, app) if standing.done else None,
        parked_until=time_of(standing.parked_until, app),
        rests_until=time_of(standing.rests_until, app) if standing.rests_until > now_ms() else None,
        passes=standing.passes,
        priority=standing.priority if is_clinical else None,
        emergency=standing.emergency if is_clinical else None,
        estimate=(estimate := _estimate(app, copy, ticket.ticket_id)),
        no_estimate=_no_estimate(app, copy, ticket) if estimate is None else None,
        version=ticket.version,
    )


def practitioner_of(copy: Copy, ticket: w.Ticket) -> str:
    """Who will see him, as far as that is settled: who alone may call it, or whose the queue is. ""."""
    if ticket.practitioner_id:
        return ticket.practitioner_id
    place = copy.room.rooms.get(ticket.standing.room_id)
    if place is not None and place.practitioner_id:
        return place.practitioner_id
    queue = copy.room.queues.get(ticket.queue_id)
    return "" if queue is None else queue.practitioner_id


def position_of(app: web.Application, copy: Copy, ticket: w.Ticket) -> w.Position:
    """From one reckoning of the queue a second for each version of the room, however many ask."""
    second = now_ms() // 1000
    kept = copy.kept.get(("positions", ticket.queue_id))
    if kept is None or kept[0] != second:
        rules = app[keys.ROOMS].rules(copy.key)
        found: dict[bytes, w.Position] = {}
        if ticket.queue_id in copy.room.queues:
            positions = w.positions(copy.room, ticket.queue_id, rules, now_ms())
            found = {position.ticket_id: position for position in positions}
        kept = copy.kept["positions", ticket.queue_id] = second, found
    position: w.Position | None = kept[1].get(ticket.ticket_id)
    if position is None:
        position = w.position(copy.room, ticket.ticket_id, app[keys.ROOMS].rules(copy.key), now_ms())
    assert position is not None
    return position


def department_answer(app: web.Application, department_id: str) -> bodies.NameAnswer:
    if department_id not in app[keys.AVAILABILITY].catalog.departments:  # of a file that was imported before
        return bodies.NameAnswer(department_id, department_id)
    return bodies.NameAnswer(
        department_name(app, department_id, "zh"), department_name(app, department_id, "en")
    )


def room_answer(app: web.Application, room_id: str) -> bodies.RoomAnswer | None:
    return bodies.RoomAnswer(room_id, room_name(app, room_id)) if room_id else None


def _queue(app: web.Application, copy: Copy, ticket: w.Ticket) -> bodies.QueueAnswer | None:
    queue = copy.room.queues.get(ticket.queue_id)
    if queue is None:
        return None
    return bodies.QueueAnswer(queue.queue_id, queue.kind, _queue_name(app, copy, queue.queue_id))


def _queue_name(app: web.Application, copy: Copy, queue_id: str) -> bodies.NameAnswer:
    return bodies.NameAnswer(
        queue_name(app, copy.key, queue_id, "zh"), queue_name(app, copy.key, queue_id, "en")
    )


def _journey(app: web.Application, copy: Copy, ticket: w.Ticket) -> list[bodies.StageAnswer]:
    standing = ticket.standing
    done = [
        bodies.StageAnswer(
            stage.kind,
            _queue_name(app, copy, stage.queue_id) if stage.queue_id else None,
            "done",
            False,
            time_of(stage.called_at, app),
            time_of(stage.started_at, app),
            time_of(stage.finished_at, app),
        )
        for stage in standing.done
    ]
    left = [
        bodies.StageAnswer(
            kind,
            _queue_name(app, copy, queue_id) if queue_id else None,
            "ahead" if n or ticket.status in w.OVER else "now",
            bool(back),
            time_of(standing.first_called_at, app) if n == 0 else None,
            time_of(standing.started_at, app) if n == 0 else None,
            None,
        )
        for n, (kind, queue_id, _, back) in enumerate(standing.stages)
    ]
    return [*done, *left]


def _estimate(app: web.Application, copy: Copy, ticket_id: bytes) -> bodies.EstimateAnswer | None:
    found = estimate_of(app, copy, ticket_id)
    if found is None:
        return None
    return bodies.EstimateAnswer(
        found.p10_minutes, found.p50_minutes, found.p90_minutes, found.leave_home_at, found.told_at
    )


def _no_estimate(app: web.Application, copy: Copy, ticket: w.Ticket) -> bodies.NameAnswer | None:
    """None for who is through: there is nothing to wait for."""
    if ticket.status in w.OVER:
        return None
    why = WHY_NONE[why_no_estimate(app, copy, ticket.ticket_id)]
    return bodies.NameAnswer(why.zh, why.en)


def now_ms() -> int:
    return int(time.time() * 1000)
