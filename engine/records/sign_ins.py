"""Signing in with a password: who may try, what they must still show, and the failures that are counted.

A failure is counted before the password is looked at and taken back when it was right. So a thousand
guesses sent at one instant are no more than a few, and a process that dies between the two has counted. A
name that nobody has takes the same way through the database: it is counted in a few rows that all such
names share.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.lockout import (
    FAMILIAR,
    NONE,
    OF_AN_ADDRESS,
    OF_STRANGERS,
    Failures,
    counted,
    is_locked,
    uncounted,
)
from engine.records.staff import COLUMNS, USERNAME, Staff, staff_of_row

NAMELESS: Final = 1_024  # rows for all the names that nobody has
STEP: Final = timedelta(minutes=10)
FAILURES_KEPT: Final = timedelta(days=2)
_NO_FAILURES: Final = "failed_count = 0, lock_count = 0, locked_until = null, failed_at = null"


class Step(StrEnum):
    """What may be missing once the password was right."""

    SECOND_FACTOR = "second_factor"
    PASSWORD = "password"  # a new one


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in under way, counted as a failure."""

    staff: Staff | None
    """None: nobody has this name, or they are disabled."""
    address: str
    password_hash: str | None
    is_locked: bool
    """Nothing but a recovery code opens it now."""
    has_factor: bool
    must_change_password: bool
    password_set_at: datetime | None
    _before: tuple[Failures, Failures] = (NONE, NONE)  # from this address; from strangers
    _after: tuple[Failures, Failures] = (NONE, NONE)


async def begin(connection: asyncpg.Connection, username: str, address: str, now: datetime) -> Attempt:
    """Counts a failure of this name at this address."""
    async with connection.transaction():
        row = None
        if USERNAME.fullmatch(username):
            row = await connection.fetchrow(
                f"select {COLUMNS}, password_hash, must_change_password, created_at, password_set_at,"
                " failed_count, lock_count, locked_until, failed_at,"
                " exists (select from second_factor f where f.staff_id = staff.id and f.sealed is not null)"
                " as has_factor from staff where username = $1 and not disabled for no key update",
                username,
            )
        subject, where = (_nameless(username), "") if row is None else (row["id"], address)
        here_row = await connection.fetchrow(
            "select failed_count, lock_count, locked_until, failed_at, succeeded_at from sign_in_address"
            " where staff_id = $1 and address = $2",
            subject,
            where,
        )
        here = NONE if here_row is None else _failures(here_row)
        strangers = NONE if row is None else _failures(row)
        seen_at = None if here_row is None else here_row["succeeded_at"]
        is_familiar = seen_at is not None and now - seen_at < FAMILIAR
        locked = is_locked(here, now) or (not is_familiar and is_locked(strangers, now))
        after = (here, strangers)
        if not locked:
            after = (
                counted(here, OF_AN_ADDRESS, now),
                strangers if is_familiar else counted(strangers, OF_STRANGERS, now),
            )
        await _keep_address(connection, subject, where, after[0])
        await _keep_strangers(connection, subject, after[1])
    if row is None:
        return Attempt(None, address, None, locked, False, False, None)
    return Attempt(
        staff_of_row(row),
        address,
        row["password_hash"],
        locked,
        row["has_factor"],
        row["must_change_password"],
        row["password_set_at"] or row["created_at"],
        (here, strangers),
        after,
    )


async def succeed(connection: asyncpg.Connection, attempt: Attempt, now: datetime) -> Staff | None:
    """All that was asked was shown: no failure counts any more. None: meanwhile they were disabled, or have
    another password."""
    assert attempt.staff is not None
    async with connection.transaction():
        row = await connection.fetchrow(
            f"update staff set {_NO_FAILURES} where id = $1 and not disabled and password_hash = $2"
            f" returning {COLUMNS}",
            UUID(bytes=attempt.staff.id),
            attempt.password_hash,
        )
        if row is None:
            return None
        await connection.execute(
            "insert into sign_in_address (staff_id, address, succeeded_at) values ($1, $2, $3)"
            f" on conflict (staff_id, address) do update set {_NO_FAILURES}, succeeded_at = $3",
            row["id"],
            attempt.address,
            now,
        )
    return staff_of_row(row)


async def take_back(connection: asyncpg.Connection, attempt: Attempt) -> None:
    """The password was right and only a code was left out: that was no failure, and no success yet."""
    assert attempt.staff is not None
    subject = UUID(bytes=attempt.staff.id)
    async with connection.transaction():
        row = await connection.fetchrow(
            "select failed_count, lock_count, locked_until, failed_at from staff where id = $1"
            " for no key update",
            subject,
        )
        here = await connection.fetchrow(
            "select failed_count, lock_count, locked_until, failed_at from sign_in_address"
            " where staff_id = $1 and address = $2",
            subject,
            attempt.address,
        )
        if row is None or here is None:
            return
        await _keep_address(
            connection,
            subject,
            attempt.address,
            uncounted(_failures(here), attempt._after[0], attempt._before[0]),
        )
        if attempt._after[1] != attempt._before[1]:
            await _keep_strangers(
                connection, subject, uncounted(_failures(row), attempt._after[1], attempt._before[1])
            )


