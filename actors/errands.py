"""What has to be done next, across actors.

An errand is a row that is written in the same transaction as the events that make it necessary: a session was
called off, so each of its patients must be looked after; a wish was met, so it must leave the other waiting
lists. Whoever runs them may die at any time: an errand is done at least once, and every handler is harmless
when it is done twice. Any number of processes may run them; a row is leased to one at a time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import asyncpg
import orjson

from engine.database import AWAY, connect

log = logging.getLogger(__name__)

AT_A_TIME: Final = 8
LEASE_SECONDS: Final = 30  # then somebody else may try: whoever had it is dead, or will find it done
LOOK_SECONDS: Final = 1.0  # for what nobody was told of: retries that fall due
AGAIN_SECONDS: Final = 0.2
BACKOFF_SECONDS_MAX: Final = 60.0


class TryAgain(Exception):
    """Not done yet; a later try may do it. `after` seconds, or after a pause that grows."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


Handle = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Does one errand: its key, its data. Raises TryAgain; whatever else it raises is logged and tried again."""


class Errands:
    def __init__(self, database_url: str, pool: asyncpg.Pool, handlers: Mapping[str, Handle]) -> None:
        self._url = database_url
        self._pool = pool
        self._handlers = handlers
        self._room = asyncio.Semaphore(AT_A_TIME)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For as long as it is awaited, also across losses of the database."""
        while True:
            try:
                await self._follow(await connect(self._url))
            except AWAY as error:
                log.warning("errands wait for the database: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _follow(self, connection: asyncpg.Connection) -> None:
        news = asyncio.Event()
        await connection.add_listener("errand", lambda *_: news.set())
        connection.add_termination_listener(lambda *_: news.set())
        try:
            while not connection.is_closed():
                news.clear()
                while await self._take():
                    pass
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), LOOK_SECONDS)
        finally:
            await connection.close(timeout=1)

    async def _take(self) -> bool:
        """Starts what is due, as far as there is room; False when nothing was."""
        await self._room.acquire()
        self._room.release()
        rows = await self._pool.fetch(
            _TAKE, list(self._handlers), LEASE_SECONDS, AT_A_TIME - len(self._running)
        )
        for row in rows:
            await self._room.acquire()
            task = asyncio.create_task(self._do(row))
            self._running.add(task)
            task.add_done_callback(self._done)
        return bool(rows)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an errand could not even be put off", exc_info=error)

    async def _do(self, row: asyncpg.Record) -> None:
        kind, key = row["kind"], row["key"]
        try:
            await self._handlers[kind](key, orjson.loads(row["data"]))
        except TryAgain as again:
            await self._put_off(row, str(again), again.after)
        except Exception as error:
            log.exception("errand %s of %s failed", kind, key)
            await self._put_off(row, f"{type(error).__name__}: {error}", None)
        else:
            # Unless it was asked for anew meanwhile: then the lease is not ours.
            await self._pool.execute(
                "delete from errand where id = $1 and due_at = $2", row["id"], row["due_at"]
            )

    async def _put_off(self, row: asyncpg.Record, why: str, after: float | None) -> None:
        pause = min(0.1 * 2 ** min(row["tries"], 16), BACKOFF_SECONDS_MAX) if after is None else after
        await self._pool.execute(
            "update errand set due_at = now() + make_interval(secs => $3), trouble = $4"
            " where id = $1 and due_at = $2",
            row["id"],
            row["due_at"],
            pause,
            why[:500],
        )


_TAKE: Final = """
update errand set due_at = now() + make_interval(secs => $2), tries = tries + 1
 where id in (select id from errand where due_at <= now() and kind = any ($1)
               order by due_at, id limit $3 for update skip locked)
returning id, kind, key, data::text, tries, due_at"""
"""The moment at which the lease ends tells one taker from the next: who was late changes nothing."""
