"""Data keys under the newest master key, batch by batch, while everybody works on.

Which keys are left is told by the version in the keys themselves, so whoever is stopped goes on where he was.
What the keys have sealed stays as it is.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import asyncpg

from engine.vault.columns import KEY_COLUMNS, KeyColumn
from engine.vault.vault import DataKey, Vault

BATCH: Final = 1_000
_FIRST: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Progress:
    column: KeyColumn
    done: int  # of this column, in this run


async def rewrap(connection: asyncpg.Connection, vault: Vault, batch: int = BATCH) -> AsyncIterator[Progress]:
    """After each batch, until no key is older than the version that is in use at the beginning."""
    version = vault.version
    for column in KEY_COLUMNS:
        done, after = 0, _FIRST
        while True:
            async with connection.transaction():
                # Whoever changes such a row waits for a batch; a key that was erased meanwhile is not found.
                rows = await connection.fetch(
                    f"select {column.id} as id, {column.column} as key from {column.table}"
                    f" where {column.id} > $1 and substring({column.column} from 3 for 4) < $2"
                    f" order by {column.id} limit $3 for update",
                    after,
                    version.to_bytes(4, "big"),
                    batch,
                )
                await connection.executemany(
                    f"update {column.table} set {column.column} = $2 where {column.id} = $1",
                    [
                        (
                            row["id"],
                            vault.rewrapped(DataKey(column.field, row["id"].bytes, row["key"])).wrapped,
                        )
                        for row in rows
                    ],
                )
            done += len(rows)
            if rows:
                yield Progress(column, done)
            if len(rows) < batch:
                break
            after = rows[-1]["id"]


async def keys_by_version(connection: asyncpg.Connection) -> dict[int, int]:
    """Version of the master key -> how many data keys it wraps."""
    found: dict[int, int] = {}
    for column in KEY_COLUMNS:
        for version, count in await connection.fetch(
            f"select substring({column.column} from 3 for 4) as version, count(*) from {column.table}"
            f" where {column.column} is not null group by 1"
        ):
            number = int.from_bytes(version, "big")
            found[number] = found.get(number, 0) + count
    return found
