"""The journal in PostgreSQL: one transaction a batch, behind the shard's epoch."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import asyncpg
import orjson

from engine.domain.ids import ROOM_PREFIX, SCHEDULE_PREFIX, RoomKey, ScheduleKey
from engine.domain.planning import plan_as_data, plan_from_data
from engine.domain.refusal import Reason
from engine.journal.codec import EVENT_CODES, pack_event, unpack_event
from engine.journal.journal import (
    LOST_CLAIM,
    Compensate,
    Entry,
    Fenced,
    Loaded,
    Loss,
    Writes,
    fold,
    rivals,
    with_atoms,
)
from engine.records.room_plans import load_room_plan

CLAIM_LOST: Final = "XL001"
FENCED: Final = "XL002"
ROLLED_BACK_TRIES_MAX: Final = 5  # a deadlock's victim knows that nothing was written, and may try again

_FLUSH: Final = f"select flush({', '.join(f'${n}' for n in range(1, 41))})"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PostgresJournal:
    """`write` is this journal's own connection: flushes follow one another on it. `read` may be shared."""

    def __init__(self, shard_id: int, write: asyncpg.Connection, read: asyncpg.Pool) -> None:
        self._shard_id = shard_id
        self._write = write
        self._read = read
        self._epoch = 0

    async def take_over(self) -> int:
        await self._write.execute("insert into shard (id) values ($1) on conflict do nothing", self._shard_id)
        self._epoch = await self._write.fetchval(
            "update shard set epoch = epoch + 1 where id = $1 returning epoch", self._shard_id
        )
        return self._epoch

    async def last_seq(self) -> int:
        seq: int = await self._write.fetchval("select seq from shard where id = $1", self._shard_id)
        return seq

    async def fenced(self) -> int:
        count: int = await self._write.fetchval("select fenced from shard where id = $1", self._shard_id)
        return count

    async def load(self, streams: list[str]) -> dict[str, Loaded]:
        loaded = {stream: Loaded([]) for stream in streams}
        rows = await self._read.fetch(
            "select stream, type, data from event where stream = any ($1) order by stream, version", streams
        )
        for row in rows:
            loaded[row["stream"]].events.append(unpack_event(row["type"], row["data"]))
        new = [stream for stream, found in loaded.items() if not found.events]
        unopened = {
            ScheduleKey.of_stream(stream).schedule_id: loaded[stream]
            for stream in new
            if stream.startswith(SCHEDULE_PREFIX)
        }
        if unopened:
            rows = await self._read.fetch("select id, plan from schedule where id = any ($1)", list(unopened))
            for row in rows:
                unopened[row["id"]].plan = plan_from_data(orjson.loads(row["plan"]))
        for stream in new:
            if stream.startswith(ROOM_PREFIX):
                loaded[stream].room = await load_room_plan(self._read, RoomKey.of_stream(stream))
        return loaded

    async def append(self, entries: list[Entry], compensate: Compensate) -> int:
        if not rivals(entries):
            try:
                return await self._flush(entries, fold(entries))
            except asyncpg.PostgresError as error:
                if error.sqlstate not in (CLAIM_LOST, "23505", "40P01"):
                    raise
        return await self._append_the_slower_way(entries, compensate)

    async def _flush(self, entries: list[Entry], writes: Writes) -> int:
        try:
            first: int = await self._write.fetchval(_FLUSH, *self._arguments(entries, writes))
        except asyncpg.PostgresError as error:
            if error.sqlstate == FENCED and not self._write.is_in_transaction():
                await self._count_fenced()
            if error.sqlstate == FENCED:
                raise Fenced(str(error)) from None
            raise
        return first + len(entries)

    async def _append_the_slower_way(self, entries: list[Entry], compensate: Compensate) -> int:
        """Finds the losers under locks, has them undone, and writes all in the same transaction.

        A transaction that PostgreSQL rolled back wrote nothing, so it may be tried again: what was undone in
        memory meanwhile stays undone and is written by the next try.
        """
        kept, undone = entries, list[Entry]()
        for _ in range(ROLLED_BACK_TRIES_MAX):
            try:
                async with self._write.transaction():
                    await self._lock_fence()
                    losers = await self._losers(kept)
                    if losers:
                        lost = {id(entry) for entry, _ in losers}
                        kept = [e for e in kept if id(e) not in lost]
                        undone += compensate(losers)
                    return await self._flush([*entries, *undone], fold([*kept, *undone]))
            except (asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError) as error:
                last = error
        raise last

    async def _count_fenced(self) -> None:
        """For the metric: a zombie says that it was one before it ends."""
        await self._write.execute("update shard set fenced = fenced + 1 where id = $1", self._shard_id)

    async def _lock_fence(self) -> None:
        held = await self._write.fetchval(
            "select epoch from shard where id = $1 and epoch = $2 for update", self._shard_id, self._epoch
        )
        if held is None:
            raise Fenced(f"shard {self._shard_id} is no longer at epoch {self._epoch}")

    async def _losers(self, entries: list[Entry]) -> list[Loss]:
        """Takes every claim that can be had, in one order for all shards, and gives the entries that failed.

        The claims stay locked until the transaction ends, so what is found here still holds at the flush.
        """
        losers = rivals(entries)
        lost = {id(entry) for entry, _ in losers}
        ids = [e.row.id.hex() for e in entries if e.row is not None and id(e) not in lost]
        known = {
            row["id"].bytes
            for row in await self._write.fetch("select id from appointment where id = any ($1::uuid[])", ids)
        }
        # Whoever's id is taken asks for no claim: the claims under that id are the other one's.
        for entry in entries:
            if id(entry) not in lost and entry.row is not None and entry.row.id in known:
                losers.append((entry, Reason.KEY_REUSED))
                lost.add(id(entry))
        kept = [e for e in entries if id(e) not in lost]
        writes = fold(kept)
        await self._write.execute(_DROP, *_columns(writes.drops.values(), _DROPPED))
        won = {
            (row["scope"], row["key"]): row["owner"].bytes
            for row in await self._write.fetch(_CLAIM, *_claims(writes))
        }
        for entry in kept:
            # What the same batch gives back again is not asked for.
            failed = [
                c
                for c in entry.gains
                if (c.scope, c.key) in writes.gains and won.get((c.scope, c.key)) != c.owner
            ]
            if failed:
                losers.append((entry, LOST_CLAIM[failed[0].scope]))
                mine = [c for c in entry.gains if c not in failed]
                await self._write.execute(_DROP, *_columns(mine, _DROPPED))
        alone, losers = len(losers), with_atoms(entries, losers)
        for entry, _ in losers[alone:]:  # they won theirs, but not without the others of their atom
            await self._write.execute(_DROP, *_columns(entry.gains, _DROPPED))
        return losers

    def _arguments(self, entries: list[Entry], writes: Writes) -> list[Any]:
        rows = writes.rows.values()
        changes = writes.changes.values()
        return [
            self._shard_id,
            self._epoch,
            [e.stream for e in entries],
            [e.version for e in entries],
            [EVENT_CODES[type(e.event)] for e in entries],
            [_time(e.at) for e in entries],
            [pack_event(e.event) for e in entries],
            *_columns(writes.drops.values(), _DROPPED),
            *_claims(writes),
            [c.id.hex() for c in changes],
            [c.status for c in changes],
            [c.reason for c in changes],
            [_time(c.at) for c in changes],
            [r.id.hex() for r in rows],
            [r.schedule_id for r in rows],
            [r.slot_id for r in rows],
            [r.seat for r in rows],
            [r.capacity for r in rows],
            [r.number for r in rows],
            [r.patient_id.hex() for r in rows],
            [r.account_id.hex() for r in rows],
            [r.status for r in rows],
            [r.fee_fen for r in rows],
            [_time(r.starts_at) for r in rows],
            [_time(r.hold_until) for r in rows],
            [_time(r.at) for r in rows],
            [r.department_id for r in rows],
            [r.number_class_id for r in rows],
            [r.channel for r in rows],
            [r.visit for r in rows],
            [key.schedule_id for key, _ in writes.opened],
            [key.practitioner_id for key, _ in writes.opened],
            [date.fromisoformat(key.day) for key, _ in writes.opened],
            [orjson.dumps(plan_as_data(plan)).decode() for _, plan in writes.opened],
            None if writes.more is None else orjson.dumps(writes.more).decode(),
        ]


