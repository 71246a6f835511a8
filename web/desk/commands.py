"""From what the desk asks for to commands for the actor, once everything around the day has been looked at.

The actor alone decides about its own day. What lies outside it, rooms and what other days' practitioners do
at the same time, is looked up here in the gateway's memory: it is a tenth of a second old, and good enough
for what two desks would have to do wrong in the same instant.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from typing import Final, assert_never

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.calendar import slot_starts
from engine.domain.ids import derived
from engine.domain.limits import SLOT_MINUTES, SLOT_MS
from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import EVERYBODY, Channel
from engine.domain.refusal import Reason
from engine.domain.release import release
from engine.records.catalog import ScheduleRow, SessionOutline
from engine.records.day_people import account_for
from engine.records.hospital_rules import TITLES
from web import keys
from web.desk import schedule_bodies as bodies
from web.desk.day import Day
from web.errors import Entry, Problem
from web.faults import Fault

AnyChange = (
    bodies.ExtraSessionBody
    | bodies.CapacityBody
    | bodies.SeatsBody
    | bodies.ExtraPatientBody
    | bodies.MoveBody
    | bodies.StatusBody
    | bodies.SuspendBody
    | bodies.SubstituteBody
)

_VISITS: Final = {"first": 0, "follow_up": 1}


def word_of(body: AnyChange) -> str:
    """What the policy calls it (policy.APPROVABLE)."""
    match body:
        case bodies.ExtraSessionBody():
            return "open_session"
        case bodies.CapacityBody():
            return "change_capacity"
        case bodies.SeatsBody():
            return "add_seats"
        case bodies.ExtraPatientBody():
            return "add_patient"
        case bodies.MoveBody():
            return "move_session"
        case bodies.StatusBody():
            return "pause" if body.status == "paused" else "resume"
        case bodies.SuspendBody():
            return "suspend"
        case bodies.SubstituteBody():
            return "substitute"
        case _:
            assert_never(body)


def departments_of(app: web.Application, day: Day, body: AnyChange) -> set[str]:
    """Whose seats it touches: who asks must manage all of these."""
    match body:
        case bodies.ExtraSessionBody():
            return {body.department_id or day.practitioner.department_id}
        case bodies.SeatsBody() | bodies.ExtraPatientBody():
            slot = day.state.slots.get(clock_of(body.slot))
            return day.departments if slot is None else {slot.session.department_id}
        case bodies.SuspendBody() if body.period == "all":
            return day.departments
        case _:
            mine = day.sessions.get(body.period)
            return day.departments if mine is None else {mine[0].session.department_id}


def session_command_id(command_id: bytes, period: str) -> bytes:
    """Of a suspension, which is one command for each session."""
    return derived(b"session", command_id, period.encode())


async def commands_of(
    app: web.Application, day: Day, body: AnyChange, command_id: bytes, by: str
) -> list[s.Structural]:
    """What to ask the actor for, in this order. Raises Problem for what cannot be."""
    expected, note = body.revision, body.note
    match body:
        case bodies.ExtraSessionBody():
            return [s.OpenSession(command_id, expected, by, note, _new_session(app, day, body))]
        case bodies.CapacityBody():
            if not body.delta:
                raise Problem(Fault.NOTHING_TO_CHANGE)
            clock = "" if body.slot is None else clock_of(body.slot)
            return [s.ChangeCapacity(command_id, expected, by, note, body.period, clock, body.delta)]
        case bodies.SeatsBody():
            channels = EVERYBODY if body.channel is None else Channel[body.channel.upper()]
            clock = clock_of(body.slot)
            return [s.AddSeats(command_id, expected, by, note, clock, body.count, int(channels))]
        case bodies.ExtraPatientBody():
            return [
                s.AddPatient(
                    command_id,
                    expected,
                    by,
                    note,
                    clock_of(body.slot),
                    derived(b"added", command_id),
                    body.patient_id.bytes,
                    await _account(app, body),
                    _VISITS[body.visit],
                )
            ]
        case bodies.MoveBody():
            return [_move(app, day, body, command_id, by)]
        case bodies.StatusBody():
            running = day.sessions.get(body.period)
            if running is not None and running[0].session.status == body.status:
                raise Problem(Fault.NOTHING_TO_CHANGE)
            return [s.SetSessionStatus(command_id, expected, by, note, body.period, body.status, "")]
        case bodies.SuspendBody():
            return _suspend(day, body, command_id, by, int(datetime.now(UTC).timestamp() * 1000))
        case bodies.SubstituteBody():
            _check_substitute(app, day, body)
            return [s.SubstituteSession(command_id, expected, by, note, body.period, body.practitioner_id)]
        case _:
            assert_never(body)


def _new_session(app: web.Application, day: Day, body: bodies.ExtraSessionBody) -> Session:
    catalog = app[keys.AVAILABILITY].catalog
    department_id = body.department_id or day.practitioner.department_id
    if department_id not in catalog.departments or any(
        d.parent_id == department_id
        for d in catalog.departments.values()  # patients book those below it
    ):
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    number_class = catalog.number_classes.get(body.number_class_id)
    if number_class is None:
        raise Problem(Fault.NO_SUCH_NUMBER_CLASS, number_class=body.number_class_id)
    starts, ends = _time(body.starts), _time(body.ends)
    found = slot_starts(day.date, starts, ends, app[keys.ZONE])
    wanted = ((ends.hour - starts.hour) * 60 + ends.minute - starts.minute) // SLOT_MINUTES
    if wanted < 1 or len(found) != wanted:
        raise Problem(Fault.INVALID_TIMES)
    times = [at for _, at in found]
    _check_room(app, day, body.room_id, times, body)
    _check_not_away(app, day, times)
    session = Session(
        body.period,
        department_id,
        number_class.id,
        body.room_id,
        number_class.fee_fen if body.fee is None else body.fee,
        tuple(PlannedSlot(clock, at, body.capacity) for clock, at in found),
    )
    if body.period in day.sessions:  # more slots of one that there is: as its first seats
        return session
    terms = app[keys.POLICY].policy.terms_of(department_id, number_class.id)
    return release(session, terms, day.date, app[keys.ZONE])


def _move(app: web.Application, day: Day, body: bodies.MoveBody, command_id: bytes, by: str) -> s.MoveSession:
    """Every slot by as much as the first one, on the clock on the wall; gaps stay gaps."""
    mine = day.sessions.get(body.period)
    if mine is None:
        raise Problem(Reason.NO_SUCH_SESSION)
    room_id = body.room_id or mine[0].session.room_id
    moves: list[tuple[str, str, int]] = []
    if body.starts is not None and clock_of(body.starts) != mine[0].clock:
        later = _minute(clock_of(body.starts)) - _minute(mine[0].clock)
        for slot in mine:
            to = _minute(slot.clock) + later
            if not 0 <= to <= 23 * 60:  # a slot ends by half past eleven at night, as in the files
                raise Problem(Fault.INVALID_TIMES)
            begins, ends = time(*divmod(to, 60)), time(*divmod(to + SLOT_MINUTES, 60))
            found = slot_starts(day.date, begins, ends, app[keys.ZONE])
            if not found:
                raise Problem(Fault.INVALID_TIMES)
            moves.append((slot.clock, *found[0]))
    if not moves and room_id == mine[0].session.room_id:
        raise Problem(Fault.NOTHING_TO_CHANGE)
    times = [at for _, _, at in moves] or [slot.starts_at for slot in mine]
    _check_room(app, day, room_id, times, body)
    if moves:
        _check_not_away(app, day, times)
    return s.MoveSession(command_id, body.revision, by, body.note, body.period, tuple(moves), room_id)


def _suspend(day: Day, body: bodies.SuspendBody, command_id: bytes, by: str, now: int) -> list[s.Structural]:
    """One command a session. The first is held to the revision that was looked at; the others follow it,
    whatever else happens meanwhile: the day is called off. Of a day, what is over stays as it was."""
    if body.reason == "other" and not body.note.strip():
        raise Problem(Fault.INVALID_BODY, errors=[Entry(["body", "note"], "missing")])
    if body.period != "all" and body.period not in day.sessions:
        raise Problem(Reason.NO_SUCH_SESSION)
    found: list[s.Structural] = []
    for period, mine in day.sessions.items():
        one = session_command_id(command_id, period)
        is_held = mine[0].session.status != "suspended" or one in day.state.commands
        is_due = body.period == period or (body.period == "all" and mine[-1].starts_at + SLOT_MS > now)
        if is_held and is_due:
            expected = body.revision if not found else -1
            found.append(s.SetSessionStatus(one, expected, by, body.note, period, "suspended", body.reason))
    if not found:
        raise Problem(Fault.NOTHING_TO_CHANGE if day.sessions else Reason.NO_SUCH_SESSION)
    return found


async def _account(app: web.Application, body: bodies.ExtraPatientBody) -> bytes:
    if body.account_id is not None:
        return body.account_id.bytes
    async with app[keys.POOL].acquire() as connection:
        found = await account_for(connection, body.patient_id.bytes, datetime.now(UTC))
    if found is None:
        raise Problem(Fault.NO_SUCH_PATIENT)
    return found


# What lies around the day.


def _check_room(
    app: web.Application,
    day: Day,
    room_id: str | None,
    times: Sequence[int],
    body: bodies.ExtraSessionBody | bodies.MoveBody,
) -> None:
    if room_id is None:
        return
    if room_id not in app[keys.AVAILABILITY].catalog.rooms:
        raise Problem(Fault.NO_SUCH_ROOM, room=room_id)
    for row, session in _others(app, day):
        if session.room_id == room_id and _meets(row, session, times):
            if body.force and body.note.strip():
                return
            raise _meeting(app, Fault.ROOM_TAKEN, row, session, room=room_id)


def _check_not_away(app: web.Application, day: Day, times: Sequence[int]) -> None:
    """Whoever substitutes for somebody else at that time is not here."""
    for row, session in _others(app, day):
        if session.substitute_id == day.practitioner.id and _meets(row, session, times):
            raise _meeting(app, Fault.PRACTITIONER_BUSY, row, session, practitioner_id=day.practitioner.id)


def _check_substitute(app: web.Application, day: Day, body: bodies.SubstituteBody) -> None:
    mine = day.sessions.get(body.period)
    if mine is None:
        raise Problem(Reason.NO_SUCH_SESSION)
    if body.practitioner_id is None:
        if mine[0].session.substitute_id is None:
            raise Problem(Reason.NO_SUBSTITUTE)
        return
    substitute = app[keys.AVAILABILITY].catalog.practitioners.get(body.practitioner_id)
    if substitute is None:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    if mine[0].session.substitute_id == substitute.id:
        raise Problem(Fault.NOTHING_TO_CHANGE)
    unfit = None
    if substitute.id == day.practitioner.id:
        unfit = "self"
    elif TITLES.index(substitute.title) > TITLES.index(day.practitioner.title):
        unfit = "title"
    elif not _is_near(app, substitute.department_id, mine[0].session.department_id):
        unfit = "department"
    if unfit is not None:
        raise Problem(Fault.SUBSTITUTE_UNFIT, unfit=unfit)
    times = [slot.starts_at for slot in mine]
    for row, session in _others(app, day):
        holder = session.substitute_id or row.practitioner_id
        if holder == substitute.id and _meets(row, session, times):
            raise _meeting(app, Fault.PRACTITIONER_BUSY, row, session, practitioner_id=substitute.id)


def _is_near(app: web.Application, department_id: str, to_department_id: str) -> bool:
    """Whether the policy lets somebody of one department hold a session of another."""
    departments = app[keys.AVAILABILITY].catalog.departments
    match app[keys.POLICY].policy.substitutes:
        case "hospital":
            return True
        case "first_level":
            one, other = departments[department_id], departments[to_department_id]
            return (one.parent_id or one.id) == (other.parent_id or other.id)
        case _:
            return department_id == to_department_id


def _others(app: web.Application, day: Day) -> Iterator[tuple[ScheduleRow, SessionOutline]]:
    """Sessions of other practitioners' days that are held on this date."""
    for row in app[keys.AVAILABILITY].schedules(first=day.date, last=day.date):
        if row.id != day.key.schedule_id:
            for session in row.sessions:
                if session.status != "suspended":
                    yield row, session


def _meets(row: ScheduleRow, session: SessionOutline, times: Sequence[int]) -> bool:
    midnight = row.midnight_utc
    return any(abs(midnight + start - at) < SLOT_MS for _, start, _ in session.slots for at in times)


def _meeting(
    app: web.Application, code: Fault, row: ScheduleRow, session: SessionOutline, **members: str
) -> Problem:
    """Names the session that is in the way."""
    first, last = session.slots[0][1], session.slots[-1][1]
    zone = app[keys.ZONE]

    def at(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).strftime("%H:%M")

    problem = Problem(code)
    problem.members = {
        **members,
        "schedule_id": row.id,
        "period": session.period,
        "start": at(row.midnight_utc + first),
        "end": at(row.midnight_utc + last + SLOT_MS),
    }
    return problem


def clock_of(spelled: str) -> str:
    """hhmm of "HH:MM"."""
    return spelled.replace(":", "")


def _time(spelled: str) -> time:
    return time.fromisoformat(spelled)


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[2:])
