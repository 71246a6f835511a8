"""A whole gateway and a shard in this process, without Ray: real HTTP, real actors, real PostgreSQL."""

import logging
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, cast

from prometheus_client.core import Metric

from actors.lines import Lines
from engine.database import connect
from engine.embedded_postgres import free_port
from engine.settings import Settings
from engine.vault.opening import open_vault
from tests.support.stores import PostgresWorld, Served
from web.auth import Tokens
from web.gateway import GatewayConfig, HttpGateway

SECRET = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class DirectLines:
    """From a gateway to the one shard, as actors.lines says it: in memory where else a socket is."""

    served: Served
    shards: int = 1

    async def send(self, shard_id: int, packed: bytes) -> bytes:
        return await self.served.unless_dead(self.served.shard.ask(packed))

    async def changes(self, shard_id: int, epoch: int, seq: int) -> bytes:
        return await self.served.unless_dead(self.served.shard.changes(epoch, seq))

    async def figures(self, shard_id: int) -> bytes:
        return await self.served.unless_dead(self.served.shard.figures())


@dataclass(frozen=True, slots=True)
class OneProcess:
    address: str
    served: Served
    gateway: HttpGateway
    tokens: Tokens
    """Sign what this gateway believes."""

    async def heard(self) -> None:
        """The shard has read the catalog anew, as its process would after an import."""
        await self.served.shard.forget_the_unopened()


@asynccontextmanager
async def serving(world: PostgresWorld, owner_url: str = "", **given: Any) -> AsyncIterator[OneProcess]:
    """Over a database whose catalog is there already. `owner_url` makes the vault, as web/main.py does, where
    the world's own role may not. `given` are settings, or members of GatewayConfig."""
    home = Path(tempfile.mkdtemp(prefix="xinglin-one-"))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    served = await Served.open(world)
    members = {one.name: given.pop(one.name) for one in fields(GatewayConfig) if one.name in given}
    settings = Settings(
        home=home, host="127.0.0.1", gateways=1, shards=1, **_UNBOUNDED, **{"port": free_port(), **given}
    )
    if owner_url:
        owner = await connect(owner_url)
        await open_vault(owner, settings)
        await owner.close()
    said: dict[str, Any] = {
        "settings": settings,
        "database_url": world.url,
        "token_secret": SECRET,
        "wechat_app": ("", ""),
        **members,
    }
    needed = [one.name for one in fields(GatewayConfig) if one.default is MISSING]
    absent = {name: None for name in needed if name not in said}
    gateway = HttpGateway(0, GatewayConfig(**said, **absent))
    try:
        address = await gateway.start(cast(Lines, DirectLines(served)), _nobody_else)
        tokens = Tokens(SECRET, settings.access_token_seconds, settings.refresh_token_seconds)
        yield OneProcess(address, served, gateway, tokens)
    finally:
        await gateway.stop()
        if not served.deaths:
            await served.stop()
        root.handlers[:] = handlers
        root.setLevel(level)
        shutil.rmtree(home, ignore_errors=True)


_UNBOUNDED = {
    f"{who}_{what}_per_second": 0
    for who, what in (
        ("address", "requests"),
        ("address", "sign_ins"),
        ("device", "requests"),
        ("account", "requests"),
        ("staff", "requests"),
    )
}


async def _nobody_else() -> list[Metric]:
    return []
