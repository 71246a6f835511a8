"""What happened to a ticket or in a whole waiting room, by whom and why; and why one is before another."""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.by import staff_id_of
from engine.domain.ids import RoomKey
from engine.domain.refusal import Reason
from engine.journal.streams import read_room
from engine.records.day_people import staff_names
from engine.views.room_history import SELF, WORDS, RoomLine, of_ticket, room_history
from web import keys
from web.auditing import noted_reading
from web.auth import Staff
from web.desk.schedules import now_ms, time_of
from web.errors import Problem, language_of
from web.faults import Fault, Language
from web.openapi import api
from web.patient.appointments import uuid
from web.queues import queue_bodies as bodies
from web.queues.boards import look_at_least
from web.queues.place_names import practitioner_name, queue_name, room_name
from web.queues.rights import must_see, room_key
from web.queues.why_words import say

_READ: Final[list[Reason | Fault]] = [
    Fault.NO_SUCH_DEPARTMENT,
    Reason.NO_SUCH_WAITING_ROOM,
    Fault.DATABASE_DOWN,
]


@api.route(
    "GET",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/history",
    zh="候诊号的历史",
    tags=["queues"],
    errors=[Reason.NO_SUCH_TICKET, *_READ],
)
async def read_ticket_history(
    request: web.Request, *, staff: Staff, path: bodies.QueueTicketPath, query: bodies.BoardQuery
) -> bodies.RoomHistoryAnswer:
    """Every step of one ticket, from the journal: who, when and why. What was done by hand is marked."""
    app = request.app
    key = room_key(app, path.department_id, query.day)
    must_see(app, staff, key)
    events = await _events(app, key)
    lines = of_ticket(events, path.ticket_id.bytes)
    if not lines:
        raise Problem(Reason.NO_SUCH_TICKET)
    await _noted(request, key, events, {path.ticket_id.bytes})
    return bodies.RoomHistoryAnswer(await _told(request, key, lines), None)


@api.route(
    "GET",
    "/api/v1/queues/{department_id}/history",
    zh="科室候诊的历史",
    tags=["queues"],
    errors=_READ,
)
async def read_room_history(
    request: web.Request,
    *,
    staff: Staff,
    path: bodies.QueueDepartmentPath,
    query: bodies.RoomHistoryQuery,
) -> bodies.RoomHistoryAnswer:
    """Everything that happened in a department's day of waiting, in order; or only what was done by hand."""
    app = request.app
    key = room_key(app, path.department_id, query.day)
    must_see(app, staff, key)
    events = await _events(app, key)
    lines = [
        line
        for line in room_history(events)
        if line.version > query.after and (line.by_hand or not query.by_hand)
    ]
    page = lines[: query.limit]
    await _noted(request, key, events, {line.ticket_id for line in page})
    more = page[-1].version if len(lines) > query.limit else None
    return bodies.RoomHistoryAnswer(await _told(request, key, page), more)


@api.route(
    "GET",
    "/api/v1/queues/{department_id}/tickets/{ticket_id}/why",
    zh="两个候诊号谁在前，为什么",
    tags=["queues"],
    errors=[Reason.NO_SUCH_TICKET, *_READ],
)
async def explain_order(
    request: web.Request, *, staff: Staff, path: bodies.QueueTicketPath, query: bodies.TicketWhyQuery
) -> bodies.TicketWhyAnswer:
    """Which of two of one queue goes first and why, in the words that the one behind is told."""
    app = request.app
    key = room_key(app, path.department_id, query.day)
    must_see(app, staff, key)
    copy = await look_at_least(app, key, query.at_least)
    one, other = path.ticket_id.bytes, query.other.bytes
    if one not in copy.room.tickets or other not in copy.room.tickets:
        raise Problem(Reason.NO_SUCH_TICKET)
    language = language_of(request.headers.get("Accept-Language"))
    found = w.explain(copy.room, one, other, app[keys.ROOMS].rules(key), now_ms())
    if found is None:
        text = "两者不在同一队列候诊，没有先后" if language == "zh" else "They do not wait in one queue."
        return bodies.TicketWhyAnswer(None, None, None, text, None)
    label = copy.room.tickets[found.first].label
    text = say(found, app[keys.ZONE]).in_(language)
    reason = found.detail.get("reason")
    return bodies.TicketWhyAnswer(
        uuid(found.first), label, found.why.value, text, str(reason) if reason else None
    )


async def _noted(
    request: web.Request, key: RoomKey, events: Sequence[w.Event], tickets: set[bytes | None]
) -> None:
    patients = [x.patient_id for x in events if isinstance(x, w.TicketIssued) and x.ticket_id in tickets]
    await noted_reading(request, "room_history_read", patients, object=("room", key.stream))


async def _events(app: web.Application, key: RoomKey) -> list[w.Event]:
    """Empty where nothing has happened yet. Raises Problem where there is no such waiting room."""
    async with app[keys.POOL].acquire() as connection:
        events = await read_room(connection, key)
    if not events:
        await app[keys.ROOMS].look(key)
    return events


async def _told(
    request: web.Request, key: RoomKey, lines: Sequence[RoomLine]
) -> list[bodies.RoomHistoryLineAnswer]:
    app = request.app
    staff = {staff_id for line in lines if (staff_id := staff_id_of(line.by)) is not None}
    names: dict[bytes, str] = {}
    if staff:
        async with app[keys.POOL].acquire() as connection:
            names = await staff_names(connection, staff)
    language = language_of(request.headers.get("Accept-Language"))
    return [_line(app, key, line, language, names) for line in lines]


def _line(
    app: web.Application, key: RoomKey, line: RoomLine, language: Language, names: Mapping[bytes, str]
) -> bodies.RoomHistoryLineAnswer:
    staff_id = staff_id_of(line.by)
    by = "staff" if staff_id is not None else "self" if line.by == SELF else "system"
    return bodies.RoomHistoryLineAnswer(
        line.version,
        time_of(line.at, app[keys.ZONE]),
        line.what,
        _text(app, key, line, language),
        cast(bodies.ByWord, by),
        None if staff_id is None else names.get(staff_id),
        line.by_hand,
        line.reason or None,
        None if line.ticket_id is None else uuid(line.ticket_id),
        line.number or None,
        line.room_id or None,
        line.details,
    )


def _text(app: web.Application, key: RoomKey, line: RoomLine, language: Language) -> str:
    chinese, english = WORDS[line.what]
    words = chinese if language == "zh" else english
    if line.what == "undone":
        return words + (_text(app, key, line.undid, language) if line.undid is not None else "")
    told = dict(line.details)
    if "room" in told:
        told["room"] = room_name(app, told["room"])
    if "queue" in told:
        told["queue"] = queue_name(app, key, told["queue"], language)
    if told.get("practitioner"):
        told["practitioner"] = practitioner_name(app, told["practitioner"]) or told["practitioner"]
    return words.format_map(told).strip()
