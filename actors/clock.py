"""One clock for all shards: the database's. Machines disagree about the time; holds and claims must not."""

import asyncio
import time
from typing import Final

import asyncpg

SYNC_SECONDS: Final = 30.0
SAMPLES: Final = 5
GOOD_SECONDS: Final = 0.005  # a round trip that needs no second try


class DatabaseClock:
    """Milliseconds since the epoch as the database has them, carried on by this machine's monotonic clock."""

    def __init__(self) -> None:
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000

    def now(self) -> int:
        return int(time.monotonic() * 1000 + self._offset_ms)

    async def sync(self, pool: asyncpg.Pool) -> None:
        """Of several answers the one that came soonest is taken to be from the middle of its round trip: on
        a machine with much to do a round trip may take a second, and then the middle says little."""
        best = float("inf")
        async with pool.acquire() as connection:
            for _ in range(SAMPLES):
                asked = time.monotonic()
                theirs: float = await connection.fetchval(
                    "select extract(epoch from clock_timestamp())::float8"
                )
                answered = time.monotonic()
                if answered - asked < best:
                    best = answered - asked
                    offset_ms = theirs * 1000 - (asked + answered) / 2 * 1000
                if best <= GOOD_SECONDS:
                    break
        self._offset_ms = offset_ms

    async def keep_in_step(self, pool: asyncpg.Pool) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await self.sync(pool)
