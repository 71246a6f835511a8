"""What has to be looked at from time to time, by one process of all that could.

A round is done by whoever holds its lock in PostgreSQL just then; the others pass. Each must be harmless when
it is done again, and must find by itself where it was left.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    name: str
    seconds: float  # between the end of one and the next
    work: Callable[[], Awaitable[None]]


async def go(pool: asyncpg.Pool, rounds: list[Round]) -> None:
    """For as long as it is awaited. What fails is logged, and comes again."""
    await asyncio.gather(*(_go(pool, each) for each in rounds))


async def _go(pool: asyncpg.Pool, each: Round) -> None:
    while True:
        await asyncio.sleep(each.seconds)
        try:
            async with pool.acquire() as connection:
                if not await connection.fetchval("select pg_try_advisory_lock(hashtext($1))", each.name):
                    continue
                try:
                    await each.work()
                finally:
                    await connection.execute("select pg_advisory_unlock(hashtext($1))", each.name)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("the round %s waits for the database: %s", each.name, error)
        except Exception:
            log.exception("the round %s failed", each.name)
