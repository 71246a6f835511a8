"""Where each shard is, written by whoever serves it and read by services that have no shards of their own."""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import asyncpg
import orjson

from engine.database import AWAY, connect

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 0.2
NONCE_BYTES: Final = 32

_PUT: Final = """
insert into shard_route as r (shard, host, port, epoch)
select id, $2, $3, epoch from shard where id = $1 and epoch = $4
on conflict (shard) do update set host = excluded.host, port = excluded.port, epoch = excluded.epoch
 where r.epoch < excluded.epoch"""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the service that has the shards."""

    shards: int
    nonce: bytes
    secret_print: bytes

    def link_secret(self, token_secret: bytes) -> bytes:
        """What both ends of a link know. Of this run and this number of shards: who still thinks of another
        number would ask the wrong shard, and is not let in."""
        return _keyed(token_secret, b"xinglin.link", self.nonce, self.shards.to_bytes(4, "big"))

    def is_ours(self, token_secret: bytes) -> bool:
        """Whether both services have the same token secret."""
        return hmac.compare_digest(self.secret_print, _print_of(token_secret))


@dataclass(frozen=True, slots=True)
class Routes:
    run: Run | None
    """None: no run has ever begun."""
    addresses: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """Shard id -> host and port, of those that are served."""


async def begin(connection: asyncpg.Connection, shards: int, token_secret: bytes) -> Run:
    """A new run: nothing of an earlier one is where it was."""
    run = Run(shards, secrets.token_bytes(NONCE_BYTES), _print_of(token_secret))
    async with connection.transaction():
        await connection.execute("delete from shard_route")
        await connection.execute("delete from shard_run")
        await connection.execute(
            "insert into shard_run (nonce, shards, secret_print) values ($1, $2, $3)",
            run.nonce,
            run.shards,
            run.secret_print,
        )
    return run


async def put_route(
    connection: asyncpg.Connection, shard_id: int, address: tuple[str, int], epoch: int
) -> None:
    """The shard is there now. Does nothing for one that was fenced off meanwhile."""
    await connection.execute(_PUT, shard_id, *address, epoch)


async def read_routes(connection: asyncpg.Connection) -> Routes:
    """Both in one look, so that addresses are of the run."""
    row = await connection.fetchrow(
        "select nonce, shards, secret_print, (select jsonb_object_agg(shard, jsonb_build_array(host, port))"
        " from shard_route)::text as routes from shard_run"
    )
    if row is None:
        return Routes(None)
    run = Run(row["shards"], row["nonce"], row["secret_print"])
    found: dict[str, tuple[str, int]] = orjson.loads(row["routes"] or b"{}")
    return Routes(run, {int(shard): (host, port) for shard, (host, port) in found.items()})


async def follow_routes(database_url: str, act: Callable[[Routes], Awaitable[None]]) -> None:
    """Calls `act` now and after every change, for as long as it is awaited; also after a lost connection."""
    while True:
        try:
            await _until_lost(await connect(database_url), act)
        except AWAY as error:
            log.warning("not listening for shards that move: %s", error)
        await asyncio.sleep(AGAIN_SECONDS)


async def _until_lost(connection: asyncpg.Connection, act: Callable[[Routes], Awaitable[None]]) -> None:
    changed = asyncio.Event()
    changed.set()
    try:
        await connection.add_listener("shard_route", lambda *_: changed.set())
        connection.add_termination_listener(lambda *_: changed.set())
        while not connection.is_closed():
            await changed.wait()
            changed.clear()
            if not connection.is_closed():
                await act(await read_routes(connection))
    finally:
        connection.terminate()


def _print_of(token_secret: bytes) -> bytes:
    return _keyed(token_secret, b"xinglin.secret-print")


def _keyed(secret: bytes, *said: bytes) -> bytes:
    return hmac.digest(secret, b"\0".join(said), hashlib.sha256)
