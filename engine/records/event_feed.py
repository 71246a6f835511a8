"""The journal as others may read it on: each shard's events in their order, from where they were.

Numbers of a shard have no gaps, and a commit's events appear together with the shard's own number
(engine/migrations/0001_engine.sql), so whatever is up to that number is there, and nothing comes in between
later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

SCAN_MAX: Final = 4_000
"""Events of one shard that are looked through at once, however few of them are wanted."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who we are to others."""

    id: str  # a urn
    secret: bytes


@dataclass(frozen=True, slots=True)
class RawEvent:
    shard: int
    seq: int
    stream: str
    type: int  # engine/journal/codec.py
    at: datetime
    data: bytes


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found of a shard, and up to where it was looked at."""

    events: Sequence[RawEvent]
    until: int


async def source(executor: Executor) -> Source:
    row = await executor.fetchrow("select id, secret from event_source")
    return Source(f"urn:uuid:{row['id']}", row["secret"])


async def ends(executor: Executor) -> dict[int, int]:
    """Of each shard, the number of its last event."""
    return {row["id"]: row["seq"] for row in await executor.fetch("select id, seq from shard order by id")}


async def scan(
    executor: Executor, shard: int, after: int, end: int, types: Sequence[int], limit: int
) -> Scanned:
    """The next events of these types after a number, at most `limit`; `end` is the shard's last."""
    until = min(end, after + SCAN_MAX)
    rows = await executor.fetch(
        "select shard, seq, stream, type, at, data from event"
        " where shard = $1 and seq > $2 and seq <= $3 and type = any ($4::smallint[]) order by seq limit $5",
        shard,
        after,
        until,
        types,
        limit,
    )
    found = [RawEvent(**row) for row in rows]
    return Scanned(found, found[-1].seq if len(found) == limit else until)


async def at_positions(executor: Executor, positions: Sequence[tuple[int, int]]) -> list[RawEvent]:
    """The events with these numbers (shard, seq); what is not there is left out."""
    rows = await executor.fetch(
        "select e.shard, e.seq, e.stream, e.type, e.at, e.data"
        "  from unnest($1::int[], $2::bigint[]) as asked (shard, seq)"
        "  join event e on e.shard = asked.shard and e.seq = asked.seq",
        [shard for shard, _ in positions],
        [seq for _, seq in positions],
    )
    return [RawEvent(**row) for row in rows]


@dataclass(frozen=True, slots=True)
class Booked:
    """What an appointment's events do not say themselves."""

    patient_id: bytes
    schedule_id: str
    department_id: str
    number: int


async def booked(executor: Executor, ids: Sequence[bytes]) -> Mapping[bytes, Booked]:
    if not ids:
        return {}
    rows = await executor.fetch(
        "select id, patient_id, schedule_id, department_id, number from appointment"
        " where id = any ($1::uuid[])",
        [UUID(bytes=one) for one in ids],
    )
    return {
        row["id"].bytes: Booked(
            row["patient_id"].bytes, row["schedule_id"], row["department_id"], row["number"]
        )
        for row in rows
    }


async def patients_of_tickets(executor: Executor, ids: Sequence[bytes]) -> Mapping[bytes, bytes]:
    if not ids:
        return {}
    rows = await executor.fetch(
        "select id, patient_id from ticket where id = any ($1::uuid[])", [UUID(bytes=one) for one in ids]
    )
    return {row["id"].bytes: row["patient_id"].bytes for row in rows}


async def billed(executor: Executor, ids: Sequence[bytes]) -> Mapping[bytes, tuple[bytes, int]]:
    """Bill -> whose it is, and its fen."""
    if not ids:
        return {}
    rows = await executor.fetch(
        "select id, patient_id, fen from bill where id = any ($1::uuid[])", [UUID(bytes=one) for one in ids]
    )
    return {row["id"].bytes: (row["patient_id"].bytes, row["fen"]) for row in rows}
