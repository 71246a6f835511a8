"""What follows from the journal for those who listen: how far each has read, and what waits to be delivered.

Of each aggregate the first message alone has a moment at which it is due; the others wait for it. So finding
what may go now is one look-up in an index, however much waits.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

import asyncpg
import orjson

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

WINDOW_EVENTS: Final = 20_000  # of a shard, looked through at once for those that somebody wants


class New(NamedTuple):
    """A message as it is written."""

    shard: int
    seq: int
    n: int
    aggregate: str
    kind: str
    data: Mapping[str, Any]
    at: datetime


class Taken(NamedTuple):
    """One that its subscriber is to deliver now."""

    position: int
    shard: int
    seq: int
    n: int
    aggregate: str
    kind: str
    data: dict[str, Any]
    at: datetime
    tries: int
    is_uncertain: bool


@dataclass(frozen=True, slots=True)
class Again:
    """It was not delivered, or nobody knows; it is tried again."""

    position: int
    seconds: float  # from now
    is_uncertain: bool
    trouble: str


@dataclass(frozen=True, slots=True)
class Dead:
    """It is not tried again by itself."""

    position: int
    trouble: str


@dataclass(frozen=True, slots=True)
class Status:
    subscriber: str
    since: datetime
    behind: int  # events that it has not read yet
    waiting: int
    blocked: int  # of these, those behind a dead one
    dead: int
    uncertain: int
    oldest_at: datetime | None  # of those that wait and are not blocked


@dataclass(frozen=True, slots=True)
class DeadRow:
    position: int
    subscriber: str
    id: str  # as the outside knows it
    aggregate: str
    kind: str
    at: datetime
    died_at: datetime
    tries: int
    trouble: str
    behind: int  # messages that wait for it


async def join(connection: asyncpg.Connection, subscriber: str, from_beginning: bool) -> None:
    """A new one begins where the journal ends now, or where it began. Of others nothing changes."""
    async with connection.transaction():
        is_new = await connection.fetchval(
            "insert into outbox_subscriber (name) values ($1) on conflict do nothing returning true",
            subscriber,
        )
        if is_new and not from_beginning:
            await connection.execute(
                "insert into outbox_cursor (subscriber, shard, seq) select $1, id, seq from shard", subscriber
            )


async def unread(connection: asyncpg.Connection, subscriber: str) -> list[tuple[int, int, int]]:
    """(shard, seq up to which it was read, seq of its last event), of the shards with something new."""
    rows = await connection.fetch(
        "select s.id, coalesce(c.seq, 0) as read, s.seq from shard s"
        "  left join outbox_cursor c on c.subscriber = $1 and c.shard = s.id"
        " where s.seq > coalesce(c.seq, 0)",
        subscriber,
    )
    return [(row["id"], row["read"], row["seq"]) for row in rows]


async def events(
    connection: asyncpg.Connection, spans: Sequence[tuple[int, int, int]], codes: Sequence[int], limit: int
) -> dict[int, list[asyncpg.Record]]:
    """Of each span (shard, after, up to) the first `limit` events of these kinds; all in one snapshot."""
    found: dict[int, list[asyncpg.Record]] = {shard: [] for shard, _, _ in spans}
    rows = await connection.fetch(
        EVENTS,
        [shard for shard, _, _ in spans],
        [after for _, after, _ in spans],
        [up_to for _, _, up_to in spans],
        codes,
        limit,
    )
    for row in rows:
        found[row["shard"]].append(row)
    return found


EVENTS: Final = """
select e.* from unnest($1::int[], $2::bigint[], $3::bigint[]) as span (shard, after, up_to)
 cross join lateral (
    select event.shard, event.seq, event.stream, event.version, event.type, event.at, event.data from event
     where event.shard = span.shard and event.seq > span.after and event.seq <= span.up_to
       and event.type = any ($4::smallint[])
     order by event.seq limit $5) as e
 order by e.shard, e.seq"""


async def move(connection: asyncpg.Connection, subscriber: str, read: Mapping[int, int]) -> None:
    """The cursor: shard -> seq up to which it was read. Never back."""
    await connection.execute(
        "insert into outbox_cursor (subscriber, shard, seq)"
        " select $1, c.shard, c.seq from unnest($2::int[], $3::bigint[]) as c (shard, seq)"
        " on conflict (subscriber, shard) do update set seq = excluded.seq"
        " where outbox_cursor.seq < excluded.seq",
        subscriber,
        list(read),
        list(read.values()),
    )


async def write(connection: asyncpg.Connection, subscriber: str, new: Sequence[New]) -> None:
    """In this order. In the transaction that moves the cursor, after `alone`."""
    await connection.execute(
        _WRITE,
        subscriber,
        [one.shard for one in new],
        [one.seq for one in new],
        [one.n for one in new],
        [one.aggregate for one in new],
        [one.kind for one in new],
        [orjson.dumps(one.data).decode() for one in new],
        [one.at for one in new],
    )


_WRITE: Final = """
insert into outbox_message (subscriber, shard, seq, n, aggregate, kind, data, at, due_at)
select $1, m.shard, m.seq, m.n, m.aggregate, m.kind, m.data::jsonb, m.at,
       case when row_number() over (partition by m.aggregate order by m.place) = 1
             and not exists (select from outbox_message o
                              where o.subscriber = $1 and o.aggregate = m.aggregate)
            then now() end
  from unnest($2::int[], $3::bigint[], $4::int[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
       with ordinality as m (shard, seq, n, aggregate, kind, data, at, place)
 order by m.place
on conflict (subscriber, shard, seq, n) do nothing"""


async def alone(connection: asyncpg.Connection, subscriber: str) -> None:
    """Until the transaction ends nobody else changes what is first in an aggregate."""
    await connection.execute(
        "select pg_advisory_xact_lock(hashtext('xinglin.outbox.order.' || $1))", subscriber
    )


async def take(connection: asyncpg.Connection, subscriber: str, run: int, limit: int) -> list[Taken]:
    """Up to `limit` that are due, the oldest first, marked as this run's: whoever comes after a crash knows
    that they may have been delivered."""
    rows = await connection.fetch(_TAKE, subscriber, run, limit)
    return [
        Taken(
            row["position"],
            row["shard"],
            row["seq"],
            row["n"],
            row["aggregate"],
            row["kind"],
            orjson.loads(row["data"]),
            row["at"],
            row["tries"],
            row["is_uncertain"],
        )
        for row in rows
    ]


_TAKE: Final = """
with due as (
    select position, taken_by from outbox_message
     where subscriber = $1 and due_at <= now() and taken_by is distinct from $2
     order by position limit $3 for update)
update outbox_message m
   set taken_by = $2, is_uncertain = m.is_uncertain or due.taken_by is not null
  from due where m.position = due.position
returning m.position, m.shard, m.seq, m.n, m.aggregate, m.kind, m.data::text, m.at, m.tries, m.is_uncertain"""


async def settle(
    connection: asyncpg.Connection,
    subscriber: str,
    done: Sequence[int],
    again: Sequence[Again],
    dead: Sequence[Dead],
) -> None:
    """What became of messages that were taken. In one transaction, after `alone`."""
    if done:
        await _remove(connection, subscriber, done)
    if again:
        await connection.execute(
            "update outbox_message m set taken_by = null, tries = m.tries + 1, trouble = a.trouble,"
            "       is_uncertain = m.is_uncertain or a.is_uncertain,"
            "       due_at = now() + make_interval(secs => a.seconds)"
            "  from unnest($1::bigint[], $2::float8[], $3::boolean[], $4::text[])"
            "       as a (position, seconds, is_uncertain, trouble) where m.position = a.position",
            [one.position for one in again],
            [one.seconds for one in again],
            [one.is_uncertain for one in again],
            [one.trouble[:TROUBLE_CHARS_MAX] for one in again],
        )
    if dead:
        await connection.execute(
            "update outbox_message m set taken_by = null, tries = m.tries + 1, trouble = d.trouble,"
            "       state = 'dead', due_at = null, died_at = now()"
            "  from unnest($1::bigint[], $2::text[]) as d (position, trouble) where m.position = d.position",
            [one.position for one in dead],
            [one.trouble[:TROUBLE_CHARS_MAX] for one in dead],
        )


TROUBLE_CHARS_MAX: Final = 300


async def _remove(connection: asyncpg.Connection, subscriber: str, positions: Sequence[int]) -> None:
    """These are gone, and the next of their aggregates are due."""
    rows = await connection.fetch(
        "delete from outbox_message where position = any ($1::bigint[]) returning aggregate", positions
    )
    await connection.execute(
        "update outbox_message set due_at = now()"
        " where position in (select (select o.position from outbox_message o"
        "                             where o.subscriber = $1 and o.aggregate = a.aggregate"
        "                             order by o.position limit 1)"
        "                      from unnest($2::text[]) as a (aggregate))"
        "   and due_at is null and state = 'waiting'",
        subscriber,
        list({row["aggregate"] for row in rows}),
    )


async def hurry(connection: asyncpg.Connection, subscriber: str, seconds: float) -> None:
    """Who listens is there again: what would be tried within so many seconds is tried now."""
    await connection.execute(
        "update outbox_message set due_at = now()"
        " where subscriber = $1 and due_at > now() and due_at <= now() + make_interval(secs => $2)",
        subscriber,
        seconds,
    )


async def status(executor: Executor, subscriber: str | None = None) -> list[Status]:
    """Of all, or of this one."""
    rows = await executor.fetch(_STATUS, subscriber)
    return [Status(**row) for row in rows]


_STATUS: Final = """
select s.name as subscriber, s.since,
       (select coalesce(sum(shard.seq - coalesce(c.seq, 0)), 0)::bigint from shard
          left join outbox_cursor c on c.subscriber = s.name and c.shard = shard.id) as behind,
       coalesce(m.waiting, 0) as waiting, coalesce(m.dead, 0) as dead, coalesce(m.uncertain, 0) as uncertain,
       coalesce(b.blocked, 0) as blocked,
       (select min(due.at) from outbox_message due
         where due.subscriber = s.name and due.due_at is not null) as oldest_at
  from outbox_subscriber s
  left join lateral (
       select count(*) filter (where state = 'waiting') as waiting,
              count(*) filter (where state = 'dead') as dead,
              count(*) filter (where is_uncertain or taken_by is not null) as uncertain
         from outbox_message where subscriber = s.name) m on true
  left join lateral (
       select count(*) as blocked from outbox_message f
         join outbox_message d
           on d.subscriber = f.subscriber and d.aggregate = f.aggregate and d.state = 'dead'
        where f.subscriber = s.name and f.state = 'waiting') b on true
 where $1::text is null or s.name = $1
 order by s.name"""


async def dead_letters(
    executor: Executor, subscriber: str | None, before: int | None, limit: int
) -> list[DeadRow]:
    """Newest first; `before` pages on from the last one's position."""
    rows = await executor.fetch(
        "select d.position, d.subscriber, format('%s-%s-%s', d.shard, d.seq, d.n) as id, d.aggregate,"
        "       d.kind, d.at, d.died_at, d.tries, d.trouble,"
        "       (select count(*) from outbox_message f where f.subscriber = d.subscriber"
        "           and f.aggregate = d.aggregate and f.state = 'waiting') as behind"
        "  from outbox_message d where d.state = 'dead' and ($1::text is null or d.subscriber = $1)"
        "   and ($2::bigint is null or d.position < $2) order by d.position desc limit $3",
        subscriber,
        before,
        limit,
    )
    return [DeadRow(**row) for row in rows]


async def replay(connection: asyncpg.Connection, subscriber: str, positions: Iterable[int] | None) -> int:
    """These dead ones, or all, are tried anew; how many. What follows them in their aggregates goes after."""
    async with connection.transaction():
        await alone(connection, subscriber)
        rows = await connection.fetch(
            "update outbox_message set state = 'waiting', died_at = null, due_at = now(), tries = 0"
            " where subscriber = $1 and state = 'dead'"
            "   and ($2::bigint[] is null or position = any ($2)) returning position",
            subscriber,
            None if positions is None else list(positions),
        )
    return len(rows)


async def drop(connection: asyncpg.Connection, subscriber: str, positions: Iterable[int]) -> int:
    """These dead ones are given up for good, and what waits behind them goes on; how many."""
    async with connection.transaction():
        await alone(connection, subscriber)
        dead = [
            row["position"]
            for row in await connection.fetch(
                "select position from outbox_message where subscriber = $1 and state = 'dead'"
                "   and position = any ($2::bigint[]) for update",
                subscriber,
                list(positions),
            )
        ]
        if dead:
            await _remove(connection, subscriber, dead)
    return len(dead)


async def leave(connection: asyncpg.Connection, subscriber: str) -> bool:
    """It is forgotten with all that waits for it; should it come back, it is a new one. False: unknown."""
    return bool(
        await connection.fetchval("delete from outbox_subscriber where name = $1 returning true", subscriber)
    )
