"""Readings of a record by somebody who does not treat the patient: for a reason, and reviewed afterwards."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.ids import derived
from engine.records.request_keys import KeyUse, use_key
from engine.records.sealed_people import name_of, record_key
from engine.vault.vault import Vault

GLASS_BROKEN: Final = timedelta(minutes=60)
REASON: Final = "break_glass.reason"
REVIEW_NOTE: Final = "break_glass.review_note"


@dataclass(frozen=True, slots=True)
class BrokenGlass:
    id: bytes
    staff_id: bytes
    username: str
    staff_name: str
    patient_id: bytes
    patient_name: str
    kind: str
    reason: str  # "" where the patient's record was erased
    at: datetime
    expires_at: datetime
    reviewed_by: str | None  # a user name
    reviewed_at: datetime | None
    verdict: str | None
    review_note: str | None


_SELECT: Final = (
    "select b.*, s.username, s.name as staff_name, r.username as reviewer, p.record_key, p.name"
    " from break_glass b join staff s on s.id = b.staff_id join patient p on p.id = b.patient_id"
    " left join staff r on r.id = b.reviewed_by"
)


async def break_glass(
    connection: asyncpg.Connection,
    vault: Vault,
    staff_id: bytes,
    patient_id: bytes,
    kind: str,
    reason: str,
    key: str,
    now: datetime,
) -> tuple[BrokenGlass, bool] | KeyUse | None:
    """What is in force from now on, and whether it is new; with the same key once more the first one. OTHER:
    the key was used for something else. None: there is no such patient, or their record is erased. Within a
    transaction of the caller's."""
    id_ = derived(b"break-glass", staff_id, key.encode())
    printed = vault.index("request_key.fingerprint", reason).hex()
    use = await use_key(connection, staff_id, key, ("break-glass", patient_id.hex(), kind, printed), now)
    if use is KeyUse.OTHER:
        return use
    if use is KeyUse.FIRST:
        wrapped = await connection.fetchval(
            "select record_key from patient where id = $1", UUID(bytes=patient_id)
        )
        if wrapped is None:
            return None
        await connection.execute(
            "insert into break_glass (id, staff_id, patient_id, kind, reason, at, expires_at)"
            " values ($1, $2, $3, $4, $5, $6, $7)",
            UUID(bytes=id_),
            UUID(bytes=staff_id),
            UUID(bytes=patient_id),
            kind,
            vault.seal(record_key(patient_id, wrapped), REASON, id_, reason),
            now,
            now + GLASS_BROKEN,
        )
    row = await connection.fetchrow(f"{_SELECT} where b.id = $1", UUID(bytes=id_))
    return _broken(vault, row), use is KeyUse.FIRST


async def in_force(
    connection: asyncpg.Connection, staff_id: bytes, patient_id: bytes, now: datetime
) -> tuple[bytes, datetime] | None:
    """Which one lets them read this patient now, and until when."""
    row = await connection.fetchrow(
        "select id, expires_at from break_glass where staff_id = $1 and patient_id = $2"
        " and at <= $3 and expires_at > $3 order by expires_at desc limit 1",
        UUID(bytes=staff_id),
        UUID(bytes=patient_id),
        now,
    )
    return None if row is None else (row["id"].bytes, row["expires_at"])


async def list_broken(
    connection: asyncpg.Connection, vault: Vault, unreviewed: bool, before: datetime | None, limit: int
) -> list[BrokenGlass]:
    """Newest first. `before` pages on from the last one's `at`."""
    rows = await connection.fetch(
        f"{_SELECT} where (not $1 or b.reviewed_by is null) and ($2::timestamptz is null or b.at < $2)"
        " order by b.at desc limit $3",
        unreviewed,
        before,
        limit,
    )
    return [_broken(vault, row) for row in rows]


async def count_unreviewed(connection: asyncpg.Connection | asyncpg.Pool) -> int:
    found: int = await connection.fetchval("select count(*) from break_glass where reviewed_by is null")
    return found


@dataclass(frozen=True, slots=True)
class Alarm:
    id: bytes
    username: str
    kind: str
    at: datetime


async def latest_unreviewed(connection: asyncpg.Connection | asyncpg.Pool, limit: int) -> list[Alarm]:
    """Newest first."""
    rows = await connection.fetch(
        "select b.id, s.username, b.kind, b.at from break_glass b join staff s on s.id = b.staff_id"
        " where b.reviewed_by is null order by b.at desc limit $1",
        limit,
    )
    return [Alarm(row["id"].bytes, row["username"], row["kind"], row["at"]) for row in rows]


async def broken_glass(connection: asyncpg.Connection, vault: Vault, glass_id: bytes) -> BrokenGlass | None:
    """Locked until the transaction ends."""
    row = await connection.fetchrow(f"{_SELECT} where b.id = $1 for update of b", UUID(bytes=glass_id))
    return None if row is None else _broken(vault, row)


async def review(
    connection: asyncpg.Connection,
    vault: Vault,
    glass: BrokenGlass,
    reviewer: bytes,
    verdict: str,
    note: str,
    now: datetime,
) -> BrokenGlass:
    """Judged once and for all. The caller has looked that it was not judged before, and not by oneself."""
    wrapped = await connection.fetchval(
        "select record_key from patient where id = $1", UUID(bytes=glass.patient_id)
    )
    sealed = None
    if wrapped is not None:
        sealed = vault.seal(record_key(glass.patient_id, wrapped), REVIEW_NOTE, glass.id, note)
    await connection.execute(
        "update break_glass set reviewed_by = $2, reviewed_at = $3, verdict = $4, review_note = $5"
        " where id = $1",
        UUID(bytes=glass.id),
        UUID(bytes=reviewer),
        now,
        verdict,
        sealed,
    )
    judged = await broken_glass(connection, vault, glass.id)
    assert judged is not None
    return judged


def _broken(vault: Vault, row: asyncpg.Record) -> BrokenGlass:
    id_, patient_id = row["id"].bytes, row["patient_id"].bytes
    key = record_key(patient_id, row["record_key"])
    return BrokenGlass(
        id_,
        row["staff_id"].bytes,
        row["username"],
        row["staff_name"],
        patient_id,
        name_of(vault, patient_id, row["record_key"], row["name"]),
        row["kind"],
        vault.open(key, REASON, id_, row["reason"]) or "",
        row["at"],
        row["expires_at"],
        row["reviewer"],
        row["reviewed_at"],
        row["verdict"],
        vault.open(key, REVIEW_NOTE, id_, row["review_note"]),
    )
