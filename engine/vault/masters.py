"""The few master keys in table vault_key: made, read, added to, wrapped anew. Unwrapped they are never
written."""

import secrets
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from engine.vault.failed import VaultFailed
from engine.vault.kek import Kek
from engine.vault.sealing import KEY_BYTES, Profile, place_of
from engine.vault.vault import Master, Masters

DATA: Final = "data"
INDEX: Final = "index"
ANNOUNCED_SECONDS: Final = 10
"""From a new master key's commit to its first use. Gateways look every FOLLOW_SECONDS (opening.py)."""
_LOCK: Final = "select pg_advisory_xact_lock(hashtext('xinglin.vault'))"


async def are_made(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select exists (select from vault_key)"))


async def make(connection: asyncpg.Connection, kek: Kek, profile: Profile) -> None:
    """The first of each purpose; nothing where they are there, however many processes start together."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        if not await are_made(connection):
            await _insert(connection, kek, DATA, 1, profile, None)
            await _insert(connection, kek, INDEX, 1, profile, None)


async def read(connection: asyncpg.Connection, kek: Kek) -> Masters:
    """Raises VaultFailed where this key does not open them."""
    data, index = {}, b""
    for row in await connection.fetch("select * from vault_key order by purpose, version"):
        secret = kek.unwrap(row["wrapped"], _place(row["purpose"], row["version"]))
        if row["purpose"] == INDEX:
            index = secret
        else:
            profile = Profile(row["profile"])
            data[row["version"]] = Master(row["version"], secret, profile, row["active_from"].timestamp())
    if not data or not index:
        raise VaultFailed("the database has no master keys in table vault_key: restore it from a backup")
    return Masters(data, index)


async def versions(connection: asyncpg.Connection) -> frozenset[int]:
    """Of master keys for data."""
    rows = await connection.fetch("select version from vault_key where purpose = 'data'")
    return frozenset(row["version"] for row in rows)


async def add(connection: asyncpg.Connection, kek: Kek, profile: Profile, announced_seconds: float) -> int:
    """A new master key for data, in use from so many seconds later; its version."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        if not await are_made(connection):
            raise VaultFailed("this database has no vault yet: `xinglin serve` makes it")
        await read(connection, kek)  # the right key, or nothing is added
        last = await connection.fetchval("select max(version) from vault_key where purpose = 'data'")
        active = await connection.fetchval("select clock_timestamp()") + timedelta(seconds=announced_seconds)
        await _insert(connection, kek, DATA, last + 1, profile, active)
        return int(last) + 1


async def rekek(connection: asyncpg.Connection, kek: Kek, profile: Profile) -> int:
    """Wraps every master key with the newest key outside; how many were wrapped by another before."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        rows = await connection.fetch("select * from vault_key where kek <> $1 for update", kek.id)
        for row in rows:
            place = _place(row["purpose"], row["version"])
            await connection.execute(
                "update vault_key set wrapped = $3, kek = $4 where purpose = $1 and version = $2",
                row["purpose"],
                row["version"],
                kek.wrap(kek.unwrap(row["wrapped"], place), place, profile),
                kek.id,
            )
        return len(rows)


async def _insert(
    connection: asyncpg.Connection,
    kek: Kek,
    purpose: str,
    version: int,
    profile: Profile,
    active_from: datetime | None,
) -> None:
    await connection.execute(
        "insert into vault_key (purpose, version, wrapped, kek, profile, active_from)"
        " values ($1, $2, $3, $4, $5, coalesce($6, now()))",
        purpose,
        version,
        kek.wrap(secrets.token_bytes(KEY_BYTES), _place(purpose, version), profile),
        kek.id,
        int(profile),
        active_from,
    )


def _place(purpose: str, version: int) -> bytes:
    return place_of(f"vault_key.{purpose}", version.to_bytes(4, "big"))
