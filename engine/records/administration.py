"""What administrators do to staff accounts, each in a transaction of the caller's. Ids are 16 bytes."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from engine.records.staff import COLUMNS, NewStaff, Staff, add_staff, staff_of_row


@dataclass(frozen=True, slots=True)
class Account:
    """One account, locked until the transaction ends."""

    staff: Staff
    disabled: bool
    is_demo: bool
    made_by: bytes | None  # None: at the machine


async def make_account(
    connection: asyncpg.Connection, new: NewStaff, new_id: bytes, maker: bytes, now: datetime
) -> Staff:
    """An account without any role: somebody else gives it one. Raises StaffRefused."""
    made = await add_staff(connection, new, new_id, now, roles_later=True)
    await connection.execute(
        "update staff set made_by = $2 where id = $1", UUID(bytes=made.id), UUID(bytes=maker)
    )
    return made


async def account_of(connection: asyncpg.Connection, staff_id: bytes) -> Account | None:
    row = await connection.fetchrow(
        f"select {COLUMNS}, disabled, is_demo, made_by from staff where id = $1 for update",
        UUID(bytes=staff_id),
    )
    if row is None:
        return None
    made_by = row["made_by"]
    return Account(
        staff_of_row(row), row["disabled"], row["is_demo"], None if made_by is None else made_by.bytes
    )


async def set_disabled(connection: asyncpg.Connection, staff_id: bytes, disabled: bool) -> None:
    """Who is disabled is signed out, by a trigger."""
    await connection.execute("update staff set disabled = $2 where id = $1", UUID(bytes=staff_id), disabled)
