"""What every process beside an outside system has: the database, the vault, the actors, the catalog."""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import ClientSession, TCPConnector
from prometheus_client import CollectorRegistry

from actors.directory import Directory
from engine.domain.policy import Policy
from engine.records.catalog import Catalog, load_catalog
from engine.records.catalog_changes import follow_catalog
from engine.records.policies import load_policy, of_settings
from engine.records.policy_file import PolicyRefused
from engine.settings import Settings
from engine.vault.opening import follow as follow_vault
from engine.vault.opening import kek_of, open_vault
from engine.vault.vault import Vault
from web.sync.config import SyncConfig, SystemsConfig

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 8
LINES_MAX = 512  # of HTTP to the outside; outboxes bound what is under way
SECONDS_MAX = 15.0  # of one statement: nobody waits for an answer here, but nothing waits for ever


class SyncSystem(Protocol):
    """An outside system as its process sees it."""

    async def run(self) -> None:
        """For as long as the process lives: its outbox, listeners and rounds. What it raises is logged, and
        it is made anew after a pause."""


@dataclass(slots=True)
class SyncApp:
    name: str
    config: SyncConfig
    pool: asyncpg.Pool
    vault: Vault
    directory: Directory
    client: ClientSession
    registry: CollectorRegistry
    catalog: Catalog  # follows what is imported
    policy: Policy  # the one in force
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.config.settings

    @property
    def systems(self) -> SystemsConfig:
        return self.config.systems

    @property
    def database_url(self) -> str:
        return self.config.database_url

    @property
    def token_secret(self) -> bytes:
        return self.config.token_secret

    @property
    def zone(self) -> ZoneInfo:
        """The hospital's."""
        return self.catalog.hospital.zone

    def now(self) -> datetime:
        return datetime.now(UTC)

    def follow(self) -> None:
        """Keeps catalog, policy and vault fresh until closed."""
        self._tasks = [
            asyncio.create_task(follow_catalog(self.database_url, self._read)),
            asyncio.create_task(follow_vault(self.vault, self.pool, partial(kek_of, self.settings))),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.directory.close()
        await self.client.close()
        self.pool.terminate()

    async def _read(self) -> None:
        async with self.pool.acquire() as connection:
            self.catalog = await load_catalog(connection)
            try:
                self.policy = await load_policy(connection, self.policy)
            except PolicyRefused as error:
                log.error("the policy in force cannot be read, so the one before it stays: %s", error)


async def opened(name: str, config: SyncConfig, directory: Directory, registry: CollectorRegistry) -> SyncApp:
    """Raises what the database or the vault raise."""
    pool = await asyncpg.create_pool(
        config.database_url,
        min_size=0,
        max_size=CONNECTIONS_MAX,
        timeout=SECONDS_MAX,
        command_timeout=SECONDS_MAX,
    )
    try:
        async with pool.acquire() as connection:
            vault = await open_vault(connection, config.settings)
            catalog = await load_catalog(connection)
            policy = await load_policy(connection, of_settings(config.settings))
    except BaseException:
        pool.terminate()
        raise
    client = ClientSession(connector=TCPConnector(limit=LINES_MAX))
    app = SyncApp(name, config, pool, vault, directory, client, registry, catalog, policy)
    app.follow()
    return app
