"""Keeps the indicators in step with the journal: one process of its own does it, behind the actors' backs.

Events are folded in (shard, seq) order, and what changes is written in one transaction with the positions up
to which it goes, so each event counts once, whoever died when. Where anything does not fit, everything is
counted anew from the tables, in one snapshot.
"""

import logging
from collections import deque
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import asyncpg

from engine.database import DatabaseAway, connect
from engine.domain import schedule as s
from engine.domain.ids import SCHEDULE_PREFIX, ScheduleKey
from engine.journal.codec import EVENT_CODES, unpack_event
from engine.records import indicators as records
from engine.records.indicators import DEFINITION, Counted, Counts, Negative
from engine.views.indicators import FOLDED, CountedDay
from web.audit_replay import Check

log = logging.getLogger(__name__)

STEP_SECONDS = 0.5  # between two looks at whether something has happened
CHUNK_EVENTS = 500  # of a shard, in one transaction: a gateway has other things to do
CHUNKS_MAX = 2  # in one step: in a rush it is counted a little later, not booked a little slower
NUMBERS_KEPT_MAX = 60_000  # of days that are kept in memory: some 15 MB

_HELD = EVENT_CODES[s.SeatHeld]
_CODES = tuple(EVENT_CODES[kind] for kind in FOLDED)


class Doubt(Exception):
    """The journal does not go on where the counts end."""


class Fold:
    """Days as far as they are counted, and the positions that this is."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted
        self._zone = ZoneInfo(counted.timezone)
        self._days: dict[str, CountedDay] = {}  # the one that was used last at the end
        self._at, self._date = datetime.min.replace(tzinfo=UTC), date.min

    async def advance(self, connection: asyncpg.Connection) -> Counts | None:
        """What the next events change, CHUNK_EVENTS of each shard at most; None: there are none. All in one
        snapshot. Raises Doubt; whatever it raises, this fold is of no use any more."""
        positions = dict(self.counted.positions)
        counts: Counts = {}
        last = await records.last_events(connection)
        if any(seq > last.get(shard, 0) for shard, seq in positions.items()):
            raise Doubt("the journal ends before the counts do")
        waiting: dict[int, deque[asyncpg.Record]] = {}
        for shard, seq in last.items():
            at = positions.get(shard, 0)
            if seq > at:
                waiting[shard] = deque(
                    await records.events_after(connection, shard, at, _CODES, CHUNK_EVENTS)
                )
        if not waiting:
            return None
        streams = {row["stream"] for rows in waiting.values() for row in rows if _is_of_a_day(row)}
        await self._load(connection, streams)
        going = True
        while going:  # where the shards are others than before, one's events may come before another's
            going = False
            for shard, rows in waiting.items():
                while rows and self._fold(rows[0]):
                    positions[shard] = rows.popleft()["seq"]
                    going = True
        if positions == self.counted.positions:
            raise Doubt("no event comes next")
        for stream in streams:
            self._days[stream].settle(counts)
        was = self.counted
        self.counted = Counted(was.definition, was.timezone, was.version + 1, was.counted, positions)
        return counts

    def forget_the_quiet(self) -> None:
        """Days that were not used for longest, where there are too many."""
        numbers = sum(map(len, self._days.values()))
        while numbers > NUMBERS_KEPT_MAX:
            numbers -= len(self._days.pop(next(iter(self._days))))

    def _fold(self, row: asyncpg.Record) -> bool:
        """False: another event comes before this one."""
        if not _is_of_a_day(row):
            return True
        day = self._days[row["stream"]]
        if row["version"] != day.version + 1:
            return False
        self._take_in(day, row)
        return True

    def _take_in(self, day: CountedDay, row: asyncpg.Record) -> None:
        code, data = row["type"], row["data"]
        on = self._date_of(row["at"]) if code == _HELD else None
        day.fold(None if data is None else unpack_event(code, data), on)

    def _date_of(self, at: datetime) -> date:
        """In the hospital's zone. What was written in one batch has one time."""
        if at != self._at:
            self._at, self._date = at, at.astimezone(self._zone).date()
        return self._date

    async def _load(self, connection: asyncpg.Connection, streams: set[str]) -> None:
        """Each day, with those of its events that are in the counts already."""
        for stream in streams:
            if (day := self._days.pop(stream, None)) is not None:
                self._days[stream] = day
        missing = streams - self._days.keys()
        self._days |= {stream: CountedDay(ScheduleKey.of_stream(stream)) for stream in missing}
        for row in await records.events_of(connection, missing, _CODES) if missing else ():
            if row["seq"] <= self.counted.positions.get(row["shard"], 0):
                self._take_in(self._days[row["stream"]], row)
        for stream in missing:
            self._days[stream].settle({})


