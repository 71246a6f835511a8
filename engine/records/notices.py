"""What patients were told without asking: each subject, kind and step once, however often it is decided."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

CHANNEL = "notice"
"""Of PostgreSQL's notifications: the ids of notices that were just kept, with commas."""
IDS_MAX = 500  # in one notification, which may be 8,000 bytes


Key = tuple[bytes, str, str]
"""A ticket or an appointment, the kind of notice, and which of several of that kind."""


@dataclass(frozen=True, slots=True)
class New:
    """Something to be told. Times in `data` are ms, and their names end in `_at` or `_by`."""

    subject: bytes  # a ticket or an appointment
    kind: str  # ahead | leave_home | late
    step: str
    patient_id: bytes
    data: dict[str, Any]

    @property
    def key(self) -> Key:
        return self.subject, self.kind, self.step


@dataclass(frozen=True, slots=True)
class Notice:
    id: int
    subject: bytes
    kind: str
    step: str
    patient_id: bytes
    department_id: str
    day: date
    at: datetime
    data: dict[str, Any]


async def keep(
    connection: asyncpg.Connection, department_id: str, day: date, new: Iterable[New], now: datetime
) -> int:
    """Keeps what was not kept before, and says so to all gateways; how many that were."""
    rows = [
        {
            "subject": one.subject.hex(),
            "kind": one.kind,
            "step": one.step,
            "patient_id": one.patient_id.hex(),
            "data": one.data,
        }
        for one in new
    ]
    if not rows:
        return 0
    async with connection.transaction():
        kept = await connection.fetch(
            "insert into notice (subject, kind, step, patient_id, department_id, day, at, data)"
            " select subject, kind, step, patient_id, $2, $3, $4, data from jsonb_to_recordset($1::jsonb)"
            "   as x (subject uuid, kind text, step text, patient_id uuid, data jsonb)"
            " on conflict (subject, kind, step) do nothing returning id",
            orjson.dumps(rows).decode(),
            department_id,
            day,
            now,
        )
        ids = [str(row["id"]) for row in kept]
        for n in range(0, len(ids), IDS_MAX):
            await connection.execute("select pg_notify($1, $2)", CHANNEL, ",".join(ids[n : n + IDS_MAX]))
    return len(kept)


async def kept_of(executor: asyncpg.Pool | asyncpg.Connection, department_id: str, day: date) -> set[Key]:
    """Subject, kind and step of all that were told."""
    rows = await executor.fetch(
        "select subject, kind, step from notice where day = $1 and department_id = $2", day, department_id
    )
    return {(row["subject"].bytes, row["kind"], row["step"]) for row in rows}


async def notices_by_id(executor: asyncpg.Pool | asyncpg.Connection, ids: Sequence[int]) -> list[Notice]:
    rows = await executor.fetch(f"{_NOTICE} where id = any ($1::bigint[]) order by id", list(ids))
    return [_notice(row) for row in rows]


async def notices_for(
    executor: asyncpg.Pool | asyncpg.Connection,
    account_id: bytes,
    before: int | None,
    limit: int,
    now: datetime,
) -> list[Notice]:
    """To the patients of this account, as long as it has a right to them. Latest first; `before` pages on."""
    rows = await executor.fetch(
        f"{_NOTICE} where ($2::bigint is null or id < $2) and patient_id in ("
        "   select patient_id from account_patient"
        "    where account_id = $1 and may_see and revoked_at is null"
        "      and (expires_at is null or expires_at > $4))"
        " order by id desc limit $3",
        UUID(bytes=account_id),
        before,
        limit,
        now,
    )
    return [_notice(row) for row in rows]


_NOTICE = "select id, subject, kind, step, patient_id, department_id, day, at, data::text as data from notice"


def _notice(row: asyncpg.Record) -> Notice:
    return Notice(
        row["id"],
        row["subject"].bytes,
        row["kind"],
        row["step"],
        row["patient_id"].bytes,
        row["department_id"],
        row["day"],
        row["at"],
        orjson.loads(row["data"]),
    )
