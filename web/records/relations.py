"""Whether one of the staff has to do with a patient: whoever has not must break the glass to read.

A doctor's patients are those who have, or within the last days had, a number with them or a ticket of theirs;
a number is theirs too where they hold the session for somebody else (替诊). A nurse's and a desk's are those
who are in the department today.
"""

from datetime import date, datetime, time, timedelta
from enum import StrEnum

from aiohttp import web

from engine.domain.ids import RoomKey, ScheduleKey
from engine.records import relations as records
from engine.records.relations import NumberTie
from engine.records.staff import Role
from web import keys
from web.auth import Staff, looks_after
from web.queues.rights import is_theirs


class Relation(StrEnum):
    """Why somebody may read."""

    OWN_PATIENT = "own_patient"
    HERE_TODAY = "here_today"
    BROKEN_GLASS = "broken_glass"


async def relation_of(
    app: web.Application, staff: Staff, patient_id: bytes, now: datetime
) -> Relation | None:
    """The relation that they have without breaking anything."""
    local = now.astimezone(app[keys.ZONE])
    days = timedelta(days=app[keys.SETTINGS].relation_days)
    pool = app[keys.POOL]
    midnight = datetime.combine(local.date(), time(), local.tzinfo)
    tomorrow = midnight + timedelta(days=1)
    numbers = await records.numbers_between(pool, patient_id, midnight - days, tomorrow)
    tickets = await records.tickets_since(pool, patient_id, local.date() - days)
    today = [one for one in tickets if one.day == local.date()]
    who = staff.practitioner_id
    if Role.DOCTOR in staff.roles and who is not None:
        if any(_holds(app, who, one) for one in numbers) or any(who in x.practitioners for x in tickets):
            return Relation.OWN_PATIENT
        for one in today:
            if not one.is_over and await _is_in_line(app, one.department_id, one.day, one.id, who):
                return Relation.OWN_PATIENT
    if staff.roles & {Role.NURSE, Role.DESK}:
        departments = app[keys.AVAILABILITY].catalog.departments
        here = [one.department_id for one in today]
        here += [one.department_id for one in numbers if one.starts_at >= midnight]
        if any(looks_after(staff, one, departments) for one in here):
            return Relation.HERE_TODAY
    return None


def _holds(app: web.Application, practitioner_id: str, number: NumberTie) -> bool:
    """Whether this is their number: of their own day, or of a session that they hold for somebody else."""
    key = ScheduleKey.of_schedule(number.schedule_id)
    row = app[keys.AVAILABILITY].schedule(number.schedule_id)
    clock = number.slot_id.rpartition("-")[2]
    if row is not None:  # else it is older than what gateways keep
        for session in row.sessions:
            if any(of == clock for of, _, _ in session.slots):
                return practitioner_id in (session.substitute_id, row.practitioner_id)
    return key is not None and key.practitioner_id == practitioner_id


async def _is_in_line(
    app: web.Application, department_id: str, day: date, ticket_id: bytes, practitioner_id: str
) -> bool:
    """Whether they wait for them, or are in or at the door of their room, as our copy of the day has it."""
    room = (await app[keys.ROOMS].look(RoomKey(department_id, day.isoformat()))).room
    ticket = room.tickets.get(ticket_id)
    return ticket is not None and is_theirs(room, ticket.standing, practitioner_id)
