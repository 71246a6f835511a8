"""What a process beside an outside system has, in the test's own process and without actors."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from actors.directory import Directory
from engine.domain.policy import Policy
from engine.records.catalog import load_catalog
from engine.settings import Settings
from engine.vault.vault import Vault
from web.sync.app import SyncApp
from web.sync.config import SyncConfig, SystemsConfig


@asynccontextmanager
async def beside(name: str, at: Any, url: str, pool: asyncpg.Pool, vault: Vault) -> AsyncIterator[SyncApp]:
    """`at`: what its connector is made of. It asks no actors."""
    config = SyncConfig(Settings(), SystemsConfig(**{name: at}), url, secrets.token_bytes(32), None)
    async with pool.acquire() as connection:
        catalog = await load_catalog(connection)
    async with ClientSession() as session:
        nobody = cast(Directory, None)
        yield SyncApp(name, config, pool, vault, nobody, session, CollectorRegistry(), catalog, Policy())
