"""What is committed leaves: the journal, read in order, and what each outside system is to hear of it.

The journal is the outbox: events of a shard have no gaps, so one number a shard says how far a subscriber has
read. Reading on and writing what follows is one transaction, so nothing is missed and nothing is made up.
Delivering is at least once: in order within an aggregate, many aggregates at once. Who cannot be told a thing
(a dead letter) waits for a person, and only its own aggregate waits with it.

One process at a time works for a subscriber: it holds a lock in PostgreSQL on the very connection on which it
reads and writes, so without the lock it can neither take a message nor say what became of one.
"""

import asyncio
import contextlib
import heapq
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Protocol

import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from actors.breaker import Breaker
from actors.delivery import Deliveries, Message
from engine.database import AWAY, BY_KEY, connect
from engine.domain.messages import Event
from engine.journal.codec import EVENT_CODES, unpack_event
from engine.records import outbox as records
from engine.records.outbox import New, Status

__all__ = ["Committed", "Draft", "Message", "Outbox", "Subscriber"]

log = logging.getLogger(__name__)

IN_FLIGHT_MAX: Final = 256  # one that hangs keeps its place for seconds: 15 a second do at 300/s and 5 %
LOOK_SECONDS: Final = 0.2  # between two looks at the journal
QUIET_LOOK_SECONDS: Final = 0.5  # the same, where nothing has happened for a while
QUIET_AFTER_SECONDS: Final = 5.0
CHUNK_EVENTS: Final = 500  # of a shard, read at once
STATUS_SECONDS: Final = 5.0  # between two counts of what waits: each reads all of it
TURN_SECONDS_MAX: Final = 30.0  # for reading, writing and taking: a database that hangs is left
AGAIN_SECONDS: Final = 1.0
FINISH_SECONDS_MAX: Final = 3.0
TROUBLE_SECONDS: Final = 5.0  # a subscriber that cannot say what follows is asked again after so long
HURRY_SECONDS: Final = 60.0  # after an outage, who waited for a pause of its own need not
_SECONDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 30, 60, 300, 900, 3600)
_LOCK: Final = "select pg_try_advisory_lock(hashtext('xinglin.outbox.' || $1))"


class Found(Enum):
    NOTHING = 0
    SOME = 1
    MORE = 2  # and there is more


@dataclass(frozen=True, slots=True)
class Committed:
    """An event as the journal has it."""

    shard: int
    seq: int
    stream: str
    version: int
    at: datetime
    event: Event


@dataclass(frozen=True, slots=True)
class Draft:
    """What follows from an event, for one subscriber."""

    shard: int  # the event's
    seq: int
    aggregate: str
    kind: str
    data: Mapping[str, Any]


