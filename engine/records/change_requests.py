"""Schedule work that waits for consent: who asked, who decided, when and why. Nothing is ever deleted.

pending -> rejected; pending -> executing -> approved. An approval claims the request first and then does the
work, which is harmless to repeat: a process that dies in between leaves it executing, and whoever approves it
again ends it. What is refused when it is tried goes back to pending, and the approver is told why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson


class RequestStatus(StrEnum):
    PENDING = "pending"
    EXECUTING = "executing"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class NewRequest:
    id: bytes
    command: str  # of policy.APPROVABLE
    role: str
    target: str
    practitioner_id: str
    department_ids: tuple[str, ...]
    body: dict[str, Any]
    revision: str
    note: str
    asked_by: bytes


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    new: NewRequest
    asked_by_name: str
    asked_at: datetime
    status: RequestStatus
    decided_by: bytes | None
    decided_by_name: str | None
    decided_at: datetime | None
    reason: str | None


_SELECT: Final = (
    "select r.id, r.command, r.role, r.target, r.practitioner_id, r.department_ids, r.body::text as body,"
    "       r.revision, r.note, r.asked_by, r.asked_at, r.status, r.decided_by, r.decided_at, r.reason,"
    "       a.name as asked_by_name, d.name as decided_by_name"
    "  from change_request r join staff a on a.id = r.asked_by left join staff d on d.id = r.decided_by"
)


async def ask(connection: asyncpg.Connection, new: NewRequest, now: datetime) -> ChangeRequest:
    """Stores a request; asked again, it is the one that is there, whatever has become of it."""
    await connection.execute(
        "insert into change_request (id, command, role, target, practitioner_id, department_ids, body,"
        " revision, note, asked_by, asked_at)"
        " values ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11) on conflict (id) do nothing",
        UUID(bytes=new.id),
        new.command,
        new.role,
        new.target,
        new.practitioner_id,
        list(new.department_ids),
        orjson.dumps(new.body).decode(),
        new.revision,
        new.note,
        UUID(bytes=new.asked_by),
        now,
    )
    found = await request_of(connection, new.id)
    assert found is not None
    return found


async def request_of(connection: asyncpg.Connection, request_id: bytes) -> ChangeRequest | None:
    row = await connection.fetchrow(f"{_SELECT} where r.id = $1", UUID(bytes=request_id))
    return None if row is None else _request(row)


async def requests(
    connection: asyncpg.Connection,
    statuses: Sequence[RequestStatus],
    after: datetime | None,
    limit: int,
    target: str | None = None,
) -> list[ChangeRequest]:
    """Who has waited longest first. `after` pages on from the last one's asked_at."""
    rows = await connection.fetch(
        f"{_SELECT} where r.status = any ($1) and ($2::timestamptz is null or r.asked_at > $2)"
        "   and ($3::text is null or r.target = $3) order by r.asked_at, r.id limit $4",
        [status.value for status in statuses],
        after,
        target,
        limit,
    )
    return [_request(row) for row in rows]


async def approvals_of(
    connection: asyncpg.Connection, command_ids: Sequence[bytes]
) -> dict[bytes, ChangeRequest]:
    """The approved requests among these commands."""
    rows = await connection.fetch(
        f"{_SELECT} where r.id = any ($1::uuid[]) and r.status = 'approved'",
        [UUID(bytes=command_id) for command_id in command_ids],
    )
    return {row["id"].bytes: _request(row) for row in rows}


async def claim(
    connection: asyncpg.Connection, request_id: bytes, staff_id: bytes, reason: str, now: datetime
) -> bool:
    """Before the work is done. False: it was rejected, or is done."""
    return bool(
        await connection.fetchval(
            "update change_request set status = 'executing', decided_by = $2, decided_at = $3, reason = $4"
            " where id = $1 and status in ('pending', 'executing') returning true",
            UUID(bytes=request_id),
            UUID(bytes=staff_id),
            now,
            reason,
        )
    )


async def done(
    connection: asyncpg.Connection, request_id: bytes, staff_id: bytes, reason: str, now: datetime
) -> None:
    """After the work, whatever another approver found meanwhile: it is a fact."""
    await connection.execute(
        "update change_request set status = 'approved', decided_by = coalesce(decided_by, $2),"
        "       decided_at = coalesce(decided_at, $3), reason = coalesce(reason, $4)"
        " where id = $1 and status in ('pending', 'executing')",
        UUID(bytes=request_id),
        UUID(bytes=staff_id),
        now,
        reason,
    )


async def give_back(connection: asyncpg.Connection, request_id: bytes, staff_id: bytes) -> None:
    """After the work was refused: it waits again, unless somebody else has taken it up since."""
    await connection.execute(
        "update change_request set status = 'pending', decided_by = null, decided_at = null, reason = null"
        " where id = $1 and status = 'executing' and decided_by = $2",
        UUID(bytes=request_id),
        UUID(bytes=staff_id),
    )


async def reject(
    connection: asyncpg.Connection, request_id: bytes, staff_id: bytes, reason: str, now: datetime
) -> bool:
    """Rejected by these very hands for this very reason counts as done: it is a retry."""
    return bool(
        await connection.fetchval(
            "update change_request set status = 'rejected', decided_by = $2, decided_at = $3, reason = $4"
            " where id = $1 and (status = 'pending'"
            "                  or (status = 'rejected' and decided_by = $2 and reason = $4)) returning true",
            UUID(bytes=request_id),
            UUID(bytes=staff_id),
            now,
            reason,
        )
    )


def _request(row: asyncpg.Record) -> ChangeRequest:
    return ChangeRequest(
        NewRequest(
            row["id"].bytes,
            row["command"],
            row["role"],
            row["target"],
            row["practitioner_id"],
            tuple(row["department_ids"]),
            orjson.loads(row["body"]),
            row["revision"],
            row["note"],
            row["asked_by"].bytes,
        ),
        row["asked_by_name"],
        row["asked_at"],
        RequestStatus(row["status"]),
        None if row["decided_by"] is None else row["decided_by"].bytes,
        row["decided_by_name"],
        row["decided_at"],
        row["reason"],
    )
