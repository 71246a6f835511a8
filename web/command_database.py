"""The database that a command works on, with a server running or without."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from engine.settings import Settings
from web.command_line import fail

T = TypeVar("T")


def with_database(
    settings: Settings, work: Callable[[asyncpg.Connection], Awaitable[T]], only_read: bool = False
) -> T:
    """What `work` gives. What the database is not fit for ends the command with one line.

    `only_read`: it must be there, with its schema; else it is made, and brought up to this version.
    """
    from engine import database
    from web.importing import DATABASE_FAILURES, database_of

    async def done(url: str) -> T:
        if settings.database_url is None and not only_read:
            await database.create_if_missing(url)
        connection = await database.connect(url)
        try:
            if not only_read:
                await database.migrate(connection)
            return await work(connection)
        except asyncpg.UndefinedTableError:
            where = database.address_of(url)
            raise database.DatabaseFailed(f"{where} is not Xinglin's, or not of this version") from None
        finally:
            await connection.close()

    home = settings.home.resolve()
    if only_read and settings.database_url is None and not (home / "postgres").exists():
        fail(f"there is no database in {home}: pass its --home, or --database-url")
    try:
        with database_of(settings) as url:
            return asyncio.run(done(url))
    except DATABASE_FAILURES as failed:
        fail(str(failed))
