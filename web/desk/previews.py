"""What a change of a day would do, without doing it."""

from datetime import timedelta
from typing import Final

from aiohttp import web

from engine.domain.by import by_staff
from engine.domain.ids import derived
from engine.domain.limits import SLOT_MS
from engine.domain.refusal import Reason
from engine.records.day_people import OtherVisit, other_visits, patient_names
from engine.views.preview import Affected, Preview, SlotChange, preview
from web import keys
from web.auditing import noted_reading
from web.auth import Staff
from web.desk import schedule_bodies as bodies
from web.desk.commands import commands_of, departments_of, word_of
from web.desk.day import Day, must_manage, read_day
from web.desk.schedules import masked, now_ms, refused_by_name, role_needed, time_of
from web.errors import Problem, language_of
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import WordPath
from web.patient.pages import CHANNEL

LISTED_MAX: Final = 500  # of those affected; the count tells of all


@api.route(
    "POST",
    "/api/v1/desk/schedules/{id}/preview",
    zh="变更预览",
    tags=["desk"],
    errors=[Reason.NO_SUCH_SCHEDULE, Fault.DATABASE_DOWN],
)
async def preview_change(
    request: web.Request, *, staff: Staff, path: WordPath, body: bodies.NamedChange
) -> bodies.PreviewAnswer:
    """What a change would do to the day and to those who are booked, and the refusal that it would meet.

    The body is the change's own, with its name in `command`."""
    app = request.app
    day = await read_day(app, path.id)
    must_manage(app, staff, day.practitioner.id, departments_of(app, day, body))
    language = language_of(request.headers.get("Accept-Language"))
    role = role_needed(app, staff, word_of(body))
    try:
        commands = await commands_of(app, day, body, derived(b"preview", staff.id), by_staff(staff.id))
    except Problem as problem:
        return _answer(body.command, Preview(day.state.revision, None), role, refusal=problem.body(language))
    found = preview(day.state, commands, now_ms(), app[keys.POLICY].policy)
    if found.refusal is not None:
        met = await refused_by_name(app, found.refusal)
        return _answer(body.command, found, role, refusal=met.body(language))
    await noted_reading(
        request,
        "schedule_preview_read",
        [one.patient_id for one in found.affected[:LISTED_MAX]],
        object=("schedule", path.id),
    )
    visits = await _conflicts(app, day, found.affected)
    return _answer(
        body.command,
        found,
        role,
        affected=await _affected(app, staff, day, found.affected, visits),
        slots=[_slot(app, day, slot) for slot in found.slots],
        conflicts=len({one.appointment_id for one in found.affected if _met(one, visits)}),
        elsewhere=_elsewhere(app, day, body.period) if isinstance(body, bodies.SuspendBody) else None,
    )


def _answer(
    command: str,
    found: Preview,
    role: str | None,
    *,
    refusal: dict[str, object] | None = None,
    affected: list[bodies.ForeseenAnswer] | None = None,
    slots: list[bodies.SlotChangeAnswer] | None = None,
    conflicts: int = 0,
    elsewhere: bodies.ElsewhereAnswer | None = None,
) -> bodies.PreviewAnswer:
    return bodies.PreviewAnswer(
        command,
        found.revision,
        role,
        refusal,
        len(found.affected),
        conflicts,
        affected or [],
        found.seats_opened,
        found.seats_closed,
        slots or [],
        elsewhere,
    )


async def _conflicts(
    app: web.Application, day: Day, affected: tuple[Affected, ...]
) -> dict[bytes, list[OtherVisit]]:
    """By patient: where else those are expected who are given another time."""
    moved = [one for one in affected if one.new_starts_at != one.starts_at or one.effect == "added"]
    if not moved:
        return {}
    first, last = min(one.new_starts_at for one in moved), max(one.new_starts_at for one in moved)
    zone = app[keys.ZONE]
    async with app[keys.POOL].acquire() as connection:
        visits = await other_visits(
            connection,
            [one.patient_id for one in moved],
            time_of(first - SLOT_MS, zone),
            time_of(last + SLOT_MS, zone),
            day.key.schedule_id,
        )
    found: dict[bytes, list[OtherVisit]] = {}
    for visit in visits:
        found.setdefault(visit.patient_id, []).append(visit)
    return found


def _met(one: Affected, visits: dict[bytes, list[OtherVisit]]) -> list[OtherVisit]:
    if one.new_starts_at == one.starts_at and one.effect != "added":
        return []
    return [
        visit
        for visit in visits.get(one.patient_id, ())
        if abs(visit.starts_at.timestamp() * 1000 - one.new_starts_at) < SLOT_MS
    ]


async def _affected(
    app: web.Application,
    staff: Staff,
    day: Day,
    affected: tuple[Affected, ...],
    visits: dict[bytes, list[OtherVisit]],
) -> list[bodies.ForeseenAnswer]:
    listed = affected[:LISTED_MAX]
    async with app[keys.POOL].acquire() as connection:
        names = await patient_names(connection, app[keys.VAULT], {one.patient_id for one in listed})
    zone = app[keys.ZONE]
    return [
        bodies.ForeseenAnswer(
            uuid(one.appointment_id),
            masked(names.get(one.patient_id, "")),
            one.number,
            one.effect,  # type: ignore[arg-type]  # the view's words are the contract's
            time_of(one.starts_at, zone),
            time_of(one.new_starts_at, zone),
            [
                bodies.ConflictAnswer(
                    uuid(visit.appointment_id),
                    visit.schedule_id,
                    visit.slot_id,
                    visit.starts_at.astimezone(zone),
                )
                for visit in _met(one, visits)
            ],
        )
        for one in listed
    ]


def _slot(app: web.Application, day: Day, slot: SlotChange) -> bodies.SlotChangeAnswer:
    return bodies.SlotChangeAnswer(
        day.key.slot_id(slot.clock),
        day.key.slot_id(slot.was) if slot.was else None,
        time_of(slot.starts_at, app[keys.ZONE]),
        slot.capacity,
        slot.new_capacity,
        slot.free,
        slot.new_free,
    )


def _elsewhere(app: web.Application, day: Day, period: str) -> bodies.ElsewhereAnswer:
    """Where those who are booked in a session that is called off could go."""
    availability, policy = app[keys.AVAILABILITY], app[keys.POLICY].policy
    people = availability.catalog.practitioners
    near = timedelta(policy.suspension.days_max)
    sessions = [mine[0].session for each, mine in day.sessions.items() if period in ("all", each)]
    departments = {session.department_id for session in sessions}
    title = day.practitioner.title
    same_practitioner = sum(
        slot.remaining
        for row in availability.schedules(
            practitioner_id=day.practitioner.id, first=day.date - near, last=day.date + near
        )
        for slot in availability.slots(row, CHANNEL, now_ms())
        if (row.id != day.key.schedule_id or period not in ("all", slot.session.period))
        and slot.session.department_id in departments
    )
    same_title = sum(
        slot.remaining
        for row in availability.schedules(title=title, first=day.date, last=day.date)
        if row.practitioner_id != day.practitioner.id and row.practitioner_id in people
        for slot in availability.slots(row, CHANNEL, now_ms())
        if slot.session.department_id in departments
    )
    waits = any(policy.terms_of(x.department_id, x.number_class_id).waitlist.enabled for x in sessions)
    return bodies.ElsewhereAnswer(same_practitioner, same_title, waits)
