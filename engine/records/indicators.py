"""How many numbers are what, by day: as counted so far, and counted anew from the tables.

Each number counts in one cell of its visit's day, by what it is now (VISIT_NAMES), and in up to two cells of
the day on which it was taken: `taken`, and `confirmed` once it was. What a change (改签) brings is no new
number: it counts on the day of its visit alone. docs/INDICATORS.md defines what is made of these.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, NamedTuple

import asyncpg

from engine.records.catalog import NOT_IMPORTED

DEFINITION: Final = 1
"""Raised whenever a count means something else: then everything is counted anew."""

PENDING, BOOKED, ARRIVED, FULFILLED, NOSHOW = "pending", "booked", "arrived", "fulfilled", "noshow"
CANCELLED = "cancelled"  # after it was confirmed
CHANGED = "changed"  # given up for another one, which counts for itself
LAPSED = "lapsed"  # never confirmed: the hold ended, or was given up
VISIT_NAMES: Final = (PENDING, BOOKED, ARRIVED, FULFILLED, NOSHOW, CANCELLED, CHANGED, LAPSED)
TAKEN, CONFIRMED = "taken", "confirmed"


class Cell(NamedTuple):
    """What is counted by."""

    day: date
    department_id: str
    practitioner_id: str  # whose day it is, whoever stands in for them
    channel: int
    name: str


Counts = dict[Cell, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """Up to where the counts go, and of what they are."""

    definition: int = 0
    timezone: str = ""
    version: int = 0
    counted: int = 0
    positions: Mapping[int, int] = field(default_factory=dict)
    """shard -> seq of its last event that is in the counts"""


@dataclass(frozen=True, slots=True)
class Queue:
    """Who waits in a department, and for how long those who were seen had waited. Seconds."""

    waiting: int  # in the hall or at a door
    first: int  # of these, those whom nobody has seen yet
    waited: int  # the sum of what these have waited so far
    waited_max: int
    called: int  # called or being seen
    seen: int  # whose first stage has begun
    seen_waited: int  # the sum of what they had waited until then
    walk_ins: int = 0  # who came without an appointment, and did not leave


class Negative(Exception):
    """A count fell below zero: what is kept and what has happened do not belong together."""


async def read_counted(connection: asyncpg.Connection, lock: bool = False) -> Counted:
    """With `lock`: nobody else counts until the transaction ends."""
    row = await connection.fetchrow(
        "select definition, timezone, version, counted from indicator_state" + (" for update" if lock else "")
    )
    rows = await connection.fetch("select shard, seq from indicator_position")
    positions = {each["shard"]: each["seq"] for each in rows}
    return Counted(row["definition"], row["timezone"], row["version"], row["counted"], positions)


async def timezone_of(connection: asyncpg.Connection) -> str:
    """The hospital's."""
    zone: str | None = await connection.fetchval("select timezone from hospital")
    return zone or NOT_IMPORTED.timezone


async def is_in_step(connection: asyncpg.Connection) -> bool:
    """Whether every event is in the counts. Costs next to nothing."""
    found: bool = await connection.fetchval(
        "select definition = $1 and timezone = $2 and not exists ("
        "  select from shard s left join indicator_position p on p.shard = s.id"
        "   where s.seq <> coalesce(p.seq, 0)) from indicator_state",
        DEFINITION,
        await timezone_of(connection),
    )
    return found


async def events_after(
    connection: asyncpg.Connection, shard: int, seq: int, codes: Iterable[int], limit: int
) -> list[asyncpg.Record]:
    """A shard's next events; of those with another code only their place."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "select seq, stream, version, at, type, case when type = any ($3::smallint[]) then data end as data"
        "  from event where shard = $1 and seq > $2 order by seq limit $4",
        shard,
        seq,
        list(codes),
        limit,
    )
    return rows


async def events_of(
    connection: asyncpg.Connection, streams: Iterable[str], codes: Iterable[int]
) -> list[asyncpg.Record]:
    """All events of these streams, each in its order; of those with another code only their place."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "select shard, seq, stream, version, at, type,"
        "       case when type = any ($2::smallint[]) then data end as data"
        "  from event where stream = any ($1::text[]) order by stream, version",
        list(streams),
        list(codes),
    )
    return rows


async def last_events(connection: asyncpg.Connection) -> dict[int, int]:
    """shard -> seq of its last event."""
    return {
        row["id"]: row["seq"] for row in await connection.fetch("select id, seq from shard where seq > 0")
    }


async def add(connection: asyncpg.Connection, counts: Counts, counted: Counted) -> None:
    """Adds to what is kept, and notes up to where it goes now. Raises Negative."""
    changed = {cell: count for cell, count in counts.items() if count}
    await connection.execute("update indicator_state set version = $1", counted.version)
    if changed:
        rows = await connection.fetch(
            "insert into indicator (day, department_id, practitioner_id, channel, name, value, version)"
            " select *, $7 from unnest($1::date[], $2::text[], $3::text[], $4::smallint[], $5::text[],"
            "                          $6::int[])"
            " on conflict (day, department_id, practitioner_id, channel, name)"
            " do update set value = indicator.value + excluded.value, version = excluded.version"
            " returning value",
            *map(list, zip(*changed, strict=True)),
            list(changed.values()),
            counted.version,
        )
        if any(row["value"] < 0 for row in rows):
            raise Negative
    await _note(connection, counted.positions)