class Subscriber(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> frozenset[type]:
        """Of events that it wants to see."""

    async def messages(self, connection: asyncpg.Connection, events: Sequence[Committed]) -> list[Draft]:
        """What follows, in the transaction that moves the cursor past them. In causal order: an event comes
        after those that its actor could know of, also of other shards."""

    async def deliver(self, message: Message) -> None:
        """Raises TryAgain, Refused, OutcomeUnknown; whatever else is logged, and tried again a few times."""


class Outbox:
    """Of one subscriber. `run` it in as many processes as may take over; one at a time works."""

    def __init__(
        self,
        database_url: str,
        subscriber: Subscriber,
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        from_beginning: bool = False,
        registry: CollectorRegistry | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._url = database_url
        self._subscriber = subscriber
        self._in_flight_max = in_flight_max
        self._from_beginning = from_beginning
        self._look_seconds = look_seconds
        self._codes = [EVENT_CODES[kind] for kind in subscriber.kinds]
        self._figures = _Figures(subscriber.name, registry or CollectorRegistry())
        self._status_at = 0.0
        self._trouble_until = 0.0

    async def run(self) -> None:
        """For as long as it is awaited, also across losses of the database and of the lock."""
        name = self._subscriber.name
        while True:
            try:
                connection = await connect(self._url, BY_KEY)
                try:
                    while not await connection.fetchval(_LOCK, name):
                        await asyncio.sleep(AGAIN_SECONDS)
                    await records.join(connection, name, self._from_beginning)
                    await self._work(connection)
                finally:
                    connection.terminate()
            except AWAY as error:
                log.warning("the outbox of %s waits for the database: %s", name, error)
            except Exception:
                log.exception("the outbox of %s begins anew", name)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _work(self, connection: asyncpg.Connection) -> None:
        """While the lock is ours: it goes with the connection."""
        breaker = Breaker(time.monotonic, random.random)
        deliveries = Deliveries(
            self._subscriber.name,
            self._subscriber.deliver,
            breaker,
            self._in_flight_max,
            random.random,
            self._figures.heard,
        )
        run = random.getrandbits(62)  # nosec B311  # marks what this run has taken
        loop = asyncio.get_running_loop()
        look_at = moved_at = loop.time()
        try:
            while True:
                async with asyncio.timeout(TURN_SECONDS_MAX):
                    if (now := loop.time()) >= look_at:
                        found = await self._read_on(connection)
                        if found is not Found.NOTHING:
                            moved_at = now
                        look_at = now + self._pause(found, now - moved_at)
                        await self._count(connection, breaker)
                    await self._turn(connection, deliveries, run)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, look_at - loop.time())):
                        await deliveries.news.wait()
        except asyncio.CancelledError:
            await deliveries.finish(FINISH_SECONDS_MAX)
            with contextlib.suppress(Exception):  # what is not written now was never heard of: asked again
                async with asyncio.timeout(FINISH_SECONDS_MAX):
                    await self._turn(connection, deliveries, run, takes=False)
            raise
        finally:
            await deliveries.finish(0)  # without the lock nobody is told anything

    def _pause(self, found: Found, quiet_seconds: float) -> float:
        """Seconds until the next look at the journal."""
        if found is Found.MORE:
            return 0.0  # what is due goes out in between
        if quiet_seconds > QUIET_AFTER_SECONDS:
            return max(QUIET_LOOK_SECONDS, self._look_seconds)
        return self._look_seconds

    async def _turn(
        self, connection: asyncpg.Connection, deliveries: Deliveries, run: int, takes: bool = True
    ) -> None:
        """Writes what became of some, and begins others, in one transaction."""
        name = self._subscriber.name
        settled = deliveries.settled()
        room = deliveries.room() if takes else 0
        if not settled and not room:
            return
        async with connection.transaction():
            if settled:
                await records.alone(connection, name)
                await records.settle(connection, name, settled.done, settled.again, settled.dead)
            if deliveries.is_back:
                deliveries.is_back = False
                await records.hurry(connection, name, HURRY_SECONDS)
            taken = await records.take(connection, name, run, room) if room else []
        deliveries.begin(sorted(taken))

    async def _read_on(self, connection: asyncpg.Connection) -> Found:
        """Reads what is new in the journal, a chunk of each shard."""
        if time.monotonic() < self._trouble_until:
            return Found.NOTHING
        name = self._subscriber.name
        unread = await records.unread(connection, name)
        if not unread:
            return Found.NOTHING
        try:
            async with connection.transaction():
                return await self._read(connection, unread)
        except (
            OSError,
            TimeoutError,
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ):
            raise
        except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError):
            return Found.MORE
        except Exception:
            # What is delivered goes on meanwhile.
            log.exception("%s cannot say what follows from events: it is asked again", name)
            self._figures.faults.inc()
            self._trouble_until = time.monotonic() + TROUBLE_SECONDS
            return Found.NOTHING

    async def _read(self, connection: asyncpg.Connection, unread: Sequence[tuple[int, int, int]]) -> Found:
        name = self._subscriber.name
        spans = [(shard, read, min(last, read + records.WINDOW_EVENTS)) for shard, read, last in unread]
        found = await records.events(connection, spans, self._codes, CHUNK_EVENTS)
        ends = {shard: up_to for shard, _, up_to in spans}
        last = {shard: last for shard, _, last in unread}
        # Behind what was not read to its end there may be something that comes before the others' next.
        torn = {
            shard for shard, rows in found.items() if len(rows) == CHUNK_EVENTS or ends[shard] < last[shard]
        }
        read = {shard: after for shard, after, _ in spans}
        events = []
        for row in _in_order(found, torn):
            read[row["shard"]] = row["seq"]
            events.append(
                Committed(
                    row["shard"],
                    row["seq"],
                    row["stream"],
                    row["version"],
                    row["at"],
                    unpack_event(row["type"], row["data"]),
                )
            )
        for shard, rows in found.items():
            if len(rows) < CHUNK_EVENTS and (not rows or read[shard] == rows[-1]["seq"]):
                read[shard] = ends[shard]  # nothing else of it is wanted
        await records.alone(connection, name)
        await records.move(connection, name, read)
        if events:
            await self._write(connection, events)
        return Found.MORE if torn else Found.SOME

    async def _write(self, connection: asyncpg.Connection, events: Sequence[Committed]) -> None:
        drafts = await self._subscriber.messages(connection, events)
        places = {(one.shard, one.seq): (n, one.at) for n, one in enumerate(events)}
        counts: dict[tuple[int, int], int] = {}
        new = []
        for draft in sorted(drafts, key=lambda one: places[one.shard, one.seq][0]):
            key = draft.shard, draft.seq
            n = counts[key] = counts.get(key, -1) + 1
            new.append(New(*key, n, draft.aggregate, draft.kind, draft.data, places[key][1]))
        if new:
            await records.write(connection, self._subscriber.name, new)

    async def _count(self, connection: asyncpg.Connection, breaker: Breaker) -> None:
        self._figures.breaker.set(breaker.state)
        if time.monotonic() < self._status_at:
            return
        self._status_at = time.monotonic() + STATUS_SECONDS
        for status in await records.status(connection, self._subscriber.name):
            self._figures.show(status, datetime.now(UTC))