async def unlock(connection: asyncpg.Connection, staff_id: bytes) -> bool:
    """Every lock of this account goes: of addresses, strangers and codes. False: no such account."""
    id_ = UUID(bytes=staff_id)
    async with connection.transaction():
        # In the order in which a sign-in locks them.
        await connection.execute(f"update second_factor set {_NO_FAILURES} where staff_id = $1", id_)
        found = await connection.fetchval(
            f"update staff set {_NO_FAILURES} where id = $1 returning true", id_
        )
        await connection.execute(f"update sign_in_address set {_NO_FAILURES} where staff_id = $1", id_)
    return bool(found)


async def locked_until(connection: asyncpg.Connection, staff_id: bytes, now: datetime) -> datetime | None:
    """The latest end of the locks that are on now, wherever they are."""
    ends: datetime | None = await connection.fetchval(
        "select max(locked_until) from ("
        " select locked_until from staff where id = $1"
        " union all select locked_until from sign_in_address where staff_id = $1"
        " union all select locked_until from second_factor where staff_id = $1) l where locked_until > $2",
        UUID(bytes=staff_id),
        now,
    )
    return ends


# One step, for those who have shown their password.


async def allow_step(
    connection: asyncpg.Connection, staff_id: bytes, step: Step, token: bytes, now: datetime
) -> None:
    """Whoever shows this token may do this one step, for STEP. Earlier tokens of theirs open nothing now."""
    async with connection.transaction():
        await connection.execute("delete from sign_in_step where staff_id = $1", UUID(bytes=staff_id))
        await connection.execute(
            "insert into sign_in_step (token_hash, staff_id, step, made_at, ends_at)"
            " values ($1, $2, $3, $4, $5)",
            hashlib.sha256(token).digest(),
            UUID(bytes=staff_id),
            step,
            now,
            now + STEP,
        )


async def staff_of_step(
    connection: asyncpg.Connection, step: Step, token: bytes, now: datetime, *, ends: bool
) -> Staff | None:
    """Whose the token is, while it is good for this step. `ends`: not after this any more; asked inside the
    transaction of what it allows."""
    condition = "token_hash = $1 and step = $2 and ends_at > $3"
    arguments = (hashlib.sha256(token).digest(), step, now)
    if ends:
        staff_id = await connection.fetchval(
            f"delete from sign_in_step where {condition} returning staff_id", *arguments
        )
    else:
        staff_id = await connection.fetchval(
            f"select staff_id from sign_in_step where {condition}", *arguments
        )
    if staff_id is None:
        return None
    row = await connection.fetchrow(f"select {COLUMNS} from staff where id = $1 and not disabled", staff_id)
    return None if row is None else staff_of_row(row)


async def forget(connection: asyncpg.Connection, now: datetime) -> None:
    """What no sign-in looks at any more."""
    await connection.execute(
        "delete from sign_in_address where coalesce(failed_at < $1, true)"
        " and coalesce(succeeded_at < $2, true)",
        now - FAILURES_KEPT,
        now - FAMILIAR,
    )
    await connection.execute("delete from sign_in_step where ends_at < $1", now)


def _nameless(username: str) -> UUID:
    digest = hashlib.sha256(username.encode(errors="replace")).digest()
    return UUID(int=int.from_bytes(digest[:8], "big") % NAMELESS)


def _failures(row: asyncpg.Record) -> Failures:
    return Failures(row["failed_count"], row["lock_count"], row["locked_until"], row["failed_at"])


async def _keep_address(
    connection: asyncpg.Connection, subject: UUID, address: str, failures: Failures
) -> None:
    await connection.execute(
        "insert into sign_in_address (staff_id, address, failed_count, lock_count, locked_until, failed_at)"
        " values ($1, $2, $3, $4, $5, $6)"
        " on conflict (staff_id, address)"
        " do update set failed_count = $3, lock_count = $4, locked_until = $5, failed_at = $6",
        subject,
        address,
        failures.count,
        failures.locks,
        failures.locked_until,
        failures.last_at,
    )


async def _keep_strangers(connection: asyncpg.Connection, subject: UUID, failures: Failures) -> None:
    await connection.execute(
        "update staff set failed_count = $2, lock_count = $3, locked_until = $4, failed_at = $5"
        " where id = $1",
        subject,
        failures.count,
        failures.locks,
        failures.locked_until,
        failures.last_at,
    )
