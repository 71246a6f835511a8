"""Rounds are done by one process at a time, and never wait for what they hold themselves."""

import asyncio
from contextlib import suppress

import asyncpg

from actors.rounds import Round, go

SECONDS_MAX = 20


async def ended(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_rounds_that_use_the_whole_pool_get_through(database: str) -> None:
    """Six at one instant, and one connection for their work."""
    pool = await asyncpg.create_pool(database, min_size=1, max_size=1)
    done: asyncio.Queue[str] = asyncio.Queue()

    def each(name: str) -> Round:
        async def work() -> None:
            await pool.fetchval("select 1")
            done.put_nowait(name)

        return Round(name, 0.0, work)

    going = asyncio.create_task(go(database, [each(f"r{n}") for n in range(6)]))
    seen: set[str] = set()
    async with asyncio.timeout(SECONDS_MAX):
        while len(seen) < 6:
            seen.add(await done.get())
    await ended(going)
    await pool.close()


async def test_one_goes_and_the_next_takes_over_when_its_connection_is_gone(database: str) -> None:
    done: asyncio.Queue[str] = asyncio.Queue()

    def goer(name: str) -> "asyncio.Task[None]":
        async def work() -> None:
            done.put_nowait(name)

        return asyncio.create_task(go(database, [Round("r", 0.01, work)]))

    goers = {name: goer(name) for name in ("first", "second")}
    async with asyncio.timeout(SECONDS_MAX):
        leader = await done.get()
        assert {await done.get() for _ in range(20)} == {leader}
        await ended(goers.pop(leader))
        (heir,) = goers
        while await done.get() != heir:
            pass
    await ended(*goers.values())


async def test_a_round_that_fails_comes_again(database: str) -> None:
    tries: asyncio.Queue[int] = asyncio.Queue()

    async def work() -> None:
        tries.put_nowait(1)
        raise RuntimeError("not this time")

    going = asyncio.create_task(go(database, [Round("r", 0.0, work)]))
    async with asyncio.timeout(SECONDS_MAX):
        for _ in range(3):
            await tries.get()
    await ended(going)