def _is_of_a_day(row: asyncpg.Record) -> bool:
    """A practitioner's; rooms and bills are not counted."""
    stream: str = row["stream"]
    return stream.startswith(SCHEDULE_PREFIX)


class Follower:
    """`step` is to be called again and again, by one process at a time; by two, it is merely slower."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: asyncpg.Connection | None = None
        self._fold: Fold | None = None

    async def step(self) -> None:
        """Counts what has happened, up to some CHUNKS_MAX times CHUNK_EVENTS of it."""
        try:
            connection = await self._connected()
            for _ in range(CHUNKS_MAX):
                if await records.is_in_step(connection):
                    return
                await self._advance(connection)
        except DatabaseAway as failed:
            log.warning("indicators wait for the database: %s", failed)
        except asyncpg.SerializationError:
            self._fold = None  # somebody else has just counted the same
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Nothing is remembered; the next step begins from what is written."""
        self._fold = None
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._fold = None
            self._connection = await connect(self._url)
        return self._connection

    async def _advance(self, connection: asyncpg.Connection) -> None:
        try:
            async with connection.transaction(isolation="repeatable_read"):
                counted = await records.read_counted(connection, lock=True)
                timezone = await records.timezone_of(connection)
                if (counted.definition, counted.timezone) != (DEFINITION, timezone):
                    raise Doubt("they were never counted like this")
                if self._fold is None or self._fold.counted != counted:
                    self._fold = Fold(counted)
                counts = await self._fold.advance(connection)
                if counts is not None:
                    await records.add(connection, counts, self._fold.counted)
            self._fold.forget_the_quiet()
        except (Doubt, Negative, KeyError) as why:
            log.warning("all indicators are counted anew: %s", why)
            self._fold = None
            await self._count_anew(connection)

    async def _count_anew(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction(isolation="repeatable_read"):
            await records.read_counted(connection, lock=True)
            await records.count_anew(connection, await records.timezone_of(connection))


async def check_indicators(connection: asyncpg.Connection) -> Check:
    """Whether what is kept, with what has yet to be folded, is what the tables say. For web/audit.py: in its
    snapshot, and without writing. Counts that were never made, or of another kind, are not wrong."""
    check = Check("indicators as recounted")
    counted = await records.read_counted(connection)
    timezone = await records.timezone_of(connection)
    if (counted.definition, counted.timezone) != (DEFINITION, timezone):
        return check
    counts = await records.kept(connection)
    fold = Fold(counted)
    try:
        while (more := await fold.advance(connection)) is not None:
            for cell, count in more.items():
                counts[cell] = counts.get(cell, 0) + count
            fold.forget_the_quiet()
    except (Doubt, KeyError) as why:
        check.wrong(f"{type(why).__name__}: {why}")
    found = await records.recount(connection, timezone)
    for cell in sorted({*counts, *found}):
        check.examined += 1
        if counts.get(cell, 0) != found.get(cell, 0):
            check.wrong(
                f"{cell.day} {cell.department_id} {cell.practitioner_id} channel {cell.channel} {cell.name}:"
                f" counted {counts.get(cell, 0)}, are {found.get(cell, 0)}"
            )
    return check
