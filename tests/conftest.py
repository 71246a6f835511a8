"""One PostgreSQL for the whole run, and a fresh, migrated database for each test that asks."""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from engine import database as db
from engine import embedded_postgres
from engine.vault.sealing import Profile
from engine.vault.vault import Vault, made_masters

_names = (f"t{os.getpid()}_{n}" for n in itertools.count())


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded_postgres.EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="xinglin-test-") as folder:
        Path(folder).chmod(0o755)
        server = embedded_postgres.start(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
async def database(postgres: embedded_postgres.EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a database of this test's own, with the schema in it."""
    server = postgres.url.rpartition("/")[0]
    name = next(_names)
    await db.create_if_missing(f"{server}/{name}")
    connection = await asyncpg.connect(f"{server}/{name}")
    await db.migrate(connection)
    await connection.close()
    yield f"{server}/{name}"
    admin = await asyncpg.connect(f"{server}/postgres")
    await admin.execute(f'drop database "{name}" with (force)')
    await admin.close()


@pytest.fixture
def vault() -> Vault:
    """One of this test's own: no database knows its keys."""
    return Vault(made_masters(), Profile.AES)
