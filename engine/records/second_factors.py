"""Second factors of staff: a sealed secret, the codes that were used, and recovery codes.

web/sign_in/totp.py knows which code is right; here is what must be true of it in the database: each counts
once, and too many wrong ones lock, wherever they come from. Secrets go in and come out sealed
(engine/vault).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.lockout import OF_CODES, Failures, counted, is_locked
from engine.vault.columns import SECOND_FACTOR_KEY

KEY_FIELD: Final = SECOND_FACTOR_KEY.field
SECRET_FIELD: Final = "second_factor.sealed"
"""What a secret is sealed for, also while it is pending: it moves from one column into the other."""


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """One person's. Locked for everything that is inside the transaction which reads it."""

    staff_id: bytes
    data_key: bytes
    sealed: bytes | None
    last_step: int
    confirmed_at: datetime | None
    pending: bytes | None
    pending_at: datetime | None
    failures: Failures


async def load(connection: asyncpg.Connection, staff_id: bytes) -> SecondFactor | None:
    """Until the end of the transaction nobody else changes it."""
    row = await connection.fetchrow(
        "select data_key, sealed, last_step, confirmed_at, pending, pending_at, failed_count, lock_count,"
        " locked_until, failed_at from second_factor where staff_id = $1 for update",
        UUID(bytes=staff_id),
    )
    if row is None:
        return None
    return SecondFactor(
        staff_id,
        row["data_key"],
        row["sealed"],
        row["last_step"],
        row["confirmed_at"],
        row["pending"],
        row["pending_at"],
        Failures(row["failed_count"], row["lock_count"], row["locked_until"], row["failed_at"]),
    )


async def propose(
    connection: asyncpg.Connection, staff_id: bytes, data_key: bytes, sealed: bytes, now: datetime
) -> None:
    """A secret that counts once a code confirms it. The one in force stays until then."""
    await connection.execute(
        "insert into second_factor (staff_id, data_key, pending, pending_at) values ($1, $2, $3, $4)"
        " on conflict (staff_id) do update set pending = $3, pending_at = $4",
        UUID(bytes=staff_id),
        data_key,
        sealed,
        now,
    )


async def confirm(connection: asyncpg.Connection, staff_id: bytes, step: int, now: datetime) -> None:
    """The pending secret is in force, and `step` used. No recovery code of the one before counts."""
    await connection.execute(
        "update second_factor set sealed = pending, confirmed_at = $3, last_step = $2, pending = null,"
        " pending_at = null, failed_count = 0, lock_count = 0, locked_until = null, failed_at = null"
        " where staff_id = $1 and pending is not null",
        UUID(bytes=staff_id),
        step,
        now,
    )


async def use_step(connection: asyncpg.Connection, staff_id: bytes, step: int) -> bool:
    """False: a code of this step, or of a later one, was used already."""
    return bool(
        await connection.fetchval(
            "update second_factor set last_step = $2, failed_count = 0, lock_count = 0, locked_until = null,"
            " failed_at = null where staff_id = $1 and last_step < $2 returning true",
            UUID(bytes=staff_id),
            step,
        )
    )


def is_locked_out(factor: SecondFactor, now: datetime) -> bool:
    return is_locked(factor.failures, now)


async def count_failure(connection: asyncpg.Connection, factor: SecondFactor, now: datetime) -> None:
    """A wrong code after the right password."""
    after = counted(factor.failures, OF_CODES, now)
    await connection.execute(
        "update second_factor set failed_count = $2, lock_count = $3, locked_until = $4, failed_at = $5"
        " where staff_id = $1",
        UUID(bytes=factor.staff_id),
        after.count,
        after.locks,
        after.locked_until,
        after.last_at,
    )


async def remove(connection: asyncpg.Connection, staff_id: bytes) -> bool:
    """With its recovery codes. False: there was none."""
    return bool(
        await connection.fetchval(
            "delete from second_factor where staff_id = $1 returning true", UUID(bytes=staff_id)
        )
    )


# Recovery codes.


async def replace_recovery_codes(
    connection: asyncpg.Connection, staff_id: bytes, codes: Sequence[str]
) -> None:
    """Only these count from now on."""
    id_ = UUID(bytes=staff_id)
    await connection.execute("delete from recovery_code where staff_id = $1", id_)
    await connection.executemany(
        "insert into recovery_code (staff_id, hash) values ($1, $2)",
        [(id_, _hash_of(staff_id, code)) for code in codes],
    )


async def use_recovery_code(
    connection: asyncpg.Connection, staff_id: bytes, code: str, now: datetime
) -> bool:
    """Each is good once. Whoever had one is let in, so their codes are locked no longer."""
    used = await connection.fetchval(
        "update recovery_code set used_at = $3 where staff_id = $1 and hash = $2 and used_at is null"
        " returning true",
        UUID(bytes=staff_id),
        _hash_of(staff_id, code),
        now,
    )
    if used:
        await connection.execute(
            "update second_factor set failed_count = 0, lock_count = 0, locked_until = null, failed_at = null"
            " where staff_id = $1",
            UUID(bytes=staff_id),
        )
    return bool(used)


async def recovery_codes_left(connection: asyncpg.Connection, staff_id: bytes) -> int:
    left: int = await connection.fetchval(
        "select count(*) from recovery_code where staff_id = $1 and used_at is null", UUID(bytes=staff_id)
    )
    return left


def _hash_of(staff_id: bytes, code: str) -> bytes:
    # They are random enough (120 bits) that guessing against a plain hash is hopeless: ASVS 5.0, 6.5.2.
    return hashlib.sha256(staff_id + code.encode()).digest()
