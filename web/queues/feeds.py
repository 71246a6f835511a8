"""Waiting rooms on the stream: tickets, calls, boards and counters, pushed to whoever watches.

A room that somebody watches is pinned among the gateway's copies. With each change of it, what its topics
show is made once, and every watcher is told the parts that differ from what it was told last. Calls are told
each once and in order, to whoever asks from where it stopped; everything else as it is now.

Calls go first. Positions of a long queue go to many people at once, so they are told in small portions: a
screen need not wait for them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.queue_order import Rank, Rules
from engine.domain.refusal import Reason
from engine.domain.waiting_terms import ScreenTerms
from engine.records.day_people import patient_names
from engine.records.staff import Staff
from engine.vault.vault import Vault
from web import keys
from web.auditing import note_delegation, noted_watching
from web.errors import DATABASE_AWAY, Problem
from web.faults import Fault
from web.queues.asking import today
from web.queues.boards import board_of, people_on
from web.queues.call_log import CallLog
from web.queues.copies import Copy
from web.queues.estimates import Estimate, estimate_of
from web.queues.rights import Sight, sight_of
from web.queues.screen_bodies import LAST_MAX, Drawing, is_of_day, patients_shown, sequence_of
from web.queues.sight import Seen, find_ticket, key_of, seen_by
from web.queues.topic_state import Sections, State, difference
from web.stream import Connection, Stream, Who

log = logging.getLogger(__name__)

KINDS: Final = ("ticket", "calls", "queue", "crowd")
NAMES_MAX: Final = 50_000  # patients whose names a gateway keeps
NAMES_SECONDS_MAX: Final = 0.2  # a call does not wait longer for a name
NAMES_TRIES: Final = 2  # somebody may come while names are read
PORTION: Final = 50  # tickets that are told in one go
LOOK_SECONDS: Final = 1.0  # is it another day, is a copy missing
TIME_SECONDS: Final = 15.0  # time alone moves people, and what is foretold of them
PAUSE_SECONDS: Final = 0.5  # between two tellings of one room's positions and boards
FAR_SECONDS: Final = 1e9


class Names:
    """Patients' names. They hardly change, so they stay known while there is room for them."""

    def __init__(self, pool: asyncpg.Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault
        self.known: dict[bytes, str] = {}

    async def learn(self, patients: Iterable[bytes]) -> None:
        """As far as it can be done in time."""
        unknown = [patient for patient in patients if patient not in self.known]
        if not unknown:
            return
        try:
            async with asyncio.timeout(NAMES_SECONDS_MAX), self._pool.acquire() as connection:
                found = await patient_names(connection, self._vault, unknown)
        except DATABASE_AWAY:
            return
        while len(self.known) + len(found) > NAMES_MAX and self.known:
            del self.known[next(iter(self.known))]
        self.known.update(found)

    def forget(self, patient_id: bytes) -> None:
        """It was put right, or its bearer wants to be forgotten: the next one who is shown it reads anew."""
        self.known.pop(patient_id, None)

    def forget_all(self) -> None:
        self.known.clear()


@dataclass(slots=True, eq=False)
class View:
    """One room at one moment, for all topics that show it."""

    app: web.Application
    copy: Copy
    now: int
    rules: Rules
    drawing: Drawing
    log: CallLog
    version: int  # of the copy, when the view was taken
    _positions: dict[str, dict[bytes, w.Position]] = field(default_factory=dict)
    _lines: dict[str, Sequence[Rank]] | None = None

    def is_of(self, copy: Copy) -> bool:
        """Whether it still shows this copy."""
        return self.copy is copy and self.version == copy.version

    def position(self, ticket: w.Ticket) -> w.Position:
        """From one reckoning of the ticket's queue."""
        if ticket.status not in w.IN_LINE:
            found = w.position(self.copy.room, ticket.ticket_id, self.rules, self.now)
            assert found is not None
            return found
        queue = self._positions.get(ticket.queue_id)
        if queue is None:
            positions = w.positions(self.copy.room, ticket.queue_id, self.rules, self.now)
            queue = self._positions[ticket.queue_id] = {one.ticket_id: one for one in positions}
        return queue[ticket.ticket_id]

    def lines(self) -> Mapping[str, Sequence[Rank]]:
        if self._lines is None:
            now = max(self.now, self.copy.room.at)
            room = self.copy.room
            self._lines = {queue_id: w.line(room, queue_id, self.rules, now) for queue_id in room.queues}
        return self._lines


class _Showing:
    """A topic that is a state: told as a whole first, then what is other than what was told."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.watchers: dict[Connection, State | None] = {}
        self.state: State | None = None
        self._update: tuple[State, State, bytes] | None = None

    def is_new(self, connection: Connection) -> bool:
        """Nothing was told to it."""
        return self.watchers[connection] is None

    def take(self, sections: Sections, version: int) -> bool:
        """Whether somebody is to be told."""
        if self.state is not None and (version < self.state.version or self.state.sections == sections):
            return False
        self.state = State(sections, version)
        return True

    def messages(self, connection: Connection) -> list[bytes]:
        new = self.state
        if new is None or connection not in self.watchers:
            return []
        old, self.watchers[connection] = self.watchers[connection], new
        if old is new:
            return []
        return [self._whole(new) if old is None else self._changes(old, new)]

    def _whole(self, state: State) -> bytes:
        return orjson.dumps({"snapshot": self.topic, **state.sections, "version": state.version})

    def _changes(self, old: State, new: State) -> bytes:
        """Made once for all who were told the same before."""
        made = self._update
        if made is None or made[0] is not old or made[1] is not new:
            changed = difference(old.sections, new.sections)
            message = orjson.dumps({"update": self.topic, **changed, "version": new.version})
            made = old, new, message
            self._update = made if len(self.watchers) > 1 else None
        return made[2]


class _Ticket(_Showing):
    """ticket/<id>: one patient's place."""

    def __init__(self, topic: str, ticket_id: bytes) -> None:
        super().__init__(topic)
        self.ticket_id = ticket_id
        self._seen: tuple[int, int, int] | None = None
        self._estimate: Estimate | None = None

    def refresh(self, view: View) -> bool:
        ticket = view.copy.room.tickets.get(self.ticket_id)
        if ticket is None:  # our copy is a little behind
            return False
        position = view.position(ticket)
        estimate = estimate_of(view.app, view.copy, self.ticket_id)
        if not _differs(self._estimate, estimate):
            estimate = self._estimate
        seen = ticket.version, position.position, position.ahead
        if self.state is not None and seen == self._seen and estimate is self._estimate:
            return False
        self._seen, self._estimate = seen, estimate
        return self.take({"ticket": view.drawing.ticket(ticket, position, estimate)}, view.copy.version)


def _differs(old: Estimate | None, new: Estimate | None) -> bool:
    """By at least a minute."""
    if old is None or new is None:
        return old is not new
    if (old.p10_minutes, old.p50_minutes, old.p90_minutes) != (
        new.p10_minutes,
        new.p50_minutes,
        new.p90_minutes,
    ):
        return True
    if old.leave_home_at is None or new.leave_home_at is None:
        return old.leave_home_at is not new.leave_home_at
    return abs((old.leave_home_at - new.leave_home_at).total_seconds()) >= 60


class _Board(_Showing):
    """queue/<department> for those who work there; crowd/<department>, how many wait, for everybody. What GET
    /api/v1/queues/{department_id} answers, with each line as numbers, and by number who that is."""

    def __init__(self, topic: str, sight: Sight) -> None:
        super().__init__(topic)
        self._sight = sight
        self.unsaid = False  # it is other than what was told, and has to wait until that is written down

    async def refresh(self, view: View) -> bool:
        version = view.copy.version
        board = await board_of(view.app, view.copy, self._sight, "zh")
        told: dict[str, Any] = orjson.loads(board.body)
        people: dict[str, Any] = {}

        def number(ticket: dict[str, Any] | None) -> str | None:
            """Where somebody stands is said by the lines."""
            if ticket is None:
                return None
            for name in ("position", "ahead"):
                ticket.pop(name, None)
            people[ticket["number"]] = ticket
            return str(ticket["number"])

        for queue in told["queues"]:
            queue["line"] = None if queue["line"] is None else [number(one) for one in queue["line"]]
        for place in told["rooms"] or ():
            place["ticket"] = number(place["ticket"])
        for one in told["aside"] or ():
            number(one)
        sections: dict[str, dict[str, Any]] = {
            "totals": {name: told[name] for name in ("day", "waiting", "open_rooms")},
            "queues": {queue["queue_id"]: queue for queue in told["queues"]},
        }
        if self._sight is not Sight.COUNTERS:
            sections["rooms"] = {place["room_id"]: place for place in told["rooms"] or ()}
            sections["tickets"] = people
        return self.take(sections, version)


class _Calls:
    """calls/<department> for a zone, calls/<department>/<room> for a door: every call once, in order, and
    beside them what the rooms show."""

    def __init__(self, topic: str, room_id: str | None) -> None:
        self.topic = topic
        self.watchers: dict[Connection, tuple[State | None, int | None]] = {}
        """What each was told: the state of the rooms, and the calls up to that one of the day."""
        self._room_id = room_id
        self._day = ""
        self._log: CallLog | None = None
        self.state: State | None = None
        self._update: tuple[State | None, int, State, bytes] | None = None

    def is_new(self, connection: Connection) -> bool:
        return self.watchers[connection][0] is None

    def refresh(self, view: View) -> bool:
        """After the log has taken everything in."""
        self._day, self._log = view.copy.key.day, view.log
        sections = view.drawing.rooms(view.copy.room, view.lines(), view.rules, self._room_id)
        before = self.state
        is_other = before is None or before.sections != sections
        if is_other or (before is not None and before.version != view.log.last):
            self.state = State(sections if before is None or is_other else before.sections, view.log.last)
        return self.state is not before

    def messages(self, connection: Connection) -> list[bytes]:
        new = self.state
        if new is None or self._log is None or connection not in self.watchers:
            return []
        old, cursor = self.watchers[connection]
        if old is new:
            return []
        self.watchers[connection] = new, new.version
        calls = None if cursor is None else self._log.since(cursor, self._room_id)
        if cursor is None or calls is None:
            return [self._whole(new)]
        made = self._update
        if made is None or made[0] is not old or made[1] != cursor or made[2] is not new:
            bodies = [call.body for call in calls if call.sequence <= new.version]
            made = self._update = old, cursor, new, self._made(old, new, bodies)
        return [made[3]] if made[3] else []

    def _whole(self, new: State) -> bytes:
        assert self._log is not None
        return orjson.dumps(
            {
                "snapshot": self.topic,
                "whole": True,
                "day": self._day,
                **new.sections,
                "last": [orjson.Fragment(call) for call in self._log.latest(self._room_id, LAST_MAX)],
                "version": sequence_of(self._day, new.version),
            }
        )

    def _made(self, old: State | None, new: State, calls: list[bytes]) -> bytes:
        """b"": nothing of this has changed. Who has just come back gets the rooms as they are, calls or not:
        so it knows that it is in step."""
        sections = new.sections if old is None else difference(old.sections, new.sections)
        if old is not None and not calls and not sections:
            return b""
        return orjson.dumps(
            {
                "update": self.topic,
                "calls": [orjson.Fragment(call) for call in calls],
                **sections,
                "version": sequence_of(self._day, new.version),
            }
        )


class _Turning:
    """Runs something soon after whatever has happened, once for all of it, and never twice at a time."""

    def __init__(self, run: Callable[[], Awaitable[None]], pause_seconds: float) -> None:
        self._run = run
        self._pause_seconds = pause_seconds
        self._is_due = False
        self._task: asyncio.Task[None] | None = None
        self.ran_at = -FAR_SECONDS  # of the loop

    def soon(self) -> None:
        self._is_due = True
        if self._task is None:
            self._task = asyncio.create_task(self._go())
            self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _go(self) -> None:
        loop = asyncio.get_running_loop()
        while self._is_due:
            left = self.ran_at + self._pause_seconds - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            self._is_due = False
            self.ran_at = loop.time()
            await self._run()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("what has changed in a waiting room could not be told", exc_info=error)
        if self._is_due:  # said since it looked last
            self.soon()


class _Room:
    """A department's day that somebody watches."""

    def __init__(
        self,
        key: RoomKey,
        turn_calls: "Callable[[_Room], Awaitable[None]]",
        turn_rest: "Callable[[_Room], Awaitable[None]]",
    ) -> None:
        self.key = key
        self.log = CallLog(key.day)
        self.tickets: dict[str, _Ticket] = {}
        self.calls: dict[str, _Calls] = {}
        self.boards: dict[str, _Board] = {}
        self.view: View | None = None
        """Where tickets were told from last."""
        self.calling = _Turning(partial(turn_calls, self), 0.0)
        self.telling = _Turning(partial(turn_rest, self), PAUSE_SECONDS)

    def find(self, topic: str) -> "_Ticket | _Calls | _Board | None":
        return self.tickets.get(topic) or self.calls.get(topic) or self.boards.get(topic)

    @property
    def is_watched(self) -> bool:
        return bool(self.calls or self.boards or self.tickets)

    @property
    def told_at(self) -> float:
        """When all of it was last looked at, by the loop's clock."""
        found = [self.calling.ran_at] if self.calls else []
        if self.boards or self.tickets:
            found.append(self.telling.ran_at)
        return min(found, default=0.0)


class Feeds:
    """Of one gateway."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._copies = app[keys.ROOMS]
        self.names = Names(app[keys.POOL], app[keys.VAULT])
        self._rooms: dict[str, _Room] = {}  # stream -> what is watched of it
        self._place: dict[str, _Room] = {}  # topic -> where it is shown
        self._dirty: dict[Connection, dict[str, None]] = {}
        self._copies.listeners.append(self._changed)

    def join(self, stream: Stream) -> None:
        for kind in KINDS:
            stream.live[kind] = self

    def notify(self, ticket_id: bytes, notice: Mapping[str, object]) -> int:
        """Says something to whoever watches this ticket here; how many that were."""
        topic = f"ticket/{UUID(bytes=ticket_id)}"
        room = self._place.get(topic)
        found = None if room is None else room.tickets.get(topic)
        for connection in () if found is None else found.watchers:
            connection.say({"notice": notice, "topic": topic})
        return 0 if found is None else len(found.watchers)

    async def look_again(self, account_id: bytes) -> None:
        """What the account may see is less, or more: of a ticket that it may see no more it hears no more."""
        watched = [
            (topic, connection)
            for room in self._rooms.values()
            for topic, ticket in room.tickets.items()
            for connection in ticket.watchers
            if connection.who == account_id
        ]
        for topic, connection in watched:
            try:
                await self._key(topic, topic.partition("/")[2], account_id)
            except Problem as problem:
                if connection.topics.pop(topic, "") is None:
                    self.unwatch(connection, topic)
                    connection.object_to(problem, topic)

    def behind_ms(self, topic: str, shown_sequence: int, now: int) -> int:
        """How long the oldest call is out that a screen has not shown; 0: it is in step, or watches nothing
        here."""
        room = self._place.get(topic)
        copy = None if room is None else self._copies.known(room.key)
        if room is None or copy is None:
            return 0
        _, _, at = topic.removeprefix("calls/").partition("/")
        for call in copy.room.calls:
            is_new = sequence_of(room.key.day, call.sequence) > shown_sequence
            if is_new and (not at or call.room_id == at):
                return max(0, now - call.at)
        return 0

    # What the stream asks.

    async def watch(self, connection: Connection, topic: str, name: str, since: int | None) -> None:
        key = await self._key(topic, name, connection.who)
        copy = await self._copies.look(key)
        if topic.startswith("queue/"):
            await self._note(connection, copy)
        cursor: int | None = None
        if topic.startswith("calls/") and since is not None and is_of_day(since, key.day):
            cursor = since - sequence_of(key.day, 0)
            if cursor > copy.room.call_sequence:
                # Another gateway has told more than we know. What was told is committed.
                self._copies.lost(lambda stream: stream == key.stream)
                copy = await self._copies.look(key)
        room = self._room(key)
        found = self._topic(room, topic, name)
        if isinstance(found, _Calls):
            found.watchers[connection] = None, cursor
        else:
            found.watchers[connection] = None
        if isinstance(found, _Ticket) and room.view is not None and room.view.is_of(copy):
            self._tell(found, found.refresh(room.view))  # its queue has been reckoned already
        if found.state is None or (cursor is not None and cursor > room.log.last):
            self._turn_soon(room)  # and that wakes it
        else:
            self._wake(connection, topic)

    def unwatch(self, connection: Connection, topic: str) -> None:
        room = self._place.get(topic)
        found = None if room is None else room.find(topic)
        if room is None or found is None:
            return
        found.watchers.pop(connection, None)
        waiting = self._dirty.get(connection)
        if waiting is not None:
            waiting.pop(topic, None)
            if not waiting:
                del self._dirty[connection]
        if not found.watchers:
            self._forget(room, topic)

    def messages(self, connection: Connection) -> list[bytes]:
        found: list[bytes] = []
        for topic in self._dirty.pop(connection, ()):
            room = self._place.get(topic)
            shown = None if room is None else room.find(topic)
            if shown is not None:
                found += shown.messages(connection)
        return found

    async def run(self) -> None:
        """What no event brings: another day, a copy that could not be read, and what time changes."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            day = today(self._app)
            for room in list(self._rooms.values()):
                try:
                    if room.key.day != day:
                        await self._to_day(room, day)
                    if room.key.stream in self._rooms and self._copies.known(room.key) is None:
                        await self._copies.look(room.key)
                except (Problem, *DATABASE_AWAY) as error:
                    log.warning("%s could not be read, so who watches it waits: %s", room.key.stream, error)
                    continue
                if loop.time() - room.told_at >= TIME_SECONDS:
                    self._turn_soon(room)

    # Who may watch what.

    async def _key(self, topic: str, name: str, who: Who) -> RoomKey:
        if who is None:
            raise Problem(Fault.UNAUTHENTICATED)
        kind = topic.partition("/")[0]
        if kind == "ticket":
            return await self._key_of_ticket(name, who)
        department_id, _, at = name.partition("/")
        if department_id not in self._app[keys.AVAILABILITY].catalog.departments:
            raise Problem(Fault.NO_SUCH_DEPARTMENT)
        if at and kind != "calls":
            raise Problem(Fault.NO_SUCH_TOPIC)
        key = RoomKey(department_id, today(self._app))
        sight = sight_of(self._app, who, key)
        if kind == "calls" and sight is Sight.COUNTERS:
            raise Problem(Fault.FORBIDDEN)
        if kind == "queue" and sight is not Sight.WHOLE:
            raise Problem(Fault.FORBIDDEN)
        return key

    async def _key_of_ticket(self, name: str, who: bytes | Staff) -> RoomKey:
        try:
            ticket_id = UUID(name)
        except ValueError:
            raise Problem(Reason.NO_SUCH_TICKET) from None
        if str(ticket_id) != name:  # one ticket, one topic
            raise Problem(Reason.NO_SUCH_TICKET)
        found = await find_ticket(self._app, ticket_id.bytes)
        seen = await seen_by(self._app, who, found)
        if isinstance(who, bytes):
            await note_delegation(self._app, who, "ticket_read", [found.patient_id])
        elif seen is Seen.STAFF:
            await noted_watching(self._app, who, "ticket_read", [found.patient_id], ("ticket", name))
        return key_of(found)

    async def _note(self, connection: Connection, copy: Copy) -> None:
        """Before a board with names is shown to one of the staff."""
        if isinstance(connection.who, Staff):
            place = "room", copy.key.stream
            await noted_watching(self._app, connection.who, "room_board_read", people_on(copy), place)

    # Who watches what.

    def _room(self, key: RoomKey) -> _Room:
        room = self._rooms.get(key.stream)
        if room is None:
            room = self._rooms[key.stream] = _Room(key, self._turn_calls, self._turn_rest)
            self._copies.pin(key)
        return room

    def _topic(self, room: _Room, topic: str, name: str) -> "_Ticket | _Calls | _Board":
        found = room.find(topic)
        if found is None:
            kind = topic.partition("/")[0]
            if kind == "ticket":
                found = room.tickets[topic] = _Ticket(topic, UUID(name).bytes)
            elif kind == "calls":
                found = room.calls[topic] = _Calls(topic, name.partition("/")[2] or None)
            else:
                sight = Sight.WHOLE if kind == "queue" else Sight.COUNTERS
                found = room.boards[topic] = _Board(topic, sight)
            self._place[topic] = room
        return found

    def _forget(self, room: _Room, topic: str) -> None:
        if self._place.get(topic) is room:
            del self._place[topic]
        for topics in (room.tickets, room.calls, room.boards):
            topics.pop(topic, None)
        if not room.is_watched and self._rooms.pop(room.key.stream, None) is not None:
            self._copies.unpin(room.key)
            room.calling.stop()
            room.telling.stop()

    async def _to_day(self, room: _Room, day: str) -> None:
        """Screens and boards are of today; a ticket stays with its day."""
        moving: list[_Calls | _Board] = [*room.calls.values(), *room.boards.values()]
        if not moving:
            return
        key = RoomKey(room.key.department_id, day)
        await self._copies.look(key)
        for found in moving:
            watchers = [connection for connection in found.watchers if found.topic in connection.topics]
            self._forget(room, found.topic)
            if not watchers:
                continue
            new = self._room(key)  # somebody may be there already
            topic = self._topic(new, found.topic, found.topic.partition("/")[2])
            for connection in watchers:
                if isinstance(topic, _Calls):
                    topic.watchers[connection] = None, None
                else:
                    topic.watchers[connection] = None
            self._turn_soon(new)

    # What has changed.

    def _changed(self, copy: Copy) -> None:
        room = self._rooms.get(copy.key.stream)
        if room is not None:
            self._turn_soon(room)

    def _turn_soon(self, room: _Room) -> None:
        if room.calls:
            room.calling.soon()
        if room.boards or room.tickets:
            room.telling.soon()

    async def _turn_calls(self, room: _Room) -> None:
        """Tells what was called."""
        terms = self._terms(room.key)
        for _ in range(NAMES_TRIES):
            copy = self._copies.known(room.key)
            if copy is None:
                break
            wanted = patients_shown(copy.room, room.log.missing(copy.room, terms))
            if wanted <= self.names.known.keys():
                break
            await self.names.learn(wanted)
        copy = self._copies.known(room.key)  # it may have been read anew while names were
        if copy is None:  # it is being read: then we hear of it
            return
        view = self._view(room, copy)
        room.log.take(copy.room, terms, view.drawing.call)
        for topic in list(room.calls.values()):
            self._tell(topic, topic.refresh(view))

    async def _turn_rest(self, room: _Room) -> None:
        """Tells boards and tickets."""
        copy = self._copies.known(room.key)
        if copy is None:
            return
        for board in list(room.boards.values()):
            board.unsaid |= await board.refresh(self._view(room, copy))
            if board.topic.startswith("queue/") and not await self._noted(board, copy):
                room.telling.soon()  # nobody sees who came before it is written down that they did
                continue
            self._tell(board, board.unsaid)
            board.unsaid = False
        view = room.view = self._view(room, copy)
        for n, ticket in enumerate(list(room.tickets.values()), 1):
            self._tell(ticket, ticket.refresh(view))
            if n % PORTION == 0:
                await asyncio.sleep(0)
                if not view.is_of(copy):
                    view = room.view = self._view(room, copy)

    async def _noted(self, board: _Board, copy: Copy) -> bool:
        try:
            for connection in list(board.watchers):
                await self._note(connection, copy)
        except DATABASE_AWAY as error:
            log.warning("who watches %s waits for the audit: %s", board.topic, error)
            return False
        return True

    def _tell(self, topic: "_Ticket | _Calls | _Board", is_other: bool) -> None:
        """Who watches, where it is other than before; else who has not been told anything."""
        if topic.state is None:
            return
        for connection in list(topic.watchers):
            if is_other or topic.is_new(connection):
                self._wake(connection, topic.topic)

    def _wake(self, connection: Connection, topic: str) -> None:
        self._dirty.setdefault(connection, {})[topic] = None
        connection.wake(self)

    def _terms(self, key: RoomKey) -> ScreenTerms:
        return self._app[keys.POLICY].policy.waiting_of(key.department_id).screen

    def _view(self, room: _Room, copy: Copy) -> View:
        app = self._app
        drawing = Drawing(
            room.key, app[keys.AVAILABILITY], self._terms(room.key), app[keys.ZONE], self.names.known
        )
        return View(
            app, copy, int(time.time() * 1000), self._copies.rules(room.key), drawing, room.log, copy.version
        )
