"""The stream: who looks hears of every change, over a WebSocket (docs/STREAM.md).

What a client has not been sent yet is kept as names only: which topics, days and slots. What is said of them
is looked up when it is sent, so a slow reader gets the newest state once, and never a queue of old ones.

Two things change what is seen: news from the actors (`heard`) and time, when a share opens or a slot begins
(`run`). Topics are `kind/name`. Of what `Stream.sources` shows, this module keeps who watches it; a source in
`Stream.live` does so itself, and says what each connection is to be told (web/queues/feeds.py).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Annotated, Final, Protocol

import orjson
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import Field, TypeAdapter

from engine.domain.limits import BODY_BYTES_MAX
from engine.records.catalog import ScheduleRow
from engine.records.staff import Staff
from engine.views.availability import FOREVER, Availability, Heard
from web import keys
from web.auth import session_of, who_of
from web.errors import DATABASE_AWAY, Problem, language_of
from web.faults import Fault, Language
from web.openapi import api, check_json, validated
from web.patient.bodies import Request
from web.patient.live_schedules import OfDepartment, OfPractitioner, OneSchedule, with_slots
from web.patient.pages import CHANNEL, Pages

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 12_000  # of one gateway, unless set; the next is answered 503 before it is one
TOPICS_MAX: Final = 50  # of one connection
SCHEDULES_MAX: Final = 1_000  # in one topic: its snapshot is one message
WAITING_MAX: Final = 500  # schedules of which a slow reader has news to come; then snapshots instead
SAID_MAX: Final = 256  # errors that a slow reader has to come; beyond it the oldest is lost
MISTAKES_MAX: Final = 20  # messages that make no sense, then the connection is closed
PING_SECONDS: Final = 20.0  # who does not answer a ping within half of this is gone
IDLE_SECONDS_MAX: Final = 60.0  # a connection without a topic
SEND_SECONDS_MAX: Final = 10.0  # a reader that takes nothing for so long is closed
CLOSE_SECONDS_MAX: Final = 2.0
SESSION_ENDED: Final = b"session_ended"  # why a connection is closed with 1008
TURN_SECONDS_MAX: Final = 30.0  # the clock may be set: look at it now and then

_NAME: Final = r"[A-Za-z0-9_.\-]+"
TopicName = Annotated[
    str, Field(pattern=rf"^(?:[a-z]{{1,32}}/{_NAME}|calls/{_NAME}/{_NAME})$", max_length=130)
]


class ScreenBody(Request):
    """How a call screen does, told by itself (web/queues/screens.py)."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
    topic: TopicName | None = None
    shown_sequence: Annotated[int, Field(ge=0, le=1 << 53)]
    error: Annotated[str, Field(max_length=200)] = ""


class StreamBody(Request):
    """What a client says."""

    token: Annotated[str | None, Field(max_length=4096)] = None
    unsubscribe: Annotated[list[TopicName], Field(max_length=TOPICS_MAX)] = []
    subscribe: Annotated[list[TopicName], Field(max_length=TOPICS_MAX)] = []
    since: Annotated[
        dict[TopicName, Annotated[int, Field(ge=0, le=1 << 53)]], Field(max_length=TOPICS_MAX)
    ] = {}
    screen: ScreenBody | None = None


_BODY_OF: Final = TypeAdapter(StreamBody).validator.validate_json

Who = bytes | Staff | None
"""An account, one of the staff, or nobody in particular."""


class Source(Protocol):
    """One kind of topic. Raises Problem for what does not exist, or is not theirs to see."""

    def rows(self, name: str, who: Who) -> list[ScheduleRow]:
        """The schedules of which a watcher wants news; for a topic of something else, none."""

    async def snapshot(self, topic: str, name: str) -> bytes:
        """The whole message."""


class LiveSource(Protocol):
    """Kinds of topics that know who watches them and what each of these has been told."""

    async def watch(self, connection: "Connection", topic: str, name: str, since: int | None) -> None:
        """From now on it is told; also what is true now, or what came after `since`. Asked again, it begins
        again. Raises Problem for what does not exist or is not theirs to see, and then nothing is watched."""

    def unwatch(self, connection: "Connection", topic: str) -> None:
        """Nothing more is told."""

    def messages(self, connection: "Connection") -> list[bytes]:
        """All that it has not been told yet, in order; asked after `Connection.wake`."""


