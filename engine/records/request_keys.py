"""Idempotency-Keys of writes that no actor keeps, in the write's own transaction: both are, or neither.

A write that is refused rolls back, and its key is as free as before. Keys are kept for KEPT_DAYS.
"""

import hashlib
from datetime import datetime, timedelta
from enum import Enum
from typing import Final
from uuid import UUID

import asyncpg

KEPT_DAYS: Final = 30


class KeyUse(Enum):
    FIRST = "first"
    AGAIN = "again"  # a retry: the write is there, and nothing may be done twice
    OTHER = "other"  # the key belongs to another request


async def use_key(
    conn: asyncpg.Connection, owner: bytes, key: str, asked: tuple[str, ...], now: datetime
) -> KeyUse:
    """Call it first within the write's transaction. `asked` is all that the request says, its kind first.

    Of two that come at once the second waits until the first has ended, and is FIRST if that was refused.
    """
    fingerprint = hashlib.blake2b("\0".join(asked).encode(), digest_size=16).digest()
    taken = await conn.fetchval(
        "insert into request_key (owner, key, fingerprint, at) values ($1, $2, $3, $4)"
        " on conflict (owner, key) do nothing returning true",
        UUID(bytes=owner),
        key,
        fingerprint,
        now,
    )
    if taken:
        return KeyUse.FIRST
    known = await conn.fetchval(
        "select fingerprint from request_key where owner = $1 and key = $2", UUID(bytes=owner), key
    )
    return KeyUse.AGAIN if known == fingerprint else KeyUse.OTHER


async def forget_keys(conn: asyncpg.Connection, now: datetime) -> None:
    await conn.execute("delete from request_key where at < $1", now - timedelta(days=KEPT_DAYS))
