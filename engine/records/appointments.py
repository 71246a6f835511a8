"""Reads of the appointment table. Only the journal writes it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

_COLUMNS: Final = (
    "a.id, a.schedule_id, a.slot_id, a.number, a.patient_id, a.account_id, a.status, a.reason, a.fee_fen,"
    " a.starts_at, a.hold_until, a.created_at, a.updated_at, p.name as patient_name"
)


@dataclass(frozen=True, slots=True)
class AppointmentRecord:
    id: bytes
    schedule_id: str
    slot_id: str
    number: int
    patient_id: bytes
    patient_name: str
    account_id: bytes
    status: int
    reason: str | None
    fee_fen: int
    starts_at: datetime
    hold_until: datetime
    created_at: datetime
    updated_at: datetime


async def appointment(
    pool: asyncpg.Pool, appointment_id: bytes, account_id: bytes
) -> AppointmentRecord | None:
    """None when there is no such appointment of this account: whether others have it is not told."""
    row = await pool.fetchrow(
        f"select {_COLUMNS} from appointment a join patient p on p.id = a.patient_id"
        " where a.id = $1 and a.account_id = $2",
        appointment_id.hex(),
        account_id.hex(),
    )
    return None if row is None else _record(row)


async def appointments_of(
    pool: asyncpg.Pool,
    account_id: bytes,
    statuses: list[int] | None,
    before: datetime | None,
    limit: int,
) -> list[AppointmentRecord]:
    """Newest first. `before` pages on from the last one's created_at."""
    rows = await pool.fetch(
        f"select {_COLUMNS} from appointment a join patient p on p.id = a.patient_id"
        " where a.account_id = $1 and ($2::smallint[] is null or a.status = any ($2))"
        "   and ($3::timestamptz is null or a.created_at < $3)"
        " order by a.created_at desc, a.id limit $4",
        account_id.hex(),
        statuses,
        before,
        limit,
    )
    return [_record(row) for row in rows]


def _record(row: asyncpg.Record) -> AppointmentRecord:
    return AppointmentRecord(
        id=row["id"].bytes,
        schedule_id=row["schedule_id"],
        slot_id=row["slot_id"],
        number=row["number"],
        patient_id=row["patient_id"].bytes,
        patient_name=row["patient_name"],
        account_id=row["account_id"].bytes,
        status=row["status"],
        reason=row["reason"],
        fee_fen=row["fee_fen"],
        starts_at=row["starts_at"],
        hold_until=row["hold_until"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """Seats taken by slot, and the journal numbers up to which that is so."""

    seats: dict[str, int]
    seqs: dict[int, tuple[int, int]]
    """shard -> (epoch, seq)"""


async def seats_taken(pool: asyncpg.Pool) -> Taken:
    """One consistent snapshot of all slots that are not over."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        shards = await connection.fetch("select id, epoch, seq from shard")
        rows = await connection.fetch(
            "select slot_id, count(*)::int as taken from appointment"
            " where status <= 4 and starts_at > now() group by slot_id"
        )
    return Taken(
        {row["slot_id"]: row["taken"] for row in rows},
        {row["id"]: (row["epoch"], row["seq"]) for row in shards},
    )
