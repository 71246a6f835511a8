"""A service that has no shards waits for the one that has: it brings the schema, the vault and the routes."""

import asyncio
import contextlib
import logging
from typing import Final

from engine import database
from engine.database import AWAY
from engine.records.shard_routes import read_routes
from engine.services import Service
from engine.settings import Settings
from engine.vault import masters
from engine.vault.opening import kek_of

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5


class CannotJoin(Exception):
    """One line that says why this service and the one of the shards are not of one installation."""


async def joined(url: str, settings: Settings, token_secret: bytes, stopping: asyncio.Event) -> bool:
    """Whether everything is there, at last; False when told to stop meanwhile.

    Says once what it waits for. Raises CannotJoin, DatabaseFailed or VaultFailed where waiting does not help.
    """
    said = ""
    while not stopping.is_set():
        lacking = await _lacking(url, settings, token_secret)
        if not lacking:
            return True
        if lacking != said:
            print(f"waiting for the service {Service.BOOKING}: {lacking}", flush=True)
            said = lacking
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
    return False


async def _lacking(url: str, settings: Settings, token_secret: bytes) -> str:
    """What is not there yet; empty: nothing."""
    try:
        connection = await database.connect(url)
    except database.DatabaseAway as away:  # it was there at the start
        return str(away)
    try:
        if missing := await database.missing_steps(connection):
            return f"the database's schema is too old (without {missing[-1]}), and that service brings it up"
        run = (await read_routes(connection)).run
        if run is None or not await masters.are_made(connection):
            return "it has not served from this database yet"
        if not run.is_ours(token_secret):
            raise CannotJoin(
                f"the service {Service.BOOKING} has another token secret: give both one --home, or the same"
                f" XINGLIN_TOKEN_SECRET (and start {Service.BOOKING} first where it is a new one)"
            )
        await masters.read(connection, kek_of(settings))  # with the key that is here
        return ""
    except AWAY as error:
        return f"the database does not answer ({type(error).__name__})"
    finally:
        connection.terminate()
