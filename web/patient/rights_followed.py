"""Rights that end while somebody watches: tickets on the stream are looked at again. And names that change:
this gateway forgets what it knew.

PostgreSQL tells which account's right has changed (migration 0022). Whoever was subscribing at that very
moment may have been looked at before, and be there after: so each is looked at twice.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
from aiohttp import web

from engine.database import AWAY, connect
from engine.records.delegations import changed_since
from web import keys
from web.errors import DATABASE_AWAY

log = logging.getLogger(__name__)

CHANNEL: Final = "right"
NAMES_CHANNEL: Final = "name"
LISTEN_AGAIN_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 2.0
LOST: Final = timedelta(minutes=5)
"""Changes so old are looked at when a connection to the database is back."""


async def follow_rights(app: web.Application, database_url: str) -> None:
    """For as long as it is awaited."""
    while True:
        try:
            await _until_lost(await connect(database_url), app)
        except AWAY as error:
            log.warning("not listening for rights: %s", type(error).__name__)
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)


async def _until_lost(connection: asyncpg.Connection, app: web.Application) -> None:
    changed: dict[bytes, None] = {}  # each account once, however often
    news = asyncio.Event()

    def hear(*told: Any) -> None:
        changed[UUID(hex=told[3]).bytes] = None
        news.set()

    names = app[keys.FEEDS].names
    await connection.add_listener(CHANNEL, hear)
    await connection.add_listener(NAMES_CHANNEL, lambda *told: names.forget(UUID(hex=told[3]).bytes))
    names.forget_all()  # what changed while nobody listened
    connection.add_termination_listener(lambda *_: news.set())
    try:
        changed.update(dict.fromkeys(await changed_since(connection, datetime.now(UTC) - LOST)))
        async with asyncio.TaskGroup() as looking:
            while not connection.is_closed():
                while changed:
                    looking.create_task(_look_twice(app, changed.popitem()[0]))
                await news.wait()
                news.clear()
    finally:
        connection.terminate()


async def _look_twice(app: web.Application, account_id: bytes) -> None:
    try:
        await app[keys.FEEDS].look_again(account_id)
        await asyncio.sleep(AGAIN_SECONDS)
        await app[keys.FEEDS].look_again(account_id)
    except DATABASE_AWAY as error:
        log.warning("what an account watches could not be looked at: %s", type(error).__name__)
    except Exception:
        log.exception("what an account watches could not be looked at")
