"""What runs in a shard's process: nothing at first (a standby), then the shards that are assigned to it."""

import asyncio
import logging
import os
from pathlib import Path
from typing import NoReturn

import asyncpg
from prometheus_client.core import Metric

from actors.clock import DatabaseClock
from actors.interpreter import settle
from actors.lines import ASK, FIGURES, unpack_message, unpack_position
from actors.link import Address, LinkServer
from actors.metrics import samples
from actors.shard import Shard
from engine import database, logs
from engine.database import AWAY, BY_KEY, DatabaseAway, connect
from engine.domain.policy import Policy
from engine.journal.postgres import PostgresJournal
from engine.records.catalog_changes import follow_catalog
from engine.records.reads import PostgresReads
from engine.records.shard_routes import put_route

log = logging.getLogger(__name__)

READ_CONNECTIONS = 2
RECONNECT_SECONDS = 0.2

_AWAY = (
    DatabaseAway,
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
)
"""The database is not there, or not yet."""


def end_process(why: str) -> NoReturn:
    """At once, with no clean-up: what memory holds is not to be trusted, and must reach nobody."""
    log.critical("this process ends: %s", why)
    logging.shutdown()
    os._exit(1)


class ShardProcess:
    def __init__(
        self,
        name: str,
        database_url: str,
        shards: int,
        policy: Policy,
        secret: bytes,
        log_level: str,
        log_file: Path | None,
        log_format: logs.LogFormat = "text",
    ) -> None:
        logs.configure(log_level, log_file, name, log_format)
        self._name = name
        self._url = database_url
        self._shards = shards
        self._policy = policy
        self._clock = DatabaseClock()
        self._pool: asyncpg.Pool | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._serving: dict[int, Shard] = {}
        self._link = LinkServer(secret, self._handle)
        self._address: Address | None = None

    async def ready(self) -> str:
        """Connected and warm; waits for the database as long as it takes."""
        while self._pool is None:
            try:
                (await connect(self._url)).close()
                pool = await database.pool(self._url, max_size=READ_CONNECTIONS, settings=BY_KEY)
                await self._clock.sync(pool)
                self._pool = pool
                self._tasks += [
                    asyncio.create_task(self._keep_in_step(pool)),
                    asyncio.create_task(follow_catalog(self._url, self._catalog_changed)),
                ]
            except (DatabaseAway, OSError, asyncpg.PostgresError) as failed:
                log.warning("waiting for the database: %s", failed)
                await asyncio.sleep(RECONNECT_SECONDS)
        return self._name

    def host(self) -> str:
        """The address by which gateways reach this process; actors/cluster.py knows better on a cluster."""
        return "127.0.0.1"

    async def assign(self, shard_id: int) -> Address:
        """Takes the shard over: whoever served it before is fenced off from here on. Gives where it is."""
        await self.ready()
        if self._address is None:
            self._address = await self._link.start(self.host())
        if shard_id not in self._serving:
            await self._take_over(shard_id)
        return self._address

    async def _take_over(self, shard_id: int) -> None:
        """However long the database takes to come back: this process is warm, another one would not be."""
        while shard_id not in self._serving:
            try:
                self._serving[shard_id] = await self._started(shard_id)
            except _AWAY as away:
                log.warning("shard %d waits for the database: %s", shard_id, away)
                await asyncio.sleep(RECONNECT_SECONDS)
        settle()

    async def _started(self, shard_id: int) -> Shard:
        assert self._pool is not None
        write = await connect(self._url, BY_KEY)
        try:
            shard = Shard(
                shard_id,
                self._shards,
                PostgresJournal(shard_id, write, self._pool),
                PostgresReads(self._pool),
                self._clock.now,
                end_process,
                self._policy,
            )
            await shard.start()
            assert self._address is not None
            await put_route(write, shard_id, self._address, shard.feed.epoch)
        except BaseException:
            write.terminate()
            raise
        return shard

    async def _handle(self, body: bytes) -> bytes | None:
        """A gateway's message: see actors/lines.py for what it says."""
        kind, shard_id, rest = unpack_message(body)
        shard = self._serving.get(shard_id)
        if shard is None:
            return None
        if kind == ASK:
            return await shard.ask(rest)
        if kind == FIGURES:
            return await shard.figures()
        return await shard.changes(*unpack_position(rest))

    async def metrics(self) -> list[Metric]:
        return [
            metric
            for shard_id, shard in self._serving.items()
            for metric in samples(shard.metrics.registry, f"shard-{shard_id}")
        ]

    async def until_the_end(self) -> None:
        """Never returns: whoever waits for it learns of this process's death."""
        await asyncio.Event().wait()

    async def pid(self) -> int:
        return os.getpid()

    async def stop(self) -> None:
        for shard in self._serving.values():
            await shard.stop()
        await self._link.stop()

    async def _keep_in_step(self, pool: asyncpg.Pool) -> None:
        while True:
            try:
                await self._clock.keep_in_step(pool)
            except AWAY as error:
                log.warning("the clock could not be compared: %s", error)

    async def _catalog_changed(self) -> None:
        for shard in list(self._serving.values()):
            await shard.forget_the_unopened()
