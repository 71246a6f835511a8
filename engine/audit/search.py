"""Looking into the audit: by who, patient, action, object, outcome and time; newest first, page by page."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

PAGE: Final = 1_000
_COLUMNS: Final = (
    "id, at, action, by_kind, by_id, by_name, subjects, object_kind, object_id, outcome, reason, request_id,"
    " address, gateway, detail"
)
# Each of the conditions is there where its parameter is not null.
_WHERE: Final = """
 where ($1::uuid is null or by_id = $1)
   and ($2::text is null or by_name = $2)
   and ($3::uuid is null or subjects @> array[$3::uuid])
   and ($4::text is null or action = $4)
   and ($5::text is null or object_kind = $5)
   and ($6::text is null or object_id = $6)
   and ($7::text is null or outcome = $7)
   and ($8::timestamptz is null or at >= $8)
   and ($9::timestamptz is null or at < $9)
   and ($10::bigint is null or id < $10)"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """None: any."""

    by_id: bytes | None = None
    by_name: str | None = None  # user name of staff
    patient_id: bytes | None = None
    action: str | None = None
    object_kind: str | None = None
    object_id: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None  # not at it


@dataclass(frozen=True, slots=True)
class Line:
    id: int
    at: datetime
    action: str
    by_kind: str
    by_id: bytes | None
    by_name: str | None
    subjects: tuple[bytes, ...]
    object_kind: str | None
    object_id: str | None
    outcome: str
    reason: str | None
    request_id: str | None
    address: str | None
    gateway: str | None
    detail: dict[str, Any] | None


async def search(
    connection: asyncpg.Connection, wanted: Wanted, before: int | None, limit: int
) -> list[Line]:
    """Those with a smaller id than `before`, the newest first."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from audit_entry {_WHERE} order by id desc limit $11",
        *_arguments(wanted),
        before,
        limit,
    )
    return [_line(row) for row in rows]


async def after(connection: asyncpg.Connection, wanted: Wanted, last: int, limit: int) -> list[Line]:
    """Those with a greater id than `last`, the oldest first: for an export, page after page."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from audit_entry {_WHERE} and id > $11 order by id limit $12",
        *_arguments(wanted),
        None,
        last,
        limit,
    )
    return [_line(row) for row in rows]


async def all_of(connection: asyncpg.Connection, wanted: Wanted) -> AsyncIterator[Line]:
    """However many, the oldest first, without holding more than a page or any transaction open."""
    last = 0
    while page := await after(connection, wanted, last, PAGE):
        for line in page:
            yield line
        last = page[-1].id


def _arguments(wanted: Wanted) -> tuple[Any, ...]:
    return (
        None if wanted.by_id is None else UUID(bytes=wanted.by_id),
        wanted.by_name,
        None if wanted.patient_id is None else UUID(bytes=wanted.patient_id),
        wanted.action,
        wanted.object_kind,
        wanted.object_id,
        wanted.outcome,
        wanted.since,
        wanted.until,
    )


def _line(row: Any) -> Line:
    return Line(
        row["id"],
        row["at"],
        row["action"],
        row["by_kind"],
        None if row["by_id"] is None else row["by_id"].bytes,
        row["by_name"],
        tuple(one.bytes for one in row["subjects"]),
        row["object_kind"],
        row["object_id"],
        row["outcome"],
        row["reason"],
        row["request_id"],
        row["address"],
        row["gateway"],
        None if row["detail"] is None else orjson.loads(row["detail"]),
    )
