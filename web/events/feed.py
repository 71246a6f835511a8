"""The event feed: pages of public events, each with the cursor that the next one begins after.

No event is left out or told twice to who hands back the last cursor: positions are the journal's own, a shard
at a time (engine/records/event_feed.py). Between shards there is no order but time's, so what belongs
together (one appointment, one bill) is in order because it is of one stream, and a stream is of one shard.
"""

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from engine.database import AWAY
from engine.records import event_feed
from web.events.reading import CODES, Wanted, public_of_raw
from web.events.vocabulary import PublicEvent

PAGE_MAX: Final = 500
ROUNDS_MAX: Final = 5
"""How often a page looks further where few of the events are wanted; then it is handed out as it is."""
LOOK_SECONDS: Final = 0.25
WAITING_MAX: Final = 500
"""Readers that wait at one gateway."""


class Ahead(Exception):
    """The journal does not go as far as a cursor: the database was put back to an earlier time."""


class TooManyWait(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Page:
    events: list[PublicEvent]
    positions: dict[int, int]
    has_more: bool
    """There is more behind it already."""


async def page(pool: asyncpg.Pool, positions: Mapping[int, int], wanted: Wanted, limit: int) -> Page:
    """What comes next. Raises Ahead."""
    async with pool.acquire() as connection:
        ends = await event_feed.ends(connection)
        if any(seq > ends.get(shard, -1) for shard, seq in positions.items()):
            raise Ahead
        # A shard that came since the cursor was made is read from its beginning.
        at = {shard: positions.get(shard, 0) for shard in ends}
        events: list[PublicEvent] = []
        for _ in range(ROUNDS_MAX):
            if len(events) >= limit or at == ends:
                break
            events += await _round(connection, at, ends, wanted, limit - len(events))
    return Page(events, at, at != ends)


async def _round(
    connection: asyncpg.Connection, at: dict[int, int], ends: Mapping[int, int], wanted: Wanted, room: int
) -> list[PublicEvent]:
    """At most `room` more, by time; moves `at` behind what was looked at."""
    found: list[list[PublicEvent]] = []
    until = dict(at)
    for shard, end in ends.items():
        if at[shard] >= end:
            continue
        scanned = await event_feed.scan(connection, shard, at[shard], end, CODES, room)
        until[shard] = scanned.until
        public = await public_of_raw(connection, scanned.events)
        found.append([one for one in public if wanted.has(one.type)])
    merged = list(heapq.merge(*found, key=lambda one: one.at))
    for one in reversed(merged[room:]):  # left for the next page
        until[one.shard] = one.seq - 1
    at |= until
    return merged[:room]


class Tail:
    """Of one gateway: tells who waits for it that the journal has grown. Looks only while somebody waits."""

    def __init__(self) -> None:
        self._moved = asyncio.Condition()
        self._ends: dict[int, int] = {}
        self.waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def beyond(self, pool: asyncpg.Pool, positions: Mapping[int, int], seconds: float) -> None:
        """Until there is something after these positions, the time is up, or this gateway stops. Raises
        TooManyWait."""
        if self.waiting >= WAITING_MAX:
            raise TooManyWait
        self.waiting += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(pool))
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(
                    lambda: (
                        self._is_closed
                        or any(seq > positions.get(shard, 0) for shard, seq in self._ends.items())
                    )
                )
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    async def close(self) -> None:
        """Whoever waits is answered."""
        self._is_closed = True
        async with self._moved:
            self._moved.notify_all()
        if self._task is not None:
            self._task.cancel()

    async def _look(self, pool: asyncpg.Pool) -> None:
        while self.waiting and not self._is_closed:
            try:
                self._ends = await event_feed.ends(pool)
            except AWAY:
                self._ends = {}  # the next page says what is wrong
            async with self._moved:
                self._moved.notify_all()
            await asyncio.sleep(LOOK_SECONDS)