_DROP: Final = """
delete from claim using unnest($1::smallint[], $2::bytea[], $3::uuid[]) as d (scope, key, owner)
 where claim.scope = d.scope and claim.key = d.key and claim.owner = d.owner"""

_CLAIM: Final = """
insert into claim (scope, key, owner, expires_at)
select * from unnest($1::smallint[], $2::bytea[], $3::uuid[], $4::timestamptz[])
on conflict (scope, key) do update set owner = excluded.owner, expires_at = excluded.expires_at
 where claim.owner = excluded.owner or claim.expires_at < clock_timestamp()
returning scope, key, owner"""

_DROPPED: Final = ("scope", "key", "owner")


def _columns(values: Iterable[Any], names: tuple[str, ...]) -> list[list[Any]]:
    values = list(values)
    return [
        [value.hex() for value in map(attrgetter(name), values)]
        if name == "owner"
        else [*map(attrgetter(name), values)]
        for name in names
    ]


def _claims(writes: Writes) -> list[list[Any]]:
    """In one order for all shards, so that two that want the same claims wait instead of deadlocking."""
    claims = [writes.gains[key] for key in sorted(writes.gains)]
    expiries = [None if c.expires_at is None else _time(c.expires_at) for c in claims]
    return [*_columns(claims, _DROPPED), expiries]


@lru_cache(maxsize=4_096)
def _time(ms: int) -> datetime:
    """Kept, because a batch is full of equal times."""
    return _EPOCH + timedelta(milliseconds=ms)
