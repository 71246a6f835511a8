"""One HTTP process for a peer: our own application, with another way to book behind it; or an echo."""

import asyncio
import signal
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import click
import orjson
import uvloop
from aiohttp import web

from actors.metrics import GatewayMetrics
from benchmarks.peers.data import CAPACITY
from benchmarks.peers.redis_counter import RedisDirectory
from benchmarks.peers.sql import WAYS, SqlDirectory
from engine.database import BY_KEY
from engine.domain.policy import Policy
from engine.records.catalog import load_catalog, load_schedules
from engine.settings import Settings
from engine.views.availability import Availability
from web import keys
from web.admission import Admission
from web.app import make_app
from web.auth import Tokens
from web.door import Door
from web.patient.express import HoldLane

CONNECTIONS = 16


async def echo(request: web.Request) -> web.Response:
    """Parses JSON and sends it back: as little as an aiohttp endpoint can do."""
    return web.Response(
        body=orjson.dumps(orjson.loads(await request.read())), content_type="application/json"
    )


async def application(peer: str, database_url: str, secret: bytes, redis_url: str) -> web.Application:
    if peer == "echo":
        app = web.Application()
        app.router.add_post("/api/v1/appointments", echo)
        return app
    pool = await asyncpg.create_pool(
        database_url, min_size=CONNECTIONS, max_size=CONNECTIONS, server_settings=BY_KEY
    )
    async with pool.acquire() as connection:
        catalog = await load_catalog(connection)
        today = datetime.now(catalog.hospital.zone).date()
        rows = await load_schedules(connection, today - timedelta(days=1))
    policy = Policy(
        active_appointments_max=1_000_000, account_holds_max=1_000_000, day_appointments_max=1_000_000
    )
    app = make_app()
    app[keys.SETTINGS] = Settings()
    app[keys.TOKENS] = Tokens(secret, 7_200, 7_200)
    app[keys.POOL] = pool
    app[keys.ZONE] = catalog.hospital.zone
    app[keys.AVAILABILITY] = Availability(catalog, rows)
    app[keys.METRICS] = metrics = GatewayMetrics()
    app[keys.ADMISSION] = Admission(1_000_000, metrics.shed, metrics.admitted)
    app[keys.DIRECTORY] = (  # type: ignore[assignment]
        RedisDirectory(pool, redis_url, CAPACITY, policy)
        if peer == "redis_counter"
        else SqlDirectory(pool, WAYS[peer], policy)
    )
    return app


async def run(peer: str, port: int, database_url: str, secret: bytes, redis_url: str) -> None:
    app = await application(peer, database_url, secret, redis_url)
    runner = Door(app, None if peer == "echo" else HoldLane(app), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    print("ready", flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await runner.cleanup()


@click.command()
@click.option("--peer", required=True)
@click.option("--port", type=int, required=True)
@click.option("--database-url", required=True)
@click.option("--secret-file", type=click.Path(path_type=Path), required=True)
@click.option("--redis-url", default="")
def main(peer: str, port: int, database_url: str, secret_file: Path, redis_url: str) -> None:
    uvloop.run(run(peer, port, database_url, secret_file.read_bytes(), redis_url))


if __name__ == "__main__":
    main()
