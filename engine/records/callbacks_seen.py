"""Which callbacks were read already, for all gateways. Only what is signed gets in, so nobody can fill it."""

from datetime import datetime, timedelta
from typing import TypeAlias

import asyncpg

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection


async def is_first(executor: Executor, provider: str, key: str, now: datetime, seconds: int) -> bool:
    """Whether it was not there, and keeps it for so long: one step, for two gateways may ask at once."""
    kept = await executor.fetchval(
        "insert into callback_seen (provider, key, until) values ($1, $2, $3)"
        " on conflict (provider, key) do update set until = excluded.until"
        "    where callback_seen.until <= $4 returning true",
        provider,
        key,
        now + timedelta(seconds=seconds),
        now,
    )
    return bool(kept)


async def has(executor: Executor, provider: str, key: str, now: datetime) -> bool:
    return bool(
        await executor.fetchval(
            "select exists (select from callback_seen where provider = $1 and key = $2 and until > $3)",
            provider,
            key,
            now,
        )
    )


async def forget(executor: Executor, provider: str, key: str) -> None:
    """It came to nothing: the same message may come again."""
    await executor.execute("delete from callback_seen where provider = $1 and key = $2", provider, key)


async def forget_old(executor: Executor, now: datetime) -> None:
    await executor.execute("delete from callback_seen where until <= $1", now)
