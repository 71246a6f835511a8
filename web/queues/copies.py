"""Copies of waiting rooms, for those who look on: positions, boards, screens, forecasts.

A waiting room is a function of its events. A gateway that is asked about one reads its events, and from then
on plays in what the shard's feed tells, so that it knows the order of everybody without asking the actor. A
copy is as old as the feed (about a tenth of a second), and whoever has just changed something through this
gateway sees that at once: see `expect`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import asyncpg

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.queue_order import Rules
from engine.domain.refusal import Reason
from engine.domain.room_plan import opening
from engine.journal.codec import unpack_event
from engine.journal.streams import read_room
from engine.records.room_plans import load_room_plan
from web.errors import Problem
from web.keys import PolicyInForce

log = logging.getLogger(__name__)

COPIES_MAX: Final = 256  # departments' days that one gateway keeps; watched ones are kept beyond it
LOADS_MAX: Final = 5  # readings in a row that were behind the feed; then the database is in trouble
EXPECT_SECONDS_MAX: Final = 0.5  # how long a reader waits for what was just written here

_MISSED: Final = (2**63, 0, b"")
"""Comes after no event: whoever hears of it has missed something."""

RoomEvents = Mapping[str, Iterable[Any]]
"""As actors.feed.Changes tells them: stream -> (version, code, bytes)."""


@dataclass(slots=True, eq=False)
class Copy:
    """One department's day. Read only."""

    key: RoomKey
    room: w.WaitingRoom
    version: int  # events played in; 0: nothing has happened, the room is as it would be opened
    kept: dict[object, Any] = field(default_factory=dict)
    """What others have made of this version; empty again with the next."""


Changed = Callable[[Copy], None]


