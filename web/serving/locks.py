"""Who may serve from one database beside whom: everything in one, or each service once.

Two of a kind would fence each other off for ever, or do everything twice: the second one stays out. The locks
are PostgreSQL's, of a session: they go with the connection, and so with a process that died.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from engine import database
from engine.database import AWAY
from engine.services import ALL, Service

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 0.1
_WHOLE: Final = "xinglin.serve"
_ALONE: Final = "select pg_try_advisory_lock(hashtext($1))"
_BESIDE_PARTS: Final = "select pg_try_advisory_lock_shared(hashtext($1))"


class Taken(Exception):
    """One line that says who serves already."""


async def take(connection: asyncpg.Connection, url: str, services: frozenset[Service]) -> None:
    """Holds the locks of these services for as long as the connection lives. Raises Taken."""
    where = database.address_of(url)
    if services == ALL:
        if not await connection.fetchval(_ALONE, _WHOLE):
            raise Taken(f"another xinglin serves from {where}: stop it, or use another database")
        return
    if not await connection.fetchval(_BESIDE_PARTS, _WHOLE):
        raise Taken(f"another xinglin serves everything from {where}: stop it, or use another database")
    for service in sorted(services):
        if not await connection.fetchval(_ALONE, f"{_WHOLE}.{service}"):
            raise Taken(f"another xinglin serves {service} from {where}: stop that one first")


@contextlib.asynccontextmanager
async def held(url: str, services: frozenset[Service], lost: asyncio.Event) -> AsyncIterator[None]:
    """For as long as the context lasts. `lost` is set when another one took over while the database was away.

    Raises Taken.
    """
    connection = await database.connect(url)
    try:
        await take(connection, url, services)
    except BaseException:
        await connection.close()
        raise
    keeper = asyncio.create_task(_keep(url, connection, services, lost))
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def _keep(
    url: str, connection: asyncpg.Connection, services: frozenset[Service], lost: asyncio.Event
) -> None:
    """The locks go with their connection: after a lost one they are taken again, or we stop."""
    try:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if connection.is_closed():
                try:
                    connection = await database.connect(url)
                except database.DatabaseAway:
                    continue
                try:
                    await take(connection, url, services)
                except Taken:
                    log.critical("another xinglin took over while the database was away: this one stops")
                    lost.set()
    finally:
        with contextlib.suppress(*AWAY):
            await connection.close(timeout=2)