async def count_anew(connection: asyncpg.Connection, timezone: str) -> Counted:
    """Everything, from the tables. In a repeatable-read transaction, after `read_counted` with its lock."""
    version = 1 + await connection.fetchval("select version from indicator_state")
    positions = await last_events(connection)
    await connection.execute("delete from indicator")
    await connection.execute("delete from indicator_position")
    await connection.execute(
        "insert into indicator (day, department_id, practitioner_id, channel, name, value, version)"
        f" select day, department_id, practitioner_id, channel, name, value, $2 from ({_RECOUNT}) found",
        timezone,
        version,
    )
    await connection.execute(
        "update indicator_state set definition = $1, timezone = $2, version = $3, counted = $3",
        DEFINITION,
        timezone,
        version,
    )
    await _note(connection, positions)
    return Counted(DEFINITION, timezone, version, version, positions)


async def recount(connection: asyncpg.Connection, timezone: str) -> Counts:
    """What the tables say, whatever is kept."""
    return _counts(await connection.fetch(_RECOUNT, timezone))


async def kept(connection: asyncpg.Connection) -> Counts:
    """Everything that is kept, with the zeros."""
    return _counts(await connection.fetch(f"select {_COLUMNS} from indicator"))


async def of_day(connection: asyncpg.Connection | asyncpg.Pool, day: date, after: int = -1) -> Counts:
    """One day's; of those that changed after that version."""
    return _counts(
        await connection.fetch(
            f"select {_COLUMNS} from indicator where day = $1 and version > $2", day, after
        )
    )


async def versions(connection: asyncpg.Connection | asyncpg.Pool) -> tuple[int, int]:
    """The version, and the one at which everything was counted anew."""
    row = await connection.fetchrow("select version, counted from indicator_state")
    return row["version"], row["counted"]


async def queues(connection: asyncpg.Connection | asyncpg.Pool, day: date, now: datetime) -> dict[str, Queue]:
    """department -> who waits there at this moment. Straight from the tickets, which their actors write."""
    rows = await connection.fetch(_QUEUES, day, now)
    return {row["department_id"]: Queue(*row[1:]) for row in rows}


async def _note(connection: asyncpg.Connection, positions: Mapping[int, int]) -> None:
    await connection.execute(
        "insert into indicator_position (shard, seq) select * from unnest($1::int[], $2::bigint[])"
        " on conflict (shard) do update set seq = excluded.seq",
        list(positions),
        list(positions.values()),
    )


def _counts(rows: Iterable[asyncpg.Record]) -> Counts:
    return {Cell(*row[:5]): row["value"] for row in rows}


_COLUMNS: Final = "day, department_id, practitioner_id, channel, name, value"

# A number that was given back may have been confirmed before. The table does not say so, the journal does:
# each event of a number begins with its id, after three bytes of msgpack's (engine/journal/codec.py: 2 is
# SeatHeld, 3 is SeatBooked). One that lost a claim may have been held again under the same id.
_RECOUNT: Final = """
with number as (
    select id, department_id, left(schedule_id, -9) as practitioner_id, channel, status, reason,
           to_date(right(schedule_id, 8), 'YYYYMMDD') as day, (created_at at time zone $1)::date as taken_on,
           replaces is null as is_new,
           'schedule/' || left(schedule_id, -9) || '/'
               || to_char(to_date(right(schedule_id, 8), 'YYYYMMDD'), 'YYYY-MM-DD') as stream
      from appointment
), given_back as (
    select n.id
      from number n join event e on e.stream = n.stream and substring(e.data from 4 for 16) = uuid_send(n.id)
     where n.status = 5 and n.reason <> 'expired' and e.type in (2, 3)
     group by n.id
    having max(e.version) filter (where e.type = 3) > max(e.version) filter (where e.type = 2)
), judged as (
    select n.*, n.status in (2, 3, 4, 6) or b.id is not null as is_confirmed
      from number n left join given_back b on b.id = n.id
)
select day, department_id, practitioner_id, channel, name, count(*)::int as value
  from (
    select day, department_id, practitioner_id, channel,
           case when status = 1 then 'pending' when status = 2 then 'booked' when status = 3 then 'arrived'
                when status = 4 then 'fulfilled' when status = 6 then 'noshow'
                when not is_confirmed then 'lapsed' when reason = 'changed' then 'changed'
                else 'cancelled' end as name
      from judged
    union all
    select taken_on, department_id, practitioner_id, channel, 'taken' from judged where is_new
    union all
    select taken_on, department_id, practitioner_id, channel, 'confirmed'
      from judged where is_new and is_confirmed
  ) cell
 group by day, department_id, practitioner_id, channel, name"""

_QUEUES: Final = """
select department_id,
       count(*) filter (where is_waiting)::int,
       count(*) filter (where is_first)::int,
       coalesce(sum(waited) filter (where is_first), 0)::int,
       coalesce(max(waited) filter (where is_first), 0)::int,
       count(*) filter (where status in (3, 4))::int,
       count(started_at)::int,
       coalesce(sum(until_seen), 0)::int,
       count(*) filter (where is_walk_in)::int
  from (select department_id, status, appointment_id is null and status <> 9 as is_walk_in,
               started_at, status in (1, 2) as is_waiting,
               status in (1, 2) and started_at is null as is_first,
               greatest(0, extract(epoch from $2 - arrived_at)) as waited,
               greatest(0, extract(epoch from started_at - arrived_at)) as until_seen
          from ticket where day = $1) t
 group by department_id"""
