"""The peer that counts in Redis and writes later. Fast, and it answers before anything is durable: what is in
the queue when the process or the machine dies was promised and is lost."""

import asyncio
import time
from typing import Any

import asyncpg
import redis.asyncio as redis

from benchmarks.peers.sql import _INSERT, Booking, Full, SqlDirectory
from engine.domain import schedule as s
from engine.domain.policy import Policy

WRITE_SECONDS = 0.02

_TAKE = """
if redis.call('exists', KEYS[2]) == 1 or redis.call('exists', KEYS[3]) == 1 then return -1 end
local taken = tonumber(redis.call('get', KEYS[1]) or '0')
if taken >= tonumber(ARGV[1]) then return -1 end
redis.call('set', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('set', KEYS[3], ARGV[2], 'PX', ARGV[3])
return redis.call('incr', KEYS[1])
"""


class RedisDirectory(SqlDirectory):
    def __init__(self, pool: asyncpg.Pool, url: str, capacity: int, policy: Policy) -> None:
        async def unused(*_: object) -> int:
            raise AssertionError

        super().__init__(pool, unused, policy)
        self._redis = redis.Redis.from_url(url)
        self._take = self._redis.register_script(_TAKE)
        self._capacity = capacity
        self._later: list[tuple[Any, ...]] = []
        self._writer = asyncio.create_task(self._write())

    async def book(self, command: s.HoldSeat, b: Booking) -> int:
        number = await self._take(
            keys=[f"slot:{b.slot_id}", b"day:" + b.claims[0], b"time:" + b.claims[1]],
            args=[self._capacity, b.id, round((b.hold_until - b.now).total_seconds() * 1000)],
        )
        if number < 0:
            raise Full
        self._later.append(
            (b.id, b.schedule_id, b.slot_id, number - 1, self._capacity, number, b.patient, b.account)
            + (b.starts_at, b.hold_until, b.now)
        )
        return int(number)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            batch, self._later = self._later, []
            if batch:
                async with self._pool.acquire() as connection:
                    await connection.executemany(_INSERT, batch)

    async def close(self) -> None:
        ends = time.monotonic() + 30
        while self._later and time.monotonic() < ends:
            await asyncio.sleep(WRITE_SECONDS)
        self._writer.cancel()
        await self._redis.aclose()
