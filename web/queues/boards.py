"""What is seen of a waiting room: the whole board for those who work there, counters for everybody.

A board is made once for each version of the room, each reader's sight and language, and kept as bytes with
its tag. Time alone changes it only where somebody rests after being passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, cast

import orjson
from aiohttp import hdrs, web

from engine.domain import queue_order as order
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.masking import masked
from engine.domain.refusal import Reason
from engine.journal.room_steps import last_version
from engine.records.catalog import Catalog
from engine.records.day_people import patient_names
from engine.records.waiting_departments import waiting_departments
from web import keys
from web.auditing import noted_reading
from web.auth import Staff
from web.conditional import digest, etag_of, unchanged, whole
from web.desk.schedules import now_ms, time_of
from web.errors import Problem, language_of
from web.faults import Fault, Language
from web.openapi import api
from web.patient.appointments import uuid
from web.queues import queue_bodies as bodies
from web.queues.asking import today
from web.queues.copies import Copy
from web.queues.place_names import department_name, lane_text, practitioner_name, queue_name, room_name
from web.queues.rights import Sight, room_key, sight_of
from web.queues.screen_bodies import upcoming

LAST_CALLS: Final = 20


@api.route(
    "GET",
    "/api/v1/queues",
    zh="各科室候诊概况",
    tags=["queues"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_queues(request: web.Request, *, query: bodies.BoardsQuery) -> bodies.BoardsAnswer:
    """Departments where somebody waits, is called, or is expected back, by id."""
    app = request.app
    language = language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))
    day = query.day or date.fromisoformat(today(app))
    found = await waiting_departments(app[keys.POOL], day, query.after or "", query.limit + 1)
    zone = app[keys.ZONE]
    rows = [
        bodies.BoardRowAnswer(
            one.department_id,
            department_name(app, one.department_id, language),
            one.waiting,
            one.called,
            one.aside,
            None if one.since is None else one.since.astimezone(zone),
        )
        for one in found[: query.limit]
    ]
    return bodies.BoardsAnswer(day, rows, rows[-1].department_id if len(found) > query.limit else None)


@api.route(
    "GET",
    "/api/v1/queues/{department_id}",
    zh="科室候诊看板",
    tags=["queues"],
    answer=bodies.BoardAnswer,
    revalidated=True,
    errors=[Fault.NO_SUCH_DEPARTMENT, Reason.NO_SUCH_WAITING_ROOM, Fault.FORBIDDEN, Fault.DATABASE_DOWN],
)
async def read_board(
    request: web.Request,
    *,
    who: bytes | Staff,
    path: bodies.QueueDepartmentPath,
    query: bodies.OneBoardQuery,
) -> web.Response:
    """Who works in this department sees everybody in order, the rooms and the last calls; other staff and
    screens see names masked; patients, kiosks and partners see how many wait. `sight` says which it is."""
    app = request.app
    key = room_key(app, path.department_id, query.day)
    sight = sight_of(app, who, key)
    if sight is Sight.COUNTERS and key.day != today(app):
        raise Problem(Fault.FORBIDDEN)
    language = language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))
    copy = await look_at_least(app, key, query.at_least)
    board = await board_of(app, copy, sight, language)
    if sight is Sight.WHOLE:
        await noted_reading(request, "room_board_read", people_on(copy), object=("room", key.stream))
    response = unchanged(request, board.etag) or whole(board.etag, board.body)
    response.headers[hdrs.CACHE_CONTROL] = "private, no-cache"  # its reader's own
    response.headers[hdrs.VARY] = "Authorization, Accept-Language"
    return response


async def look_at_least(app: web.Application, key: RoomKey, at_least: int) -> Copy:
    """Whoever has done something through another gateway sees it here, too. What is asked for is believed no
    further than the journal goes."""
    copy = await app[keys.ROOMS].look(key)
    if copy.version >= at_least:
        return copy
    app[keys.ROOMS].expect(key, min(at_least, await last_version(app[keys.POOL], key)))
    return await app[keys.ROOMS].look(key)


@dataclass(frozen=True, slots=True)
class Board:
    """Good for this version of the room while the catalog and the rules are these, until `until` (ms)."""

    catalog: Catalog
    rules: order.Rules
    until: int
    body: bytes
    etag: str


async def board_of(app: web.Application, copy: Copy, sight: Sight, language: Language) -> Board:
    """As its reader may see it, in JSON."""
    kept_as = (_KEPT, sight, language)
    while True:
        known: Board | None = copy.kept.get(kept_as)
        catalog, rules, now = app[keys.AVAILABILITY].catalog, app[keys.ROOMS].rules(copy.key), now_ms()
        if known is not None and known.catalog is catalog and known.rules is rules and now < known.until:
            return known
        version = copy.version
        names = {} if sight is Sight.COUNTERS else await _names(app, copy)
        if copy.version == version:  # else somebody came while names were read
            break
    body = orjson.dumps(_Drawing(app, copy, rules, sight, language, names, now).board())
    until = min(
        (t.standing.rests_until for t in copy.room.tickets.values() if t.standing.rests_until > now),
        default=order.FAR,
    )
    board = Board(catalog, rules, until, body, etag_of([digest(body)]))
    copy.kept[kept_as] = board
    return board


_KEPT: Final = "board"


def people_on(copy: Copy) -> set[bytes]:
    """Whose names a whole board shows: everybody who is not through, and the last calls."""
    shown = {t.patient_id for t in copy.room.tickets.values() if t.status not in w.OVER}
    shown.update(call.patient_id for call in copy.room.calls[-LAST_CALLS:])
    return shown


async def _names(app: web.Application, copy: Copy) -> Mapping[bytes, str]:
    async with app[keys.POOL].acquire() as connection:
        return await patient_names(connection, app[keys.VAULT], people_on(copy))


class _Drawing:
    """One board in the making."""

    def __init__(
        self,
        app: web.Application,
        copy: Copy,
        rules: order.Rules,
        sight: Sight,
        language: Language,
        names: Mapping[bytes, str],
        now: int,
    ) -> None:
        self.app, self.key, self.room, self.version = app, copy.key, copy.room, copy.version
        self.rules, self.sight, self.language, self.names = rules, sight, language, names
        self.now = max(now, copy.room.at)
        self.zone = app[keys.ZONE]
        self.lines = {
            queue_id: w.line(copy.room, queue_id, rules, self.now)
            for queue_id in (() if sight is Sight.COUNTERS else copy.room.queues)
        }
        self.screen = app[keys.POLICY].policy.waiting_of(copy.key.department_id).screen

    def board(self) -> bodies.BoardAnswer:
        room = self.room
        counters = {c.queue_id: c for c in w.counters(room)}
        whole = self.sight is not Sight.COUNTERS
        ordered = sorted(room.calls[-LAST_CALLS:], key=lambda call: -call.sequence)
        return bodies.BoardAnswer(
            self.key.department_id,
            department_name(self.app, self.key.department_id, self.language),
            date.fromisoformat(self.key.day),
            self.version,
            self.sight.value,
            sum(len(queue.line) for queue in room.queues.values()),
            sum(place.status == w.OPEN for place in room.rooms.values()),
            [self._queue(queue, counters[queue.queue_id]) for queue in room.queues.values()],
            [self._room(place) for place in room.rooms.values()] if whole else None,
            [self._ticket(t) for t in room.tickets.values() if t.status in _ASIDE] if whole else None,
            [self._call(call) for call in ordered] if whole else None,
        )

    def _queue(self, queue: w.Queue, counted: w.Counters) -> bodies.BoardQueueAnswer:
        by = counted.by_status
        return bodies.BoardQueueAnswer(
            queue.queue_id,
            queue.kind,
            queue_name(self.app, self.key, queue.queue_id, self.language),
            queue.prefix,
            queue.first,
            queue.last,
            counted.next_number,
            queue.practitioner_id or None,
            len(queue.line),
            sum(by.get(status, 0) for status in w.IN_ROOM),
            by.get(w.Status.PARKED, 0),
            by.get(w.Status.PASSED, 0),
            by.get(w.Status.AWAY, 0),
            counted.open_rooms,
            self._time(counted.waiting_since),
            None if self.sight is Sight.COUNTERS else self._line(queue),
        )

    def _line(self, queue: w.Queue) -> list[bodies.BoardTicketAnswer]:
        ranks = self.lines[queue.queue_id]
        positions = w.positions(self.room, queue.queue_id, self.rules, self.now)
        return [
            self._ticket(self.room.tickets[rank.ticket_id], rank, stands)
            for rank, stands in zip(ranks, positions, strict=True)
        ]

    def _room(self, place: w.Room) -> bodies.BoardRoomAnswer:
        inside = self.room.tickets.get(place.ticket_id)
        door = w.at_door(self.room, place.room_id)
        first = upcoming(self.room, place, self.lines, self.rules)[:1]
        return bodies.BoardRoomAnswer(
            place.room_id,
            room_name(self.app, place.room_id),
            cast(bodies.RoomStatusWord, place.status),
            place.version,
            place.practitioner_id or None,
            practitioner_name(self.app, place.practitioner_id),
            list(place.queues),
            None if inside is None else self._ticket(inside),
            [uuid(ticket.ticket_id) for ticket in door],
            first[0].label if first else None,
            self._time(place.alarm_since),
        )

    def _ticket(
        self, ticket: w.Ticket, rank: order.Rank | None = None, stands: w.Position | None = None
    ) -> bodies.BoardTicketAnswer:
        s = ticket.standing
        queue = self.room.queues.get(ticket.queue_id)
        is_late = False
        if queue is not None and queue.kind == w.VISIT:
            is_late = order.is_late(w.place_of(self.room, ticket), self.rules.order_of(queue.kind))
        moved = None
        if s.moved is not None:
            reason = s.moved.reason if self.sight is Sight.WHOLE else ""
            moved = bodies.BoardMovedAnswer(s.moved.ahead, reason)
        return bodies.BoardTicketAnswer(
            uuid(ticket.ticket_id),
            ticket.label,
            cast(bodies.TicketStatusWord, ticket.status.name.lower()),
            ticket.version,
            uuid(ticket.patient_id) if self.sight is Sight.WHOLE else None,
            self._name(ticket.patient_id),
            ticket.queue_id or None,
            ticket.practitioner_id or None,
            s.room_id or None,
            0 if stands is None else stands.position,
            0 if stands is None else stands.ahead,
            None if rank is None else cast(Any, rank.band.name.lower()),
            None if rank is None else rank.call_lane,
            None if rank is None else lane_text(rank.call_lane, self.language),
            time_of(s.counts_from, self.zone),
            time_of(ticket.arrived_at, self.zone),
            self._time(ticket.starts_at),
            self._time(s.called_at),
            self._time(s.started_at),
            self._time(s.parked_until),
            self._time(s.rests_until if s.rests_until > self.now else 0),
            s.calls,
            "follow_up" if ticket.visit else "first",
            s.priority or None,
            s.emergency,
            is_late,
            s.returned,
            s.passed,
            s.passes,
            ticket.overtaken,
            moved,
            len(s.done) + bool(s.stages),
            len(s.done) + len(s.stages),
        )

    def _call(self, call: w.Call) -> bodies.BoardCallAnswer:
        return bodies.BoardCallAnswer(
            call.sequence,
            cast(Any, call.kind),
            uuid(call.ticket_id),
            call.label,
            self._name(call.patient_id),
            call.room_id,
            room_name(self.app, call.room_id),
            call.queue_id,
            time_of(call.at, self.zone),
        )

    def _name(self, patient_id: bytes) -> str:
        name = self.names.get(patient_id, "")
        match self.sight:
            case Sight.WHOLE:
                return name
            case Sight.SCREEN:
                return self.screen.shown_name(name)
            case _:
                return masked(name)

    def _time(self, ms: int) -> datetime | None:
        return time_of(ms, self.zone) if ms else None


_ASIDE: Final = (w.Status.PARKED, w.Status.AWAY, w.Status.PASSED)