@dataclass(eq=False, slots=True)
class _Topic:
    source: Source
    name: str
    days: set[str]
    turned: int  # ms: what time has changed until then has been told
    until: int  # ms: when it changes something again, or earlier
    watchers: "set[Connection]" = field(default_factory=set)


class Connection:
    """One client: what it watches, and what it has yet to be told."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], language: Language, who: Who) -> None:
        self.who = who
        self.session: bytes | None = None
        self.topics: dict[str, None] = {}
        self.mistakes = 0
        self.is_over = False  # its session has ended
        self._send = send
        self._language = language
        self._said: deque[bytes] = deque(maxlen=SAID_MAX)
        self._renewed: dict[str, None] = {}
        self._days: dict[str, None] = {}
        self._slots: dict[str, set[str]] = {}
        self._awake: dict[LiveSource, None] = {}
        self._news = asyncio.Event()

    def wake(self, source: LiveSource) -> None:
        """It has something to tell."""
        self._awake[source] = None
        self._news.set()

    def say(self, message: object) -> None:
        self._said.append(orjson.dumps(message))
        self._news.set()

    def object_to(self, problem: Problem, topic: str | None = None) -> None:
        body = problem.body(self._language)
        self.say({"error": body if topic is None else {**body, "topic": topic}})

    def renew(self, topic: str) -> None:
        """The topic's snapshot, from the beginning."""
        self._renewed[topic] = None
        self._news.set()

    def pass_on(self, topic: str, message: bytes) -> None:
        """A change of what was told of the topic. Whoever is far behind is told the whole again instead."""
        if topic not in self._renewed:
            if len(self._said) < SAID_MAX // 2:
                self._said.append(message)
            else:
                self._renewed[topic] = None
            self._news.set()

    def note(self, schedule_id: str, clocks: set[str] | None) -> None:
        """There is news of these slots, or (None) of the whole day."""
        if clocks is None:
            self._days[schedule_id] = None
        else:
            self._slots.setdefault(schedule_id, set()).update(clocks)
        if len(self._days) + len(self._slots) > WAITING_MAX:
            self._renewed.update(self.topics)
            self._days.clear()
            self._slots.clear()
        self._news.set()

    def forget(self, schedule_id: str) -> None:
        """It is watched no longer."""
        self._days.pop(schedule_id, None)
        self._slots.pop(schedule_id, None)

    def end(self) -> None:
        """Nothing more is said, and nothing that it says is done."""
        self.who = None
        self.is_over = True
        self._said.clear()
        self._renewed.clear()
        self._days.clear()
        self._slots.clear()
        self._awake.clear()

    async def run(self, messages: "Callable[[Waiting], Awaitable[list[bytes]]]") -> None:
        """Sends what there is to send, for ever. Raises TimeoutError when the other side takes nothing."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._send_all(messages)  # apart, so that who waits keeps no old messages

    async def _send_all(self, messages: "Callable[[Waiting], Awaitable[list[bytes]]]") -> None:
        said = list(self._said)
        self._said.clear()
        awake, self._awake = self._awake, {}
        said += [message for source in awake for message in source.messages(self)]
        if self._renewed or self._days or self._slots:
            waiting = Waiting(
                [topic for topic in self._renewed if topic in self.topics], self._days, self._slots
            )
            self._renewed, self._days, self._slots = {}, {}, {}
            said += await messages(waiting)
        for message in said:
            if self.is_over:
                return
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await self._send(message)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a connection is to be told next."""

    topics: list[str]
    days: Iterable[str]
    slots: dict[str, set[str]]


