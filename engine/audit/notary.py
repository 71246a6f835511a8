"""The notary: makes the next block of what was written since the last one (engine/audit/blocks.py).

One at a time, in the process that serves (web/audit_notary.py), as the owner of the tables: gateways and
shards may not write blocks. PostgreSQL makes and hashes the bytes of the rows; what comes here is a hash and
four bytes a row. A block holds a bounded number of rows, so that a million events that nobody has chained
yet (the first start after an upgrade) are a hundred small blocks and stall nothing.

Entries are cut by transaction: everything below the oldest transaction that is still under way has been
committed or never will be. A transaction that stays open for an hour holds the entries' chain, not the
events', for an hour; what was written meanwhile is chained afterwards.
"""

import hashlib
from typing import Any, Final

import asyncpg

from engine.audit.blocks import NO_HASH, Block, Body, Covered, hash_of, pack, statement, unpack
from engine.audit.canonical import ENTRY_BYTES, EVENT_BYTES
from engine.audit.signing_key import SigningKey

ENTRIES_MAX: Final = 5_000  # of a block; one transaction's entries stay together
EVENTS_MAX: Final = 10_000  # of a block and shard

_NO_ROWS: Final = hashlib.sha256().digest()


class NotaryStopped(Exception):
    """The chain must not go on by itself: somebody has to look. One line that says why."""


_ENTRIES: Final = f"""
select count(*) as count,
       sha256(coalesce(string_agg(bytes, ''::bytea order by xid, id), ''::bytea)) as hash,
       coalesce(string_agg(int8send(id) || substring(sha256(bytes) from 1 for 4), ''::bytea order by xid, id),
                ''::bytea) as tags
  from (select xid, id, {ENTRY_BYTES} as bytes from audit_entry where xid >= $1 and xid < $2) entry"""

_EVENTS: Final = f"""
select count(*) as count,
       sha256(coalesce(string_agg(bytes, ''::bytea order by seq), ''::bytea)) as hash,
       coalesce(string_agg(substring(sha256(bytes) from 1 for 4), ''::bytea order by seq), ''::bytea) as tags
  from (select seq, {EVENT_BYTES} as bytes from event where shard = $1 and seq > $2 and seq <= $3) event"""


async def last_block(connection: asyncpg.Connection) -> Block | None:
    row = await connection.fetchrow(
        "select number, body, hash, signature from audit_block order by number desc limit 1"
    )
    return None if row is None else block_of(row)


def block_of(row: Any) -> Block:
    return Block(row["number"], bytes(row["body"]), bytes(row["hash"]), bytes(row["signature"]))


async def make_block(connection: asyncpg.Connection, key: SigningKey, at: int) -> Block | None:
    """The next block, committed; None where nothing is new. `at` in ms.

    Raises NotaryStopped where what is there cannot be gone on from.
    """
    async with connection.transaction(isolation="repeatable_read"):
        last = await last_block(connection)
        body = await _next_body(connection, last, key, at)
        if body is None:
            return None
        packed = pack(body)
        block_hash = hash_of(body.previous, packed)
        block = Block(body.number, packed, block_hash, key.sign(statement(body.number, block_hash)))
        await connection.execute(
            "insert into audit_block (number, body, hash, signature) values ($1, $2, $3, $4)",
            block.number,
            block.body,
            block.hash,
            block.signature,
        )
    return block


async def _next_body(
    connection: asyncpg.Connection, last: Block | None, key: SigningKey, at: int
) -> Body | None:
    before = None if last is None else unpack(last.body)
    from_xid = 0 if before is None else before.to_xid
    to_xid = await _until(connection, from_xid)
    entries = await connection.fetchrow(_ENTRIES, from_xid, to_xid)
    positions = {} if before is None else {one.shard: one.to_seq for one in before.shards}
    shards = []
    for row in await connection.fetch("select id, seq from shard order by id"):
        from_seq = positions.pop(row["id"], 0)
        to_seq = min(row["seq"], from_seq + EVENTS_MAX)
        if row["seq"] < from_seq:
            raise NotaryStopped(
                f"shard {row['id']} is at event {row['seq']}, and block {last and last.number} covers"
                f" {from_seq}: the journal has lost events"
            )
        shards.append(await _covered(connection, row["id"], from_seq, to_seq))
    if positions:
        raise NotaryStopped(f"shard {min(positions)} is gone, and events of it are in the chain")
    if not entries["count"] and all(one.from_seq == one.to_seq for one in shards):
        return None
    handover = None
    if before is not None and before.key != key.public and key.handover is not None:
        handover = key.handover if key.handover.old == before.key else None
    return Body(
        number=1 if last is None else last.number + 1,
        at=at,
        previous=NO_HASH if last is None else last.hash,
        from_xid=from_xid,
        to_xid=to_xid,
        entries=entries["count"],
        entries_hash=bytes(entries["hash"]),
        entry_tags=bytes(entries["tags"]),
        shards=tuple(shards),
        key=key.public,
        handover=handover,
    )


async def _until(connection: asyncpg.Connection, from_xid: int) -> int:
    """Up to which transaction the next block goes: all before it have ended."""
    ended: int = await connection.fetchval("select pg_snapshot_xmin(pg_current_snapshot())")
    if ended < from_xid:
        raise NotaryStopped(
            f"the server's transactions are at {ended}, and the chain is at {from_xid}: this database was"
            " dumped and loaded into another server, where their numbers began anew (docs/AUDIT.md)"
        )
    beyond = await connection.fetchval(
        "select xid from audit_entry where xid >= $1 and xid < $2 order by xid, id offset $3 limit 1",
        from_xid,
        ended,
        ENTRIES_MAX,
    )
    if beyond is None:
        return ended
    first: int = await connection.fetchval(
        "select xid from audit_entry where xid >= $1 order by xid, id limit 1", from_xid
    )
    return int(beyond) if beyond > first else int(beyond) + 1


async def _covered(connection: asyncpg.Connection, shard: int, from_seq: int, to_seq: int) -> Covered:
    if from_seq == to_seq:
        return Covered(shard, from_seq, to_seq, _NO_ROWS, b"")
    row = await connection.fetchrow(_EVENTS, shard, from_seq, to_seq)
    if row["count"] != to_seq - from_seq:
        raise NotaryStopped(
            f"of shard {shard}'s events {from_seq + 1} to {to_seq} only {row['count']} are there"
        )
    return Covered(shard, from_seq, to_seq, bytes(row["hash"]), bytes(row["tags"]))
