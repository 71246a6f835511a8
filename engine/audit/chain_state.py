"""How far the chain has come, for who watches over it."""

from dataclasses import dataclass

import asyncpg

from engine.audit.blocks import unpack
from engine.audit.notary import last_block


@dataclass(frozen=True, slots=True)
class ChainState:
    block: int  # 0: none yet
    hash: str
    key: str  # public, of who signed it
    at: int | None  # ms
    waiting_entries: int
    waiting_events: int


async def chain_state(connection: asyncpg.Connection) -> ChainState:
    last = await last_block(connection)
    body = None if last is None else unpack(last.body)
    waiting = await connection.fetchval(
        "select count(*) from audit_entry where xid >= $1", 0 if body is None else body.to_xid
    )
    events: int = await connection.fetchval("select coalesce(sum(seq), 0)::bigint from shard")
    if last is None or body is None:
        return ChainState(0, "", "", None, waiting, events)
    events -= sum(one.to_seq for one in body.shards)
    return ChainState(last.number, last.hash.hex(), body.key.hex(), body.at, waiting, events)