class Stream:
    """Of one gateway."""

    def __init__(
        self,
        availability: Availability,
        pages: Pages,
        zone: tzinfo,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._connections_max = connections_max
        self._availability = availability
        self._pages = pages
        self._now = now
        self._topics: dict[str, _Topic] = {}
        self._of_day: dict[str, set[str]] = {}  # schedule -> watched topics that have it
        self._departments = availability.catalog.departments
        self._earlier = asyncio.Event()
        self._connections: dict[Connection, Callable[[], Awaitable[object]]] = {}
        self._of_session: dict[bytes, dict[Connection, Callable[[], Awaitable[object]]]] = {}
        self._ending: set[asyncio.Future[object]] = set()
        self.sources: dict[str, Source] = {
            "schedule": OneSchedule(availability, pages, now),
            "department": OfDepartment(availability, pages, now, zone),
            "practitioner": OfPractitioner(availability, pages, now, zone),
        }
        self.live: dict[str, LiveSource] = {}

    @property
    def is_full(self) -> bool:
        return len(self._connections) >= self._connections_max

    async def close(self) -> None:
        await asyncio.gather(*(close() for close in self._connections.values()), return_exceptions=True)

    def join(self, connection: Connection, close: Callable[[], Awaitable[object]]) -> None:
        """Until it leaves, `close` is how it is told to go."""
        self._connections[connection] = close

    def sign_in(
        self,
        connection: Connection,
        who: Who,
        session: bytes | None,
        end: Callable[[], Awaitable[object]],
    ) -> None:
        """It is theirs until their session ends; `end` is how it is told so."""
        self._sign_out(connection)
        connection.who, connection.session = who, session
        if session is not None:
            self._of_session.setdefault(session, {})[connection] = end

    def end_session(self, session: bytes) -> None:
        """Whatever is connected in it hears nothing more from this moment, and is closed."""
        for connection, end in self._of_session.pop(session, {}).items():
            connection.end()
            self.leave(connection)
            ending = asyncio.ensure_future(end())
            self._ending.add(ending)
            ending.add_done_callback(self._ended)

    def staff_sessions(self) -> list[bytes]:
        """Sessions of the staff in which something is connected."""
        return [
            session
            for session, connections in self._of_session.items()
            if any(isinstance(connection.who, Staff) for connection in connections)
        ]

    def _ended(self, ending: asyncio.Future[object]) -> None:
        self._ending.discard(ending)
        if not ending.cancelled():
            ending.exception()  # it broke, or was not open yet: then its own task closes it

    def _sign_out(self, connection: Connection) -> None:
        of_session = self._of_session.get(connection.session or b"")
        if of_session is not None:
            of_session.pop(connection, None)
            if not of_session:
                del self._of_session[connection.session or b""]
        connection.session = None

    def leave(self, connection: Connection) -> None:
        self._sign_out(connection)
        for topic in list(connection.topics):
            self.unsubscribe(connection, topic)
        self._connections.pop(connection, None)

    async def enter(self, connection: Connection, topic: str, since: int | None = None) -> None:
        """Subscribes to a topic of any kind, where possible from what came after `since`. Raises Problem."""
        kind, _, name = topic.partition("/")
        live = self.live.get(kind)
        if live is None:
            self.subscribe(connection, topic)
            return
        if topic not in connection.topics and len(connection.topics) >= TOPICS_MAX:
            raise Problem(Fault.TOO_MANY_TOPICS, limit=TOPICS_MAX)
        await live.watch(connection, topic, name, since)
        connection.topics[topic] = None

    def subscribe(self, connection: Connection, topic: str) -> None:
        """Its snapshot comes, and from then on all news of it. Raises Problem."""
        kind, _, name = topic.partition("/")
        source = self.sources.get(kind)
        if source is None:
            raise Problem(Fault.NO_SUCH_TOPIC)
        if topic not in connection.topics and len(connection.topics) >= TOPICS_MAX:
            raise Problem(Fault.TOO_MANY_TOPICS, limit=TOPICS_MAX)
        watched = self._topics.get(topic)
        if watched is None or connection not in watched.watchers:
            rows = source.rows(name, connection.who)  # also asks whether they may
            if len(rows) > SCHEDULES_MAX:
                raise Problem(Fault.TOPIC_TOO_WIDE, limit=SCHEDULES_MAX)
            if watched is None:
                now = self._now()
                watched = self._topics[topic] = _Topic(source, name, set(), now, FOREVER)
                for row in rows:
                    self._add(topic, watched, row)
            watched.watchers.add(connection)
            connection.topics[topic] = None
        connection.renew(topic)

    def unsubscribe(self, connection: Connection, topic: str) -> None:
        is_watched = topic in connection.topics
        connection.topics.pop(topic, None)
        live = self.live.get(topic.partition("/")[0])
        if live is not None:
            if is_watched:
                live.unwatch(connection, topic)
            return
        watched = self._topics.get(topic)
        if watched is not None and connection in watched.watchers:
            watched.watchers.discard(connection)
            for schedule_id in watched.days:
                if self._of_day[schedule_id].isdisjoint(connection.topics):
                    connection.forget(schedule_id)
            if not watched.watchers:
                del self._topics[topic]
                for schedule_id in watched.days:
                    self._drop(topic, schedule_id)

    def renew(self, topic: str) -> None:
        """Everybody who watches it gets its snapshot again."""
        watched = self._topics.get(topic)
        for connection in watched.watchers if watched else ():
            connection.renew(topic)

    def say(self, topic: str, message: bytes) -> None:
        """To everybody who watches it: a change of what its snapshot said."""
        watched = self._topics.get(topic)
        for connection in watched.watchers if watched else ():
            connection.pass_on(topic, message)

    def watched(self, kind: str) -> list[str]:
        """The topics of this kind that somebody watches."""
        return [topic for topic in self._topics if topic.startswith(f"{kind}/")]

    def heard(self, heard: Heard) -> None:
        """News that the view has taken in."""
        old, self._departments = self._departments, self._availability.catalog.departments
        if not self._topics:
            return
        if old is not self._departments and old != self._departments:
            self._regroup()
        for schedule_id in heard.days:
            before = self._of_day.get(schedule_id, set())
            row = self._availability.schedule(schedule_id)
            after = set() if row is None else {t for t in self._topics_of(row) if t in self._topics}
            for connection in {c for t in before | after for c in self._topics[t].watchers}:
                connection.note(schedule_id, None)
            for topic in before - after:
                self._topics[topic].days.discard(schedule_id)
                self._drop(topic, schedule_id)
            for topic in after:
                assert row is not None
                self._add(topic, self._topics[topic], row)
        for schedule_id, clocks in heard.slots.items():
            if clocks:
                self._tell(schedule_id, clocks)

    async def run(self) -> None:
        """Tells what time changes, at that moment."""
        while True:
            until = min((topic.until for topic in self._topics.values()), default=FOREVER)
            seconds = min(max(0.0, (until - self._now()) / 1000), TURN_SECONDS_MAX)
            self._earlier.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._earlier.wait()
            except TimeoutError:
                self._turn()

    async def messages(self, waiting: Waiting) -> list[bytes]:
        """What is true now of everything that waits."""
        messages = []
        told: set[str] = set()  # days that are in a message with all their slots
        for topic in waiting.topics:
            kind, _, name = topic.partition("/")
            try:
                messages.append(await self.sources[kind].snapshot(topic, name))
                if kind == "schedule":
                    told.add(name)
            except Problem:  # gone since it was asked for: the news of that is on its way, too
                continue
        now = self._now()
        for schedule_id in waiting.days:
            if schedule_id not in told:
                told.add(schedule_id)
                messages.append(self._plan(schedule_id, now))
        changed: list[bytes] = []
        schedules: list[bytes] = []
        version = 0
        for schedule_id, clocks in waiting.slots.items():
            row = None if schedule_id in told else self._availability.schedule(schedule_id)
            if row is not None and row.practitioner_id in self._availability.catalog.practitioners:
                counts = self._pages.counts(row, now)
                changed += [counts[clock] for clock in sorted(clocks) if clock in counts]
                schedules.append(self._pages.schedule(row, now).body)
                version = max(version, self._availability.version(schedule_id))
        if changed:
            messages.append(
                b'{"changed":[%b],"schedules":[%b],"version":%d}'
                % (b",".join(changed), b",".join(schedules), version)
            )
        return messages

    def _plan(self, schedule_id: str, now: int) -> bytes:
        row = self._availability.schedule(schedule_id)
        whole = b"null"
        if row is not None and row.practitioner_id in self._availability.catalog.practitioners:
            whole = with_slots(self._pages, row, now)
        version = self._availability.version(schedule_id)
        return b'{"plan":{"schedule_id":%b,"schedule":%b},"version":%d}' % (
            orjson.dumps(schedule_id),
            whole,
            version,
        )

    def _turn(self) -> None:
        now = self._now()
        for watched in self._topics.values():
            if watched.until > now:
                continue
            after, watched.turned, watched.until = watched.turned, now, FOREVER
            for schedule_id in watched.days:
                row = self._availability.schedule(schedule_id)
                if row is None:
                    continue
                watched.until = min(watched.until, self._availability.stretch(row, CHANNEL, now)[1])
                clocks = self._availability.turned(row, CHANNEL, after, now)
                if clocks:
                    for connection in watched.watchers:
                        connection.note(schedule_id, clocks)

    def _tell(self, schedule_id: str, clocks: set[str]) -> None:
        for topic in self._of_day.get(schedule_id, ()):
            for connection in self._topics[topic].watchers:
                connection.note(schedule_id, clocks)

    def _topics_of(self, row: ScheduleRow) -> Iterator[str]:
        yield f"schedule/{row.id}"
        yield f"practitioner/{row.practitioner_id}"
        for department_id in {session.department_id for session in row.sessions}:
            yield f"department/{department_id}"
            department = self._departments.get(department_id)
            if department is not None and department.parent_id is not None:
                yield f"department/{department.parent_id}"

    def _add(self, topic: str, watched: _Topic, row: ScheduleRow) -> None:
        watched.days.add(row.id)
        self._of_day.setdefault(row.id, set()).add(topic)
        until = self._availability.stretch(row, CHANNEL, watched.turned)[1]
        if until < watched.until:
            watched.until = until
            self._earlier.set()

    def _drop(self, topic: str, schedule_id: str) -> None:
        topics = self._of_day.get(schedule_id)
        if topics is not None:
            topics.discard(topic)
            if not topics:
                del self._of_day[schedule_id]

    def _regroup(self) -> None:
        """Departments are others: who belongs to whom is looked at from the beginning."""
        self._of_day.clear()
        for topic, watched in self._topics.items():
            watched.days.clear()
            try:
                rows = watched.source.rows(watched.name, None)
            except Problem:  # gone: nothing more comes of it
                continue
            for row in rows:
                self._add(topic, watched, row)
            for connection in watched.watchers:
                connection.renew(topic)


@api.route(
    "GET",
    "/api/v1/stream",
    zh="实时余号、候诊与叫号（WebSocket）",
    status=101,
    tags=["catalog"],
    errors=[
        Fault.UNAUTHENTICATED,
        Fault.TOKEN_EXPIRED,
        Fault.SESSION_ENDED,
        Fault.FOREIGN_ORIGIN,
        Fault.UPGRADE_REQUIRED,
        Fault.STREAM_FULL,
    ],
)
async def stream(request: web.Request) -> web.WebSocketResponse:
    """Live counts, tickets and calls over a WebSocket. Messages are JSON objects.

    Client: `{"subscribe":["schedule/D0012-20261124","department/0301","practitioner/D0012"]}`,
    `{"unsubscribe":[...]}`, and `{"token":"..."}` where the Authorization header cannot be set. Of waiting
    rooms: `ticket/<id>`, `calls/<department>[/<room>]`, `queue/<department>`, `crowd/<department>`;
    `{"subscribe":["calls/0301"],"since":{"calls/0301":2026112400017}}` tells the calls after that one;
    `{"screen":{id,topic?,shown_sequence,error?}}` is how a call screen says that it is well.

    Server: `{"hello":{...}}`; `{"snapshot":topic,"schedules":[...],"version":n}` after each subscription, and
    again whenever it is subscribed to again; `{"changed":[{slot_id,remaining,capacity,status,opens_at}...],
    "schedules":[...],"version":n}`; `{"plan":{schedule_id,schedule},"version":n}` when a day's sessions are
    others, with `schedule` null when the day is gone; of waiting rooms
    `{"snapshot":topic,...,"version":n}`, then `{"update":topic,"calls":[...]?,...,"version":n}` with what
    is other, and `{"notice":{...},"topic":topic}`; `{"error":{code,...}}`.
    """
    app = request.app
    joined = app[keys.STREAM]
    session = session_of(request)
    who: Who = None if session is None else who_of(request)
    socket = web.WebSocketResponse(
        heartbeat=PING_SECONDS, max_msg_size=BODY_BYTES_MAX, compress=False, timeout=CLOSE_SECONDS_MAX
    )
    if not socket.can_prepare(request):
        raise Problem(Fault.UPGRADE_REQUIRED, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    if joined.is_full:
        raise Problem(Fault.STREAM_FULL)

    async def send(message: bytes) -> None:
        await socket.send_frame(message, WSMsgType.TEXT)

    async def close() -> None:
        await socket.close(code=WSCloseCode.GOING_AWAY)

    async def end() -> None:
        try:
            async with asyncio.timeout(2 * CLOSE_SECONDS_MAX):
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=SESSION_ENDED)
        except TimeoutError:  # it takes nothing, not even this
            if request.transport is not None:
                request.transport.abort()

    connection = Connection(send, language_of(request.headers.get("Accept-Language")), who)
    joined.join(connection, close)
    joined.sign_in(connection, who, session, end)  # nothing was awaited since its session was looked at
    sending: asyncio.Task[None] | None = None
    try:
        await socket.prepare(request)
        sending = asyncio.create_task(_send(connection, joined, request.transport))
        _hello(connection)
        while connection.mistakes < MISTAKES_MAX and not connection.is_over:
            message = await socket.receive(None if connection.topics else IDLE_SECONDS_MAX)
            if connection.is_over:
                break
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await _obey(app, connection, message.data, end)
            else:  # closed, broken, or too large: aiohttp has told the other side
                return socket
        why = SESSION_ENDED if connection.is_over else b"too many mistakes"
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=why)
    except TimeoutError:
        await socket.close(code=WSCloseCode.OK, message=b"idle")
    except (ConnectionError, RuntimeError):  # it broke, or is closing, while we spoke
        pass
    except Exception:  # no middleware can answer any more
        log.exception("a connection of the stream failed")
        await socket.close(code=WSCloseCode.INTERNAL_ERROR)
    finally:
        joined.leave(connection)
        if sending is not None:
            sending.cancel()
    return socket


