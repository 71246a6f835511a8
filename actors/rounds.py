"""What has to be looked at from time to time, by one process of all that could.

Whoever holds the lock in PostgreSQL does the rounds, and holds it on a connection of its own: the pool is
for the work, and whoever waited for it while holding a part of it could wait for ever. The lock goes with the
connection, and so with a process that died. A round must be harmless when it is done again, and must find by
itself where it was left.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import asyncpg

from engine.database import AWAY, connect

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 1.0  # between two looks at the lock, and at whether it is ours still
_LOCK: Final = "select pg_try_advisory_lock(hashtext($1))"
LOCK_NAME: Final = "xinglin.rounds"


@dataclass(frozen=True, slots=True)
class Round:
    name: str
    seconds: float  # between the end of one and the next
    work: Callable[[], Awaitable[None]]


async def go(database_url: str, rounds: list[Round], lock: str = LOCK_NAME) -> None:
    """For as long as it is awaited. `lock` names the one that all who could do these rounds share."""
    while True:
        try:
            connection = await connect(database_url)
            try:
                await _while_ours(connection, rounds, lock)
            finally:
                connection.terminate()
        except AWAY as error:
            log.warning("the rounds wait for the database: %s", error)
        await asyncio.sleep(AGAIN_SECONDS)


async def _while_ours(connection: asyncpg.Connection, rounds: list[Round], lock: str) -> None:
    while not await connection.fetchval(_LOCK, lock):
        await asyncio.sleep(AGAIN_SECONDS)
    tasks = [asyncio.create_task(_go(each)) for each in rounds]
    try:
        while not connection.is_closed():
            await asyncio.sleep(AGAIN_SECONDS)
    finally:
        for task in tasks:
            task.cancel()


async def _go(each: Round) -> None:
    """What fails is logged, and comes again."""
    while True:
        await asyncio.sleep(each.seconds)
        try:
            await each.work()
        except AWAY as error:
            log.warning("the round %s waits for the database: %s", each.name, error)
        except Exception:
            log.exception("the round %s failed", each.name)