def _in_order(found: Mapping[int, Sequence[asyncpg.Record]], torn: set[int]) -> Iterator[asyncpg.Record]:
    """The events of all shards by time, each shard's in its order; up to where one is torn.

    An actor that knew of another's event decided after that was committed: so causes come before what follows
    from them, however many shards there are."""
    heads = [(rows[0]["at"], shard, 0) for shard, rows in found.items() if rows]
    if any(not found[shard] for shard in torn):
        return  # the cursor moves past what nobody wants, and then comes what is behind
    heapq.heapify(heads)
    while heads:
        _, shard, n = heapq.heappop(heads)
        rows = found[shard]
        yield rows[n]
        if n + 1 < len(rows):
            heapq.heappush(heads, (rows[n + 1]["at"], shard, n + 1))
        elif shard in torn:
            return


class _Figures:
    """Of one subscriber, on /metrics."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        label = ["subscriber"]
        self._name = name
        self._messages = Counter(
            "xinglin_outbox_messages", "Tries to deliver, by outcome", [*label, "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "xinglin_outbox_delivery_seconds",
            "From an event's commit to its delivery",
            label,
            registry=registry,
            buckets=_SECONDS,
        ).labels(name)
        self._lag = Gauge(
            "xinglin_outbox_lag_seconds", "Age of the oldest that could go", label, registry=registry
        ).labels(name)
        self._count = Gauge(
            "xinglin_outbox_waiting",
            "Messages: waiting, blocked behind a dead one, dead; unread: events that were not looked at yet",
            [*label, "state"],
            registry=registry,
        )
        self.breaker = Gauge(
            "xinglin_outbox_breaker", "0 closed, 1 asking, 2 open: left alone", label, registry=registry
        ).labels(name)
        self.faults = Counter(
            "xinglin_outbox_reading_faults", "Events that could not be read on", label, registry=registry
        ).labels(name)

    def heard(self, outcome: str, at: datetime) -> None:
        self._messages.labels(self._name, outcome).inc()
        if outcome == "delivered":
            self._seconds.observe(max(0.0, (datetime.now(UTC) - at).total_seconds()))

    def show(self, status: Status, now: datetime) -> None:
        self._lag.set(0.0 if status.oldest_at is None else max(0.0, (now - status.oldest_at).total_seconds()))
        for state, count in (
            ("waiting", status.waiting),
            ("blocked", status.blocked),
            ("dead", status.dead),
            ("unread", status.behind),
        ):
            self._count.labels(self._name, state).set(count)
