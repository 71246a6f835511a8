"""What administrators must hear of at once: the stream's topic alerts/break-glass.

A broken glass and its review are told by PostgreSQL to every gateway with their commit. A lost connection is
followed by a look of its own, so nothing that happened meanwhile is missed.
"""

import asyncio
import logging
from datetime import tzinfo
from typing import Final

import asyncpg
import orjson

from engine.database import AWAY, connect
from engine.records import break_glass as records
from engine.records.catalog import ScheduleRow
from web.desk.actors import must_be
from web.errors import Problem
from web.faults import Fault
from web.patient.appointments import uuid
from web.rights.matrix import TOPICS
from web.stream import Stream, Who

log = logging.getLogger(__name__)

TOPIC: Final = "alerts"
BREAK_GLASS: Final = "break-glass"
CHANNEL: Final = "break_glass"
LATEST: Final = 20
AGAIN_SECONDS: Final = 0.5


class Alerts:
    """Of one gateway."""

    def __init__(self, pool: asyncpg.Pool, stream: Stream, zone: tzinfo) -> None:
        self._pool = pool
        self._stream = stream
        self._zone = zone
        stream.sources[TOPIC] = self

    def rows(self, name: str, who: Who) -> list[ScheduleRow]:
        """No schedules. Raises Problem."""
        must_be(who, TOPICS[TOPIC])
        if name != BREAK_GLASS:
            raise Problem(Fault.NO_SUCH_TOPIC)
        return []

    async def snapshot(self, topic: str, name: str) -> bytes:
        """How many wait for a review, and the latest of them: who and when, and nothing about patients."""
        waiting = await records.count_unreviewed(self._pool)
        latest = [
            {
                "id": uuid(one.id),
                "username": one.username,
                "kind": one.kind,
                "at": one.at.astimezone(self._zone),
            }
            for one in await records.latest_unreviewed(self._pool, LATEST)
        ]
        return orjson.dumps({"snapshot": topic, "unreviewed": waiting, "latest": latest})

    async def run(self, database_url: str) -> None:
        """Tells those who watch, for as long as it is awaited."""
        while True:
            try:
                connection = await connect(database_url)
                try:
                    await self._follow(connection)
                finally:
                    await connection.close(timeout=AGAIN_SECONDS)
            except AWAY as error:
                log.warning("not listening for alerts: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _follow(self, connection: asyncpg.Connection) -> None:
        news = asyncio.Event()
        await connection.add_listener(CHANNEL, lambda *_: news.set())
        connection.add_termination_listener(lambda *_: news.set())
        while not connection.is_closed():
            self._stream.renew(f"{TOPIC}/{BREAK_GLASS}")
            await news.wait()
            news.clear()