async def _send(connection: Connection, joined: Stream, transport: asyncio.Transport | None) -> None:
    try:
        await connection.run(joined.messages)
    except (TimeoutError, ConnectionError, RuntimeError):  # stuck, or gone
        if transport is not None:
            transport.abort()
    except Exception:
        log.exception("a connection of the stream failed")
        if transport is not None:
            transport.abort()


def _hello(connection: Connection) -> None:
    connection.say({"hello": {"signed_in": connection.who is not None, "topics_max": TOPICS_MAX}})


async def _obey(
    app: web.Application,
    connection: Connection,
    said: str | bytes,
    end: Callable[[], Awaitable[object]],
) -> None:
    """One message from the client. What is wrong with it is told, and the rest of it done."""
    joined, tokens = app[keys.STREAM], app[keys.TOKENS]
    raw = said.encode() if isinstance(said, str) else said
    try:
        check_json(raw)
        body: StreamBody = validated(_BODY_OF, raw)
        if connection.session is not None and isinstance(connection.who, Staff):
            tokens.saw(connection.session)
        if body.token is not None:
            header = f"Bearer {body.token}"
            who, session = tokens.who_of_header(header), tokens.session_of_header(header)
            joined.sign_in(connection, who, session, end)
            _hello(connection)
        if body.screen is not None:
            app[keys.SCREENS].hear(connection.who, connection.topics, body.screen)
    except Problem as problem:
        connection.mistakes += 1
        connection.object_to(problem)
        return
    for topic in body.unsubscribe:
        joined.unsubscribe(connection, topic)
    is_good = True
    for topic in body.subscribe:
        try:
            await joined.enter(connection, topic, body.since.get(topic))
        except Problem as problem:
            is_good = False
            connection.object_to(problem, topic)
        except DATABASE_AWAY:
            connection.object_to(Problem(Fault.DATABASE_DOWN), topic)
    connection.mistakes += not is_good
