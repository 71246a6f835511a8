"""Hearing of a changed catalog: every gateway and shard process follows this."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg

from engine.database import AWAY, connect

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 0.2


async def follow_catalog(database_url: str, act: Callable[[], Awaitable[None]]) -> None:
    """Calls `act` now and after every change, for as long as it is awaited; also after a lost connection, for
    something may have changed while nobody listened."""
    while True:
        try:
            await _until_lost(await connect(database_url), act)
        except AWAY as error:
            log.warning("not listening for catalog changes: %s", error)
        await asyncio.sleep(AGAIN_SECONDS)


async def _until_lost(connection: asyncpg.Connection, act: Callable[[], Awaitable[None]]) -> None:
    changed = asyncio.Event()
    changed.set()
    await connection.add_listener("catalog", lambda *_: changed.set())
    connection.add_termination_listener(lambda *_: changed.set())
    while not connection.is_closed():
        await changed.wait()
        changed.clear()
        await act()
