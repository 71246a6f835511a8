"""One clock for all shards: the database's. Machines disagree about the time; holds and claims must not."""

import asyncio
import time
from typing import Final

import asyncpg

SYNC_SECONDS: Final = 30.0


class DatabaseClock:
    """Milliseconds since the epoch as the database has them, carried on by this machine's monotonic clock."""

    def __init__(self) -> None:
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000

    def now(self) -> int:
        return int(time.monotonic() * 1000 + self._offset_ms)

    async def sync(self, pool: asyncpg.Pool) -> None:
        """The answer is taken to be from the middle of its round trip."""
        asked = time.monotonic()
        theirs: float = await pool.fetchval("select extract(epoch from clock_timestamp())::float8")
        self._offset_ms = theirs * 1000 - (asked + time.monotonic()) / 2 * 1000

    async def keep_in_step(self, pool: asyncpg.Pool) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await self.sync(pool)