class Copies:
    """Of one gateway. `now` in ms."""

    def __init__(self, pool: asyncpg.Pool, policy: PolicyInForce, now: Callable[[], int]) -> None:
        self._pool = pool
        self._policy = policy
        self._now = now
        self._copies: dict[str, Copy] = {}
        self._loading: dict[str, asyncio.Task[Copy]] = {}
        self._coming: dict[str, list[Any]] = {}  # what a feed told while a room was read
        self._expected: dict[str, int] = {}
        self._pins: Counter[str] = Counter()
        self._turned: dict[str, asyncio.Event] = {}
        self.listeners: list[Changed] = []
        """Called with every copy that has changed, or was read anew."""

    def rules(self, key: RoomKey) -> Rules:
        return self._policy.policy.waiting_of(key.department_id).rules

    async def look(self, key: RoomKey) -> Copy:
        """The room as it is now, at least as new as what this gateway has written. Raises Problem where
        there is no such department or day."""
        stream = key.stream
        copy = self._copies.get(stream)
        if copy is None:
            copy = await self._read(key)
        wanted = self._expected.get(stream, 0)
        if copy.version < wanted:
            copy = await self._caught_up(key, wanted)
        if stream in self._copies:  # else it has missed something since then, and is not kept
            self._copies[stream] = self._copies.pop(stream)  # the last one used goes last
        return copy

    def known(self, key: RoomKey) -> Copy | None:
        """The copy that is kept, or None: without reading."""
        return self._copies.get(key.stream)

    def expect(self, key: RoomKey, version: int) -> None:
        """Whoever looks from now on sees at least so many events."""
        if version > self._expected.get(key.stream, 0):
            self._expected[key.stream] = version

    def pin(self, key: RoomKey) -> None:
        """Somebody watches: it is not forgotten before `unpin`."""
        self._pins[key.stream] += 1

    def unpin(self, key: RoomKey) -> None:
        self._pins[key.stream] -= 1
        if self._pins[key.stream] <= 0:
            del self._pins[key.stream]

    def hear(self, rooms: RoomEvents) -> None:
        """What a feed has told."""
        for stream, events in rooms.items():
            if stream in self._coming:
                self._coming[stream].extend(events)
            copy = self._copies.get(stream)
            if copy is None:
                continue
            if self._play(copy, events):
                self._tell(copy)
            else:
                self._read_anew(stream)

    def lost(self, is_lost: Callable[[str], bool]) -> None:
        """A feed has gone on without us: these rooms are read anew."""
        for stream in list(self._copies):
            if is_lost(stream):
                self._read_anew(stream)
        for stream, coming in self._coming.items():
            if is_lost(stream):
                coming.append(_MISSED)

    def look_again(self) -> None:
        """The catalog or the policy has changed: what was made by it is made anew, and rooms in which nothing
        has happened yet would be opened otherwise."""
        for stream, copy in list(self._copies.items()):
            if copy.version:
                self._tell(copy)
            else:
                self._read_anew(stream)
        for coming in self._coming.values():
            coming.append(_MISSED)

    def _read_anew(self, stream: str) -> None:
        del self._copies[stream]
        if self._pins[stream] or stream in self._expected:
            self._start(RoomKey.of_stream(stream))

    async def _read(self, key: RoomKey) -> Copy:
        return await asyncio.shield(self._start(key))

    def _start(self, key: RoomKey) -> asyncio.Task[Copy]:
        task = self._loading.get(key.stream)
        if task is None:
            task = self._loading[key.stream] = asyncio.create_task(self._load(key))
            task.add_done_callback(_look_at_it)
        return task

    async def _load(self, key: RoomKey) -> Copy:
        stream = key.stream
        try:
            for _ in range(LOADS_MAX):
                self._coming[stream] = []
                async with self._pool.acquire() as connection:
                    events = await read_room(connection, key)
                copy = Copy(key, w.replay(events), len(events))
                if not events:
                    plan = await load_room_plan(self._pool, key)
                    if plan is None:
                        raise Problem(Reason.NO_SUCH_WAITING_ROOM)
                    terms = self._policy.policy.waiting_of(key.department_id)
                    for event in opening(plan, terms, self._now()):
                        w.apply(copy.room, event)
                if self._play(copy, self._coming[stream]):
                    self._keep(copy)
                    return copy
            raise TimeoutError(f"{stream} could not be read as fast as it changes")
        finally:
            del self._coming[stream]
            del self._loading[stream]

    def _play(self, copy: Copy, events: Iterable[Any]) -> bool:
        """False where something is missing in between."""
        for version, code, data in events:
            if version <= copy.version:
                continue
            if version != copy.version + 1:
                return False
            if version == 1:  # it was shown as it would be opened; now it was
                copy.room = w.WaitingRoom()
            w.apply(copy.room, cast(w.Event, unpack_event(code, data)))
            copy.version = version
        return True

    def _keep(self, copy: Copy) -> None:
        self._copies[copy.key.stream] = copy
        for stream in list(self._copies)[: max(0, len(self._copies) - COPIES_MAX)]:
            if not self._pins[stream] and stream != copy.key.stream:
                del self._copies[stream]
                self._expected.pop(stream, None)
        self._tell(copy)

    def _tell(self, copy: Copy) -> None:
        copy.kept.clear()
        turned = self._turned.pop(copy.key.stream, None)
        if turned is not None:
            turned.set()
        for listener in self.listeners:
            listener(copy)

    async def _caught_up(self, key: RoomKey, version: int) -> Copy:
        """Waits for the feed; where it is slow, what was committed is read."""
        try:
            async with asyncio.timeout(EXPECT_SECONDS_MAX):
                while (copy := self._copies.get(key.stream)) is None or copy.version < version:
                    await self._turned.setdefault(key.stream, asyncio.Event()).wait()
                return copy
        except TimeoutError:
            self._copies.pop(key.stream, None)
            return await self._read(key)


def _look_at_it(task: asyncio.Task[Copy]) -> None:
    """Where nobody waited for it, its failure is told here."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, Problem):
        log.warning("a waiting room could not be read: %s", error)
