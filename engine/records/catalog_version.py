"""One writer of the catalog at a time, and everybody hears of what was written."""

import asyncpg


async def lock_catalog(connection: asyncpg.Connection) -> None:
    """One writer of catalog, policy and schedules at a time, until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('xinglin.catalog'))")


async def announce_change(connection: asyncpg.Connection) -> int:
    """The new catalog version; whoever listens on `catalog` hears it once the transaction commits."""
    version = await connection.fetchval("update catalog_version set version = version + 1 returning version")
    await connection.execute("select pg_notify('catalog', $1)", str(version))
    return int(version)
