"""Who may do what in a waiting room, and how much of it they see.

A nurse, a desk and a manager run the waiting rooms of their department and of those below it. A doctor acts
in rooms that are open for the same practitioner, wherever the PC stands (学生电脑), and on tickets that wait
for or are in such a room. Who is signed in sees how many wait; names are for those who work there.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.limits import SLOT_MS
from engine.domain.refusal import Reason
from engine.journal.streams import read_room
from engine.records.catalog import Department
from engine.records.staff import Role, looks_after
from web import keys
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.queues.asking import today

RUNNING: Final = (Role.NURSE, Role.DESK, Role.MANAGER, Role.DEPARTMENT_HEAD)
ACTING: Final = (Role.DOCTOR, *RUNNING)

Refuses = Callable[[w.WaitingRoom], Problem | None]
TicketCommand = w.OfTicket | w.ReturnTicket


class Sight(StrEnum):
    """How much of a waiting room somebody sees."""

    WHOLE = "whole"
    MASKED = "masked"  # names without their middle
    SCREEN = "screen"  # names as the department's screens may show them
    COUNTERS = "counters"  # how many, and nobody in particular


class Duty(NamedTuple):
    """A session that a practitioner really holds. Times in ms."""

    starts_at: int
    ends_at: int


def duties(app: web.Application, key: RoomKey, practitioner_id: str) -> list[Duty]:
    """In this department on this day, in order: own sessions without a substitute, and those held for
    others (替诊)."""
    day = date.fromisoformat(key.day)
    found = []
    for row in app[keys.AVAILABILITY].schedules(key.department_id, first=day, last=day):
        for session in row.sessions:
            holds = (session.substitute_id or row.practitioner_id) == practitioner_id
            if holds and session.department_id == key.department_id and session.slots:
                starts = [row.midnight_utc + start for _, start, _ in session.slots]
                found.append(Duty(min(starts), max(starts) + SLOT_MS))
    return sorted(found)


def runs(staff: Staff, department_id: str, departments: Mapping[str, Department]) -> bool:
    """Whether the waiting rooms of this department are theirs to run."""
    return bool(staff.roles & set(RUNNING)) and looks_after(staff, department_id, departments)


def works_in(app: web.Application, staff: Staff, key: RoomKey) -> bool:
    """A doctor of this department, or one who holds a session there that day."""
    who = staff.practitioner_id
    if Role.DOCTOR not in staff.roles or who is None:
        return False
    practitioner = app[keys.AVAILABILITY].catalog.practitioners.get(who)
    if practitioner is not None and practitioner.department_id == key.department_id:
        return True
    return bool(duties(app, key, who))


def sight_of(app: web.Application, who: bytes | Staff, key: RoomKey) -> Sight:
    """`who` is an account or one of the staff."""
    if isinstance(who, bytes):
        return Sight.COUNTERS
    departments = app[keys.AVAILABILITY].catalog.departments
    if runs(who, key.department_id, departments) or works_in(app, who, key):
        return Sight.WHOLE
    if who.roles & {*ACTING, Role.SCHEDULE_OFFICE}:
        return Sight.MASKED
    if Role.SCREEN in who.roles and looks_after(who, key.department_id, departments):
        return Sight.SCREEN
    return Sight.COUNTERS


def must_see(app: web.Application, staff: Staff, key: RoomKey) -> None:
    """Raises Problem unless they see all of it: what happened to whom, and why."""
    if sight_of(app, staff, key) is not Sight.WHOLE:
        raise Problem(Fault.FORBIDDEN)


def must_run(app: web.Application, staff: Staff, key: RoomKey) -> None:
    """Raises Problem unless it is theirs to run."""
    if not runs(staff, key.department_id, app[keys.AVAILABILITY].catalog.departments):
        raise Problem(Fault.FORBIDDEN)


def room_key(app: web.Application, department_id: str, day: date | None) -> RoomKey:
    """A department's day of waiting, today unless another one is named. Raises Problem."""
    if department_id not in app[keys.AVAILABILITY].catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    return RoomKey(department_id, today(app) if day is None else day.isoformat())


