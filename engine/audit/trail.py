"""The tables of the audit as verification reads them: one snapshot, row after row."""

from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg

from engine.audit.blocks import Block
from engine.audit.canonical import ENTRY_COLUMNS, EVENT_COLUMNS
from engine.audit.notary import block_of

_AT_ONCE: Final = 2_000


class Trail:
    """Use it within one repeatable-read transaction of the connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def blocks(self, first: int) -> AsyncIterator[Block]:
        sql = "select number, body, hash, signature from audit_block where number >= $1 order by number"
        async for row in self._connection.cursor(sql, first, prefetch=_AT_ONCE // 10):
            yield block_of(row)

    async def entries(self, from_xid: int) -> AsyncIterator[Any]:
        sql = f"select {ENTRY_COLUMNS} from audit_entry where xid >= $1 order by audit_entry.xid, id"
        async for row in self._connection.cursor(sql, from_xid, prefetch=_AT_ONCE):
            yield row

    async def events(self, shard: int, after: int) -> AsyncIterator[Any]:
        sql = f"select {EVENT_COLUMNS} from event where shard = $1 and seq > $2 order by seq"
        async for row in self._connection.cursor(sql, shard, after, prefetch=_AT_ONCE):
            yield row

    async def shards(self) -> dict[int, int]:
        return {row["id"]: row["seq"] for row in await self._connection.fetch("select id, seq from shard")}

    async def now(self) -> int:
        ms: int = await self._connection.fetchval(
            "select (extract(epoch from clock_timestamp()) * 1000)::bigint"
        )
        return ms