def acting_key(app: web.Application, department_id: str, day: date | None) -> RoomKey:
    """The same to act there: today, or yesterday for whoever still waits after midnight. Raises Problem."""
    now = datetime.now(app[keys.ZONE]).date()
    if day is not None and not now - timedelta(days=1) <= day <= now:
        raise Problem(Fault.NOT_TODAY, day=now.isoformat())
    return room_key(app, department_id, day)


async def must_act_in_room(
    app: web.Application, staff: Staff, key: RoomKey, room_id: str, command_id: bytes
) -> None:
    """Raises Problem unless this room is theirs to call in."""

    def refuses(room: w.WaitingRoom) -> Problem | None:
        place = room.rooms.get(room_id)
        if place is None:
            return Problem(Reason.ROOM_NOT_OPEN, room_status=w.CLOSED)
        return None if place.practitioner_id == staff.practitioner_id else Problem(Fault.FORBIDDEN)

    await _must(app, staff, key, command_id, refuses)


async def must_act_on_ticket(
    app: web.Application, staff: Staff, key: RoomKey, command: TicketCommand, *, fresh: bool
) -> int | None:
    """Raises Problem unless this ticket is theirs to act on; to undo a step, also as it stood before it, if
    it is in nobody's room now. Tells the version at which it is; None: at any."""
    version: int | None = None
    named = -1 if isinstance(command, w.ReturnTicket) else command.expected

    def refuses(room: w.WaitingRoom) -> Problem | None:
        nonlocal version
        ticket = room.tickets.get(command.ticket_id)
        if ticket is None:
            return Problem(Reason.NO_SUCH_TICKET)
        if named not in (-1, ticket.version):
            status = ticket.status.name.lower()
            return Problem(Reason.STALE_VERSION, version=ticket.version, ticket_status=status)
        version = ticket.version
        standings = [ticket.standing]
        in_a_room = bool(ticket.standing.room_id)
        if isinstance(command, w.UndoStep) and ticket.before is not None and not in_a_room:
            standings.append(ticket.before[0])
        mine = any(is_theirs(room, one, staff.practitioner_id or "") for one in standings)
        return None if mine else Problem(Fault.FORBIDDEN)

    await _must(app, staff, key, command.command_id, refuses, fresh=fresh)
    return version


async def written_room(app: web.Application, key: RoomKey) -> w.WaitingRoom:
    """As the journal has it at this moment, whatever our copy has heard of."""
    async with app[keys.POOL].acquire() as connection:
        return w.replay(await read_room(connection, key))


async def _must(
    app: web.Application,
    staff: Staff,
    key: RoomKey,
    command_id: bytes,
    refuses: Refuses,
    *,
    fresh: bool = False,
) -> None:
    """A command that is known was allowed when it came first, and its id is made of whose it is. What our
    copy does not show yet the journal does: a room may just have been opened through another gateway."""
    if runs(staff, key.department_id, app[keys.AVAILABILITY].catalog.departments):
        return
    if staff.practitioner_id is None or not works_in(app, staff, key):
        raise Problem(Fault.FORBIDDEN)
    if not fresh:
        room = (await app[keys.ROOMS].look(key)).room
        if command_id in room.commands or refuses(room) is None:
            return
    room = await written_room(app, key)
    problem = refuses(room)
    if problem is not None and command_id not in room.commands:
        raise problem


def is_theirs(room: w.WaitingRoom, standing: w.Standing, practitioner_id: str) -> bool:
    """Whether it is in or at the door of this practitioner's room, or waits for it, or comes back there."""
    place = room.rooms.get(standing.room_id)
    if place is not None:
        return place.practitioner_id == practitioner_id
    if any(who == practitioner_id for _, _, who, _ in standing.stages):
        return True
    if not standing.stages or standing.stages[0][2]:
        return False
    queue = room.queues.get(standing.stages[0][1])
    if queue is None:
        return False
    return queue.practitioner_id == practitioner_id or any(
        place.practitioner_id == practitioner_id and queue.queue_id in place.queues
        for place in room.rooms.values()
        if place.status != w.CLOSED
    )
